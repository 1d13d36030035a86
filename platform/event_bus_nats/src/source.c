/* source.c - subscriptions as the dispatcher asks for them, and verdicts on the way back. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "nats_bus.h"

#define VERDICTS_MAX 65536 /* that wait for a connection */

/* ---- verdicts -------------------------------------------------------------------------------- */

/* Acks given while the connection is away count all the same when it is back. */
static void keep_verdict(struct nats_engine *engine, const char *reply, const char *body)
{
    size_t reply_size = strlen(reply) + 1;
    size_t body_size = strlen(body) + 1;
    struct nats_verdict *verdict = malloc(sizeof(*verdict) + reply_size + body_size);

    if (verdict == NULL)
        return; /* it comes again after ack_wait */
    memcpy(verdict->text, reply, reply_size);
    verdict->body = memcpy(verdict->text + reply_size, body, body_size);
    verdict->next = NULL;
    pthread_mutex_lock(&engine->mutex);
    bool kept = engine->verdicts < VERDICTS_MAX;
    if (kept) {
        if (engine->verdict_last != NULL)
            engine->verdict_last->next = verdict;
        else
            engine->verdict_first = verdict;
        engine->verdict_last = verdict;
        engine->verdicts++;
    }
    pthread_mutex_unlock(&engine->mutex);
    if (!kept)
        free(verdict);
}

static struct nats_verdict *next_verdict(struct nats_engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
    struct nats_verdict *verdict = engine->verdict_first;
    if (verdict != NULL) {
        engine->verdict_first = verdict->next;
        if (engine->verdict_first == NULL)
            engine->verdict_last = NULL;
        engine->verdicts--;
    }
    pthread_mutex_unlock(&engine->mutex);
    return verdict;
}

void event_bus_nats_verdicts_flush(struct nats_engine *engine)
{
    struct nats_verdict *verdict;

    while ((verdict = next_verdict(engine)) != NULL) {
        (void)event_bus_nats_link_send(&engine->bus->sub, verdict->text, NULL,
                                       (struct wb_bytes){verdict->body, strlen(verdict->body)});
        free(verdict);
    }
}

/* The server takes any body for an ack, so there are only these. A term with a reason would be
 * ignored by servers before 2.10. */
static void verdict_body(event_bus_verdict verdict, int64_t delay_ns, char out[64])
{
    switch (verdict) {
    case EVENT_BUS_ACK:
        (void)snprintf(out, 64, "+ACK");
        break;
    case EVENT_BUS_NAK:
        if (delay_ns > 0)
            (void)snprintf(out, 64, "-NAK {\"delay\": %" PRId64 "}", delay_ns);
        else
            (void)snprintf(out, 64, "-NAK");
        break;
    case EVENT_BUS_TERM:
        (void)snprintf(out, 64, "+TERM");
        break;
    case EVENT_BUS_IN_PROGRESS:
        (void)snprintf(out, 64, "+WPI");
        break;
    }
}

wb_err event_bus_nats_settle(struct event_bus *self, void *arg,
                             struct event_bus_delivery_impl *impl, event_bus_verdict verdict,
                             int64_t delay_ns)
{
    struct nats_bus *bus = nats_bus_of(self);
    const struct nats_source *source = arg;
    struct nats_delivery *delivery = (struct nats_delivery *)impl;
    char body[64];

    pthread_mutex_lock(&bus->engine.mutex);
    /* What a source that ends gives back is out of its hands. */
    if (verdict == EVENT_BUS_ACK || verdict == EVENT_BUS_TERM ||
        (verdict == EVENT_BUS_NAK && source->stopped))
        event_bus_nats_unsettled_remove(&delivery->feed->unsettled, impl->view.sequence);
    pthread_mutex_unlock(&bus->engine.mutex);
    verdict_body(verdict, delay_ns, body);
    wb_err err = event_bus_nats_link_send(&bus->sub, delivery->reply, NULL,
                                          (struct wb_bytes){body, strlen(body)});
    if ((err == WB_UNREACHABLE || err == WB_UNKNOWN) && verdict != EVENT_BUS_IN_PROGRESS) {
        keep_verdict(&bus->engine, delivery->reply, body);
        return WB_OK;
    }
    return err;
}

