/* Events whose handler failed, and those that were given up. */
#include "inbox_internal.h"

#include <assert.h>

#include <waybill/db.h>

/* A consumer works at one event at a time, so more than a few are leftovers of lost streams. */
static const int64_t FAILURES_KEPT = 1000;

/* Never the event at hand, or it would be counted from 1 for ever. */
static wb_err failures_prune(struct inbox *inbox, const struct inbox_identity *identity,
                             struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FAILURE_PRUNE);

    db_bind_text(stmt, 2, identity->text);
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
    db_bind_text(add, 2, identity.text);
    db_bind_text(add, 3, wb_str(reason));
    err = inbox_first(inbox, add, &row, "count a failure", why);
    uint32_t failures = err == WB_OK && row ? (uint32_t)sqlite3_column_int64(add, 0) : 0;
    /* A statement of its own transaction commits when it ends. */
    if (err == WB_OK)
        err = inbox_run(inbox, add, "count a failure", why);
    if (err == WB_OK)
        *ret_failures = failures;
    return err;
}

static wb_err failures_of(struct inbox *inbox, const struct inbox_identity *identity,
                          int64_t *ret_failures, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FAILURE_GET);
    bool row = false;

    db_bind_text(stmt, 2, identity->text);
    wb_err err = inbox_first(inbox, stmt, &row, "read the failures of an event", why);
    if (err == WB_OK)
        *ret_failures = row ? sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_reset(stmt);
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
    assert(!inbox->batch.open);
    wb_err err = inbox_require_transaction(inbox, "park an event", why);
    if (err == WB_OK)
        err = inbox_identify(inbox, msg, origin, &identity, why);
    if (err == WB_OK)
        err = failures_of(inbox, &identity, &failures, why);
    if (err == WB_OK)
        err = inbox_letter_write(inbox, msg, &identity, origin, reason, failures, why);
    if (err == WB_OK)
        err = inbox_claim(inbox, msg, origin, why);
    return err == WB_EXISTS ? WB_OK : err;
}
