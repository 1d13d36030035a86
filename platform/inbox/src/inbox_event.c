/* What is known of one event, named by a person; and forgetting it. */
#include "inbox_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <waybill/db.h>

#define SOURCE_TEXT_LEN ((size_t)2 * INBOX_SOURCE_SIZE)

/* ---- by what it is named --------------------------------------------------------------------- */

static bool name_parse_ours(struct wb_str event, struct inbox_identity *ret_identity)
{
    struct inbox_identity identity = {.ours = true};
    uint64_t row = 0;

    if (event.len < SOURCE_TEXT_LEN + 2 || event.ptr[SOURCE_TEXT_LEN] != '/' ||
        !wb_hex_decode(wb_str_n(event.ptr, SOURCE_TEXT_LEN), identity.source, INBOX_SOURCE_SIZE) ||
        !wb_str_to_u64(wb_str_n(event.ptr + SOURCE_TEXT_LEN + 1, event.len - SOURCE_TEXT_LEN - 1),
                       &row) ||
        row < 1 || row > INT64_MAX)
        return false;
    identity.row = (int64_t)row;
    *ret_identity = identity;
    return true;
}

/* As inbox_identify(), for the name a person gives. */
static wb_err name_parse(struct inbox *inbox, struct wb_str event,
                         struct inbox_identity *ret_identity, struct wb_why *why)
{
    struct inbox_identity identity = {.ours = false};
    char source[SOURCE_TEXT_LEN + 1];

    if (event.len == 0 || event.len > MESSAGE_ID_MAX)
        return wb_fail(why, WB_INVALID,
                       "invalid event: give SOURCE/ROW, as in 0123456789abcdef/42, or a msg_id of "
                       "1 to %d bytes",
                       MESSAGE_ID_MAX);
    wb_buf_clear(&inbox->text);
    if (name_parse_ours(event, &identity)) {
        wb_hex_encode(identity.source, INBOX_SOURCE_SIZE, source);
        wb_buf_printf(&inbox->text, "r:%s:%" PRId64, source, identity.row);
    } else {
        wb_buf_str(&inbox->text, "m:");
        wb_buf_add(&inbox->text, event.ptr, event.len);
    }
    if (inbox->text.failed)
        return wb_fail(why, WB_NOMEM, "out of memory naming an event of %s", inbox->consumer);
    identity.text = wb_str_n(inbox->text.ptr, inbox->text.len);
    *ret_identity = identity;
    return WB_OK;
}

/* An inbox that is there, not one made now. */
static wb_err attach_known(struct sqlite3 *handle, const char *consumer, struct inbox **ret_inbox,
                           struct wb_why *why)
{
    bool row = false;
    struct inbox *inbox = NULL;
    wb_err err = inbox_schema_require(handle, why);

    if (err == WB_OK)
        err = inbox_attach(handle, consumer, &inbox, why);
    if (err != WB_OK)
        return err;
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_CONSUMER_HAS);
    err = inbox_first(inbox, stmt, &row, "look for a consumer", why);
    if (err == WB_OK && sqlite3_column_int(stmt, 0) == 0)
        err =
            wb_fail(why, WB_NOT_FOUND,
                    "the inbox in %s knows no consumer '%s'; `waybill inbox ls` tells their names",
                    sqlite3_db_filename(handle, "main"), consumer);
    sqlite3_reset(stmt);
    if (err != WB_OK) {
        inbox_detach(inbox);
        return err;
    }
    *ret_inbox = inbox;
    return WB_OK;
}

/* ---- what is known --------------------------------------------------------------------------- */

static void reason_copy(struct sqlite3_stmt *stmt, int column, char out[512])
{
    (void)snprintf(out, 512, "%s", (const char *)sqlite3_column_text(stmt, column));
}

static wb_err known(struct inbox *inbox, const struct inbox_identity *identity, bool *ret_known,
                    struct wb_why *why)
{
    if (identity->ours)
        return inbox_page_has(inbox, identity, ret_known, why);
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FOREIGN_HAS);
    db_bind_text(stmt, 2, identity->text);
    wb_err err = inbox_first(inbox, stmt, ret_known, "look up an event", why);
    sqlite3_reset(stmt);
    return err;
}

static wb_err failures_of(struct inbox *inbox, const struct inbox_identity *identity,
                          struct inbox_event_status *status, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FAILURE_SHOW);
    bool row = false;

    db_bind_text(stmt, 2, identity->text);
    wb_err err = inbox_first(inbox, stmt, &row, "read the failures of an event", why);
    if (err == WB_OK && row) {
        status->failures = (uint32_t)sqlite3_column_int64(stmt, 0);
        reason_copy(stmt, 1, status->reason);
    }
    sqlite3_reset(stmt);
    return err;
}

static wb_err letter_of(struct inbox *inbox, const struct inbox_identity *identity,
                        struct inbox_event_status *status, struct wb_why *why)
{
    struct sqlite3_stmt *stmt =
        inbox_use(inbox, identity->ours ? INBOX_LETTER_OF_ROW : INBOX_LETTER_OF_ID);
    char source[SOURCE_TEXT_LEN + 1];
    bool row = false;

