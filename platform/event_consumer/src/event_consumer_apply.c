/*
 * Events in one transaction, as many as are there, and what becomes of one that fails.
 *
 * Each event has a savepoint. When one fails, those before it are committed, and it goes on alone:
 * what the handler answers is counted against the event. What the database cannot do now (disk
 * full, busy, an outcome left open by COMMIT) is nobody's fault: not counted, tried again. Trying
 * again is also how an open outcome is looked up: if it was committed after all, the claim finds
 * the event known. When it cannot be told which event is to blame, they go on one by one.
 */
#include "event_consumer_internal.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdio.h>

/* Longer, and other writers of the file would notice. */
static const int64_t GROUP_NS = 5 * WB_MS;

/* From this start in vain on, what is handled alone is noted before. */
enum { SUSPICIOUS_STARTS = 7 };

/* ---- one event of a group -------------------------------------------------------------------- */

/* A transaction of events; the first `done` of the queue are dealt with in it. */
struct group {
    size_t count;    /* so many at most */
    size_t done;     /* so far */
    bool claimed;    /* the one behind them: it can be taken back */
    bool suspicious; /* what is handled is noted before */
    uint64_t handled, known, aside;
};

/* Policy block key: behind a dead letter of its key an event is not handled, or order is lost. */
static wb_err look_for_key(struct event_consumer *consumer,
                           const struct event_bus_delivery *delivery, int64_t *ret_letter,
                           struct wb_why *why)
{
    struct wb_str key = message_header(&delivery->message, MESSAGE_HEADER_KEY);

    *ret_letter = 0;
    if (consumer->options.policy != EVENT_CONSUMER_BLOCK_KEY || key.len == 0)
        return WB_OK;
    return inbox_key_parked(consumer->inbox, key, ret_letter, why);
}

static wb_err set_aside(struct event_consumer *consumer, const struct event_bus_delivery *delivery,
                        const struct inbox_origin *origin, int64_t letter, struct wb_why *why)
{
    char reason[64];

    (void)snprintf(reason, sizeof(reason), "behind dead letter %lld of its key", (long long)letter);
    return inbox_set_aside(consumer->inbox, &delivery->message, origin, reason, why);
}

static wb_err handle_one(struct event_consumer *consumer, struct group *group, struct wb_why *why)
{
    const struct event_bus_delivery *delivery = consumer->queue[group->done];
    struct inbox_origin origin = event_consumer_origin(consumer, delivery);
    int64_t letter = 0;

    wb_err err = inbox_claim(consumer->inbox, &delivery->message, &origin, why);
    if (err == WB_EXISTS) {
        group->known++;
        return WB_OK;
    }
    if (err != WB_OK)
        return err;
    group->claimed = true;
    WB_CRASH_POINT("event_consumer.claimed");
    err = look_for_key(consumer, delivery, &letter, why);
    if (err == WB_OK && letter > 0)
        err = set_aside(consumer, delivery, &origin, letter, why);
    else if (err == WB_OK)
        err = event_consumer_handle(consumer, delivery, why);
    if (err == WB_OK)
        err = inbox_batch_keep(consumer->inbox, why);
    if (err != WB_OK)
        return err;
    group->claimed = false;
    group->aside += letter > 0;
    group->handled += letter == 0;
    return WB_OK;
}

/* Until the first that fails, or for long enough. */
static wb_err handle_group(struct event_consumer *consumer, struct group *group, struct wb_why *why)
{
    int64_t until = wb_mono_ns(consumer->options.clock) + GROUP_NS;
    wb_err err = WB_OK;

    while (err == WB_OK && group->done < group->count) {
        err = handle_one(consumer, group, why);
        group->done += err == WB_OK;
        if (group->count > 1 && wb_mono_ns(consumer->options.clock) >= until)
            break;
    }
    return err;
}

/* ---- the end of a transaction ---------------------------------------------------------------- */

static bool is_end_of_stream(const struct event_consumer *consumer, size_t at, size_t count)
{
    for (size_t i = at + 1; i < count; i++)
        if (wb_str_eq(consumer->queue[i]->stream, consumer->queue[at]->stream))
            return false;
    return true;
}

