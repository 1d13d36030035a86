#include "event_bus_private.h"

#include <string.h>

#include <waybill/subject.h>

#define PATTERNS_MAX        64
#define BACKOFF_MAX         16
#define ACK_PENDING_DEFAULT 1000
#define ACK_PENDING_MAX     65536

/* nats-server refuses shorter windows and ages, and more replicas. */
#define WINDOW_MIN_NS (100 * WB_MS)
#define REPLICAS_MAX  5

static wb_err check_stream_subjects(const struct event_bus_stream_options *o, struct wb_why *why)
{
    size_t text = 0;

    if (o->subject_count == 0 || o->subjects == NULL)
        return wb_fail(why, WB_INVALID, "stream '%s': no subjects; name at least one pattern",
                       o->name);
    for (size_t i = 0; i < o->subject_count; i++) {
        struct wb_str subject = wb_str(o->subjects[i]);
        wb_err err = subject_pattern_check(subject, why);
        if (err != WB_OK)
            return err;
        for (size_t j = 0; j < i; j++)
            if (subject_overlap(subject, wb_str(o->subjects[j])))
                return wb_fail(why, WB_INVALID,
                               "stream '%s': subjects '%s' and '%s' overlap; keep the wider one",
                               o->name, o->subjects[j], o->subjects[i]);
        text += subject.len + 1;
    }
    if (text > sizeof(((struct event_bus_stream_info *)NULL)->subjects))
        return wb_fail(why, WB_INVALID, "stream '%s': subjects take %zu bytes; at most 1023",
                       o->name, text - 1);
    return WB_OK;
}

static void stream_defaults(struct event_bus_stream_options *o)
{
    if (o->max_age_ns == 0)
        o->max_age_ns = WB_SEC * 3600 * 24 * 7;
    if (o->duplicate_window_ns == 0) {
        o->duplicate_window_ns = 600 * WB_SEC;
        if (o->duplicate_window_ns > o->max_age_ns)
            o->duplicate_window_ns = o->max_age_ns;
    }
    if (o->max_bytes == 0)
        o->max_bytes = UINT64_C(1) << 30;
    if (o->replicas == 0)
        o->replicas = 1;
}

wb_err event_bus_check_stream(struct event_bus_stream_options *o, struct wb_why *why)
{
    wb_err err = subject_name_check(wb_str(o->name), "stream", why);

    if (err == WB_OK)
        err = check_stream_subjects(o, why);
    if (err != WB_OK)
        return err;
    stream_defaults(o);
    if (o->max_age_ns < WINDOW_MIN_NS || o->duplicate_window_ns < WINDOW_MIN_NS)
        return wb_fail(why, WB_INVALID,
                       "stream '%s': max_age and duplicate_window must be at least 100 ms",
                       o->name);
    if (o->duplicate_window_ns > o->max_age_ns)
        return wb_fail(why, WB_INVALID,
                       "stream '%s': duplicate_window is longer than max_age; ids would outlive "
                       "their messages",
                       o->name);
    if (o->max_bytes > INT64_MAX || o->max_messages > INT64_MAX || o->max_message_size > INT32_MAX)
        return wb_fail(why, WB_INVALID, "stream '%s': a limit is out of range", o->name);
    if (o->replicas > REPLICAS_MAX)
        return wb_fail(why, WB_INVALID, "stream '%s': %u replicas; at most %d", o->name,
                       o->replicas, REPLICAS_MAX);
    return WB_OK;
}

static wb_err check_patterns(const struct event_bus_subscription_options *o, struct wb_why *why)
{
    if (o->patterns == NULL || o->pattern_count == 0 || o->pattern_count > PATTERNS_MAX)
        return wb_fail(why, WB_INVALID, "subscription with %zu patterns; expected 1 to %d",
                       o->pattern_count, PATTERNS_MAX);
    for (size_t i = 0; i < o->pattern_count; i++) {
        wb_err err = subject_pattern_check(wb_str(o->patterns[i]), why);
        if (err != WB_OK)
            return err;
    }
    return WB_OK;
}

static wb_err check_names(const struct event_bus_subscription_options *o, struct wb_why *why)
{
    wb_err err = WB_OK;

    if (o->durable != NULL)
        err = subject_name_check(wb_str(o->durable), "durable", why);
    if (err == WB_OK && o->queue_group != NULL)
        err = subject_name_check(wb_str(o->queue_group), "queue group", why);
    if (err != WB_OK)
        return err;
    if (o->queue_group != NULL && o->durable == NULL)
        return wb_fail(why, WB_INVALID,
                       "queue group '%s' without a durable; its members share one, so name it",
                       o->queue_group);
    if (o->durable != NULL && o->ack_none)
        return wb_fail(why, WB_INVALID,
                       "durable '%s' with ack_none: without acks there is no position to keep",
                       o->durable);
    return WB_OK;
}

static wb_err check_start(const struct event_bus_subscription_options *o, struct wb_why *why)
{
    if ((unsigned)o->start > EVENT_BUS_START_POSITION)
        return wb_fail(why, WB_INVALID, "subscription start %d is none of enum event_bus_start",
                       (int)o->start);
    if (o->start == EVENT_BUS_START_SEQUENCE && o->start_sequence == 0)
        return wb_fail(why, WB_INVALID, "start_sequence is 0; sequences begin with 1");
    if (o->start == EVENT_BUS_START_POSITION && o->position == NULL)
        return wb_fail(why, WB_INVALID, "EVENT_BUS_START_POSITION needs a position function");
    return WB_OK;
}

static wb_err check_acks(struct event_bus_subscription_options *o, struct wb_why *why)
{
    if (o->ack_wait_ns == 0)
        o->ack_wait_ns = 30 * WB_SEC;
    if (o->max_ack_pending == 0)
        o->max_ack_pending = ACK_PENDING_DEFAULT;
    if (o->ack_wait_ns < 10 * WB_MS)
        return wb_fail(why, WB_INVALID, "ack_wait of %lld ns; at least 10 ms",
                       (long long)o->ack_wait_ns);
    if (o->max_ack_pending > ACK_PENDING_MAX)
        return wb_fail(why, WB_INVALID, "max_ack_pending of %u; at most %d", o->max_ack_pending,
                       ACK_PENDING_MAX);
    if (o->backoff_count > BACKOFF_MAX || (o->backoff_count > 0 && o->backoff_ns == NULL))
        return wb_fail(why, WB_INVALID, "backoff list with %zu entries; expected 0 to %d",
                       o->backoff_count, BACKOFF_MAX);
    for (size_t i = 0; i < o->backoff_count; i++)
        if (o->backoff_ns[i] < 0)
            return wb_fail(why, WB_INVALID, "backoff entry %zu is negative", i);
    return WB_OK;
}

wb_err event_bus_check_subscription(struct event_bus_subscription_options *o, struct wb_why *why)
{
    wb_err err = check_patterns(o, why);

    if (err == WB_OK)
        err = check_names(o, why);
    if (err == WB_OK)
        err = check_start(o, why);
    if (err == WB_OK)
        err = check_acks(o, why);
    return err;
}
