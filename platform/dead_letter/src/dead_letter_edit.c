/* Mend one letter and try it again. */
#include "dead_letter_internal.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/db.h>
#include <waybill/operator_log.h>
#include <waybill/outbox_impl.h>
#include <waybill/subject.h>

#define CONSUMER_PAYLOAD_MAX ((size_t)64 << 20) /* what a server may allow at most */

/* The letter as it was, copied, and as it is to be: views of both the copy and the edit. */
struct editing {
    struct db *db;
    const struct dead_letter_edit *edit;
    const struct dead_letter_act *act;
    struct wb_why *why;
    wb_err err;
    bool found;
    struct wb_buf old; /* for the log: subject, headers, payload, with hidden fields */
    struct wb_buf subject, headers, payload;
};

/* ---- what it will be ------------------------------------------------------------------------- */

static bool starts_with(struct wb_str text, const char *prefix)
{
    size_t len = strlen(prefix);

    return text.len >= len && wb_str_case_eq(wb_str_n(text.ptr, len), wb_str(prefix));
}

static bool replaced(const struct dead_letter_edit *edit, struct wb_str name)
{
    for (size_t i = 0; i < edit->set_count; i++)
        if (wb_str_case_eq(edit->set[i].name, name))
            return true;
    for (size_t i = 0; i < edit->remove_count; i++)
        if (wb_str_case_eq(edit->remove[i], name))
            return true;
    return false;
}

/* Whose event it is must not be a matter of opinion. */
static wb_err reserved_check(const struct dead_letter_edit *edit, struct wb_why *why)
{
    for (size_t i = 0; i < edit->set_count + edit->remove_count; i++) {
        struct wb_str name =
            i < edit->set_count ? edit->set[i].name : edit->remove[i - edit->set_count];
        if (starts_with(name, OUTBOX_HEADER_PREFIX) || starts_with(name, "Nats-"))
            return wb_fail(why, WB_INVALID,
                           "edit a dead letter: header '%.*s' tells whose event it is and cannot "
                           "be changed",
                           (int)(name.len < 80 ? name.len : 80), name.ptr);
    }
    return WB_OK;
}

/* The old headers but for those replaced, then the new ones. What cannot be read goes. */
static wb_err headers_make(const struct editing *self, const struct dead_letter *letter,
                           struct message_header *headers, size_t *ret_count)
{
    const struct dead_letter_edit *edit = self->edit;
    struct message_header old[MESSAGE_HEADERS_MAX];
    size_t old_count = 0;
    size_t count = 0;
    wb_err err = message_headers_parse(letter->headers, old, &old_count, self->why);

    if (err != WB_OK && edit->set_count + edit->remove_count == 0)
        return err;
    for (size_t i = 0; err == WB_OK && i < old_count; i++)
        if (!replaced(edit, old[i].name))
            headers[count++] = old[i];
    if (count + edit->set_count > MESSAGE_HEADERS_MAX)
        return wb_fail(self->why, WB_INVALID, "edit a dead letter: more than %d headers",
                       MESSAGE_HEADERS_MAX);
    for (size_t i = 0; i < edit->set_count; i++)
        headers[count++] = edit->set[i];
    *ret_count = count;
    return WB_OK;
}

/* As the publisher will check it, or as the bus once gave it. */
static wb_err message_allowed(const struct editing *self, const struct dead_letter *letter,
                              const struct message *msg)
{
    if (letter->kind == DEAD_LETTER_CONSUMER) {
        wb_err err = subject_check(msg->subject, self->why);
        return err == WB_OK ? message_check(msg, CONSUMER_PAYLOAD_MAX, self->why) : err;
    }
    struct outbox_envelope *envelope = malloc(sizeof(*envelope));
    if (envelope == NULL)
        return wb_fail(self->why, WB_NOMEM, "edit a dead letter: out of memory");
    const struct outbox_row row = {
        .id = letter->number, .subject = msg->subject, .payload = msg->payload, .key = letter->key};
    wb_err err = outbox_envelope_make(&row, "0000000000000000", msg->headers, msg->header_count,
                                      MESSAGE_PAYLOAD_MAX, envelope, self->why);
    free(envelope);
    return err;
}

