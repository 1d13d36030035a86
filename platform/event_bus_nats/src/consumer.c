/*
 * consumer.c - the server's side of a feed: looked at, created, brought to where it should stand.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api.h"
#include "nats_bus.h"

#define DESCRIPTION_PREFIX    "waybill: "
#define MAX_WAITING           512           /* the server's default, told explicitly */
#define INACTIVE_THRESHOLD_NS (60 * WB_SEC) /* an ephemeral nobody asks is removed after this */
#define PARTS_MAX             64
#define CLOCK_MARGIN_NS       (60 * WB_SEC)

/* ---- what a source wants of a stream --------------------------------------------------------- */

/* The patterns that match exactly what is wanted, none included in another. */
struct parts {
    char text[PARTS_MAX][SUBJECT_MAX + 1];
    size_t count;
    bool too_many;
};

static void add_part(struct parts *parts, const char *part)
{
    size_t kept = 0;

    for (size_t i = 0; i < parts->count; i++)
        if (subject_includes(wb_str(parts->text[i]), wb_str(part)))
            return;
    for (size_t i = 0; i < parts->count; i++)
        if (!subject_includes(wb_str(part), wb_str(parts->text[i])))
            memmove(parts->text[kept++], parts->text[i], sizeof(parts->text[i]));
    parts->count = kept;
    if (kept == PARTS_MAX)
        parts->too_many = true;
    else
        (void)snprintf(parts->text[parts->count++], SUBJECT_MAX + 1, "%s", part);
}

/* Whether one of the patterns matches all of this subject of the stream. */
static bool add_subject(struct parts *parts, const struct event_bus_subscription_options *options,
                        const char *subject)
{
    char part[SUBJECT_MAX + 1];
    bool whole = false;

    for (size_t i = 0; i < options->pattern_count; i++) {
        if (subject_intersect(wb_str(options->patterns[i]), wb_str(subject), part))
            add_part(parts, part);
        whole |= subject_includes(wb_str(options->patterns[i]), wb_str(subject));
    }
    return whole;
}

bool event_bus_nats_plan(const struct nats_source *source, json_t *config,
                         char ret_filter[SUBJECT_MAX + 1], bool *ret_match_here)
{
    json_t *subjects = json_object_get(config, "subjects");
    bool whole = true;
    size_t i;
    json_t *subject;

    /* Mirrors have no subjects of their own: what they hold comes from its origin already. */
    struct parts *parts = calloc(1, sizeof(*parts));
    if (parts == NULL)
        return false;
    json_array_foreach(subjects, i, subject)
    {
        if (json_is_string(subject))
            whole &= add_subject(parts, source->options, json_string_value(subject));
    }
    bool reaches = parts->count > 0;
    /* Several filters are ignored without a word by servers before 2.10. */
    bool one = parts->count == 1 && !parts->too_many;
    (void)snprintf(ret_filter, SUBJECT_MAX + 1, "%s", !whole && one ? parts->text[0] : "");
    *ret_match_here = !whole && !one;
    free(parts);
    return reaches;
}

void event_bus_nats_describe(struct nats_source *source)
{
    const struct event_bus_subscription_options *options = source->options;
    struct wb_buf text = {0};

    for (size_t i = 0; i < options->pattern_count; i++)
        wb_buf_printf(&text, "%s%s", i > 0 ? " " : "", options->patterns[i]);
    if (!text.failed && text.len + sizeof(DESCRIPTION_PREFIX) <= sizeof(source->description))
        (void)snprintf(source->description, sizeof(source->description), DESCRIPTION_PREFIX "%s",
                       text.ptr);
    else
        (void)snprintf(source->description, sizeof(source->description),
                       DESCRIPTION_PREFIX "%zu patterns %016" PRIx64, options->pattern_count,
                       wb_hash(text.ptr, text.len));
    wb_buf_free(&text);
}

/* ---- one opening ----------------------------------------------------------------------------- */

