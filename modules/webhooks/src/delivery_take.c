#include "delivery.h"

#include <stdio.h>
#include <string.h>

#include <sqlite3.h>

#include <waybill/outbox.h>

/*
 * Was the id taken before, and with the same event and body? WB_NOT_FOUND, WB_EXISTS, WB_CONFLICT.
 */
static wb_err earlier_compare(struct sqlite3_stmt *stmt, const struct webhooks_delivery *delivery,
                              struct webhooks_receipt *ret_receipt, struct wb_why *why)
{
    const char *subject = (const char *)sqlite3_column_text(stmt, 0);
    const char *event_id = (const char *)sqlite3_column_text(stmt, 1);
    const void *sha256 = sqlite3_column_blob(stmt, 2);

    if (subject == NULL || event_id == NULL || sha256 == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory while reading an earlier delivery; try again");
    if (strcmp(subject, delivery->subject) != 0 ||
        memcmp(sha256, delivery->body_sha256, WEBHOOKS_SHA256_SIZE) != 0)
        return wb_fail(why, WB_CONFLICT,
                       "delivery %.*s was taken before with another body or event",
                       (int)delivery->id.len, delivery->id.ptr);
    snprintf(ret_receipt->subject, sizeof(ret_receipt->subject), "%s", subject);
    snprintf(ret_receipt->event_id, sizeof(ret_receipt->event_id), "%s", event_id);
    return WB_EXISTS;
}

static wb_err earlier_find(struct db *db, const struct webhooks_delivery *delivery,
                           struct webhooks_receipt *ret_receipt, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err =
        db_prepare(db, "SELECT subject, event_id, body_sha256 FROM webhooks_delivery WHERE id = ?1",
                   &stmt, why);

    if (err != WB_OK)
        return err;
    db_bind_text(stmt, 1, delivery->id);
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        err = earlier_compare(stmt, delivery, ret_receipt, why);
    else if (code == SQLITE_DONE)
        err = WB_NOT_FOUND;
    else
        err = db_error(db_handle(db), code, "look for an earlier delivery", why);
    sqlite3_finalize(stmt);
    return err;
}

static wb_err event_enqueue(struct outbox *outbox, const struct webhooks_delivery *delivery,
                            struct webhooks_receipt *ret_receipt, struct wb_why *why)
{
    const struct message_header headers[] = {
        {wb_str("content-type"), wb_str("application/json")},
        {wb_str("x-github-delivery"), delivery->id},
        {wb_str("x-github-event"), delivery->event},
    };
    const struct outbox_event event = {
        .subject = wb_str(delivery->subject),
        .payload = delivery->body,
        .key = delivery->key,
        .headers = headers,
        .header_count = sizeof(headers) / sizeof(headers[0]),
    };
    struct outbox_receipt receipt;
    wb_err err = outbox_enqueue(outbox, &event, &receipt, why);

    if (err != WB_OK)
        return err;
    snprintf(ret_receipt->subject, sizeof(ret_receipt->subject), "%s", delivery->subject);
    wb_hex_encode(receipt.msg_id, WB_ID_SIZE, ret_receipt->event_id);
    return WB_OK;
}

static wb_err row_insert(const struct module_scope *scope, const struct webhooks_delivery *delivery,
                         const struct webhooks_receipt *receipt, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    char received_at[32];
    wb_err err = db_prepare(scope->db,
                            "INSERT INTO webhooks_delivery(id, event, action, subject, event_id, "
                            "received_at, body_sha256, body_size) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)",
                            &stmt, why);

    if (err != WB_OK)
        return err;
    wb_time_format(wb_wall_ns(scope->clock), received_at);
    db_bind_text(stmt, 1, delivery->id);
    db_bind_text(stmt, 2, delivery->event);
    if (delivery->action.ptr != NULL) /* otherwise it stays NULL */
        db_bind_text(stmt, 3, delivery->action);
    db_bind_text(stmt, 4, wb_str(delivery->subject));
    db_bind_text(stmt, 5, wb_str(receipt->event_id));
    db_bind_text(stmt, 6, wb_str(received_at));
    sqlite3_bind_blob(stmt, 7, delivery->body_sha256, WEBHOOKS_SHA256_SIZE, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 8, (sqlite3_int64)delivery->body.len);
    int code = sqlite3_step(stmt);
    if (code != SQLITE_DONE)
        err = db_error(db_handle(scope->db), code, "keep the delivery", why);
    sqlite3_finalize(stmt);
    return err;
}

/* Inside the open transaction. */
static wb_err take_rows(const struct module_scope *scope, const struct webhooks_delivery *delivery,
                        struct webhooks_receipt *ret_receipt, struct wb_why *why)
{
    wb_err err = earlier_find(scope->db, delivery, ret_receipt, why);

    if (err != WB_NOT_FOUND)
        return err;
    err = event_enqueue(scope->outbox, delivery, ret_receipt, why);
    if (err != WB_OK)
        return err;
    return row_insert(scope, delivery, ret_receipt, why);
}

wb_err webhooks_delivery_take(struct module_scope *scope, const struct webhooks_delivery *delivery,
                              struct webhooks_receipt *ret_receipt, struct wb_why *why)
{
    struct webhooks_receipt receipt;
    wb_err err = db_begin(scope->db, why);

    if (err != WB_OK)
        return err;
    err = take_rows(scope, delivery, &receipt, why);
    if (err == WB_OK)
        err = db_commit(scope->db, why);
    else
        db_rollback(scope->db);
    if (err == WB_OK)
        outbox_wake(scope->outbox);
    if (err == WB_OK || err == WB_EXISTS)
        *ret_receipt = receipt;
    return err;
}