/* From the last: with one stream, that is the only one looked at. */
static wb_err advance(struct event_consumer *consumer, size_t count, struct wb_why *why)
{
    wb_err err = WB_OK;
    bool one = true;

    for (size_t i = 1; i < count; i++)
        one = one && wb_str_eq(consumer->queue[i]->stream, consumer->queue[0]->stream);
    for (size_t i = one && count > 0 ? count - 1 : 0; err == WB_OK && i < count; i++) {
        if (!is_end_of_stream(consumer, i, count))
            continue;
        struct inbox_origin origin = event_consumer_origin(consumer, consumer->queue[i]);
        err = inbox_advance(consumer->inbox, &consumer->queue[i]->message, &origin, why);
    }
    return err;
}

static wb_err commit(struct event_consumer *consumer, size_t count, struct wb_why *why)
{
    wb_err err = advance(consumer, count, why);

    if (err == WB_OK)
        err = event_consumer_commit(consumer, why);
    if (err != WB_OK)
        return err;
    WB_CRASH_POINT("event_consumer.committed");
    if (consumer->options.committed != NULL)
        consumer->options.committed(consumer->options.ctx, consumer->scope);
    return WB_OK;
}

static wb_err commit_group(struct event_consumer *consumer, const struct group *group,
                           struct wb_why *why)
{
    wb_err err = inbox_batch_end(consumer->inbox, why);

    return err == WB_OK ? commit(consumer, group->done, why) : err;
}

/* Whether the events before the one that failed can be committed without it. */
static bool take_back(struct event_consumer *consumer, const struct group *group)
{
    return group->done > 0 && group->claimed && !sqlite3_get_autocommit(db_handle(consumer->db)) &&
           inbox_batch_undo(consumer->inbox, NULL) == WB_OK;
}

/* ---- failures -------------------------------------------------------------------------------- */

void event_consumer_tell(struct event_consumer *consumer, wb_log_level level, const char *text)
{
    const struct event_bus_delivery *delivery = consumer->queue[0];

    event_consumer_problem(consumer, text);
    wb_log(level, "event_consumer", "%s: stream %.*s sequence %llu: %s", consumer->options.name,
           (int)delivery->stream.len, delivery->stream.ptr, (unsigned long long)delivery->sequence,
           text);
}

static consumer_outcome again(struct event_consumer *consumer, wb_log_level level, const char *text)
{
    event_consumer_tell(consumer, level, text);
    return CONSUMER_AGAIN;
}

static wb_err count_failure(struct event_consumer *consumer, const char *reason,
                            uint32_t *ret_failures, struct wb_why *why)
{
    struct inbox_origin origin = event_consumer_origin(consumer, consumer->queue[0]);
    wb_err err = db_begin(consumer->db, why);

    if (err != WB_OK)
        return err;
    err = inbox_fail(consumer->inbox, &consumer->queue[0]->message, &origin, reason, ret_failures,
                     why);
    if (err == WB_OK)
        err = event_consumer_commit(consumer, why);
    db_rollback(consumer->db);
    return err;
}

static consumer_outcome park(struct event_consumer *consumer, const char *reason)
{
    struct inbox_origin origin = event_consumer_origin(consumer, consumer->queue[0]);
    struct wb_why why;
    wb_err err = db_begin(consumer->db, &why);

    if (err == WB_OK)
        err = inbox_park(consumer->inbox, &consumer->queue[0]->message, &origin, reason, &why);
    if (err == WB_OK)
        err = commit(consumer, 1, &why);
    db_rollback(consumer->db);
    if (err != WB_OK)
        return again(consumer, WB_LOG_ERROR, why.text);
    event_consumer_tell(consumer, WB_LOG_ERROR, reason);
    event_consumer_count(consumer, &consumer->health.parked, 1, consumer->parked_series);
    if (consumer->cautious)
        event_consumer_starts_clear(consumer, consumer->queue[0]->stream);
    event_consumer_release(consumer, 1);
    return CONSUMER_DONE;
}

