#include "inbox_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/db.h>

enum { CONSUMER_NAME_MAX = 64 };

/* ---- statements ------------------------------------------------------------------------------ */

static wb_err statements_prepare(struct inbox *inbox, struct wb_why *why)
{
    static const char *const sql[] = {
#define X(name, text) [INBOX_##name] = (text),
        INBOX_STATEMENTS(X)
#undef X
    };

    for (int i = 0; i < INBOX_STATEMENT_COUNT; i++) {
        int code = sqlite3_prepare_v3(inbox->handle, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                                      &inbox->statements[i], NULL);
        if (code != SQLITE_OK)
            return db_error(inbox->handle, code, "prepare the inbox", why);
    }
    return WB_OK;
}

struct sqlite3_stmt *inbox_use(struct inbox *inbox, enum inbox_statement which)
{
    struct sqlite3_stmt *stmt = inbox->statements[which];

    sqlite3_reset(stmt);
    if (sqlite3_bind_parameter_count(stmt) > 0)
        sqlite3_bind_text(stmt, 1, inbox->consumer, -1, SQLITE_STATIC);
    return stmt;
}

wb_err inbox_first(struct inbox *inbox, struct sqlite3_stmt *stmt, bool *ret_row,
                   const char *attempted, struct wb_why *why)
{
    int code = sqlite3_step(stmt);

    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        wb_err err = db_error(inbox->handle, code, attempted, why);
        sqlite3_reset(stmt);
        return err;
    }
    *ret_row = code == SQLITE_ROW;
    return WB_OK;
}

wb_err inbox_run(struct inbox *inbox, struct sqlite3_stmt *stmt, const char *attempted,
                 struct wb_why *why)
{
    bool row;
    wb_err err = inbox_first(inbox, stmt, &row, attempted, why);

    sqlite3_reset(stmt);
    return err;
}

wb_err inbox_require_transaction(struct inbox *inbox, const char *attempted, struct wb_why *why)
{
    if (!sqlite3_get_autocommit(inbox->handle))
        return WB_OK;
    return wb_fail(why, WB_MISUSE,
                   "cannot %s for %s: no transaction is open; begin one, so that it commits "
                   "together with the effects",
                   attempted, inbox->consumer);
}

/* ---- attach and detach ----------------------------------------------------------------------- */

static bool name_valid(const char *name)
{
    size_t len = strlen(name);

    return len >= 1 && len <= CONSUMER_NAME_MAX &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == len;
}

wb_err inbox_attach(struct sqlite3 *handle, const char *consumer, struct inbox **ret_inbox,
                    struct wb_why *why)
{
    assert(handle != NULL);
    assert(consumer != NULL);
    assert(ret_inbox != NULL);
    if (!name_valid(consumer))
        return wb_fail(why, WB_INVALID,
                       "invalid consumer name '%.80s': give 1 to %d characters of A-Z a-z 0-9 _ -",
                       consumer, CONSUMER_NAME_MAX);

    struct inbox *inbox = calloc(1, sizeof(*inbox));
    if (inbox == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory attaching the inbox of %s", consumer);
    inbox->handle = handle;
    inbox_letters_limit(inbox, 0, 0);
    inbox->consumer = wb_str_dup(wb_str(consumer));
    wb_err err = inbox->consumer != NULL
                     ? inbox_schema_prepare(handle, why)
                     : wb_fail(why, WB_NOMEM, "out of memory attaching the inbox of %s", consumer);
    if (err == WB_OK)
        err = statements_prepare(inbox, why);
    if (err != WB_OK) {
        inbox_detach(inbox);
        return err;
    }
    *ret_inbox = inbox;
    return WB_OK;
}

void inbox_detach(struct inbox *inbox)
{
    if (inbox == NULL)
        return;
    for (int i = 0; i < INBOX_STATEMENT_COUNT; i++)
        sqlite3_finalize(inbox->statements[i]);
    wb_buf_free(&inbox->text);
    wb_buf_free(&inbox->claimed);
    wb_buf_free(&inbox->accused);
    wb_buf_free(&inbox->letter_text);
    free(inbox->consumer);
    free(inbox);
}