static wb_err mask_check(const struct editing *self)
{
    bool masked = false;
    wb_err err = WB_OK;

    if (self->edit->redaction == NULL || self->edit->payload == NULL)
        return WB_OK;
    err = dead_letter_redaction_masked(self->edit->redaction, *self->edit->payload, &masked,
                                       self->why);
    if (err == WB_OK && masked)
        err = wb_fail(self->why, WB_INVALID,
                      "edit a dead letter: the new payload holds \"***\" where a field is hidden; "
                      "begin with what 'dlq show --raw --reveal' prints");
    return err;
}

static wb_err compose(struct editing *self, const struct dead_letter *letter)
{
    const struct dead_letter_edit *edit = self->edit;
    struct message_header headers[MESSAGE_HEADERS_MAX];
    struct message msg = {
        .subject = edit->subject != NULL ? *edit->subject : letter->subject,
        .payload = edit->payload != NULL ? *edit->payload : letter->payload,
        .headers = headers,
    };
    wb_err err = headers_make(self, letter, headers, &msg.header_count);

    if (err == WB_OK)
        err = message_allowed(self, letter, &msg);
    if (err == WB_OK)
        err = mask_check(self);
    if (err != WB_OK)
        return err;
    wb_buf_add(&self->subject, msg.subject.ptr, msg.subject.len);
    wb_buf_add(&self->payload, msg.payload.ptr, msg.payload.len);
    message_headers_format(&msg, &self->headers);
    if (self->subject.failed || self->payload.failed || self->headers.failed)
        return wb_fail(self->why, WB_NOMEM, "edit a dead letter: out of memory");
    return WB_OK;
}

/* ---- what it was ----------------------------------------------------------------------------- */

static wb_err remember(struct editing *self, const struct dead_letter *letter)
{
    struct wb_buf *old = &self->old;
    bool hidden = false;

    wb_buf_str(old, "was refused with: ");
    wb_buf_add(old, letter->reason.ptr, letter->reason.len);
    wb_buf_str(old, "\nsubject: ");
    wb_buf_add(old, letter->subject.ptr, letter->subject.len);
    wb_buf_str(old, "\n");
    dead_letter_redact_headers(self->edit->redaction, letter->headers, old, &hidden);
    wb_buf_str(old, "\n\n");
    return dead_letter_redact_payload(self->edit->redaction, letter->payload, old, &hidden,
                                      self->why);
}

static bool edit_visit(void *ctx, const struct dead_letter *letter)
{
    struct editing *self = ctx;
    char id[DEAD_LETTER_ID_TEXT];

    self->found = true;
    dead_letter_id_format(letter->kind, letter->number, id);
    if (!wb_str_eq(letter->state, wb_str("parked"))) {
        self->err = wb_fail(
            self->why, WB_CONFLICT, "edit dead letter %s: it is not parked but in state %.*s%s", id,
            (int)letter->state.len, letter->state.ptr,
            letter->kind == DEAD_LETTER_PUBLISHER ? ": it only waits behind another row of its key"
                                                  : ": it is about to be handled");
        return false;
    }
    self->err = compose(self, letter);
    if (self->err == WB_OK)
        self->err = remember(self, letter);
    return false;
}

/* ---- the transaction ------------------------------------------------------------------------- */

