/* feed.c - what flows: messages in, statuses in, requests and refusals out. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "nats_bus.h"

#define EXPIRES_NS   (3 * WB_SEC)
#define HEARTBEAT_NS (1 * WB_SEC)
#define MISSED_NS    (2 * HEARTBEAT_NS + HEARTBEAT_NS / 2)
#define GRACE_NS     (2 * WB_SEC)
#define PAUSE_NS     (250 * WB_MS)

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* ---- the table of feeds; the mutex is held --------------------------------------------------- */

static size_t bucket_of(struct wb_str stream, struct wb_str consumer)
{
    return (wb_hash(stream.ptr, stream.len) ^ wb_hash(consumer.ptr, consumer.len)) % NATS_BUCKETS;
}

void event_bus_nats_feed_list(struct nats_engine *engine, struct nats_feed *feed)
{
    struct nats_feed **bucket =
        &engine->buckets[bucket_of(wb_str(feed->stream), wb_str(feed->consumer))];

    feed->bucket_next = *bucket;
    *bucket = feed;
    feed->listed = true;
}

void event_bus_nats_feed_unlist(struct nats_engine *engine, struct nats_feed *feed)
{
    struct nats_feed **at =
        &engine->buckets[bucket_of(wb_str(feed->stream), wb_str(feed->consumer))];

    if (!feed->listed)
        return;
    while (*at != feed)
        at = &(*at)->bucket_next;
    *at = feed->bucket_next;
    feed->listed = false;
}

static uint32_t credit(const struct nats_feed *feed)
{
    uint32_t left = 0;

    for (size_t i = 0; i < NATS_REQUESTS; i++)
        left += feed->requests[i].open ? feed->requests[i].left : 0;
    return left;
}

/* source: whose tap it came by; members of a queue group in one bus share a consumer. */
static struct nats_feed *find_feed(struct nats_engine *engine, const struct nats_source *source,
                                   const struct nats_ack_subject *ack)
{
    struct nats_feed *feed = engine->buckets[bucket_of(ack->stream, ack->consumer)];

    while (feed != NULL && ((source != NULL && feed->source != source) ||
                            !wb_str_eq(wb_str(feed->stream), ack->stream) ||
                            !wb_str_eq(wb_str(feed->consumer), ack->consumer)))
        feed = feed->bucket_next;
    return feed;
}

static struct nats_feed *find_feed_by_id(struct nats_engine *engine, uint64_t id)
{
    for (size_t i = 0; i < NATS_BUCKETS; i++)
        for (struct nats_feed *feed = engine->buckets[i]; feed != NULL; feed = feed->bucket_next)
            if (feed->id == id)
                return feed;
    return NULL;
}

void event_bus_nats_feed_doubt(struct nats_feed *feed, int64_t at_ns)
{
    if (feed->state != NATS_FEED_RUNNING)
        return;
    feed->state = NATS_FEED_OPENING;
    feed->open_ns = at_ns;
    memset(feed->requests, 0, sizeof(feed->requests));
}

void event_bus_nats_feed_end(struct nats_feed *feed)
{
    event_bus_nats_feed_unlist(&feed->source->bus->engine, feed);
    feed->state = NATS_FEED_GONE;
    memset(feed->requests, 0, sizeof(feed->requests));
    event_bus_nats_unsettled_clear(&feed->unsettled);
}

/* ---- offering; the mutex is held ------------------------------------------------------------- */

static void queue_push(struct nats_source *source, struct event_bus_delivery_impl *delivery)
{
    delivery->next = NULL;
    if (source->last != NULL)
        source->last->next = delivery;
    else
        source->first = delivery;
    source->last = delivery;
    source->queued++;
}

static struct event_bus_delivery_impl *queue_pop(struct nats_source *source)
{
    struct event_bus_delivery_impl *delivery = source->first;

    source->first = delivery->next;
    if (source->first == NULL)
        source->last = NULL;
    source->queued--;
    return delivery;
}

static void queue_push_front(struct nats_source *source, struct event_bus_delivery_impl *delivery)
{
    delivery->next = source->first;
    source->first = delivery;
    if (source->last == NULL)
        source->last = delivery;
    source->queued++;
}

