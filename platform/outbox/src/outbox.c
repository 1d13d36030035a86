/* The write side: one prepared INSERT on the caller's connection. */
#include "waybill/outbox.h"

#include <assert.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "outbox_private.h"

#include <waybill/db.h>
#include <waybill/subject.h>

static const char insert_sql[] =
    "INSERT INTO main.outbox(stream, key, subject, headers, msg_id, due_at, expires_at, created,"
    " traceparent, payload) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

static wb_err pragma_text(struct sqlite3 *handle, const char *sql, char out[16], struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = WB_OK;
    int rc = sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        (void)sqlite3_snprintf(16, out, "%s", text != NULL ? text : "");
    } else {
        err = db_error(handle, rc, sql, why);
    }
    (void)sqlite3_finalize(stmt);
    return err;
}

/* Publishing relies on both: readers that do not stop writers, and a log that can be synced. */
static wb_err connection_check(struct sqlite3 *handle, struct wb_why *why)
{
    char value[16];
    wb_err err = pragma_text(handle, "PRAGMA main.journal_mode", value, why);

    if (err != WB_OK)
        return err;
    if (sqlite3_stricmp(value, "wal") != 0)
        return wb_fail(why, WB_INVALID,
                       "attach an outbox to %s: journal_mode is %s, but an outbox needs WAL; run "
                       "PRAGMA journal_mode=WAL",
                       sqlite3_db_filename(handle, "main"), value);
    err = pragma_text(handle, "PRAGMA main.synchronous", value, why);
    if (err != WB_OK)
        return err;
    if (strcmp(value, "0") == 0)
        return wb_fail(why, WB_INVALID,
                       "attach an outbox to %s: synchronous is OFF, so a power cut may destroy the "
                       "file; run PRAGMA synchronous=NORMAL or FULL",
                       sqlite3_db_filename(handle, "main"));
    return WB_OK;
}

/* Waking is a courtesy: without page or socket the publisher finds the rows a moment later. */
static void wake_open(struct outbox *self)
{
    self->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (self->socket >= 0)
        (void)outbox_wake_open(sqlite3_db_filename(self->handle, "main"), &self->page, NULL);
}

wb_err outbox_attach(struct sqlite3 *handle, struct outbox **ret_outbox, struct wb_why *why)
{
    assert(handle != NULL);
    assert(ret_outbox != NULL);

    wb_err err = connection_check(handle, why);
    if (err != WB_OK)
        return err;
    err = outbox_schema_prepare(handle, why);
    if (err != WB_OK)
        return err;

    struct outbox *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "attach an outbox: out of memory");
    self->handle = handle;
    self->socket = -1;
    int rc =
        sqlite3_prepare_v3(handle, insert_sql, -1, SQLITE_PREPARE_PERSISTENT, &self->insert, NULL);
    if (rc != SQLITE_OK) {
        free(self);
        return db_error(handle, rc, "prepare the INSERT of the outbox", why);
    }
    self->ids = wb_id_source_create();
    wake_open(self);
    *ret_outbox = self;
    return WB_OK;
}

void outbox_detach(struct outbox *outbox)
{
    if (outbox == NULL)
        return;
    struct sqlite3_stmt *statements[] = {outbox->insert,     outbox->find,     outbox->remember,
                                         outbox->ends,       outbox->sizes,    outbox->cancel_look,
                                         outbox->cancel_new, outbox->cancel_it};
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
        (void)sqlite3_finalize(statements[i]);
    if (outbox->socket >= 0)
        (void)close(outbox->socket);
    outbox_wake_close(outbox->page);
    wb_id_source_destroy(outbox->ids);
    wb_buf_free(&outbox->headers);
    free(outbox);
}

/* ---- statements ------------------------------------------------------------------------------ */

wb_err outbox_statement(struct outbox *self, const char *sql, struct sqlite3_stmt **stmt,
                        struct wb_why *why)
{
    if (*stmt != NULL)
        return WB_OK;
    int rc = sqlite3_prepare_v3(self->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL);
    return rc == SQLITE_OK ? WB_OK
                           : db_error(self->handle, rc, "prepare a statement of the outbox", why);
}

/* ---- enqueue --------------------------------------------------------------------------------- */

/* When an event is to be sent, in milliseconds of the table; 0: no such time. */
struct times {
    int64_t created_ms, due_ms, expires_ms;
};