struct opening {
    struct nats_bus *bus;
    struct nats_feed *feed;
    const struct event_bus_subscription_options *options;
    bool anew;               /* the stream appeared after the subscription was made */
    int64_t created_wall_ns; /* of the stream, as it is now */
    uint64_t stream_first;
    uint64_t stream_last;
    char consumer[EVENT_BUS_NAME_MAX + 1];
    char filter[SUBJECT_MAX + 1];
    json_t *found; /* the consumer as the server has it; NULL: it has none */
    bool created;  /* the consumer is new: its numbering begins */
    struct wb_why *why;
};

static wb_err request(struct opening *o, const char *verb, const char *consumer, json_t *body,
                      json_t **ret_answer)
{
    char subject[2 * EVENT_BUS_NAME_MAX + 64];
    char what[2 * EVENT_BUS_NAME_MAX + 64];

    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.%s.%s.%s", verb, o->feed->stream,
                   consumer);
    (void)snprintf(what, sizeof(what), "consumer '%s' of stream '%s'", consumer, o->feed->stream);
    return event_bus_nats_api_request(o->bus, what, subject, body, ret_answer, o->why);
}

/* Before the stream: then a consumer that stands behind the stream's end is really ahead of it. */
static wb_err look_at_consumer(struct opening *o)
{
    if (o->options->ack_none || o->consumer[0] == '\0')
        return WB_OK;
    wb_err err = request(o, "INFO", o->consumer, NULL, &o->found);
    return err == WB_NOT_FOUND ? WB_OK : err;
}

static wb_err look_at_stream(struct opening *o)
{
    char subject[EVENT_BUS_NAME_MAX + 64];
    char what[EVENT_BUS_NAME_MAX + 64];
    json_t *answer = NULL;

    (void)snprintf(subject, sizeof(subject), "$JS.API.STREAM.INFO.%s", o->feed->stream);
    (void)snprintf(what, sizeof(what), "stream '%s'", o->feed->stream);
    wb_err err = event_bus_nats_api_request(o->bus, what, subject, NULL, &answer, o->why);
    if (err != WB_OK)
        return err;
    o->created_wall_ns = event_bus_nats_time_parse(event_bus_nats_json_str(answer, "created"));
    o->stream_first = event_bus_nats_json_u64(answer, "state.first_seq");
    o->stream_last = event_bus_nats_json_u64(answer, "state.last_seq");
    json_decref(answer);
    return WB_OK;
}

/*
 * Where to begin in a stream that this feed has not read from, or whose end was lost. Without the
 * mutex: it calls back, and that may ask the server.
 */
static wb_err choose_position(struct opening *o, bool remade)
{
    struct nats_feed *feed = o->feed;
    uint64_t last = 0;
    bool positioned = true;
    bool told = false;

    switch (o->options->start) {
    case EVENT_BUS_START_NEW:
        last = remade || o->anew ? 0 : o->stream_last;
        break;
    case EVENT_BUS_START_ALL:
        break;
    case EVENT_BUS_START_SEQUENCE:
        last = remade ? 0 : o->options->start_sequence - 1;
        break;
    case EVENT_BUS_START_POSITION:
        last = o->options->position(o->options->ctx, feed->stream, o->created_wall_ns);
        if (last == EVENT_BUS_POSITION_LATER)
            return wb_fail(o->why, WB_UNREACHABLE,
                           "stream '%s': where to go on cannot be told now; it is asked again",
                           feed->stream);
        told = true;
        break;
    case EVENT_BUS_START_TIME:
    case EVENT_BUS_START_LAST_PER_SUBJECT:
        positioned = false;
        break;
    }
    pthread_mutex_lock(&o->bus->engine.mutex);
    feed->positioned = positioned;
    feed->received = told;
    feed->last_seq = last;
    feed->last_seq_stored_ns = feed->last_stored_ns = feed->resume_wall_ns = 0;
    pthread_mutex_unlock(&o->bus->engine.mutex);
    return WB_OK;
}