/* One thread at a time, so that the order stays. */
void event_bus_nats_source_pump(struct nats_source *source)
{
    pthread_mutex_t *mutex = &source->bus->engine.mutex;

    if (source->pumping)
        return;
    source->pumping = true;
    while (source->first != NULL && !source->blocked && !source->stopped) {
        struct event_bus_delivery_impl *delivery = queue_pop(source);
        uint64_t resumes = source->resumes;
        pthread_mutex_unlock(mutex);
        bool taken = event_bus_offer(source->subscription, delivery);
        pthread_mutex_lock(mutex);
        if (!taken) {
            queue_push_front(source, delivery);
            source->blocked = source->resumes == resumes; /* it may have room again already */
        }
    }
    source->pumping = false;
}

/* ---- requests -------------------------------------------------------------------------------- */

static uint32_t batch_of(const struct nats_source *source)
{
    uint32_t batch = source->bus->engine.batch;

    if (!source->options->ack_none && source->options->max_ack_pending < batch)
        batch = source->options->max_ack_pending;
    return batch;
}

static struct nats_request *free_request(struct nats_feed *feed)
{
    for (size_t i = 0; i < NATS_REQUESTS; i++)
        if (!feed->requests[i].open)
            return &feed->requests[i];
    return NULL;
}

static bool wants_request(const struct nats_feed *feed, int64_t now)
{
    const struct nats_source *source = feed->source;
    uint32_t batch = batch_of(source);

    if (feed->state != NATS_FEED_RUNNING || source->stopped || source->starting ||
        source->blocked || source->queued >= batch || now < feed->pull_ns)
        return false;
    return credit(feed) <= batch / 2;
}

struct pull {
    char subject[2 * EVENT_BUS_NAME_MAX + 64];
    char reply[128];
    char body[160];
};

static void open_request(struct nats_feed *feed, struct nats_request *request, int64_t now,
                         struct pull *ret_pull)
{
    const struct nats_engine *engine = &feed->source->bus->engine;

    *request = (struct nats_request){.open = true,
                                     .serial = ++feed->request_serial,
                                     .left = batch_of(feed->source),
                                     .sent_ns = now};
    (void)snprintf(ret_pull->subject, sizeof(ret_pull->subject), "$JS.API.CONSUMER.MSG.NEXT.%s.%s",
                   feed->stream, feed->consumer);
    (void)snprintf(ret_pull->reply, sizeof(ret_pull->reply), "%s.f.%" PRIu64 ".%" PRIu64,
                   feed->source->options->durable != NULL ? feed->source->tap.inbox
                                                          : feed->source->bus->sub.inbox,
                   feed->id, request->serial);
    (void)snprintf(ret_pull->body, sizeof(ret_pull->body),
                   "{\"batch\":%u,\"max_bytes\":%zu,\"expires\":%lld,\"idle_heartbeat\":%lld}",
                   request->left, engine->max_bytes, (long long)EXPIRES_NS,
                   (long long)HEARTBEAT_NS);
}

static void pull_feed(struct nats_feed *feed)
{
    struct nats_bus *bus = feed->source->bus;
    struct nats_request *request;
    struct pull pull;
    int64_t now = now_ns();

    while (wants_request(feed, now) && (request = free_request(feed)) != NULL) {
        open_request(feed, request, now, &pull);
        pthread_mutex_unlock(&bus->engine.mutex);
        wb_err err = event_bus_nats_link_send(&bus->sub, pull.subject, pull.reply,
                                              (struct wb_bytes){pull.body, strlen(pull.body)});
        pthread_mutex_lock(&bus->engine.mutex);
        if (err != WB_OK) {
            memset(request, 0, sizeof(*request));
            feed->pull_ns = now + PAUSE_NS;
        }
    }
}

void event_bus_nats_source_pull(struct nats_source *source)
{
    /* Feeds are added in front and never leave the list while somebody is inside. */
    for (struct nats_feed *feed = source->feeds; feed != NULL; feed = feed->next)
        pull_feed(feed);
}

