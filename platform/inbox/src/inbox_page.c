/* Pages of bits: which rows of an outbox were handled, in little space whatever their order. */
#include "inbox_internal.h"

#include <string.h>

#include <waybill/db.h>

static wb_err page_corrupt(struct inbox *inbox, struct wb_why *why)
{
    return wb_fail(why, WB_CORRUPT,
                   "the inbox of %s has a page that is neither bits nor a run in table inbox_page; "
                   "restore the database from a backup",
                   inbox->consumer);
}

/* The entry that begins at page or is the last before it; *ret_found is false if there is none. */
static wb_err page_find(struct inbox *inbox, const uint8_t *source, int64_t at,
                        struct inbox_page *ret_page, bool *ret_found, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_PAGE_GET);
    struct inbox_page page = {0};
    bool found = false;

    sqlite3_bind_blob(stmt, 2, source, INBOX_SOURCE_SIZE, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, at);
    wb_err err = inbox_first(inbox, stmt, &found, "look up an event", why);
    if (err == WB_OK && found) {
        page.first = sqlite3_column_int64(stmt, 0);
        page.full = sqlite3_column_int64(stmt, 1);
        int size = sqlite3_column_bytes(stmt, 2);
        if (page.full == 0 && size == INBOX_PAGE_BYTES)
            memcpy(page.bits, sqlite3_column_blob(stmt, 2), INBOX_PAGE_BYTES);
        else if (page.full <= 0 || size != 0)
            err = page_corrupt(inbox, why);
    }
    sqlite3_reset(stmt);
    if (err != WB_OK)
        return err;
    *ret_page = page;
    *ret_found = found;
    return WB_OK;
}

static wb_err page_put(struct inbox *inbox, const uint8_t *source, const struct inbox_page *page,
                       struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_PAGE_PUT);

    sqlite3_bind_blob(stmt, 2, source, INBOX_SOURCE_SIZE, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, page->first);
    sqlite3_bind_int64(stmt, 4, page->full);
    sqlite3_bind_blob(stmt, 5, page->bits, page->full > 0 ? 0 : INBOX_PAGE_BYTES, SQLITE_STATIC);
    return inbox_run(inbox, stmt, "remember an event", why);
}

static wb_err page_drop(struct inbox *inbox, const uint8_t *source, int64_t first,
                        struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_PAGE_DROP);

    sqlite3_bind_blob(stmt, 2, source, INBOX_SOURCE_SIZE, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, first);
    return inbox_run(inbox, stmt, "join full pages", why);
}

/* A page became full: it joins the run that ends before it and the one that begins after it. */
static wb_err page_join(struct inbox *inbox, const uint8_t *source, int64_t at, struct wb_why *why)
{
    struct inbox_page run = {.first = at, .full = 1}, left, right;
    bool has_left = false, has_right = false;
    wb_err err = page_find(inbox, source, at - 1, &left, &has_left, why);

    if (err == WB_OK)
        err = page_find(inbox, source, at + 1, &right, &has_right, why);
    if (err == WB_OK && has_right && right.first == at + 1 && right.full > 0) {
        run.full += right.full;
        err = page_drop(inbox, source, right.first, why);
    }
    if (err == WB_OK && has_left && left.full > 0 && left.first + left.full == at) {
        run.first = left.first;
        run.full += left.full;
        err = page_drop(inbox, source, at, why);
    }
    return err == WB_OK ? page_put(inbox, source, &run, why) : err;
}

static bool all_set(const struct inbox_page *page)
{
    for (size_t i = 0; i < INBOX_PAGE_BYTES; i++)
        if (page->bits[i] != 0xff)
            return false;
    return true;
}

/* ---- the page at hand ------------------------------------------------------------------------ */

wb_err inbox_page_flush(struct inbox *inbox, struct wb_why *why)
{
    struct inbox_batch *batch = &inbox->batch;
    bool changed = batch->loaded && batch->changed;

    batch->loaded = batch->changed = false;
    if (!changed)
        return WB_OK;
    return all_set(&batch->page) ? page_join(inbox, batch->source, batch->at, why)
                                 : page_put(inbox, batch->source, &batch->page, why);
}