/*
 * The stream has lost its newest messages, in a power cut perhaps, and numbers what comes now as it
 * had numbered them. Where it went back to nobody knows any more, but when what we had was stored,
 * we do: what is new was stored later. The mutex is held.
 */
static void roll_back(struct opening *o)
{
    struct nats_feed *feed = o->feed;
    const struct nats_unsettled_entry *lowest = event_bus_nats_unsettled_lowest(&feed->unsettled);
    int64_t since = lowest != NULL ? lowest->stored_wall_ns : feed->last_stored_ns + 1;

    /* With acks some may come twice, so that the clock of a server that came back may be off. */
    if (!o->options->ack_none)
        since -= CLOCK_MARGIN_NS;
    feed->positioned = feed->last_stored_ns == 0; /* nothing is known: all of it is in doubt */
    feed->resume_wall_ns = feed->positioned ? 0 : since;
    feed->received = false;
    feed->last_seq = 0;
    feed->last_seq_stored_ns = 0;
    event_bus_nats_unsettled_clear(&feed->unsettled);
}

/*
 * Does an ordered log still hold what was received last? A server that came back may have lost the
 * end of the stream, and filled it again already: the numbers alone do not tell.
 */
static wb_err look_at_last(struct opening *o, bool *ret_lost)
{
    struct nats_feed *feed = o->feed;
    struct event_bus_delivery_impl *last = NULL;

    pthread_mutex_lock(&o->bus->engine.mutex);
    uint64_t sequence = feed->last_seq;
    int64_t stored_ns = feed->last_seq_stored_ns;
    bool told = o->options->start == EVENT_BUS_START_POSITION;
    pthread_mutex_unlock(&o->bus->engine.mutex);
    *ret_lost = stored_ns == 0 ? told : sequence > o->stream_last;
    if (!o->options->ack_none || *ret_lost || stored_ns == 0 || sequence < o->stream_first)
        return WB_OK;
    wb_err err = event_bus_nats_get(&o->bus->base, feed->stream, sequence, &last, o->why);
    if (err == WB_NOT_FOUND) { /* deleted, or lost: who knows a position knows more */
        *ret_lost = told;
        return WB_OK;
    }
    if (err != WB_OK)
        return err;
    *ret_lost = last->view.stored_wall_ns != stored_ns;
    event_bus_release(&last->view);
    return WB_OK;
}

/* What was received last is not there any more. The numbers of what is there begin before it. */
static wb_err follow_back(struct opening *o)
{
    if (o->options->start == EVENT_BUS_START_POSITION)
        return choose_position(o, false);
    pthread_mutex_lock(&o->bus->engine.mutex);
    roll_back(o);
    pthread_mutex_unlock(&o->bus->engine.mutex);
    return WB_OK;
}

/* A stream made anew or rolled back takes the feed with it. */
static wb_err follow_stream(struct opening *o)
{
    struct nats_feed *feed = o->feed;
    wb_err err = WB_OK;
    bool lost = false;

    pthread_mutex_lock(&o->bus->engine.mutex);
    bool fresh = feed->created_wall_ns == 0;
    bool remade = !fresh && feed->created_wall_ns != o->created_wall_ns;
    if (remade) {
        event_bus_nats_unsettled_clear(&feed->unsettled);
        feed->resume_wall_ns = feed->last_stored_ns = 0;
        if (o->options->durable == NULL)
            o->consumer[0] = '\0';
    }
    pthread_mutex_unlock(&o->bus->engine.mutex);
    if (fresh || remade)
        err = choose_position(o, remade);
    else if (o->options->ack_none)
        err = look_at_last(o, &lost);
    if (err == WB_OK && lost)
        err = follow_back(o);
    if (err != WB_OK)
        return err;
    pthread_mutex_lock(&o->bus->engine.mutex);
    feed->created_wall_ns = o->created_wall_ns;
    bool behind = feed->received && feed->last_seq > o->stream_last;
    if (behind && feed->last_stored_ns > 0 && o->options->durable == NULL)
        roll_back(o);
    else if (behind)
        feed->last_seq = o->stream_last;
    pthread_mutex_unlock(&o->bus->engine.mutex);
    return WB_OK;
}