/* ---- statuses -------------------------------------------------------------------------------- */

/* <inbox>.f.<feed>.<serial>; the inbox, ours or a tap's, has no such part. */
static bool parse_request_subject(const char *subject, uint64_t *ret_id, uint64_t *ret_serial)
{
    const char *part = strstr(subject, ".f.");

    if (part == NULL)
        return false;
    const char *id = part + 3;
    const char *dot = strchr(id, '.');
    return dot != NULL && wb_str_to_u64(wb_str_n(id, (size_t)(dot - id)), ret_id) &&
           wb_str_to_u64(wb_str(dot + 1), ret_serial);
}

static struct nats_request *find_request(struct nats_feed *feed, uint64_t serial)
{
    for (size_t i = 0; i < NATS_REQUESTS; i++)
        if (feed->requests[i].open && feed->requests[i].serial == serial)
            return &feed->requests[i];
    return NULL;
}

/* The end of a request, or only a sign of life. The mutex is held. */
static void take_status(struct nats_feed *feed, struct nats_request *request, const char *status,
                        const char *description, int64_t now)
{
    bool over = strcmp(status, "404") == 0 || strcmp(status, "408") == 0;
    bool refused = strcmp(status, "409") == 0;

    feed->heard_ns = now;
    if (strcmp(status, "100") == 0)
        return;
    if (request != NULL)
        request->open = false;
    if (over || (refused && strstr(description, "MaxBytes") != NULL))
        return;
    /* Consumer deleted, leadership changed, server shutting down, nobody there: look. */
    feed->pull_ns = now + PAUSE_NS;
    event_bus_nats_feed_doubt(feed, now + PAUSE_NS);
    event_bus_nats_link_wake(&feed->source->bus->sub);
}