/* ---- feeds of a source ----------------------------------------------------------------------- */

static void add_feed(struct nats_source *source, struct nats_feed *feed)
{
    struct nats_engine *engine = &source->bus->engine;

    pthread_mutex_lock(&engine->mutex);
    feed->id = ++engine->ids;
    feed->next = source->feeds;
    source->feeds = feed;
    pthread_mutex_unlock(&engine->mutex);
}

static struct nats_feed *find_feed(struct nats_source *source, const char *stream)
{
    pthread_mutex_lock(&source->bus->engine.mutex);
    struct nats_feed *feed = source->feeds;
    while (feed != NULL && (feed->state == NATS_FEED_GONE || strcmp(feed->stream, stream) != 0))
        feed = feed->next;
    pthread_mutex_unlock(&source->bus->engine.mutex);
    return feed;
}

static wb_err open_new_feed(struct nats_source *source, const char *stream, const char *filter,
                            bool match_here, struct wb_why *why)
{
    struct nats_feed *feed = calloc(1, sizeof(*feed));

    if (feed == NULL)
        return wb_fail(why, WB_NOMEM, "subscribe to stream '%s': out of memory", stream);
    feed->source = source;
    (void)snprintf(feed->stream, sizeof(feed->stream), "%s", stream);
    (void)snprintf(feed->filter, sizeof(feed->filter), "%s", filter);
    feed->match_here = match_here;
    add_feed(source, feed);
    return event_bus_nats_feed_open(feed, source->began, why);
}

/*
 * An ordered log that stands still although the stream goes on, while nothing keeps it: looked at
 * twice, so that nothing is just under way. With a filter it may be right; opening it again costs
 * little. The mutex is held.
 */
static bool is_stuck(struct nats_feed *feed, uint64_t stream_last)
{
    const struct nats_source *source = feed->source;
    bool stuck = source->options->ack_none && feed->state == NATS_FEED_RUNNING &&
                 !source->blocked && source->queued == 0 && feed->looked_seq == feed->last_seq &&
                 feed->looked_stream_seq > feed->last_seq;

    feed->looked_seq = feed->last_seq;
    feed->looked_stream_seq = stream_last;
    return stuck;
}

/* The stream has other subjects now, or was made anew: what the consumer delivers must follow. */
static void update_feed(struct nats_feed *feed, json_t *stream, const char *filter, bool match_here)
{
    struct nats_engine *engine = &feed->source->bus->engine;
    int64_t created = event_bus_nats_time_parse(event_bus_nats_json_str(stream, "created"));

    pthread_mutex_lock(&engine->mutex);
    bool changed = strcmp(feed->filter, filter) != 0 || feed->match_here != match_here;
    (void)snprintf(feed->filter, sizeof(feed->filter), "%s", filter);
    feed->match_here = match_here;
    bool stuck = is_stuck(feed, event_bus_nats_json_u64(stream, "state.last_seq"));
    if (changed || stuck || feed->created_wall_ns != created)
        event_bus_nats_feed_doubt(feed, 0);
    pthread_mutex_unlock(&engine->mutex);
}

static wb_err reconcile_stream(struct nats_source *source, json_t *stream, struct wb_why *why)
{
    const char *name = event_bus_nats_json_str(stream, "config.name");
    char filter[SUBJECT_MAX + 1];
    bool match_here;

    if (!event_bus_nats_plan(source, json_object_get(stream, "config"), filter, &match_here))
        return WB_OK;
    struct nats_feed *feed = find_feed(source, name);
    if (feed == NULL)
        return open_new_feed(source, name, filter, match_here, why);
    update_feed(feed, stream, filter, match_here);
    return WB_OK;
}

static bool is_listed(json_t *streams, const char *name)
{
    size_t i;
    json_t *stream;

    json_array_foreach(streams, i, stream)
    {
        if (strcmp(event_bus_nats_json_str(stream, "config.name"), name) == 0)
            return true;
    }
    return false;
}

