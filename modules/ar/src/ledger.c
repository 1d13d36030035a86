#include "ledger.h"

#include <string.h>

#include <sqlite3.h>

#include <waybill/outbox.h>

#define SUBJECT_ACCOUNT_OPENED "ar.events.account.opened"
#define SUBJECT_INVOICE_ISSUED "ar.events.invoice.issued"

bool ar_user_id_valid(struct wb_str user_id)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

    if (user_id.len == 0 || user_id.len > AR_USER_ID_MAX)
        return false;
    for (size_t i = 0; i < user_id.len; i++)
        if (user_id.ptr[i] == '\0' || strchr(allowed, user_id.ptr[i]) == NULL)
            return false;
    return true;
}

static void id_new(const struct wb_clock *clock, char ret_text[WB_ID_TEXT])
{
    uint8_t id[WB_ID_SIZE];

    wb_id_new(clock, id);
    wb_hex_encode(id, WB_ID_SIZE, ret_text);
}

/* Step an INSERT and finalize it; WB_EXISTS when it found nothing to insert. */
static wb_err insert_run(struct db *db, struct sqlite3_stmt *stmt, const char *attempted,
                         struct wb_why *why)
{
    wb_err err = WB_OK;
    int code = sqlite3_step(stmt);

    if (code != SQLITE_DONE)
        err = db_error(db_handle(db), code, attempted, why);
    else if (sqlite3_changes(db_handle(db)) == 0)
        err = WB_EXISTS;
    sqlite3_finalize(stmt);
    return err;
}

/* Both events carry JSON and belong to a user, whose events stay in order. Takes payload. */
static wb_err tell(struct outbox *outbox, const char *subject, struct wb_str user_id,
                   struct wb_str trace, struct wb_buf *payload, char ret_event_id[WB_ID_TEXT],
                   struct wb_why *why)
{
    const struct message_header header = {wb_str("content-type"), wb_str("application/json")};
    const struct outbox_event event = {
        .subject = wb_str(subject),
        .payload = {payload->ptr, payload->len},
        .key = user_id,
        .headers = &header,
        .header_count = 1,
        .traceparent = trace,
    };
    struct outbox_receipt receipt;
    wb_err err = payload->failed ? wb_fail(why, WB_NOMEM, "out of memory while writing an event")
                                 : outbox_enqueue(outbox, &event, &receipt, why);

    if (err == WB_OK)
        wb_hex_encode(receipt.msg_id, WB_ID_SIZE, ret_event_id);
    wb_buf_free(payload);
    return err;
}

/* ---- accounts -------------------------------------------------------------------------------- */

wb_err ar_account_open(struct module_scope *scope, struct wb_str user_id, struct wb_str trace,
                       struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    struct wb_buf payload = {0};
    char account_id[WB_ID_TEXT];
    char opened_at[32];
    char event_id[WB_ID_TEXT];

    wb_err err = db_prepare(scope->db,
                            "INSERT INTO ar_account(id, user_id, opened_at) VALUES(?1, ?2, ?3) "
                            "ON CONFLICT(user_id) DO NOTHING",
                            &stmt, why);
    if (err != WB_OK)
        return err;
    id_new(scope->clock, account_id);
    wb_time_format(wb_wall_ns(scope->clock), opened_at);
    db_bind_text(stmt, 1, wb_str(account_id));
    db_bind_text(stmt, 2, user_id);
    db_bind_text(stmt, 3, wb_str(opened_at));
    err = insert_run(scope->db, stmt, "open an account", why);
    if (err != WB_OK)
        return err == WB_EXISTS ? WB_OK : err;

    wb_buf_printf(&payload, "{\"account_id\":\"%s\",\"user_id\":", account_id);
    wb_buf_json_str(&payload, user_id);
    wb_buf_printf(&payload, ",\"opened_at\":\"%s\"}", opened_at);
    return tell(scope->outbox, SUBJECT_ACCOUNT_OPENED, user_id, trace, &payload, event_id, why);
}

/* ---- invoices -------------------------------------------------------------------------------- */

