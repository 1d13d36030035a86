/* Which event ends the process: starts are counted, and the event in the handler's hands noted. */
#include "inbox_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include <waybill/db.h>

/* Reads no further when visit is out of memory: the count is rolled back with the transaction. */
static wb_err count_streams(struct inbox *inbox, inbox_start_visit visit, void *ctx,
                            struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_START_STREAMS);
    bool row = true;

    while (row) {
        wb_err err = inbox_first(inbox, stmt, &row, "count a start", why);
        if (err != WB_OK)
            return err;
        struct wb_str stream = {(const char *)sqlite3_column_text(stmt, 0),
                                (size_t)sqlite3_column_bytes(stmt, 0)};
        if (row && !visit(ctx, stream, (uint32_t)sqlite3_column_int64(stmt, 1))) {
            sqlite3_reset(stmt);
            return wb_fail(why, WB_NOMEM, "out of memory starting %s", inbox->consumer);
        }
    }
    sqlite3_reset(stmt);
    return WB_OK;
}

static wb_err count_consumer(struct inbox *inbox, uint32_t *ret_starts, uint32_t *ret_crashes,
                             struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_START_COUNT);
    bool row = false;
    wb_err err = inbox_first(inbox, stmt, &row, "count a start", why);

    if (err != WB_OK)
        return err;
    *ret_starts = (uint32_t)sqlite3_column_int64(stmt, 0);
    *ret_crashes = (uint32_t)sqlite3_column_int64(stmt, 2);
    wb_buf_clear(&inbox->accused);
    wb_buf_add(&inbox->accused, sqlite3_column_text(stmt, 1),
               (size_t)sqlite3_column_bytes(stmt, 1));
    err = inbox_run(inbox, stmt, "count a start", why);
    if (err == WB_OK && inbox->accused.failed)
        err = wb_fail(why, WB_NOMEM, "out of memory starting %s", inbox->consumer);
    return err;
}

wb_err inbox_start_count(struct inbox *inbox, inbox_start_visit visit, void *ctx,
                         uint32_t *ret_starts, uint32_t *ret_crashes, struct wb_why *why)
{
    uint32_t starts = 0, crashes = 0;

    assert(inbox != NULL);
    assert(visit != NULL);
    assert(ret_starts != NULL);
    assert(ret_crashes != NULL);
    wb_err err = inbox_require_transaction(inbox, "count a start", why);
    if (err == WB_OK)
        err = count_streams(inbox, visit, ctx, why);
    if (err == WB_OK)
        err = count_consumer(inbox, &starts, &crashes, why);
    if (err != WB_OK)
        return err;
    *ret_starts = starts;
    *ret_crashes = crashes;
    return WB_OK;
}

wb_err inbox_start_clear(struct inbox *inbox, struct wb_why *why)
{
    assert(inbox != NULL);
    return inbox_run(inbox, inbox_use(inbox, INBOX_START_CLEAR), "end the count of starts", why);
}

wb_err inbox_start_end(struct inbox *inbox, struct wb_why *why)
{
    wb_err err = inbox_start_clear(inbox, why);

    return err == WB_OK ? inbox_run(inbox, inbox_use(inbox, INBOX_START_CLEAR_STREAMS),
                                    "end the count of starts", why)
                        : err;
}

static bool is_accused(const struct inbox *inbox, struct wb_str text)
{
    return text.len > 0 && wb_str_eq(text, wb_str_n(inbox->accused.ptr, inbox->accused.len));
}

bool inbox_is_accused(struct inbox *inbox, const struct message *msg,
                      const struct inbox_origin *origin)
{
    struct inbox_identity identity = {0};

    assert(inbox != NULL);
    return inbox->accused.len > 0 && inbox_identify(inbox, msg, origin, &identity, NULL) == WB_OK &&
           is_accused(inbox, identity.text);
}

static wb_err suspect(struct inbox *inbox, struct wb_str text, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_SUSPECT_PUT);

    db_bind_text(stmt, 2, text);
    return inbox_run(inbox, stmt, "note the event at hand", why);
}

wb_err inbox_suspect(struct inbox *inbox, const struct message *msg,
                     const struct inbox_origin *origin, struct wb_why *why)
{
    struct inbox_identity identity = {0};

    assert(inbox != NULL);
    wb_err err = inbox_identify(inbox, msg, origin, &identity, why);
    return err == WB_OK ? suspect(inbox, identity.text, why) : err;
}

/* The letter keeps them apart from events. */
static struct wb_str letter_name(int64_t id, char out[32])
{
    (void)snprintf(out, 32, "d:%" PRId64, id);
    return wb_str(out);
}

wb_err inbox_suspect_letter(struct inbox *inbox, int64_t id, struct wb_why *why)
{
    char text[32];

    assert(inbox != NULL);
    return suspect(inbox, letter_name(id, text), why);
}

bool inbox_is_accused_letter(struct inbox *inbox, int64_t id)
{
    char text[32];

    assert(inbox != NULL);
    return is_accused(inbox, letter_name(id, text));
}

wb_err inbox_suspect_clear(struct inbox *inbox, struct wb_why *why)
{
    assert(inbox != NULL);
    return inbox_run(inbox, inbox_use(inbox, INBOX_SUSPECT_CLEAR), "clear the event at hand", why);
}