static void end_lost_feeds(struct nats_source *source, json_t *streams)
{
    struct nats_engine *engine = &source->bus->engine;

    pthread_mutex_lock(&engine->mutex);
    for (struct nats_feed *feed = source->feeds; feed != NULL; feed = feed->next)
        if (feed->state != NATS_FEED_GONE && !is_listed(streams, feed->stream))
            event_bus_nats_feed_end(feed);
    pthread_mutex_unlock(&engine->mutex);
}

wb_err event_bus_nats_source_reconcile(struct nats_source *source, json_t *streams,
                                       struct wb_why *why)
{
    wb_err err = WB_OK;
    size_t i;
    json_t *stream;

    end_lost_feeds(source, streams);
    json_array_foreach(streams, i, stream)
    {
        wb_err one = reconcile_stream(source, stream, why);
        if (err == WB_OK && one != WB_NO_STREAM) /* it may be gone again */
            err = one;
    }
    /* Under the mutex for its neighbours: they may be read as one word. */
    pthread_mutex_lock(&source->bus->engine.mutex);
    source->began = true;
    pthread_mutex_unlock(&source->bus->engine.mutex);
    return err;
}

/* ---- start ----------------------------------------------------------------------------------- */

size_t event_bus_nats_streams(struct event_bus *self, void *arg)
{
    struct nats_engine *engine = &nats_bus_of(self)->engine;
    struct nats_source *source = arg;
    size_t count = 0;

    pthread_mutex_lock(&engine->mutex);
    for (struct nats_feed *feed = source->feeds; feed != NULL; feed = feed->next)
        count += feed->state != NATS_FEED_GONE;
    pthread_mutex_unlock(&engine->mutex);
    return count;
}

static bool may_share(const struct event_bus_subscription_options *a,
                      const struct event_bus_subscription_options *b)
{
    return a->queue_group != NULL && b->queue_group != NULL &&
           strcmp(a->queue_group, b->queue_group) == 0;
}

/* A durable without a queue group has one holder. */
static wb_err add_source(struct nats_engine *engine, struct nats_source *source, struct wb_why *why)
{
    const char *durable = source->options->durable;
    bool bound = false;

    pthread_mutex_lock(&engine->mutex);
    for (struct nats_source *other = engine->sources; other != NULL; other = other->next)
        bound |= durable != NULL && other->options->durable != NULL &&
                 strcmp(durable, other->options->durable) == 0 &&
                 !may_share(source->options, other->options);
    if (!bound) {
        (void)snprintf(source->tap.inbox, sizeof(source->tap.inbox), "%s_%" PRIu64,
                       source->bus->sub.inbox, ++engine->ids);
        source->next = engine->sources;
        engine->sources = source;
    }
    pthread_mutex_unlock(&engine->mutex);
    if (bound)
        return wb_fail(
            why, WB_CONFLICT,
            "subscribe: durable '%s' is bound to another subscription; use another name, "
            "or give both the same queue group",
            durable);
    return WB_OK;
}

static wb_err open_source(struct nats_source *source, struct wb_why *why)
{
    const struct event_bus_subscription_options *options = source->options;
    json_t *streams = NULL;

    if (options->wait_for_stream && !event_bus_nats_link_is_up(&source->bus->sub))
        return WB_OK; /* the thread of the link does it when there is a connection */
    wb_err err = event_bus_nats_stream_list(source->bus, &streams, why);
    if (err != WB_OK)
        return err;
    err = event_bus_nats_source_reconcile(source, streams, why);
    json_decref(streams);
    if (err == WB_OK && source->feeds == NULL && !options->wait_for_stream)
        return wb_fail(
            why, WB_NO_STREAM,
            "subscribe to '%s'%s: no stream at %s has such subjects; declare one, or set "
            "wait_for_stream",
            options->patterns[0], options->pattern_count > 1 ? " and others" : "",
            source->bus->urls);
    return err;
}

static void begin_pulling(struct nats_source *source, bool opened)
{
    struct nats_engine *engine = &source->bus->engine;

    pthread_mutex_lock(&engine->mutex);
    source->starting = false;
    source->stopped = !opened;
    engine->names_hash = 0; /* a stream may have appeared while we looked */
    event_bus_nats_source_pull(source);
    event_bus_nats_source_leave(source);
    pthread_mutex_unlock(&engine->mutex);
    event_bus_nats_link_wake(&source->bus->sub);
}