/* Rounded so that nothing is sent before its time, and nothing after it has expired. */
static wb_err times_of(const struct outbox_event *event, struct times *ret_times,
                       struct wb_why *why)
{
    int64_t now_ns = wb_wall_ns(wb_clock_system());
    struct times times = {.created_ms = now_ns / WB_MS,
                          .due_ms = event->due_wall_ns / WB_MS,
                          .expires_ms = event->expires_wall_ns / WB_MS};

    *ret_times = times;
    if (event->due_wall_ns == 0 && event->delay_ns == 0 && event->expires_wall_ns == 0)
        return WB_OK;
    if (event->due_wall_ns < 0 || event->delay_ns < 0 || event->expires_wall_ns < 0)
        return wb_fail(why, WB_INVALID, "a due time, delay or expiry is negative");
    if (event->due_wall_ns > 0 && event->delay_ns > 0)
        return wb_fail(why, WB_INVALID,
                       "both a due time and a delay are given: an event has one of them");
    if (event->delay_ns > INT64_MAX - now_ns)
        return wb_fail(why, WB_INVALID, "the delay of %" PRId64 " ns leads beyond the year 2262",
                       event->delay_ns);
    if (event->delay_ns > 0)
        times.due_ms = (now_ns + event->delay_ns) / WB_MS;
    if (event->delay_ns > 0 || event->due_wall_ns % WB_MS != 0)
        times.due_ms++;
    if (event->expires_wall_ns > 0 && times.expires_ms <= times.due_ms)
        return wb_fail(why, WB_INVALID,
                       "the event expires before it is due: it would never be sent");
    *ret_times = times;
    return WB_OK;
}

/* Checks the event as the publisher will see it: with the longest number a row can have. */
static wb_err event_check(struct outbox *self, const struct outbox_event *event,
                          const uint8_t msg_id[WB_ID_SIZE], struct wb_why *why)
{
    struct outbox_row row = {.id = INT64_MAX,
                             .subject = event->subject,
                             .payload = event->payload,
                             .key = event->key,
                             .traceparent = event->traceparent};

    memcpy(row.msg_id, msg_id, WB_ID_SIZE);
    if (event->stream.len > 0) {
        wb_err err = subject_name_check(event->stream, "stream", why);
        if (err != WB_OK)
            return err;
    }
    return outbox_envelope_make(&row, "0000000000000000", event->headers, event->header_count,
                                MESSAGE_PAYLOAD_MAX, &self->envelope, why);
}

static int bind_time(struct sqlite3_stmt *stmt, int at, int64_t ms)
{
    return ms > 0 ? sqlite3_bind_int64(stmt, at, ms) : sqlite3_bind_null(stmt, at);
}

static int insert_bind(struct outbox *self, const struct outbox_event *event,
                       const struct times *times, const uint8_t msg_id[WB_ID_SIZE])
{
    struct sqlite3_stmt *stmt = self->insert;
    const struct wb_str headers = wb_str_n(self->headers.ptr, self->headers.len);
    const void *payload = event->payload.len > 0 ? event->payload.ptr : "";
    int rc = db_bind_text(stmt, 1, event->stream);

    rc = rc != SQLITE_OK ? rc : db_bind_text(stmt, 2, event->key);
    rc = rc != SQLITE_OK ? rc : db_bind_text(stmt, 3, event->subject);
    rc = rc != SQLITE_OK ? rc : db_bind_text(stmt, 4, headers);
    rc = rc != SQLITE_OK ? rc : sqlite3_bind_blob(stmt, 5, msg_id, WB_ID_SIZE, SQLITE_STATIC);
    rc = rc != SQLITE_OK ? rc : bind_time(stmt, 6, times->due_ms);
    rc = rc != SQLITE_OK ? rc : bind_time(stmt, 7, times->expires_ms);
    rc = rc != SQLITE_OK ? rc : sqlite3_bind_int64(stmt, 8, times->created_ms);
    rc = rc != SQLITE_OK ? rc : db_bind_text(stmt, 9, event->traceparent);
    rc = rc != SQLITE_OK
             ? rc
             : sqlite3_bind_blob(stmt, 10, payload, (int)event->payload.len, SQLITE_STATIC);
    return rc;
}

static wb_err insert_run(struct outbox *self, const struct outbox_event *event,
                         const struct times *times, struct outbox_receipt *receipt,
                         struct wb_why *why)
{
    wb_err err = WB_OK;
    int rc = insert_bind(self, event, times, receipt->msg_id);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(self->insert);
    if (rc != SQLITE_DONE)
        err = db_error(self->handle, rc, "insert an event into the outbox", why);
    (void)sqlite3_reset(self->insert);
    (void)sqlite3_clear_bindings(self->insert); /* what was bound is borrowed for this call only */
    receipt->row_id = sqlite3_last_insert_rowid(self->handle);
    return err;
}