static void take_status_message(struct nats_engine *engine, natsMsg *msg)
{
    const char *status = NULL;
    const char *description = NULL;
    uint64_t id;
    uint64_t serial;

    if (natsMsgHeader_Get(msg, "Status", &status) != NATS_OK ||
        !parse_request_subject(natsMsg_GetSubject(msg), &id, &serial))
        return;
    if (natsMsgHeader_Get(msg, "Description", &description) != NATS_OK)
        description = "";
    pthread_mutex_lock(&engine->mutex);
    struct nats_feed *feed = find_feed_by_id(engine, id);
    if (feed != NULL && feed->state == NATS_FEED_RUNNING) {
        struct nats_source *source = feed->source;
        take_status(feed, find_request(feed, serial), status, description, now_ns());
        source->inside++;
        event_bus_nats_source_pull(source);
        event_bus_nats_source_leave(source);
    }
    pthread_mutex_unlock(&engine->mutex);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void settle_now(struct nats_bus *bus, const char *reply, const char *body)
{
    (void)event_bus_nats_link_send(&bus->sub, reply, NULL, (struct wb_bytes){body, strlen(body)});
}

static void use_credit(struct nats_feed *feed)
{
    struct nats_request *oldest = NULL;

    for (size_t i = 0; i < NATS_REQUESTS; i++) {
        struct nats_request *request = &feed->requests[i];
        if (request->open && (oldest == NULL || request->serial < oldest->serial))
            oldest = request;
    }
    if (oldest != NULL && --oldest->left == 0)
        oldest->open = false;
}

static bool wanted(const struct nats_feed *feed, struct wb_str subject)
{
    const struct event_bus_subscription_options *options = feed->source->options;

    if (!feed->match_here)
        return true;
    for (size_t i = 0; i < options->pattern_count; i++)
        if (subject_matches(wb_str(options->patterns[i]), subject))
            return true;
    return false;
}

enum arrival { ARRIVAL_OFFER, ARRIVAL_PASS_OVER, ARRIVAL_GAP };

/* The mutex is held. */
static enum arrival arrive(struct nats_feed *feed, const struct nats_ack_subject *ack,
                           struct wb_str subject, int64_t now)
{
    bool ordered = feed->source->options->ack_none;

    feed->heard_ns = now;
    use_credit(feed);
    /* While a new consumer is made, the old one must not go ahead of where that will begin. */
    if (ordered &&
        (feed->state != NATS_FEED_RUNNING || ack->consumer_seq != feed->consumer_seq + 1))
        return ARRIVAL_GAP;
    feed->consumer_seq = ack->consumer_seq;
    if (ack->stream_seq > feed->last_seq) {
        feed->last_seq = ack->stream_seq;
        feed->last_seq_stored_ns = (int64_t)ack->stored_ns;
    }
    if ((int64_t)ack->stored_ns > feed->last_stored_ns)
        feed->last_stored_ns = (int64_t)ack->stored_ns;
    feed->positioned = feed->received = true;
    if (!wanted(feed, subject))
        return ARRIVAL_PASS_OVER;
    if (!ordered) {
        const struct nats_unsettled_entry entry = {.seq = ack->stream_seq,
                                                   .consumer_seq = ack->consumer_seq,
                                                   .deliveries = ack->deliveries,
                                                   .stored_wall_ns = (int64_t)ack->stored_ns};
        /* Without memory it is only not handed back early. */
        (void)event_bus_nats_unsettled_add(&feed->unsettled, &entry);
    }
    return ARRIVAL_OFFER;
}

/* The mutex is held; returns whether the delivery was taken over. */
static bool take_delivery(struct nats_feed *feed, const struct nats_ack_subject *ack,
                          struct nats_delivery *delivery)
{
    struct nats_source *source = feed->source;
    bool explicit_acks = !source->options->ack_none;
    int64_t now = now_ns();
    enum arrival arrival = arrive(feed, ack, delivery->impl.view.message.subject, now);

    if (arrival == ARRIVAL_OFFER) {
        delivery->feed = feed;
        queue_push(source, &delivery->impl);
    } else if (arrival == ARRIVAL_GAP) {
        event_bus_nats_feed_doubt(feed, now);
        event_bus_nats_link_wake(&source->bus->sub);
    }
    source->inside++;
    if (arrival == ARRIVAL_PASS_OVER && explicit_acks) {
        pthread_mutex_unlock(&source->bus->engine.mutex);
        settle_now(source->bus, delivery->reply, "+ACK");
        pthread_mutex_lock(&source->bus->engine.mutex);
    }
    event_bus_nats_source_pump(source);
    event_bus_nats_source_pull(source);
    event_bus_nats_source_leave(source);
    return arrival == ARRIVAL_OFFER;
}

/* What comes while a source ends waits in its queue, and goes back when nothing comes any more. */
void event_bus_nats_engine_message(struct nats_engine *engine, struct nats_source *source,
                                   natsMsg *msg)
{
    struct nats_ack_subject ack;

    if (!event_bus_nats_ack_subject_parse(natsMsg_GetReply(msg), &ack)) {
        take_status_message(engine, msg);
        natsMsg_Destroy(msg);
        return;
    }
    struct nats_delivery *delivery = event_bus_nats_delivery_create(msg, &ack);
    if (delivery == NULL)
        return; /* out of memory: it comes again after ack_wait, or leaves a gap that is noticed */
    pthread_mutex_lock(&engine->mutex);
    struct nats_feed *feed = find_feed(engine, source, &ack);
    bool taken = feed != NULL && take_delivery(feed, &ack, delivery);
    pthread_mutex_unlock(&engine->mutex);
    if (!taken)
        event_bus_release(&delivery->impl.view);
}

/* ---- looking after a feed; the mutex is held ------------------------------------------------- */

bool event_bus_nats_feed_watch(struct nats_feed *feed, int64_t now)
{
    bool asked = false;

    if (feed->state != NATS_FEED_RUNNING)
        return false;
    for (size_t i = 0; i < NATS_REQUESTS; i++) {
        struct nats_request *request = &feed->requests[i];
        if (request->open && now - request->sent_ns > EXPIRES_NS + GRACE_NS)
            request->open = false; /* its end got lost */
        asked |= request->open && now - request->sent_ns > MISSED_NS;
    }
    return asked && now - feed->heard_ns > MISSED_NS;
}