/* ---- the configuration of a consumer --------------------------------------------------------- */

static void format_time(int64_t wall_ns, char out[64])
{
    time_t seconds = (time_t)(wall_ns / WB_SEC);
    struct tm utc;
    char whole[32];

    (void)gmtime_r(&seconds, &utc);
    (void)strftime(whole, sizeof(whole), "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(out, 64, "%s.%09lldZ", whole, (long long)(wall_ns % WB_SEC));
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value); /* out of memory shows when it is written */
}

/* Where a new consumer begins: behind what was handled, at the oldest message in doubt. */
static void set_start(struct opening *o, json_t *config)
{
    struct nats_feed *feed = o->feed;
    char time[64];

    pthread_mutex_lock(&o->bus->engine.mutex);
    bool positioned = feed->positioned;
    uint64_t next = feed->last_seq + 1;
    int64_t since = feed->resume_wall_ns;
    const struct nats_unsettled_entry *lowest = event_bus_nats_unsettled_lowest(&feed->unsettled);
    if (lowest != NULL && lowest->seq < next)
        next = lowest->seq;
    pthread_mutex_unlock(&o->bus->engine.mutex);
    if (since == 0 && o->options->start == EVENT_BUS_START_TIME)
        since = o->options->start_wall_ns;
    if (positioned) {
        set(config, "deliver_policy", json_string("by_start_sequence"));
        set(config, "opt_start_seq", json_integer((json_int_t)next));
    } else if (since > 0) {
        format_time(since, time);
        set(config, "deliver_policy", json_string("by_start_time"));
        set(config, "opt_start_time", json_string(time));
    } else {
        /* The server wants a filter with this policy; one that is wider than the stream will do. */
        set(config, "deliver_policy", json_string("last_per_subject"));
        set(config, "filter_subject", json_string(o->filter[0] != '\0' ? o->filter : ">"));
    }
}

/* What may differ between two starts of a program, and can be changed. */
static void set_changeable(struct opening *o, json_t *config)
{
    if (!o->options->ack_none) {
        set(config, "ack_wait", json_integer(o->options->ack_wait_ns));
        set(config, "max_ack_pending", json_integer(o->options->max_ack_pending));
    }
    /* A crash of the process that holds a message counts as a delivery at the server, so giving up
     * is for the dispatcher, which counts failures of the handler. */
    set(config, "max_deliver", json_integer(-1));
    set(config, "description", json_string(o->feed->source->description));
    if (o->filter[0] != '\0')
        set(config, "filter_subject", json_string(o->filter));
    else
        (void)json_object_del(config, "filter_subject");
}

static json_t *wrap(struct opening *o, json_t *config)
{
    return json_pack("{s:s, s:o}", "stream_name", o->feed->stream, "config", config);
}

static wb_err create_consumer(struct opening *o)
{
    bool durable = o->options->durable != NULL;
    json_t *config = json_object();
    json_t *answer = NULL;

    set_changeable(o, config);
    set_start(o, config);
    set(config, durable ? "durable_name" : "name", json_string(o->consumer));
    set(config, "ack_policy", json_string(o->options->ack_none ? "none" : "explicit"));
    set(config, "replay_policy", json_string("instant"));
    set(config, "max_waiting", json_integer(MAX_WAITING));
    if (!durable)
        set(config, "inactive_threshold", json_integer(INACTIVE_THRESHOLD_NS));
    wb_err err =
        request(o, durable ? "DURABLE.CREATE" : "CREATE", o->consumer, wrap(o, config), &answer);
    if (err != WB_OK)
        return err;
    json_decref(answer);
    o->created = true;
    return WB_OK;
}

static void delete_consumer(struct opening *o)
{
    json_t *answer = NULL;

    if (request(o, "DELETE", o->consumer, NULL, &answer) == WB_OK)
        json_decref(answer);
}

