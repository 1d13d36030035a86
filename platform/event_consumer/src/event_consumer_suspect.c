/* Which event ends the process: starts are counted, groups shrink, the event at hand is noted. */
#include "event_consumer_internal.h"

#include <stdio.h>

enum {
    CALM_STARTS = 1, /* without a clean end, so many change nothing */
    CRASHES_MAX = 5  /* so often may an event end the process */
};

/* After deaths without end the groups shrink, until the event that brings them stands alone. */
wb_err event_consumer_start_count(struct event_consumer *consumer, struct wb_why *why)
{
    uint32_t starts = 0;
    wb_err err = db_begin(consumer->db, why);

    if (err == WB_OK)
        err = inbox_start_count(consumer->inbox, &starts, &consumer->crashes, why);
    if (err == WB_OK)
        err = db_commit(consumer->db, why);
    db_rollback(consumer->db);
    if (err != WB_OK)
        return err;
    consumer->start_counted = true;
    consumer->started_mono_ns = wb_mono_ns(consumer->options.clock);
    consumer->cautious = starts > CALM_STARTS;
    consumer->group = consumer->options.group;
    for (uint32_t i = CALM_STARTS; i < starts && consumer->group > 1; i++)
        consumer->group /= 2;
    if (consumer->cautious)
        wb_log(WB_LOG_WARN, "event_consumer",
               "%s: start number %u without a clean end; at most %zu events in a transaction",
               consumer->options.name, starts, consumer->group);
    return WB_OK;
}

void event_consumer_start_end(struct event_consumer *consumer)
{
    if (!consumer->start_counted || db_begin(consumer->db, NULL) != WB_OK)
        return;
    if (inbox_start_clear(consumer->inbox, NULL) == WB_OK)
        (void)db_commit(consumer->db, NULL);
    db_rollback(consumer->db);
}

bool event_consumer_is_accused(struct event_consumer *consumer, size_t at)
{
    struct inbox_origin origin = event_consumer_origin(consumer, consumer->queue[at]);

    return consumer->crashes > 0 &&
           inbox_is_accused(consumer->inbox, &consumer->queue[at]->message, &origin);
}

wb_err event_consumer_suspect(struct event_consumer *consumer, int64_t letter, struct wb_why *why)
{
    wb_err err = db_begin(consumer->db, why);

    if (err == WB_OK && letter > 0) {
        err = inbox_suspect_letter(consumer->inbox, letter, why);
    } else if (err == WB_OK) {
        struct inbox_origin origin = event_consumer_origin(consumer, consumer->queue[0]);
        err = inbox_suspect(consumer->inbox, &consumer->queue[0]->message, &origin, why);
    }
    if (err == WB_OK)
        err = db_commit(consumer->db, why);
    db_rollback(consumer->db);
    consumer->suspected |= err == WB_OK;
    return err;
}

/* The handler has returned, so the process was not ended by it, whatever else went wrong. */
void event_consumer_unsuspect(struct event_consumer *consumer)
{
    if (!consumer->suspected || db_begin(consumer->db, NULL) != WB_OK)
        return;
    if (inbox_suspect_clear(consumer->inbox, NULL) == WB_OK &&
        db_commit(consumer->db, NULL) == WB_OK)
        consumer->suspected = false;
    db_rollback(consumer->db);
}

bool event_consumer_condemned(const struct event_consumer *consumer, struct wb_why *ret_reason)
{
    if (consumer->crashes < CRASHES_MAX)
        return false;
    (void)snprintf(ret_reason->text, sizeof(ret_reason->text),
                   "the process ended %u times, one after another, while %s handled it",
                   consumer->crashes, consumer->options.name);
    return true;
}
