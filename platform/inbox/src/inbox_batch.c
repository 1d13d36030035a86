/* Many events in one transaction, each of which can still be taken back by itself. */
#include "inbox_internal.h"

#include <assert.h>

#include <waybill/db.h>

wb_err inbox_batch_begin(struct inbox *inbox, struct wb_why *why)
{
    bool failures = false;

    assert(inbox != NULL);
    assert(!inbox->batch.open);
    wb_err err = inbox_require_transaction(inbox, "begin a batch", why);
    if (err != WB_OK)
        return err;
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FAILURE_ANY);
    err = inbox_first(inbox, stmt, &failures, "look for failures", why);
    sqlite3_reset(stmt);
    if (err != WB_OK)
        return err;
    inbox->batch = (struct inbox_batch){.open = true, .failures = failures};
    return WB_OK;
}

/* Behind the claim, so that a page written for it stays when the event is taken back. */
wb_err inbox_batch_hold(struct inbox *inbox, const struct inbox_identity *identity,
                        struct wb_why *why)
{
    struct inbox_batch *batch = &inbox->batch;

    assert(!batch->claimed);
    wb_buf_clear(&inbox->claimed);
    wb_buf_add(&inbox->claimed, identity->text.ptr, identity->text.len);
    if (inbox->claimed.failed)
        return wb_fail(why, WB_NOMEM, "out of memory claiming an event of %s", inbox->consumer);
    wb_err err = inbox_run(inbox, inbox_use(inbox, INBOX_SAVEPOINT), "set a savepoint", why);
    if (err != WB_OK)
        return err;
    batch->claimed = true;
    batch->ours = identity->ours;
    batch->row = identity->row;
    return WB_OK;
}

static wb_err drop_failures(struct inbox *inbox, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FAILURE_DROP);

    db_bind_text(stmt, 2, wb_str_n(inbox->claimed.ptr, inbox->claimed.len));
    return inbox_run(inbox, stmt, "forget the failures of an event", why);
}

wb_err inbox_batch_keep(struct inbox *inbox, struct wb_why *why)
{
    assert(inbox != NULL);
    assert(inbox->batch.claimed);
    wb_err err = inbox_run(inbox, inbox_use(inbox, INBOX_RELEASE), "release a savepoint", why);
    if (err == WB_INVALID) /* there is no such savepoint */
        return wb_fail(why, WB_MISUSE,
                       "the transaction of %s was ended by somebody else in the midst of an event",
                       inbox->consumer);
    if (err != WB_OK)
        return err;
    inbox->batch.claimed = false;
    return inbox->batch.failures ? drop_failures(inbox, why) : WB_OK;
}

static wb_err forget(struct inbox *inbox, struct wb_why *why)
{
    if (inbox->batch.ours) {
        inbox_page_unset(inbox, inbox->batch.row);
        return WB_OK;
    }
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FOREIGN_DROP);
    db_bind_text(stmt, 2, wb_str_n(inbox->claimed.ptr, inbox->claimed.len));
    return inbox_run(inbox, stmt, "forget a foreign event", why);
}

wb_err inbox_batch_undo(struct inbox *inbox, struct wb_why *why)
{
    assert(inbox != NULL);
    assert(inbox->batch.claimed);
    wb_err err =
        inbox_run(inbox, inbox_use(inbox, INBOX_ROLLBACK_TO), "roll back to a savepoint", why);
    if (err == WB_OK)
        err = inbox_run(inbox, inbox_use(inbox, INBOX_RELEASE), "release a savepoint", why);
    if (err == WB_OK)
        err = forget(inbox, why);
    if (err == WB_OK)
        inbox->batch.claimed = false;
    return err;
}

wb_err inbox_batch_end(struct inbox *inbox, struct wb_why *why)
{
    assert(inbox != NULL);
    assert(inbox->batch.open && !inbox->batch.claimed);
    wb_err err = inbox_page_flush(inbox, why);
    inbox_batch_drop(inbox);
    return err;
}

void inbox_batch_drop(struct inbox *inbox)
{
    assert(inbox != NULL);
    inbox->batch = (struct inbox_batch){.open = false};
}