/* Have the page in memory; a run that covers it is as good. */
static wb_err page_load(struct inbox *inbox, const uint8_t *source, int64_t at, struct wb_why *why)
{
    struct inbox_batch *batch = &inbox->batch;
    struct inbox_page page;
    bool found = false;

    if (batch->loaded && batch->at == at && memcmp(batch->source, source, INBOX_SOURCE_SIZE) == 0)
        return WB_OK;
    wb_err err = inbox_page_flush(inbox, why);
    if (err == WB_OK)
        err = page_find(inbox, source, at, &page, &found, why);
    if (err != WB_OK)
        return err;
    bool in_run = found && page.full > 0 && at < page.first + page.full;
    if (!found || (page.first != at && !in_run))
        page = (struct inbox_page){.first = at};
    batch->page = page;
    batch->at = at;
    memcpy(batch->source, source, INBOX_SOURCE_SIZE);
    batch->loaded = true;
    batch->changed = false;
    return WB_OK;
}

wb_err inbox_page_set(struct inbox *inbox, const struct inbox_identity *identity,
                      struct wb_why *why)
{
    struct inbox_page *page = &inbox->batch.page;
    unsigned bit = (unsigned)((identity->row - 1) % INBOX_PAGE_ROWS);
    wb_err err = page_load(inbox, identity->source, (identity->row - 1) / INBOX_PAGE_ROWS, why);

    if (err == WB_OK && (page->full > 0 || (page->bits[bit / 8] >> (bit % 8) & 1) != 0))
        err = WB_EXISTS;
    if (err == WB_OK) {
        page->bits[bit / 8] = (uint8_t)(page->bits[bit / 8] | 1U << (bit % 8));
        inbox->batch.changed = true;
    }
    /* Without a batch the table is what counts, also for a rollback that nobody tells of. */
    if (!inbox->batch.open && err != WB_OK)
        inbox->batch.loaded = false;
    return inbox->batch.open || err != WB_OK ? err : inbox_page_flush(inbox, why);
}

void inbox_page_unset(struct inbox *inbox, int64_t row)
{
    unsigned bit = (unsigned)((row - 1) % INBOX_PAGE_ROWS);
    uint8_t *byte = &inbox->batch.page.bits[bit / 8];

    *byte = (uint8_t)(*byte & ~(1U << (bit % 8)));
}

wb_err inbox_page_has(struct inbox *inbox, const struct inbox_identity *identity, bool *ret_has,
                      struct wb_why *why)
{
    const struct inbox_page *page = &inbox->batch.page;
    unsigned bit = (unsigned)((identity->row - 1) % INBOX_PAGE_ROWS);
    wb_err err = page_load(inbox, identity->source, (identity->row - 1) / INBOX_PAGE_ROWS, why);

    if (err == WB_OK)
        *ret_has = page->full > 0 || (page->bits[bit / 8] >> (bit % 8) & 1) != 0;
    inbox->batch.loaded = false;
    return err;
}

/* A run of full pages falls into what lies before the page, the page, and what lies behind it. */
static wb_err run_cut(struct inbox *inbox, const uint8_t *source, const struct inbox_page *run,
                      int64_t at, struct wb_why *why)
{
    struct inbox_page left = {.first = run->first, .full = at - run->first};
    struct inbox_page right = {.first = at + 1, .full = run->first + run->full - at - 1};
    wb_err err = page_drop(inbox, source, run->first, why);

    if (err == WB_OK && left.full > 0)
        err = page_put(inbox, source, &left, why);
    if (err == WB_OK && right.full > 0)
        err = page_put(inbox, source, &right, why);
    return err;
}

wb_err inbox_page_clear(struct inbox *inbox, const struct inbox_identity *identity,
                        struct wb_why *why)
{
    struct inbox_batch *batch = &inbox->batch;
    int64_t at = (identity->row - 1) / INBOX_PAGE_ROWS;
    wb_err err = page_load(inbox, identity->source, at, why);

    if (err == WB_OK && batch->page.full > 0) {
        err = run_cut(inbox, identity->source, &batch->page, at, why);
        batch->page = (struct inbox_page){.first = at};
        memset(batch->page.bits, 0xff, sizeof(batch->page.bits));
    }
    if (err != WB_OK) {
        batch->loaded = false;
        return err;
    }
    inbox_page_unset(inbox, identity->row);
    batch->changed = true;
    return inbox_page_flush(inbox, why);
}