/* ---- durables -------------------------------------------------------------------------------- */

static wb_err conflict(struct opening *o, const char *found, const char *expected)
{
    return wb_fail(o->why, WB_CONFLICT,
                   "durable '%s' of stream '%s' exists with '%s', expected '%s'; use another name, "
                   "or delete the durable (its position is lost then)",
                   o->consumer, o->feed->stream, found, expected);
}

static wb_err check_durable(struct opening *o, json_t *config)
{
    const char *description = event_bus_nats_json_str(config, "description");
    const char *filter = event_bus_nats_json_str(config, "filter_subject");
    const char *acks = event_bus_nats_json_str(config, "ack_policy");
    bool ours = strncmp(description, DESCRIPTION_PREFIX, strlen(DESCRIPTION_PREFIX)) == 0;

    if (ours && strcmp(description, o->feed->source->description) != 0)
        return conflict(o, description + strlen(DESCRIPTION_PREFIX),
                        o->feed->source->description + strlen(DESCRIPTION_PREFIX));
    if (!ours && strcmp(filter, o->filter) != 0)
        return conflict(o, filter, o->filter);
    if (strcmp(acks, "explicit") != 0)
        return conflict(o, acks, "explicit");
    if (json_object_get(config, "deliver_subject") != NULL)
        return conflict(o, "push delivery", "pull");
    return WB_OK;
}

static bool is_up_to_date(struct opening *o, json_t *config)
{
    return event_bus_nats_json_u64(config, "ack_wait") == (uint64_t)o->options->ack_wait_ns &&
           event_bus_nats_json_u64(config, "max_ack_pending") == o->options->max_ack_pending &&
           json_integer_value(json_object_get(config, "max_deliver")) == -1 &&
           strcmp(event_bus_nats_json_str(config, "filter_subject"), o->filter) == 0;
}

static wb_err update_durable(struct opening *o, json_t *config)
{
    json_t *answer = NULL;

    /* With the server's own settings as a base, so that those unknown to us stay. */
    set_changeable(o, config);
    wb_err err = request(o, "DURABLE.CREATE", o->consumer, wrap(o, json_incref(config)), &answer);
    if (err == WB_OK)
        json_decref(answer);
    return err;
}

/*
 * A durable that is ahead of its stream skips what comes next, new messages included, on servers
 * before 2.11: the stream was rolled back under it. What comes twice is for the inbox.
 */
static wb_err replace_durable(struct opening *o)
{
    wb_log(WB_LOG_WARN, "event_bus_nats",
           "durable '%s' is ahead of stream '%s', which has lost messages and ends at %" PRIu64
           ": made anew; some messages may come twice",
           o->consumer, o->feed->stream, o->stream_last);
    pthread_mutex_lock(&o->bus->engine.mutex);
    roll_back(o);
    pthread_mutex_unlock(&o->bus->engine.mutex);
    delete_consumer(o);
    return create_consumer(o);
}

/* If it is ever deleted under us, we know at least what was settled when we came. */
static void note_position(struct opening *o, uint64_t ack_floor)
{
    pthread_mutex_lock(&o->bus->engine.mutex);
    if (!o->feed->received) {
        o->feed->positioned = true;
        o->feed->last_seq = ack_floor;
    }
    pthread_mutex_unlock(&o->bus->engine.mutex);
}

static wb_err open_durable(struct opening *o)
{
    json_t *config = json_object_get(o->found, "config");
    uint64_t delivered = event_bus_nats_json_u64(o->found, "delivered.stream_seq");
    uint64_t ack_floor = event_bus_nats_json_u64(o->found, "ack_floor.stream_seq");

    wb_err err = event_bus_nats_tap_open(&o->feed->source->tap);
    if (err != WB_OK)
        return wb_fail(o->why, err, "durable '%s': the connection was lost", o->consumer);
    if (o->found == NULL)
        return create_consumer(o);
    err = check_durable(o, config);
    if (err != WB_OK)
        return err;
    if (delivered > o->stream_last)
        return replace_durable(o);
    note_position(o, ack_floor);
    return is_up_to_date(o, config) ? WB_OK : update_durable(o, config);
}

