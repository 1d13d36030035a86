#include "user.h"

#include <string.h>

#include <sqlite3.h>

#include <waybill/outbox.h>

#define SUBJECT_USER_CREATED "auth.events.user.created"

/* ---- rules ----------------------------------------------------------------------------------- */

/* 1 to max bytes of UTF-8 without control characters, no blank at either end. */
static bool is_line(struct wb_str text, size_t max)
{
    if (text.len == 0 || text.len > max || !wb_utf8_valid(text))
        return false;
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] < 0x20 || text.ptr[i] == 0x7f)
            return false;
    return text.ptr[0] != ' ' && text.ptr[text.len - 1] != ' ';
}

/* One '@' with something on both sides and no blank. Whether mail arrives, only mail can tell. */
static bool is_email(struct wb_str text)
{
    if (!is_line(text, AUTH_EMAIL_MAX) || memchr(text.ptr, ' ', text.len) != NULL)
        return false;
    const char *at = memchr(text.ptr, '@', text.len);
    if (at == NULL || at == text.ptr || at == text.ptr + text.len - 1)
        return false;
    return memchr(at + 1, '@', (size_t)(text.ptr + text.len - (at + 1))) == NULL;
}

static wb_err user_check(struct wb_str email, struct wb_str name, struct wb_why *why)
{
    if (!is_email(email))
        return wb_fail(why, WB_INVALID,
                       "email: expected local@domain without blanks, at most %d bytes",
                       AUTH_EMAIL_MAX);
    if (!is_line(name, AUTH_NAME_MAX))
        return wb_fail(why, WB_INVALID,
                       "name: expected 1 to %d bytes without control characters, no blank at the "
                       "ends",
                       AUTH_NAME_MAX);
    return WB_OK;
}

/* ---- adding ---------------------------------------------------------------------------------- */

static wb_err user_insert(struct db *db, const struct auth_user *user, struct wb_str email,
                          struct wb_str name, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(db,
                            "INSERT INTO auth_user(id, email, name, created_at) "
                            "VALUES(?1, ?2, ?3, ?4) ON CONFLICT(email) DO NOTHING",
                            &stmt, why);

    if (err != WB_OK)
        return err;
    db_bind_text(stmt, 1, wb_str(user->id));
    db_bind_text(stmt, 2, email);
    db_bind_text(stmt, 3, name);
    db_bind_text(stmt, 4, wb_str(user->created_at));
    int code = sqlite3_step(stmt);
    if (code != SQLITE_DONE)
        err = db_error(db_handle(db), code, "add a user", why);
    else if (sqlite3_changes(db_handle(db)) == 0)
        err = wb_fail(why, WB_EXISTS, "there is a user with the email %.*s already", (int)email.len,
                      email.ptr);
    sqlite3_finalize(stmt);
    return err;
}

void auth_user_members(const struct auth_user *user, struct wb_str email, struct wb_str name,
                       struct wb_buf *out)
{
    wb_buf_printf(out, "\"user_id\":\"%s\",\"email\":", user->id);
    wb_buf_json_str(out, email);
    wb_buf_str(out, ",\"name\":");
    wb_buf_json_str(out, name);
    wb_buf_printf(out, ",\"created_at\":\"%s\"", user->created_at);
}

static wb_err user_tell(struct outbox *outbox, struct auth_user *user, struct wb_str payload,
                        struct wb_why *why)
{
    const struct message_header header = {wb_str("content-type"), wb_str("application/json")};
    const struct outbox_event event = {
        .subject = wb_str(SUBJECT_USER_CREATED),
        .payload = {payload.ptr, payload.len},
        .key = wb_str(user->id),
        .headers = &header,
        .header_count = 1,
    };
    struct outbox_receipt receipt;
    wb_err err = outbox_enqueue(outbox, &event, &receipt, why);

    if (err == WB_OK)
        wb_hex_encode(receipt.msg_id, WB_ID_SIZE, user->event_id);
    return err;
}

static wb_err user_commit(struct module_scope *scope, struct auth_user *user, struct wb_str email,
                          struct wb_str name, struct wb_str payload, struct wb_why *why)
{
    wb_err err = db_begin(scope->db, why);

    if (err != WB_OK)
        return err;
    err = user_insert(scope->db, user, email, name, why);
    if (err == WB_OK)
        err = user_tell(scope->outbox, user, payload, why);
    if (err == WB_OK)
        err = db_commit(scope->db, why);
    else
        db_rollback(scope->db);
    if (err == WB_OK)
        outbox_wake(scope->outbox);
    return err;
}

wb_err auth_user_add(struct module_scope *scope, struct wb_str email, struct wb_str name,
                     struct auth_user *ret_user, struct wb_why *why)
{
    struct auth_user user = {0};
    uint8_t id[WB_ID_SIZE];
    struct wb_buf payload = {0};
    wb_err err = user_check(email, name, why);

    if (err != WB_OK)
        return err;
    wb_id_new(scope->clock, id);
    wb_hex_encode(id, WB_ID_SIZE, user.id);
    wb_time_format(wb_wall_ns(scope->clock), user.created_at);
    wb_buf_str(&payload, "{");
    auth_user_members(&user, email, name, &payload);
    wb_buf_str(&payload, "}");
    if (payload.failed)
        err = wb_fail(why, WB_NOMEM, "out of memory while writing an event; try again");
    else
        err = user_commit(scope, &user, email, name, wb_str_n(payload.ptr, payload.len), why);
    wb_buf_free(&payload);
    if (err == WB_OK)
        *ret_user = user;
    return err == WB_INVALID ? WB_INTERNAL : err; /* checked input was refused: our fault */
}

/* ---- listing --------------------------------------------------------------------------------- */

/* SQLite writes the text. Lines are safe: what is stored has no control characters. */
#define NEWEST "FROM (SELECT * FROM auth_user ORDER BY id DESC LIMIT ?1)"
static const char *const list_json =
    "SELECT json_object('users', json_group_array(json_object('user_id', id, 'email', email, "
    "'name', name, 'created_at', created_at))) " NEWEST;
static const char *const list_text =
    "SELECT group_concat(id || '  ' || created_at || '  ' || email || '  ' || name, "
    "char(10)) " NEWEST;

wb_err auth_user_list(struct db *db, int64_t limit, bool json, struct wb_buf *out,
                      struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(db, json ? list_json : list_text, &stmt, why);

    if (err != WB_OK)
        return err;
    sqlite3_bind_int64(stmt, 1, limit);
    int code = sqlite3_step(stmt);
    if (code != SQLITE_ROW) {
        err = db_error(db_handle(db), code, "list the users", why);
    } else if (sqlite3_column_type(stmt, 0) != SQLITE_NULL) {
        wb_buf_str(out, (const char *)sqlite3_column_text(stmt, 0));
        wb_buf_str(out, "\n");
    }
    sqlite3_finalize(stmt);
    return err;
}