wb_err event_bus_nats_start(struct event_bus *self, struct event_bus_subscription *subscription,
                            void **ret_source, struct wb_why *why)
{
    struct nats_bus *bus = nats_bus_of(self);
    struct nats_source *source = calloc(1, sizeof(*source));

    if (source == NULL)
        return wb_fail(why, WB_NOMEM, "subscribe: out of memory");
    source->bus = bus;
    source->subscription = subscription;
    source->options = event_bus_subscription_options_of(subscription);
    source->starting = true;
    source->inside = 1;
    source->tap.link = &bus->sub;
    source->tap.owner = source;
    event_bus_nats_describe(source);
    wb_err err = add_source(&bus->engine, source, why);
    if (err != WB_OK) {
        free(source);
        return err;
    }
    err = open_source(source, why);
    begin_pulling(source, err == WB_OK);
    if (err != WB_OK) {
        event_bus_nats_stop(self, source, false);
        return err;
    }
    *ret_source = source;
    return WB_OK;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* The mutex is held. */
void event_bus_nats_source_leave(struct nats_source *source)
{
    if (--source->inside == 0)
        pthread_cond_broadcast(&source->bus->engine.idle);
}

void event_bus_nats_resume(struct event_bus *self, void *arg)
{
    struct nats_engine *engine = &nats_bus_of(self)->engine;
    struct nats_source *source = arg;

    pthread_mutex_lock(&engine->mutex);
    source->inside++;
    source->resumes++;
    source->blocked = false;
    event_bus_nats_source_pump(source);
    event_bus_nats_source_pull(source);
    event_bus_nats_source_leave(source);
    pthread_mutex_unlock(&engine->mutex);
}

/*
 * Have the server forget the requests that nobody listens to any more. It does so when asked about
 * the consumer; if it finds them only when something is handed back, nats-server 2.9 loses that
 * until ack_wait and sends another message twice.
 */
static void forget_requests(struct nats_source *source)
{
    char subject[2 * EVENT_BUS_NAME_MAX + 64];
    json_t *answer = NULL;

    for (struct nats_feed *feed = source->feeds; feed != NULL; feed = feed->next) {
        pthread_mutex_lock(&source->bus->engine.mutex);
        bool there = feed->state == NATS_FEED_RUNNING;
        pthread_mutex_unlock(&source->bus->engine.mutex);
        (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.INFO.%s.%s", feed->stream,
                       feed->consumer);
        if (there && event_bus_nats_api_request(source->bus, "unsubscribe", subject, NULL, &answer,
                                                NULL) == WB_OK)
            json_decref(answer);
    }
}

/* No offer begins or runs any more, and nothing comes. */
static void silence(struct nats_engine *engine, struct nats_source *source)
{
    pthread_mutex_lock(&engine->mutex);
    source->stopped = true;
    while (source->inside > 0)
        pthread_cond_wait(&engine->idle, &engine->mutex);
    pthread_mutex_unlock(&engine->mutex);
    if (source->tap.sub == NULL)
        return;
    event_bus_nats_tap_close(&source->tap);
    forget_requests(source);
    pthread_mutex_lock(&engine->mutex);
    while (source->inside > 0)
        pthread_cond_wait(&engine->idle, &engine->mutex);
    pthread_mutex_unlock(&engine->mutex);
}

/* What was received and never offered: younger than what the dispatcher has given back by now. */
static void hand_back_queue(struct event_bus *self, struct nats_source *source)
{
    struct event_bus_delivery_impl *next;

    for (struct event_bus_delivery_impl *delivery = source->first; delivery != NULL;
         delivery = next) {
        next = delivery->next;
        if (source->options->durable != NULL)
            (void)event_bus_nats_settle(self, source, delivery, EVENT_BUS_NAK, 0);
        event_bus_release(&delivery->view);
    }
    source->first = source->last = NULL;
}

static void remove_source(struct nats_engine *engine, struct nats_source *source)
{
    pthread_mutex_lock(&engine->mutex);
    struct nats_source **at = &engine->sources;
    while (*at != source)
        at = &(*at)->next;
    *at = source->next;
    for (struct nats_feed *feed = source->feeds; feed != NULL; feed = feed->next)
        event_bus_nats_feed_unlist(engine, feed);
    pthread_mutex_unlock(&engine->mutex);
}

/* The next holder of a durable need not wait for ack_wait. Nobody else uses the source any more. */
static void hand_back_unsettled(struct nats_feed *feed)
{
    char reply[2 * EVENT_BUS_NAME_MAX + 128];

    for (size_t i = 0; i < feed->unsettled.count; i++) {
        const struct nats_unsettled_entry *entry = event_bus_nats_unsettled_at(&feed->unsettled, i);
        if (entry == NULL)
            continue;
        /* The server reads the first three numbers only. */
        (void)snprintf(reply, sizeof(reply),
                       "$JS.ACK.%s.%s.%" PRIu64 ".%" PRIu64 ".%" PRIu64 ".0.0", feed->stream,
                       feed->consumer, entry->deliveries, entry->seq, entry->consumer_seq);
        (void)event_bus_nats_link_send(&feed->source->bus->sub, reply, NULL,
                                       (struct wb_bytes){"-NAK", 4});
    }
}

static void free_source(struct nats_source *source)
{
    struct nats_feed *next;

    for (struct nats_feed *feed = source->feeds; feed != NULL; feed = next) {
        next = feed->next;
        if (source->options->durable == NULL)
            event_bus_nats_feed_drop_consumer(feed);
        else if (feed->state != NATS_FEED_GONE)
            hand_back_unsettled(feed);
        event_bus_nats_unsettled_clear(&feed->unsettled);
        free(feed);
    }
    free(source);
}

void event_bus_nats_stop(struct event_bus *self, void *arg, bool keep_settling)
{
    struct nats_bus *bus = nats_bus_of(self);
    struct nats_source *source = arg;

    silence(&bus->engine, source);
    if (keep_settling)
        return;
    remove_source(&bus->engine, source);
    hand_back_queue(self, source);
    free_source(source);
}

/* ---- durables -------------------------------------------------------------------------------- */

static bool is_bound(struct nats_engine *engine, const char *durable)
{
    bool bound = false;

    pthread_mutex_lock(&engine->mutex);
    for (struct nats_source *source = engine->sources; source != NULL; source = source->next)
        bound |= source->options->durable != NULL && strcmp(source->options->durable, durable) == 0;
    pthread_mutex_unlock(&engine->mutex);
    return bound;
}

static wb_err delete_consumer(struct nats_bus *bus, const char *stream, const char *durable,
                              struct wb_why *why)
{
    char subject[2 * EVENT_BUS_NAME_MAX + 64];
    char what[2 * EVENT_BUS_NAME_MAX + 64];
    json_t *answer = NULL;

    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.DELETE.%s.%s", stream, durable);
    (void)snprintf(what, sizeof(what), "delete durable '%s' of stream '%s'", durable, stream);
    wb_err err = event_bus_nats_api_request(bus, what, subject, NULL, &answer, why);
    if (err == WB_OK)
        json_decref(answer);
    return err;
}

wb_err event_bus_nats_delete_durable(struct event_bus *self, const char *durable,
                                     struct wb_why *why)
{
    struct nats_bus *bus = nats_bus_of(self);
    json_t *names = NULL;
    json_t *name;
    size_t deleted = 0;
    size_t i;

    if (is_bound(&bus->engine, durable))
        return wb_fail(why, WB_CONFLICT,
                       "delete durable '%s': a subscription holds it; unsubscribe first", durable);
    wb_err err = event_bus_nats_stream_names(bus, NULL, &names, why);
    if (err != WB_OK)
        return err;
    json_array_foreach(names, i, name)
    {
        wb_err one = delete_consumer(bus, json_string_value(name), durable, why);
        deleted += one == WB_OK;
        if (one != WB_OK && one != WB_NOT_FOUND && one != WB_NO_STREAM)
            err = one;
    }
    json_decref(names);
    if (err == WB_OK && deleted == 0)
        return wb_fail(why, WB_NOT_FOUND, "delete durable '%s': no stream at %s has it", durable,
                       bus->urls);
    return err;
}