/* ---- ephemerals ------------------------------------------------------------------------------ */

static bool is_alive(struct opening *o)
{
    const char *filter = event_bus_nats_json_str(o->found, "config.filter_subject");

    return o->found != NULL && o->consumer[0] != '\0' &&
           event_bus_nats_json_u64(o->found, "delivered.stream_seq") <= o->stream_last &&
           (strcmp(filter, o->filter) == 0 || strcmp(filter, ">") == 0);
}

/*
 * An ordered log is read by a new consumer each time: nothing tells what the old one sent in vain.
 */
static wb_err open_ephemeral(struct opening *o)
{
    uint8_t id[WB_ID_SIZE];
    char text[WB_ID_TEXT];

    if (is_alive(o))
        return WB_OK;
    event_bus_nats_feed_drop_consumer(o->feed);
    wb_random_fill(id, sizeof(id));
    wb_hex_encode(id, sizeof(id), text);
    (void)snprintf(o->consumer, sizeof(o->consumer), "wb-%s", text);
    return create_consumer(o);
}

void event_bus_nats_feed_drop_consumer(struct nats_feed *feed)
{
    struct nats_bus *bus = feed->source->bus;
    char subject[2 * EVENT_BUS_NAME_MAX + 64];
    char reply[sizeof(bus->sub.inbox) + 8];

    pthread_mutex_lock(&bus->engine.mutex);
    bool there = feed->consumer[0] != '\0' && feed->state != NATS_FEED_GONE;
    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.DELETE.%s.%s", feed->stream,
                   feed->consumer);
    pthread_mutex_unlock(&bus->engine.mutex);
    (void)snprintf(reply, sizeof(reply), "%s.x", bus->sub.inbox); /* nobody reads the answer */
    if (there)
        (void)event_bus_nats_link_send(&bus->sub, subject, reply, (struct wb_bytes){NULL, 0});
}

/* ---- opening --------------------------------------------------------------------------------- */

static void let_run(struct opening *o)
{
    struct nats_engine *engine = &o->bus->engine;
    struct nats_feed *feed = o->feed;
    int64_t now = wb_mono_ns(wb_clock_system());

    pthread_mutex_lock(&engine->mutex);
    event_bus_nats_feed_unlist(engine, feed);
    (void)snprintf(feed->consumer, sizeof(feed->consumer), "%s", o->consumer);
    event_bus_nats_feed_list(engine, feed);
    if (o->created)
        feed->consumer_seq = 0;
    memset(feed->requests, 0, sizeof(feed->requests));
    feed->state = NATS_FEED_RUNNING;
    feed->heard_ns = now;
    feed->pull_ns = 0;
    event_bus_nats_source_pull(feed->source);
    pthread_mutex_unlock(&engine->mutex);
}

wb_err event_bus_nats_feed_open(struct nats_feed *feed, bool anew, struct wb_why *why)
{
    struct opening o = {.bus = feed->source->bus,
                        .feed = feed,
                        .options = feed->source->options,
                        .anew = anew,
                        .why = why};

    pthread_mutex_lock(&o.bus->engine.mutex);
    memcpy(o.filter, feed->filter, sizeof(o.filter));
    (void)snprintf(o.consumer, sizeof(o.consumer), "%s",
                   o.options->durable != NULL ? o.options->durable : feed->consumer);
    pthread_mutex_unlock(&o.bus->engine.mutex);
    wb_err err = look_at_consumer(&o);
    if (err == WB_OK)
        err = look_at_stream(&o);
    if (err == WB_OK) {
        err = follow_stream(&o);
        if (err == WB_OK)
            err = o.options->durable != NULL ? open_durable(&o) : open_ephemeral(&o);
    }
    json_decref(o.found);
    if (err == WB_OK)
        let_run(&o);
    return err;
}
