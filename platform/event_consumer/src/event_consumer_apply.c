/*
 * One event, one transaction: claim, handler, position, COMMIT; and what follows when it fails.
 *
 * Two kinds of failure have different fates. What the handler refuses is the event's: counted, and
 * parked in the end. What the database cannot do now (disk full, busy, an outcome left open by
 * COMMIT) is nobody's fault: not counted, tried again. Trying again is also how an open outcome is
 * looked up: if it was committed after all, the claim finds the event known.
 */
#include "event_consumer_internal.h"

#include <assert.h>
#include <sqlite3.h>

static bool is_trouble(wb_err err)
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

static struct inbox_origin origin_of(struct event_consumer *consumer)
{
    const struct event_bus_delivery *delivery = consumer->current;

    return (struct inbox_origin){
        .stream = delivery->stream,
        .sequence = delivery->sequence,
        .stored_wall_ns = delivery->stored_wall_ns,
        .stream_created_wall_ns = event_consumer_positions_created(&consumer->positions, delivery),
    };
}

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

static wb_err handler_run(struct event_consumer *consumer, struct wb_why *why)
{
    const struct event_consumer_event event = {
        .delivery = consumer->current, .db = consumer->db, .scope = consumer->scope};

    why->text[0] = '\0';
    wb_err err = consumer->options.handler(consumer->options.ctx, &event, why);
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

static wb_err commit(struct event_consumer *consumer, const struct inbox_origin *origin,
                     struct wb_why *why)
{
    wb_err err = inbox_advance(consumer->inbox, origin, why);

    if (err == WB_OK)
        err = db_commit(consumer->db, why);
    if (err != WB_OK)
        return err;
    WB_CRASH_POINT("event_consumer.committed");
    if (consumer->options.committed != NULL)
        consumer->options.committed(consumer->options.ctx, consumer->scope);
    return WB_OK;
}

/* *ret_known: it was handled before, and only the position moved. */
static wb_err transaction(struct event_consumer *consumer, const struct inbox_origin *origin,
                          bool *ret_known, struct wb_why *why)
{
    wb_err err = db_begin(consumer->db, why);

    if (err != WB_OK)
        return err;
    err = inbox_claim(consumer->inbox, &consumer->current->message, origin, why);
    *ret_known = err == WB_EXISTS;
    if (err == WB_OK) {
        WB_CRASH_POINT("event_consumer.claimed");
        err = handler_run(consumer, why);
    } else if (err == WB_EXISTS) {
        err = WB_OK;
    }
    if (err == WB_OK)
        err = commit(consumer, origin, why);
    db_rollback(consumer->db);
    return err;
}

static wb_err count_failure(struct event_consumer *consumer, const struct inbox_origin *origin,
                            const char *reason, uint32_t *ret_failures, struct wb_why *why)
{
    wb_err err = db_begin(consumer->db, why);

    if (err != WB_OK)
        return err;
    err =
        inbox_fail(consumer->inbox, &consumer->current->message, origin, reason, ret_failures, why);
    if (err == WB_OK)
        err = db_commit(consumer->db, why);
    db_rollback(consumer->db);
    return err;
}

static wb_err park(struct event_consumer *consumer, const struct inbox_origin *origin,
                   const char *reason, struct wb_why *why)
{
    wb_err err = db_begin(consumer->db, why);

    if (err != WB_OK)
        return err;
    err = inbox_park(consumer->inbox, &consumer->current->message, origin, reason, why);
    if (err == WB_OK)
        err = commit(consumer, origin, why);
    db_rollback(consumer->db);
    return err;
}

static consumer_outcome again(struct event_consumer *consumer, wb_log_level level, const char *text)
{
    event_consumer_problem(consumer, text);
    wb_log(level, "event_consumer", "%s: stream %.*s sequence %llu: %s", consumer->options.name,
           (int)consumer->current->stream.len, consumer->current->stream.ptr,
           (unsigned long long)consumer->current->sequence, text);
    return CONSUMER_AGAIN;
}

static consumer_outcome handler_failed(struct event_consumer *consumer,
                                       const struct inbox_origin *origin, const char *reason)
{
    uint32_t failures = 0;
    struct wb_why why;

    event_consumer_count(consumer, &consumer->health.failed, consumer->failed_series);
    wb_err err = count_failure(consumer, origin, reason, &failures, &why);
    if (err != WB_OK)
        return again(consumer, WB_LOG_WARN, why.text);
    if (failures < consumer->options.max_failures)
        return again(consumer, WB_LOG_WARN, reason);
    err = park(consumer, origin, reason, &why);
    if (err != WB_OK)
        return again(consumer, WB_LOG_ERROR, why.text);
    again(consumer, WB_LOG_ERROR, reason);
    event_consumer_count(consumer, &consumer->health.parked, consumer->parked_series);
    return CONSUMER_DONE;
}

consumer_outcome event_consumer_apply(struct event_consumer *consumer)
{
    struct inbox_origin origin = origin_of(consumer);
    bool known = false;
    struct wb_why why;

    assert(consumer->current != NULL);
    wb_err err = transaction(consumer, &origin, &known, &why);
    if (is_trouble(err))
        return again(consumer, WB_LOG_WARN, why.text);
    if (err != WB_OK)
        return handler_failed(consumer, &origin, why.text);
    if (known)
        event_consumer_count(consumer, &consumer->health.duplicates, consumer->duplicates_series);
    else
        event_consumer_count(consumer, &consumer->health.handled, consumer->handled_series);
    return CONSUMER_DONE;
}