static consumer_outcome handler_failed(struct event_consumer *consumer, const char *reason)
{
    uint32_t failures = 0;
    struct wb_why why;

    event_consumer_count(consumer, &consumer->health.failed, 1, consumer->failed_series);
    wb_err err = count_failure(consumer, reason, &failures, &why);
    if (err != WB_OK)
        return again(consumer, WB_LOG_WARN, why.text);
    if (failures < consumer->options.max_failures)
        return again(consumer, WB_LOG_WARN, reason);
    return park(consumer, reason);
}

/* ---- a group --------------------------------------------------------------------------------- */

/*
 * As many as wait, unless starts were in vain for a stream among them. After the last of those the
 * event that is then alone is noted: kills from outside rarely come so often without any progress.
 */
static void group_choose(struct event_consumer *consumer, struct group *ret_group)
{
    size_t limit = consumer->queued < consumer->group ? consumer->queued : consumer->group;
    uint32_t starts = event_consumer_starts_of(consumer, consumer->queue[0]->stream);

    for (size_t i = 0; consumer->cautious && i < limit; i++) {
        uint32_t vain = event_consumer_starts_of(consumer, consumer->queue[i]->stream);
        size_t most = event_consumer_group_after(consumer, vain);
        most = most > i ? most : i; /* those before it may go together */
        limit = most < limit ? most : limit;
    }
    ret_group->count = limit > 0 ? limit : 1;
    ret_group->suspicious =
        starts >= SUSPICIOUS_STARTS && event_consumer_group_after(consumer, starts) == 1;
}

static void group_over(struct event_consumer *consumer, const struct group *group)
{
    event_consumer_count(consumer, &consumer->health.handled, group->handled,
                         consumer->handled_series);
    event_consumer_count(consumer, &consumer->health.duplicates, group->known,
                         consumer->duplicates_series);
    event_consumer_count(consumer, &consumer->health.parked, group->aside, consumer->parked_series);
    for (size_t i = 0; consumer->cautious && i < group->done; i++)
        event_consumer_starts_clear(consumer, consumer->queue[i]->stream);
    event_consumer_release(consumer, group->done);
    if (consumer->group < consumer->options.group)
        consumer->group = 2 * consumer->group < consumer->options.group ? 2 * consumer->group
                                                                        : consumer->options.group;
}

/* The transaction is rolled back; `tried` events were in it. */
static consumer_outcome group_lost(struct event_consumer *consumer, size_t tried, wb_err err,
                                   const struct wb_why *why)
{
    event_consumer_unsuspect(consumer);
    if (tried > 1)
        consumer->group = 1; /* which of them is to blame shows when they go one by one */
    if (event_consumer_is_trouble(err))
        return again(consumer, WB_LOG_WARN, why->text);
    return tried > 1 ? CONSUMER_DONE : handler_failed(consumer, why->text);
}

static consumer_outcome group_run(struct event_consumer *consumer, struct group *group)
{
    struct wb_why why = {""}, reason = {""};
    wb_err failed = WB_OK;
    wb_err err = db_begin(consumer->db, &why);

    if (err == WB_OK)
        err = inbox_batch_begin(consumer->inbox, &why);
    if (err == WB_OK)
        failed = handle_group(consumer, group, &reason);
    bool keep = err == WB_OK && (failed == WB_OK || take_back(consumer, group));
    if (keep)
        err = commit_group(consumer, group, &why);
    inbox_batch_drop(consumer->inbox);
    db_rollback(consumer->db);
    if (err != WB_OK)
        return group_lost(consumer, group->done, err, &why);
    if (!keep)
        return group_lost(consumer, group->done + 1, failed, &reason);
    group_over(consumer, group);
    if (failed == WB_OK)
        return CONSUMER_DONE;
    consumer->attempts = 0; /* of the one that is first now */
    return group_lost(consumer, 1, failed, &reason);
}

consumer_outcome event_consumer_apply(struct event_consumer *consumer)
{
    struct group group = {0};
    struct wb_why why;

    assert(consumer->queued > 0);
    group_choose(consumer, &group);
    if (event_consumer_is_accused(consumer, 0) && event_consumer_condemned(consumer, &why))
        return park(consumer, why.text);
    if (group.suspicious && event_consumer_suspect(consumer, 0, &why) != WB_OK)
        return again(consumer, WB_LOG_WARN, why.text);
    return group_run(consumer, &group);
}