/* ?1 number, ?2 now in ms, ?3 subject, ?4 headers, ?5 payload. */
static const char *const publisher_sql[] = {
    "INSERT INTO main.outbox_edit(id, subject, headers, edited_at, payload)"
    " VALUES(?1, ?3, ?4, ?2, ?5) ON CONFLICT(id) DO UPDATE SET subject = excluded.subject,"
    " headers = excluded.headers, edited_at = excluded.edited_at, payload = excluded.payload",
    "UPDATE main.outbox_exception SET state = 'retry', next_at = ?2, attempts = 0"
    " WHERE id = ?1 AND state = 'parked'",
    NULL};

static const char *const consumer_sql[] = {
    "UPDATE main.dead_letter SET subject = ?3, headers = ?4, payload = ?5, state = 'retry',"
    " next_at = ?2 WHERE id = ?1 AND state = 'parked'",
    NULL};

static wb_err edit_run(struct editing *self, const char *sql, int64_t number)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(self->db, sql, &stmt, self->why);

    if (err != WB_OK)
        return err;
    const int count = sqlite3_bind_parameter_count(stmt);
    (void)sqlite3_bind_int64(stmt, 1, number);
    (void)sqlite3_bind_int64(stmt, 2, wb_wall_ns(self->act->clock) / WB_MS);
    if (count >= 5) {
        db_bind_text(stmt, 3, wb_str_n(self->subject.ptr, self->subject.len));
        db_bind_text(stmt, 4, wb_str_n(self->headers.ptr, self->headers.len));
        (void)sqlite3_bind_blob64(stmt, 5, self->payload.len > 0 ? self->payload.ptr : "",
                                  self->payload.len, SQLITE_STATIC);
    }
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_DONE)
        err = db_error(db_handle(self->db), rc, "edit a dead letter", self->why);
    (void)sqlite3_finalize(stmt);
    return err;
}

/* Reading, checking, writing and logging in one transaction: nobody else comes between. */
static wb_err edit_inside(struct editing *self, struct wb_str id)
{
    const struct dead_letter_query query = {.id = id, .payload = true};
    dead_letter_kind kind = DEAD_LETTER_PUBLISHER;
    int64_t number = 0;
    wb_err err = dead_letter_id_parse(id, &kind, &number, self->why);

    if (err == WB_OK)
        err = dead_letter_walk(self->db, &query, edit_visit, self, self->why);
    if (err == WB_OK)
        err = self->err;
    if (err == WB_OK && !self->found)
        err = wb_fail(self->why, WB_NOT_FOUND, "there is no dead letter %.*s; 'dlq ls' lists them",
                      (int)id.len, id.ptr);
    const char *const *sql = kind == DEAD_LETTER_PUBLISHER ? publisher_sql : consumer_sql;
    for (; err == WB_OK && *sql != NULL; sql++)
        err = edit_run(self, *sql, number);
    if (err == WB_OK && self->old.failed)
        err = wb_fail(self->why, WB_NOMEM, "edit a dead letter: out of memory");
    if (err != WB_OK)
        return err;
    return operator_log_add(
        db_handle(self->db),
        &(struct operator_log_entry){.at_wall_ns = wb_wall_ns(self->act->clock),
                                     .command = self->act->command,
                                     .target = id,
                                     .reason = self->act->reason,
                                     .detail = wb_str_n(self->old.ptr, self->old.len)},
        self->why);
}

wb_err dead_letter_edit(struct db *db, struct wb_str id, const struct dead_letter_edit *edit,
                        const struct dead_letter_act *act, struct wb_why *why)
{
    struct editing self = {.db = db, .edit = edit, .act = act, .why = why};
    wb_err err = reserved_check(edit, why);

    if (err == WB_OK)
        err = db_begin(db, why);
    if (err == WB_OK) {
        err = edit_inside(&self, id);
        if (err == WB_OK)
            err = db_commit(db, why);
        db_rollback(db);
    }
    wb_buf_free(&self.old);
    wb_buf_free(&self.subject);
    wb_buf_free(&self.headers);
    wb_buf_free(&self.payload);
    if (err == WB_OK)
        dead_letter_wake(db);
    return err;
}
