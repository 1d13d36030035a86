/* The handler inside a transaction, and the end of the transaction. */
#include "event_consumer_internal.h"

#include <sqlite3.h>

bool event_consumer_is_trouble(wb_err err)
{
    switch (err) {
    case WB_BUSY:
    case WB_DISK_FULL:
    case WB_IO:
    case WB_NOMEM:
    case WB_READ_ONLY:
    case WB_CORRUPT:
    case WB_UNKNOWN:
    case WB_FULL: /* of dead letters */
        return true;
    default:
        return false;
    }
}

struct inbox_origin event_consumer_origin(struct event_consumer *consumer,
                                          const struct event_bus_delivery *delivery)
{
    return (struct inbox_origin){
        .stream = delivery->stream,
        .sequence = delivery->sequence,
        .stored_wall_ns = delivery->stored_wall_ns,
        .stream_created_wall_ns = event_consumer_positions_created(&consumer->positions, delivery),
    };
}

/* ---- the handler ----------------------------------------------------------------------------- */

/*
 * SQLite rolls back by itself on some errors; a handler may have ignored one, or ended it itself.
 */
static wb_err require_open(struct event_consumer *consumer, struct wb_why *why)
{
    if (!sqlite3_get_autocommit(db_handle(consumer->db)))
        return WB_OK;
    return wb_fail(why, WB_MISUSE,
                   "the handler of %s returned without error, but its transaction is over: it must "
                   "not commit or roll back, and must return the errors of its statements",
                   consumer->options.name);
}

/* "Damaged" may be said of the payload as well; only SQLite says it of the database. */
static bool database_is_corrupt(struct event_consumer *consumer)
{
    int code = sqlite3_errcode(db_handle(consumer->db)) & 0xff;

    return code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

/*
 * A COMMIT inside the handler becomes a ROLLBACK: the claims are not written yet, and the effects
 * of the events before it must not get through without them.
 */
static int refuse_commit(void *ctx)
{
    const struct event_consumer *consumer = ctx;

    return consumer->handling;
}

void event_consumer_guard(struct event_consumer *consumer)
{
    sqlite3_commit_hook(db_handle(consumer->db), refuse_commit, consumer);
}

wb_err event_consumer_handle(struct event_consumer *consumer,
                             const struct event_bus_delivery *delivery, struct wb_why *why)
{
    const struct event_consumer_event event = {
        .delivery = delivery, .db = consumer->db, .scope = consumer->scope};

    why->text[0] = '\0';
    consumer->handling = true;
    wb_err err = consumer->options.handler(consumer->options.ctx, &event, why);
    consumer->handling = false;
    WB_CRASH_POINT("event_consumer.handled");
    if (err == WB_OK)
        return require_open(consumer, why);
    if (err == WB_CORRUPT && !database_is_corrupt(consumer))
        err = WB_INVALID;
    if (why->text[0] == '\0')
        return wb_fail(why, err, "the handler of %s failed: %s", consumer->options.name,
                       wb_err_text(err));
    return err;
}

wb_err event_consumer_commit(struct event_consumer *consumer, struct wb_why *why)
{
    wb_err err = WB_OK;

    if (consumer->suspected)
        err = inbox_suspect_clear(consumer->inbox, why);
    if (err == WB_OK && consumer->start_counted)
        err = inbox_start_clear(consumer->inbox, why);
    if (err == WB_OK)
        err = db_commit(consumer->db, why);
    if (err != WB_OK)
        return err;
    consumer->suspected = consumer->start_counted = false;
    return WB_OK;
}