void ar_invoice_members(const struct ar_invoice *invoice, struct wb_buf *out)
{
    wb_buf_printf(out, "\"invoice_id\":\"%s\",\"user_id\":", invoice->id);
    wb_buf_json_str(out, invoice->user_id);
    wb_buf_printf(out, ",\"amount_cents\":%lld,\"currency\":\"%s\",\"issued_at\":\"%s\"",
                  (long long)invoice->amount_cents, invoice->currency, invoice->issued_at);
}

/* The account is looked up by the INSERT itself, so there is no moment between the two. */
static wb_err invoice_insert(struct db *db, const struct ar_invoice *invoice, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err =
        db_prepare(db,
                   "INSERT INTO ar_invoice(id, account_id, amount_cents, currency, issued_at) "
                   "SELECT ?1, id, ?3, ?4, ?5 FROM ar_account WHERE user_id = ?2",
                   &stmt, why);

    if (err != WB_OK)
        return err;
    db_bind_text(stmt, 1, wb_str(invoice->id));
    db_bind_text(stmt, 2, invoice->user_id);
    sqlite3_bind_int64(stmt, 3, invoice->amount_cents);
    db_bind_text(stmt, 4, wb_str(invoice->currency));
    db_bind_text(stmt, 5, wb_str(invoice->issued_at));
    err = insert_run(db, stmt, "issue an invoice", why);
    if (err == WB_EXISTS)
        return wb_fail(why, WB_NOT_FOUND, "user %.*s has no account", (int)invoice->user_id.len,
                       invoice->user_id.ptr);
    return err;
}

static wb_err invoice_rows(struct module_scope *scope, struct ar_invoice *invoice,
                           struct wb_why *why)
{
    struct wb_buf payload = {0};
    wb_err err = invoice_insert(scope->db, invoice, why);

    if (err != WB_OK)
        return err;
    wb_buf_str(&payload, "{");
    ar_invoice_members(invoice, &payload);
    wb_buf_str(&payload, "}");
    return tell(scope->outbox, SUBJECT_INVOICE_ISSUED, invoice->user_id, wb_str(NULL), &payload,
                invoice->event_id, why);
}

wb_err ar_invoice_issue(struct module_scope *scope, struct ar_invoice *invoice, struct wb_why *why)
{
    id_new(scope->clock, invoice->id);
    wb_time_format(wb_wall_ns(scope->clock), invoice->issued_at);

    wb_err err = db_begin(scope->db, why);
    if (err != WB_OK)
        return err;
    err = invoice_rows(scope, invoice, why);
    if (err == WB_OK)
        err = db_commit(scope->db, why);
    else
        db_rollback(scope->db);
    if (err == WB_OK)
        outbox_wake(scope->outbox);
    return err == WB_INVALID ? WB_INTERNAL : err; /* checked input was refused: our fault */
}

/* ---- listing --------------------------------------------------------------------------------- */

/* SQLite writes the text. Lines are safe: what is stored has no control characters. */
#define NEWEST                                                                                     \
    "FROM (SELECT *, (SELECT count(*) FROM ar_invoice WHERE account_id = ar_account.id) AS "       \
    "invoices FROM ar_account ORDER BY id DESC LIMIT ?1)"
static const char *const list_json =
    "SELECT json_object('accounts', json_group_array(json_object('account_id', id, 'user_id', "
    "user_id, 'opened_at', opened_at, 'invoices', invoices))) " NEWEST;
static const char *const list_text =
    "SELECT group_concat(id || '  ' || user_id || '  ' || opened_at || '  ' || invoices, "
    "char(10)) " NEWEST;

wb_err ar_account_list(struct db *db, int64_t limit, bool json, struct wb_buf *out,
                       struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(db, json ? list_json : list_text, &stmt, why);

    if (err != WB_OK)
        return err;
    sqlite3_bind_int64(stmt, 1, limit);
    int code = sqlite3_step(stmt);
    if (code != SQLITE_ROW) {
        err = db_error(db_handle(db), code, "list the accounts", why);
    } else if (sqlite3_column_type(stmt, 0) != SQLITE_NULL) {
        wb_buf_str(out, (const char *)sqlite3_column_text(stmt, 0));
        wb_buf_str(out, "\n");
    }
    sqlite3_finalize(stmt);
    return err;
}
