/* Which event ends the process: starts are counted, groups shrink, the event at hand is noted. */
#include "event_consumer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* So often may an event end the process. */
enum { CRASHES_MAX = 5 };

/* ---- starts ---------------------------------------------------------------------------------- */

static bool note_stream(void *ctx, struct wb_str stream, uint32_t starts)
{
    struct event_consumer *consumer = ctx;
    size_t count = consumer->caution_count;

    if (stream.len > EVENT_BUS_NAME_MAX)
        return true;
    struct consumer_caution *cautions =
        realloc(consumer->cautions, (count + 1) * sizeof(*consumer->cautions));
    if (cautions == NULL)
        return false;
    consumer->cautions = cautions;
    cautions[count] = (struct consumer_caution){.starts = starts};
    memcpy(cautions[count].stream, stream.ptr, stream.len);
    consumer->caution_count++;
    consumer->cautious |= starts > 1;
    return true;
}

wb_err event_consumer_start_count(struct event_consumer *consumer, struct wb_why *why)
{
    wb_err err = db_begin(consumer->db, why);

    if (err == WB_OK)
        err = inbox_start_count(consumer->inbox, note_stream, consumer, &consumer->starts,
                                &consumer->crashes, why);
    if (err == WB_OK)
        err = db_commit(consumer->db, why);
    db_rollback(consumer->db);
    if (err != WB_OK)
        return err;
    consumer->start_counted = true;
    consumer->cautious |= consumer->starts > 1;
    if (consumer->starts > 1)
        wb_log(WB_LOG_WARN, "event_consumer", "%s: start number %u without anything committed",
               consumer->options.name, consumer->starts);
    return WB_OK;
}

void event_consumer_start_end(struct event_consumer *consumer)
{
    if (consumer->starts == 0 || db_begin(consumer->db, NULL) != WB_OK)
        return;
    if (inbox_start_end(consumer->inbox, NULL) == WB_OK)
        (void)db_commit(consumer->db, NULL);
    db_rollback(consumer->db);
}

static struct consumer_caution *caution_of(const struct event_consumer *consumer,
                                           struct wb_str stream)
{
    for (size_t i = 0; i < consumer->caution_count; i++)
        if (wb_str_eq(wb_str(consumer->cautions[i].stream), stream))
            return &consumer->cautions[i];
    return NULL;
}

uint32_t event_consumer_starts_of(const struct event_consumer *consumer, struct wb_str stream)
{
    const struct consumer_caution *caution = caution_of(consumer, stream);

    if (!consumer->cautious)
        return 0;
    return caution != NULL ? caution->starts : consumer->starts;
}

void event_consumer_starts_clear(struct event_consumer *consumer, struct wb_str stream)
{
    struct consumer_caution *caution = caution_of(consumer, stream);

    if (caution != NULL)
        caution->starts = 0;
    else
        (void)note_stream(consumer, stream, 0); /* without memory it stays careful */
}

size_t event_consumer_group_after(const struct event_consumer *consumer, uint32_t starts)
{
    size_t group = consumer->options.group;

    for (uint32_t i = 1; i < starts && group > 1; i++)
        group /= 2;
    return group;
}

/* ---- the event at hand ----------------------------------------------------------------------- */

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
