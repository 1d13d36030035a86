/* Exceptions that are about to be sent, those that wait, and what others decide about them. */
#include "outbox_publisher_store_private.h"

static wb_err claim_one(struct outbox_publisher_store *self, int64_t last_id,
                        struct outbox_publisher_claim *one, struct wb_why *why)
{
    struct sqlite3 *handle = db_handle(self->db);

    (void)sqlite3_bind_int64(self->claim, 1, one->id);
    (void)sqlite3_bind_int64(self->claim, 2, one->attempts);
    (void)sqlite3_bind_int(self->claim, 3, one->known);
    wb_err err = db_statement_run(self->claim, "claim a row to be sent", why);
    one->claimed = err == WB_OK && sqlite3_changes(handle) > 0;
    /* One that the cursor has passed and that has no entry is published: never again. */
    if (err != WB_OK || one->claimed || one->id <= last_id)
        return err;
    (void)sqlite3_bind_int64(self->claim_new, 1, one->id);
    (void)sqlite3_bind_int64(self->claim_new, 2, one->attempts);
    err = db_statement_run(self->claim_new, "claim a row to be sent", why);
    one->claimed = err == WB_OK && sqlite3_changes(handle) > 0;
    return err;
}

/* Who was overtaken must not claim. */
static wb_err holder_read(struct outbox_publisher_store *self, const char *stream, int64_t holder,
                          int64_t *ret_last_id, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->holder;
    wb_err err = WB_OK;

    (void)db_bind_text(stmt, 1, wb_str(stream));
    (void)sqlite3_bind_int64(stmt, 2, holder);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *ret_last_id = sqlite3_column_int64(stmt, 0);
    else if (rc == SQLITE_DONE)
        err = wb_fail(why, WB_CONFLICT,
                      "another publisher has taken over stream %s of %s (we were holder %lld)",
                      stream, db_path(self->db), (long long)holder);
    else
        err = db_error(db_handle(self->db), rc, "read the cursor of the outbox", why);
    (void)sqlite3_reset(stmt);
    (void)sqlite3_clear_bindings(stmt);
    return err;
}

wb_err outbox_publisher_store_claim(struct outbox_publisher_store *store, const char *stream,
                                    int64_t holder, struct outbox_publisher_claim *claims,
                                    size_t count, struct wb_why *why)
{
    int64_t last_id = 0;
    wb_err err = db_begin(store->db, why);

    if (err != WB_OK)
        return err;
    err = holder_read(store, stream, holder, &last_id, why);
    for (size_t i = 0; err == WB_OK && i < count; i++)
        err = claim_one(store, last_id, &claims[i], why);
    if (err == WB_OK)
        err = db_commit(store->db, why);
    db_rollback(store->db);
    return err;
}

wb_err outbox_publisher_store_waiting(struct outbox_publisher_store *store, int64_t after_ms,
                                      int64_t after_id, size_t limit,
                                      outbox_publisher_visit_waiting visit, void *ctx,
                                      struct wb_why *why)
{
    struct sqlite3_stmt *stmt = store->waiting;
    int rc;

    (void)sqlite3_bind_int64(stmt, 1, after_ms);
    (void)sqlite3_bind_int64(stmt, 2, after_id);
    (void)sqlite3_bind_int64(stmt, 3, (int64_t)limit);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
        visit(ctx, sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1));
    return db_statement_end(stmt, rc, "read the waiting rows of the outbox", why);
}

bool outbox_publisher_store_revised(struct outbox_publisher_store *store)
{
    int64_t revision = 0;

    if (sqlite3_step(store->revision) == SQLITE_ROW)
        revision = sqlite3_column_int64(store->revision, 0);
    (void)sqlite3_reset(store->revision);
    bool revised = revision == 0 || revision != store->seen_revision;
    store->seen_revision = revision;
    return revised;
}