static wb_err savepoint(struct outbox *self, const char *sql, struct wb_why *why)
{
    int rc = sqlite3_exec(self->handle, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? WB_OK : db_error(self->handle, rc, sql, why);
}

/* The row and its name, or neither. */
static wb_err insert_named(struct outbox *self, const struct outbox_event *event,
                           const struct times *times, struct outbox_receipt *receipt,
                           struct wb_why *why)
{
    bool found = false;
    wb_err err = outbox_idempotency_find(self, event, &found, receipt, why);

    if (err != WB_OK || found)
        return err;
    err = savepoint(self, "SAVEPOINT outbox_enqueue", why);
    if (err != WB_OK)
        return err;
    err = insert_run(self, event, times, receipt, why);
    if (err == WB_OK)
        err = outbox_idempotency_remember(self, event, receipt->row_id, why);
    if (err == WB_OK)
        return savepoint(self, "RELEASE outbox_enqueue", why);
    /* Some errors have SQLite roll back everything, and the savepoint with it. */
    (void)savepoint(self, "ROLLBACK TO outbox_enqueue; RELEASE outbox_enqueue", NULL);
    return err;
}

static wb_err headers_format(struct outbox *self, const struct outbox_event *event,
                             struct wb_why *why)
{
    wb_buf_clear(&self->headers);
    if (event->header_count == 0)
        return WB_OK;
    message_headers_format(
        &(struct message){.headers = event->headers, .header_count = event->header_count},
        &self->headers);
    return self->headers.failed ? wb_fail(why, WB_NOMEM, "enqueue an event: out of memory") : WB_OK;
}

wb_err outbox_enqueue(struct outbox *outbox, const struct outbox_event *event,
                      struct outbox_receipt *ret_receipt, struct wb_why *why)
{
    assert(outbox != NULL);
    assert(event != NULL);

    struct outbox_receipt receipt = {.row_id = 0};
    struct times times;
    bool named = event->caller.len + event->idempotency_key.len > 0;

    if (sqlite3_get_autocommit(outbox->handle) != 0)
        return wb_fail(why, WB_MISUSE,
                       "enqueue an event for '%.*s': no transaction is open on this connection; "
                       "BEGIN IMMEDIATE first, so that the event commits with the rows it tells of",
                       (int)event->subject.len, event->subject.ptr);
    wb_id_source_next(outbox->ids, wb_clock_system(), receipt.msg_id);
    wb_err err = event_check(outbox, event, receipt.msg_id, why);
    if (err == WB_OK)
        err = times_of(event, &times, why);
    if (err == WB_OK && named)
        err = outbox_idempotency_check(event, why);
    if (err == WB_OK && outbox->class_count > 0)
        err = outbox_limit_check(outbox, event, why);
    if (err == WB_OK)
        err = headers_format(outbox, event, why);
    if (err == WB_OK)
        err = named ? insert_named(outbox, event, &times, &receipt, why)
                    : insert_run(outbox, event, &times, &receipt, why);
    if (err != WB_OK)
        return err;
    if (!receipt.existed) {
        outbox->written = true;
        outbox_limit_written(outbox, event);
    }
    if (ret_receipt != NULL)
        *ret_receipt = receipt;
    return WB_OK;
}

/* Nobody listening, or a full queue: a wake-up is not needed, or due already. */
static void wake_slot(const struct outbox *self, unsigned slot)
{
    struct sockaddr_un address;
    socklen_t length;

    if (outbox_wake_address(sqlite3_db_filename(self->handle, "main"), slot, &address, &length,
                            NULL) == WB_OK)
        (void)sendto(self->socket, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL,
                     (const struct sockaddr *)&address, length);
}

void outbox_wake(struct outbox *outbox)
{
    assert(outbox != NULL);

    if (!outbox->written)
        return;
    outbox->written = false;
    uint64_t sleepers = outbox->page != NULL ? outbox_wake_take(outbox->page) : 0;
    for (unsigned slot = 0; sleepers != 0 && slot < OUTBOX_WAKE_SLOTS; slot++)
        if ((sleepers >> slot & 1) != 0)
            wake_slot(outbox, slot);
}
