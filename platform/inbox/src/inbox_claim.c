/* By what an event is known, and whether it is known already. */
#include "inbox_internal.h"

#include <assert.h>
#include <inttypes.h>

#include <waybill/db.h>

/* Foreign events are remembered as long as a stream keeps messages by default, and so many. */
static const int64_t FOREIGN_AGE_NS = INT64_C(604800) * WB_SEC; /* seven days */
static const int64_t FOREIGN_COUNT = 100000;

/* As hex digits. */
#define SOURCE_TEXT_LEN ((size_t)2 * INBOX_SOURCE_SIZE)

static bool identify_ours(const struct message *msg, struct inbox_identity *ret_identity)
{
    struct inbox_identity identity = {.ours = true};
    struct wb_str source = message_header(msg, MESSAGE_HEADER_SOURCE);
    struct wb_str row = message_header(msg, MESSAGE_HEADER_ROW);
    uint64_t number;

    if (source.len != SOURCE_TEXT_LEN || !wb_hex_decode(source, identity.source, INBOX_SOURCE_SIZE))
        return false;
    if (!wb_str_to_u64(row, &number) || number < 1 || number > INT64_MAX)
        return false;
    identity.row = (int64_t)number;
    *ret_identity = identity;
    return true;
}

/* The first letter keeps the three kinds apart. */
static void identity_write(const struct inbox_identity *identity, const struct message *msg,
                           const struct inbox_origin *origin, struct wb_buf *out)
{
    char source[SOURCE_TEXT_LEN + 1];

    if (identity->ours) {
        wb_hex_encode(identity->source, INBOX_SOURCE_SIZE, source);
        wb_buf_printf(out, "r:%s:%" PRId64, source, identity->row);
    } else if (msg->msg_id.len > 0) {
        wb_buf_str(out, "m:");
        wb_buf_add(out, msg->msg_id.ptr, msg->msg_id.len);
    } else {
        /* The sequence alone is used again after a loss; hardly with the same time. */
        wb_buf_printf(out, "s:%" PRIu64 ":%" PRId64 ":", origin->sequence, origin->stored_wall_ns);
        wb_buf_add(out, origin->stream.ptr, origin->stream.len);
    }
}

wb_err inbox_identify(struct inbox *inbox, const struct message *msg,
                      const struct inbox_origin *origin, struct inbox_identity *ret_identity,
                      struct wb_why *why)
{
    struct inbox_identity identity = {0};

    identify_ours(msg, &identity);
    wb_buf_clear(&inbox->text);
    identity_write(&identity, msg, origin, &inbox->text);
    if (inbox->text.failed)
        return wb_fail(why, WB_NOMEM, "out of memory naming an event of %s", inbox->consumer);
    identity.text = wb_str_n(inbox->text.ptr, inbox->text.len);
    *ret_identity = identity;
    return WB_OK;
}

/* A few of the oldest at a time, so that no claim pays for all. */
static wb_err foreign_prune(struct inbox *inbox, int64_t newest, const struct inbox_origin *origin,
                            struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FOREIGN_PRUNE);

    sqlite3_bind_int64(stmt, 2, newest - FOREIGN_COUNT);
    sqlite3_bind_int64(stmt, 3, origin->stored_wall_ns - FOREIGN_AGE_NS);
    return inbox_run(inbox, stmt, "forget old foreign events", why);
}

static wb_err foreign_set(struct inbox *inbox, const struct inbox_identity *identity,
                          const struct inbox_origin *origin, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FOREIGN_ADD);
    bool added = false;

    db_bind_text(stmt, 2, identity->text);
    sqlite3_bind_int64(stmt, 3, origin->stored_wall_ns);
    wb_err err = inbox_first(inbox, stmt, &added, "remember a foreign event", why);
    int64_t number = err == WB_OK && added ? sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_reset(stmt);
    if (err != WB_OK)
        return err;
    return added ? foreign_prune(inbox, number, origin, why) : WB_EXISTS;
}

wb_err inbox_remember(struct inbox *inbox, const struct inbox_identity *identity,
                      const struct inbox_origin *origin, struct wb_why *why)
{
    return identity->ours ? inbox_page_set(inbox, identity, why)
                          : foreign_set(inbox, identity, origin, why);
}

wb_err inbox_claim(struct inbox *inbox, const struct message *msg,
                   const struct inbox_origin *origin, struct wb_why *why)
{
    struct inbox_identity identity = {0};

    assert(inbox != NULL);
    assert(msg != NULL);
    assert(origin != NULL);
    wb_err err = inbox_require_transaction(inbox, "claim an event", why);
    if (err == WB_OK)
        err = inbox_identify(inbox, msg, origin, &identity, why);
    if (err == WB_OK)
        err = inbox_remember(inbox, &identity, origin, why);
    if (err != WB_OK)
        return err;
    if (inbox->batch.open)
        return inbox_batch_hold(inbox, &identity, why);
    /* If this transaction commits, the earlier failures are over. */
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_FAILURE_DROP);
    db_bind_text(stmt, 2, identity.text);
    return inbox_run(inbox, stmt, "forget the failures of an event", why);
}
