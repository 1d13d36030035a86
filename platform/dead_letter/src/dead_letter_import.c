/* Letters of another file, or discarded ones of this. */
#include "dead_letter_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/db.h>
#include <waybill/inbox.h>
#include <waybill/operator_log.h>
#include <waybill/outbox_impl.h>
#include <waybill/subject.h>

#define LETTERS_MAX 250
#define CALLER      "dead letters" /* in outbox_idempotency */

struct importing {
    struct db *db;
    const struct dead_letter_act *act;
    struct inbox *inbox; /* of the last letter's consumer */
    char consumer[65];   /* its name */
    struct dead_letter_import_result result;
    struct wb_why *why;
};

/* ---- statements that run once ---------------------------------------------------------------- */

/* Bind the letter: ?1 row, ?2 msg_id as a blob, ?3 source, ?4 subject, ?5 headers, ?6 payload,
 * ?7 reason, ?8 failures, ?9 parked at in ms, ?10 now in ms, ?11 stream, ?12 key, ?13 created in
 * ms, ?14 consumer, ?15 msg_id, ?16 sequence. A statement takes what it names. */
static void bind_letter(struct sqlite3_stmt *stmt, const struct dead_letter *letter, int64_t now_ns)
{
    uint8_t msg_id[WB_ID_SIZE];

    if (wb_hex_decode(letter->msg_id, msg_id, sizeof(msg_id)))
        (void)sqlite3_bind_blob(stmt, 2, msg_id, sizeof(msg_id), SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(stmt, 1, letter->row_id);
    db_bind_text(stmt, 3, letter->source);
    db_bind_text(stmt, 4, letter->subject);
    db_bind_text(stmt, 5, letter->headers);
    (void)sqlite3_bind_blob64(stmt, 6, letter->payload.len > 0 ? letter->payload.ptr : "",
                              letter->payload.len, SQLITE_STATIC);
    db_bind_text(stmt, 7, letter->reason);
    (void)sqlite3_bind_int64(stmt, 8, letter->failures);
    (void)sqlite3_bind_int64(stmt, 9, letter->at_wall_ns / WB_MS);
    (void)sqlite3_bind_int64(stmt, 10, now_ns / WB_MS);
    db_bind_text(stmt, 11, letter->stream);
    db_bind_text(stmt, 12, letter->key);
    (void)sqlite3_bind_int64(stmt, 13, letter->created_wall_ns / WB_MS);
    db_bind_text(stmt, 14, letter->consumer);
    db_bind_text(stmt, 15, letter->msg_id);
    (void)sqlite3_bind_int64(stmt, 16, (int64_t)letter->sequence);
}

/* Run a statement; *ret_row tells whether it gave one, *ret_value has its number (may be NULL). */
static wb_err run(struct importing *self, const char *sql, const struct dead_letter *letter,
                  bool *ret_row, int64_t *ret_value)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(self->db, sql, &stmt, self->why);

    if (err != WB_OK)
        return err;
    bind_letter(stmt, letter, wb_wall_ns(self->act->clock));
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = db_error(db_handle(self->db), rc, "take a dead letter in", self->why);
    if (ret_row != NULL)
        *ret_row = rc == SQLITE_ROW;
    if (ret_value != NULL && rc == SQLITE_ROW)
        *ret_value = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return err;
}

/* ---- a publisher's --------------------------------------------------------------------------- */

static const char own_row_sql[] =
    "SELECT 1 FROM main.outbox o WHERE o.id = ?1 AND o.msg_id = ?2 AND ?3 ="
    " (SELECT lower(hex(s.source)) FROM main.outbox_source s WHERE s.from_id <= ?1"
    "  ORDER BY s.from_id DESC LIMIT 1)";
static const char own_back_sql[] =
    "UPDATE main.outbox_exception SET state = 'parked', error = ?7, attempts = ?8"
    " WHERE id = ?1 AND state = 'cancelled' RETURNING id";
static const char own_edit_sql[] =
    "INSERT OR REPLACE INTO main.outbox_edit(id, subject, headers, edited_at, payload)"
    " VALUES(?1, ?4, ?5, ?10, ?6)";
static const char taken_before_sql[] =
    "SELECT row_id FROM main.outbox_idempotency WHERE caller = '" CALLER "' AND key = ?15";
static const char row_add_sql[] =
    "INSERT INTO main.outbox(stream, key, subject, headers, msg_id, created, payload)"
    " VALUES(?11, ?12, ?4, ?5, ?2, ?13, ?6) RETURNING id";
static const char exception_add_sql[] =
    "INSERT INTO main.outbox_exception(id, state, attempts, error) VALUES(?1, 'parked', ?8, ?7)";
static const char taken_add_sql[] = "INSERT INTO main.outbox_idempotency(caller, key, row_id)"
                                    " VALUES('" CALLER "', ?15, ?1)";

/* The row is of this file: it is parked again if it was discarded. */
static wb_err row_back(struct importing *self, const struct dead_letter *letter, bool *ret_taken)
{
    wb_err err = run(self, own_back_sql, letter, ret_taken, NULL);

    if (err == WB_OK && *ret_taken && letter->edited)
        err = run(self, own_edit_sql, letter, NULL, NULL);
    return err;
}

static wb_err row_new(struct importing *self, const struct dead_letter *letter)
{
    struct dead_letter here = *letter;
    bool row = false;
    wb_err err = run(self, row_add_sql, letter, &row, &here.row_id);

    if (err == WB_OK)
        err = run(self, exception_add_sql, &here, NULL, NULL);
    if (err == WB_OK)
        err = run(self, taken_add_sql, &here, NULL, NULL);
    return err;
}

