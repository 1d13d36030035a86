/* user.h - the rows of auth and the event that tells of them. */
#ifndef AUTH_USER_H
#define AUTH_USER_H

#include <waybill/module.h>

#define AUTH_EMAIL_MAX 254 /* bytes; RFC 5321, section 4.5.3.1.3, without the angle brackets */
#define AUTH_NAME_MAX  200 /* bytes */

struct auth_user {
    char id[WB_ID_TEXT]; /* UUIDv7, so ids sort by time */
    char created_at[32];
    char event_id[WB_ID_TEXT];
};

/**
 * Add a user and its event, in one transaction of its own.
 * @return WB_INVALID (email, name), WB_EXISTS (email), or an error of the database or outbox.
 */
wb_err auth_user_add(struct module_scope *scope, struct wb_str email, struct wb_str name,
                     struct auth_user *ret_user, struct wb_why *why);

/** Append the newest users, at most limit: one JSON object, or a line each for people. */
wb_err auth_user_list(struct db *db, int64_t limit, bool json, struct wb_buf *out,
                      struct wb_why *why);

/** Append the members "user_id", "email", "name", "created_at" of a JSON object, without braces. */
void auth_user_members(const struct auth_user *user, struct wb_str email, struct wb_str name,
                       struct wb_buf *out);

#endif /* AUTH_USER_H */
