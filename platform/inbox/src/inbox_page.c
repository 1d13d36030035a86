/* Pages of bits: which rows of an outbox were handled, in little space whatever their order. */
#include "inbox_internal.h"

#include <string.h>

#include <waybill/db.h>

enum { PAGE_ROWS = 2048, PAGE_BYTES = PAGE_ROWS / 8 };

/* A row of the table: a page of bits (full = 0), or a run of pages that are full. */
struct page {
    int64_t first;
    int64_t full;
    uint8_t bits[PAGE_BYTES];
};

static wb_err page_corrupt(struct inbox *inbox, struct wb_why *why)
{
    return wb_fail(why, WB_CORRUPT,
                   "the inbox of %s has a page that is neither bits nor a run in table inbox_page; "
                   "restore the database from a backup",
                   inbox->consumer);
}

/* The entry that begins at page or is the last before it; *ret_found is false if there is none. */
static wb_err page_find(struct inbox *inbox, const uint8_t *source, int64_t at,
                        struct page *ret_page, bool *ret_found, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_PAGE_GET);
    struct page page = {0};
    bool found = false;

    sqlite3_bind_blob(stmt, 2, source, INBOX_SOURCE_SIZE, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, at);
    wb_err err = inbox_first(inbox, stmt, &found, "look up an event", why);
    if (err == WB_OK && found) {
        page.first = sqlite3_column_int64(stmt, 0);
        page.full = sqlite3_column_int64(stmt, 1);
        int size = sqlite3_column_bytes(stmt, 2);
        if (page.full == 0 && size == PAGE_BYTES)
            memcpy(page.bits, sqlite3_column_blob(stmt, 2), PAGE_BYTES);
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

static wb_err page_put(struct inbox *inbox, const uint8_t *source, const struct page *page,
                       struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_PAGE_PUT);

    sqlite3_bind_blob(stmt, 2, source, INBOX_SOURCE_SIZE, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, page->first);
    sqlite3_bind_int64(stmt, 4, page->full);
    sqlite3_bind_blob(stmt, 5, page->bits, page->full > 0 ? 0 : PAGE_BYTES, SQLITE_STATIC);
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
    struct page run = {.first = at, .full = 1}, left, right;
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

static bool all_set(const struct page *page)
{
    for (size_t i = 0; i < PAGE_BYTES; i++)
        if (page->bits[i] != 0xff)
            return false;
    return true;
}

wb_err inbox_page_set(struct inbox *inbox, const struct inbox_identity *identity,
                      struct wb_why *why)
{
    int64_t at = (identity->row - 1) / PAGE_ROWS;
    unsigned bit = (unsigned)((identity->row - 1) % PAGE_ROWS);
    struct page page;
    bool found = false;
    wb_err err = page_find(inbox, identity->source, at, &page, &found, why);

    if (err != WB_OK)
        return err;
    if (found && page.full > 0 && at < page.first + page.full)
        return WB_EXISTS;
    if (!found || page.first != at)
        page = (struct page){.first = at};
    if ((page.bits[bit / 8] >> (bit % 8) & 1) != 0)
        return WB_EXISTS;
    page.bits[bit / 8] = (uint8_t)(page.bits[bit / 8] | 1U << (bit % 8));
    return all_set(&page) ? page_join(inbox, identity->source, at, why)
                          : page_put(inbox, identity->source, &page, why);
}
