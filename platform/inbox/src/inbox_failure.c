/* Events whose handler failed, and those that were given up. */
#include "inbox_internal.h"

#include <assert.h>

#include <waybill/db.h>

/* A consumer works at one event at a time, so more than a few are leftovers of lost streams. */
static const int64_t FAILURES_KEPT = 1000;

static const uint64_t DEAD_LETTERS_MAX = 100000;

/* Never the event at hand, or it would be counted from 1 for ever. */
static wb_err failures_prune(struct inbox *inbox, const struct inbox_identity *identity,
                             struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FAILURE_PRUNE);

    inbox_bind_text(stmt, 2, identity->text);
    sqlite3_bind_int64(stmt, 3, FAILURES_KEPT);
    return inbox_run(inbox, stmt, "forget old failures", why);
}

wb_err inbox_fail(struct inbox *inbox, const struct message *msg, const struct inbox_origin *origin,
                  const char *reason, uint32_t *ret_failures, struct wb_why *why)
{
    struct inbox_identity identity = {0};
    bool row = false;

    assert(inbox != NULL);
    assert(msg != NULL);
    assert(origin != NULL);
    assert(reason != NULL);
    assert(ret_failures != NULL);
    wb_err err = inbox_identify(inbox, msg, origin, &identity, why);
    if (err == WB_OK)
        err = failures_prune(inbox, &identity, why);
    if (err != WB_OK)
        return err;

    struct sqlite3_stmt *add = inbox_use(inbox, INBOX_FAILURE_ADD);
    inbox_bind_text(add, 2, identity.text);
    inbox_bind_text(add, 3, wb_str(reason));
    err = inbox_first(inbox, add, &row, "count a failure", why);
    uint32_t failures = err == WB_OK && row ? (uint32_t)sqlite3_column_int64(add, 0) : 0;
    /* A statement of its own transaction commits when it ends. */
    if (err == WB_OK)
        err = inbox_run(inbox, add, "count a failure", why);
    if (err == WB_OK)
        *ret_failures = failures;
    return err;
}

static wb_err count(struct inbox *inbox, enum inbox_statement which, uint64_t *ret_count,
                    struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, which);
    bool row = false;
    wb_err err = inbox_first(inbox, stmt, &row, "count dead letters", why);

    if (err == WB_OK)
        *ret_count = row ? (uint64_t)sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_reset(stmt);
    return err;
}

static wb_err require_room(struct inbox *inbox, struct wb_why *why)
{
    uint64_t kept = 0;
    wb_err err = count(inbox, INBOX_PARKED_ALL, &kept, why);

    if (err == WB_OK && kept >= DEAD_LETTERS_MAX)
        err = wb_fail(why, WB_FULL,
                      "cannot park an event of %s: the table dead_letter has %llu rows, the limit; "
                      "find the common cause, then replay or delete them",
                      inbox->consumer, (unsigned long long)kept);
    return err;
}

static wb_err failures_of(struct inbox *inbox, const struct inbox_identity *identity,
                          int64_t *ret_failures, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FAILURE_GET);
    bool row = false;

    inbox_bind_text(stmt, 2, identity->text);
    wb_err err = inbox_first(inbox, stmt, &row, "read the failures of an event", why);
    if (err == WB_OK)
        *ret_failures = row ? sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_reset(stmt);
    return err;
}

static wb_err letter_write(struct inbox *inbox, const struct message *msg,
                           const struct inbox_identity *identity, const struct inbox_origin *origin,
                           const char *reason, int64_t failures, struct wb_why *why)
{
    char source[2 * INBOX_SOURCE_SIZE + 1] = "", fingerprint[WB_FINGERPRINT_TEXT];
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_PARK);
    struct wb_buf headers = {0};

    message_headers_format(msg, &headers);
    if (headers.failed)
        return wb_fail(why, WB_NOMEM, "out of memory parking an event of %s", inbox->consumer);
    inbox_bind_text(stmt, 2, msg->subject);
    inbox_bind_text(stmt, 3, wb_str_n(headers.ptr, headers.len));
    inbox_bind_text(stmt, 4, msg->msg_id);
    inbox_bind_text(stmt, 5, origin->stream);
    sqlite3_bind_int64(stmt, 6, (int64_t)origin->sequence);
    sqlite3_bind_int64(stmt, 7, origin->stored_wall_ns / WB_MS);
    inbox_bind_text(stmt, 8, wb_str(reason));
    sqlite3_bind_int64(stmt, 9, failures);
    sqlite3_bind_int64(stmt, 10, wb_wall_ns(wb_clock_system()) / WB_MS);
    sqlite3_bind_blob64(stmt, 11, msg->payload.len > 0 ? msg->payload.ptr : "", msg->payload.len,
                        SQLITE_STATIC);
    inbox_bind_text(stmt, 12, message_header(msg, MESSAGE_HEADER_KEY));
    if (identity->ours)
        wb_hex_encode(identity->source, INBOX_SOURCE_SIZE, source);
    inbox_bind_text(stmt, 13, wb_str(source));
    sqlite3_bind_int64(stmt, 14, identity->row);
    wb_fingerprint(wb_str(reason), fingerprint);
    inbox_bind_text(stmt, 15, wb_str(fingerprint));
    wb_err err = inbox_run(inbox, stmt, "park an event", why);
    sqlite3_clear_bindings(stmt);
    wb_buf_free(&headers);
    return err;
}

wb_err inbox_park(struct inbox *inbox, const struct message *msg, const struct inbox_origin *origin,
                  const char *reason, struct wb_why *why)
{
    struct inbox_identity identity = {0};
    int64_t failures = 0;

    assert(inbox != NULL);
    assert(msg != NULL);
    assert(origin != NULL);
    assert(reason != NULL);
    wb_err err = inbox_require_transaction(inbox, "park an event", why);
    if (err == WB_OK)
        err = require_room(inbox, why);
    if (err == WB_OK)
        err = inbox_identify(inbox, msg, origin, &identity, why);
    if (err == WB_OK)
        err = failures_of(inbox, &identity, &failures, why);
    if (err == WB_OK)
        err = letter_write(inbox, msg, &identity, origin, reason, failures, why);
    if (err == WB_OK)
        err = inbox_claim(inbox, msg, origin, why);
    return err == WB_EXISTS ? WB_OK : err;
}

wb_err inbox_parked(struct inbox *inbox, uint64_t *ret_count, struct wb_why *why)
{
    assert(inbox != NULL);
    assert(ret_count != NULL);
    return count(inbox, INBOX_PARKED, ret_count, why);
}