    if (identity->ours) {
        wb_hex_encode(identity->source, INBOX_SOURCE_SIZE, source);
        db_bind_text(stmt, 2, wb_str(source));
        sqlite3_bind_int64(stmt, 3, identity->row);
    } else {
        db_bind_text(stmt, 2, wb_str_n(identity->text.ptr + 2, identity->text.len - 2));
    }
    wb_err err = inbox_first(inbox, stmt, &row, "look for the dead letter of an event", why);
    if (err == WB_OK && row) {
        status->letter = sqlite3_column_int64(stmt, 0);
        status->letter_retry = strcmp((const char *)sqlite3_column_text(stmt, 1), "retry") == 0;
        status->failures = (uint32_t)sqlite3_column_int64(stmt, 3);
        reason_copy(stmt, 2, status->reason);
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return err;
}

static wb_err suspicion_of(struct inbox *inbox, const struct inbox_identity *identity,
                           struct inbox_event_status *status, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_START_SHOW);
    bool row = false;

    db_bind_text(stmt, 2, identity->text);
    wb_err err = inbox_first(inbox, stmt, &row, "look for a suspicion", why);
    if (err == WB_OK && row) {
        status->suspect = sqlite3_column_int(stmt, 0) != 0;
        status->crashes = (uint32_t)sqlite3_column_int64(stmt, 1);
    }
    sqlite3_reset(stmt);
    return err;
}

static wb_err event_status(struct inbox *inbox, const struct inbox_identity *identity,
                           struct inbox_event_status *ret_status, struct wb_why *why)
{
    struct inbox_event_status status = {.ours = identity->ours};
    wb_err err = known(inbox, identity, &status.handled, why);

    if (err == WB_OK)
        err = failures_of(inbox, identity, &status, why);
    if (err == WB_OK)
        err = letter_of(inbox, identity, &status, why);
    if (err == WB_OK)
        err = suspicion_of(inbox, identity, &status, why);
    if (err == WB_OK)
        *ret_status = status;
    return err;
}

wb_err inbox_handled(struct sqlite3 *handle, const char *consumer, struct wb_str event,
                     struct inbox_event_status *ret_status, struct wb_why *why)
{
    struct inbox_identity identity = {0};
    struct inbox *inbox = NULL;

    assert(handle != NULL);
    assert(consumer != NULL);
    assert(ret_status != NULL);
    wb_err err = attach_known(handle, consumer, &inbox, why);
    if (err != WB_OK)
        return err;
    err = name_parse(inbox, event, &identity, why);
    if (err == WB_OK)
        err = event_status(inbox, &identity, ret_status, why);
    inbox_detach(inbox);
    return err;
}

/* ---- forgetting ------------------------------------------------------------------------------ */

static wb_err require_forgettable(struct inbox *inbox, const struct inbox_event_status *status,
                                  struct wb_str event, struct wb_why *why)
{
    if (status->letter > 0)
        return wb_fail(why, WB_CONFLICT,
                       "event %.*s is dead letter %" PRId64
                       " of %s: handle that again or discard it, or the event could be handled "
                       "twice",
                       (int)event.len, event.ptr, status->letter, inbox->consumer);
    if (!status->handled)
        return wb_fail(why, WB_NOT_FOUND, "%s has not handled event %.*s, as far as is known",
                       inbox->consumer, (int)event.len, event.ptr);
    return WB_OK;
}

static wb_err drop(struct inbox *inbox, enum inbox_statement which, struct wb_str text,
                   struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, which);

    db_bind_text(stmt, 2, text);
    return inbox_run(inbox, stmt, "forget an event", why);
}

static wb_err forget(struct inbox *inbox, struct wb_str event, struct wb_why *why)
{
    struct inbox_event_status status;
    struct inbox_identity identity = {0};
    wb_err err = inbox_require_transaction(inbox, "forget an event", why);

    if (err == WB_OK)
        err = name_parse(inbox, event, &identity, why);
    if (err == WB_OK)
        err = event_status(inbox, &identity, &status, why);
    if (err == WB_OK)
        err = require_forgettable(inbox, &status, event, why);
    if (err == WB_OK)
        err = identity.ours ? inbox_page_clear(inbox, &identity, why)
                            : drop(inbox, INBOX_FOREIGN_DROP, identity.text, why);
    return err == WB_OK ? drop(inbox, INBOX_FAILURE_DROP, identity.text, why) : err;
}

wb_err inbox_forget(struct sqlite3 *handle, const char *consumer, struct wb_str event,
                    struct wb_why *why)
{
    struct inbox *inbox = NULL;

    assert(handle != NULL);
    assert(consumer != NULL);
    wb_err err = attach_known(handle, consumer, &inbox, why);
    if (err != WB_OK)
        return err;
    err = forget(inbox, event, why);
    inbox_detach(inbox);
    return err;
}
