/* A caller's own name for an event: who enqueues it again gets the first row. */
#include <sqlite3.h>
#include <string.h>

#include "outbox_private.h"

#include <waybill/db.h>

/* A name whose row is gone is free again. */
static const char find_sql[] =
    "SELECT o.id, o.msg_id FROM main.outbox_idempotency i JOIN main.outbox o ON o.id = i.row_id"
    " WHERE i.caller = ?1 AND i.key = ?2";
static const char remember_sql[] =
    "INSERT OR REPLACE INTO main.outbox_idempotency(caller, key, row_id) VALUES(?1, ?2, ?3)";

wb_err outbox_idempotency_check(const struct outbox_event *event, struct wb_why *why)
{
    const struct wb_str caller = event->caller, key = event->idempotency_key;

    if ((caller.len == 0) != (key.len == 0))
        return wb_fail(why, WB_INVALID,
                       "an idempotency key counts for its caller: give both, or neither");
    if (caller.len > OUTBOX_IDEMPOTENCY_MAX || key.len > OUTBOX_IDEMPOTENCY_MAX)
        return wb_fail(why, WB_INVALID,
                       "caller and idempotency key have %zu and %zu bytes, at most %d are allowed",
                       caller.len, key.len, OUTBOX_IDEMPOTENCY_MAX);
    return WB_OK;
}

static int bind_name(struct sqlite3_stmt *stmt, const struct outbox_event *event)
{
    int rc = db_bind_text(stmt, 1, event->caller);

    return rc == SQLITE_OK ? db_bind_text(stmt, 2, event->idempotency_key) : rc;
}

wb_err outbox_idempotency_find(struct outbox *self, const struct outbox_event *event,
                               bool *ret_found, struct outbox_receipt *ret_receipt,
                               struct wb_why *why)
{
    wb_err err = outbox_statement(self, find_sql, &self->find, why);

    if (err != WB_OK)
        return err;
    int rc = bind_name(self->find, event);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(self->find);
    if (rc == SQLITE_ROW) {
        *ret_found = true;
        *ret_receipt =
            (struct outbox_receipt){.row_id = sqlite3_column_int64(self->find, 0), .existed = true};
        memcpy(ret_receipt->msg_id, sqlite3_column_blob(self->find, 1), WB_ID_SIZE);
    } else {
        *ret_found = false;
    }
    return db_statement_end(self->find, rc, "look for an idempotency key in the outbox", why);
}

wb_err outbox_idempotency_remember(struct outbox *self, const struct outbox_event *event,
                                   int64_t row_id, struct wb_why *why)
{
    wb_err err = outbox_statement(self, remember_sql, &self->remember, why);

    if (err != WB_OK)
        return err;
    int rc = bind_name(self->remember, event);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(self->remember, 3, row_id);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(self->remember);
    return db_statement_end(self->remember, rc, "remember an idempotency key of the outbox", why);
}