static wb_err take_publishers(struct importing *self, const struct dead_letter *letter,
                              bool *ret_taken)
{
    uint8_t msg_id[WB_ID_SIZE];
    bool ours = false;
    bool before = false;

    if (!wb_hex_decode(letter->msg_id, msg_id, sizeof(msg_id)))
        return wb_fail(self->why, WB_INVALID,
                       "take a dead letter in: msg_id '%.*s' of a publisher's letter: expected 32 "
                       "hex digits",
                       (int)(letter->msg_id.len < 80 ? letter->msg_id.len : 80),
                       letter->msg_id.ptr);
    wb_err err = outbox_schema_prepare(db_handle(self->db), self->why);
    if (err == WB_OK)
        err = run(self, own_row_sql, letter, &ours, NULL);
    if (err == WB_OK && ours)
        return row_back(self, letter, ret_taken);
    if (err == WB_OK)
        err = run(self, taken_before_sql, letter, &before, NULL);
    *ret_taken = !before;
    return err == WB_OK && !before ? row_new(self, letter) : err;
}

/* ---- a consumer's ---------------------------------------------------------------------------- */

/* By what the inbox knows an event, see inbox.h. */
static const char ours_known_sql[] =
    "SELECT 1 FROM main.dead_letter WHERE consumer = ?14 AND source = ?3 AND row_id = ?1";
static const char foreign_known_sql[] =
    "SELECT 1 FROM main.dead_letter WHERE consumer = ?14 AND source = '' AND row_id = 0"
    " AND msg_id = ?15 AND (?15 <> '' OR (stream = ?11 AND sequence = ?16 AND stored_at = ?13))";
static const char history_sql[] =
    "UPDATE main.dead_letter SET failures = ?8, parked_at = ?9 WHERE id = last_insert_rowid()";

static wb_err inbox_of(struct importing *self, const struct dead_letter *letter)
{
    if (self->inbox != NULL && wb_str_eq(letter->consumer, wb_str(self->consumer)))
        return WB_OK;
    inbox_detach(self->inbox);
    self->inbox = NULL;
    wb_err err = subject_name_check(letter->consumer, "consumer", self->why);
    if (err != WB_OK)
        return err;
    (void)snprintf(self->consumer, sizeof(self->consumer), "%.*s", (int)letter->consumer.len,
                   letter->consumer.ptr);
    return inbox_attach(db_handle(self->db), self->consumer, &self->inbox, self->why);
}

static wb_err take_consumers(struct importing *self, const struct dead_letter *letter,
                             bool *ret_taken)
{
    struct message_header headers[MESSAGE_HEADERS_MAX];
    struct message msg = {.subject = letter->subject,
                          .payload = letter->payload,
                          .headers = headers,
                          .msg_id = letter->msg_id};
    const struct inbox_origin origin = {.stream = letter->stream,
                                        .sequence = letter->sequence,
                                        .stored_wall_ns = letter->created_wall_ns};
    bool known = false;
    char *reason = wb_str_dup(letter->reason);

    if (reason == NULL)
        return wb_fail(self->why, WB_NOMEM, "take a dead letter in: out of memory");
    wb_err err = message_headers_parse(letter->headers, headers, &msg.header_count, self->why);
    if (err == WB_OK)
        err = inbox_of(self, letter);
    if (err == WB_OK)
        err = run(self, letter->source.len > 0 ? ours_known_sql : foreign_known_sql, letter, &known,
                  NULL);
    if (err == WB_OK && !known)
        err = inbox_park(self->inbox, &msg, &origin, reason, self->why);
    if (err == WB_OK && !known)
        err = run(self, history_sql, letter, NULL, NULL);
    *ret_taken = !known;
    free(reason);
    return err;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static wb_err take(struct importing *self, const struct dead_letter *letter)
{
    bool taken = false;
    wb_err err;

    if (letter->redacted)
        return wb_fail(self->why, WB_INVALID,
                       "take dead letters in: fields of %c%" PRId64 " are hidden; export with "
                       "--reveal, so that the event is whole",
                       letter->kind == DEAD_LETTER_PUBLISHER ? 'p' : 'c', letter->number);
    err = letter->kind == DEAD_LETTER_PUBLISHER ? take_publishers(self, letter, &taken)
                                                : take_consumers(self, letter, &taken);
    if (err == WB_OK && taken)
        self->result.taken++;
    else if (err == WB_OK)
        self->result.known++;
    return err;
}

static wb_err import_inside(struct importing *self, const struct dead_letter *letters, size_t count)
{
    char target[100];
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < count; i++)
        err = take(self, &letters[i]);
    if (err != WB_OK || self->result.taken == 0)
        return err;
    (void)snprintf(target, sizeof(target), "%zu letters", self->result.taken);
    return operator_log_add(db_handle(self->db),
                            &(struct operator_log_entry){
                                .at_wall_ns = wb_wall_ns(self->act->clock),
                                .command = self->act->command,
                                .target = wb_str(target),
                                .reason = self->act->reason,
                            },
                            self->why);
}

wb_err dead_letter_import(struct db *db, const struct dead_letter *letters, size_t count,
                          const struct dead_letter_act *act,
                          struct dead_letter_import_result *ret_result, struct wb_why *why)
{
    struct importing self = {.db = db, .act = act, .why = why};

    assert(count <= LETTERS_MAX);
    wb_err err = db_begin(db, why);
    if (err != WB_OK)
        return err;
    err = import_inside(&self, letters, count);
    inbox_detach(self.inbox);
    if (err == WB_OK)
        err = db_commit(db, why);
    db_rollback(db);
    if (err == WB_OK)
        *ret_result = self.result;
    return err;
}
