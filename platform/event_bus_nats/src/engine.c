/* engine.c - what the link's thread does for the sources, again and again. */
#include "engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "nats_bus.h"

#define TICK_NS        (250 * WB_MS)
#define STREAMS_NS     (2 * WB_SEC)  /* between two looks at the names of streams */
#define STREAMS_ALL_NS (10 * WB_SEC) /* at all about them: subjects change rarely */
#define OPEN_MIN_NS    (100 * WB_MS)
#define OPEN_MAX_NS    (5 * WB_SEC)
#define REQUEST_BYTES  (4U << 20)

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* ---- connections come and go ----------------------------------------------------------------- */

/* The mutex is held. */
static void doubt_all(struct nats_engine *engine)
{
    for (struct nats_source *source = engine->sources; source != NULL; source = source->next)
        for (struct nats_feed *feed = source->feeds; feed != NULL; feed = feed->next)
            event_bus_nats_feed_doubt(feed, 0);
    engine->names_hash = 0;
    engine->streams_ns = 0;
}

void event_bus_nats_engine_up(struct nats_engine *engine, size_t max_payload)
{
    event_bus_nats_verdicts_flush(engine);
    pthread_mutex_lock(&engine->mutex);
    /* A request must have room for the largest message, or it would never end. */
    engine->max_bytes = 2 * max_payload > REQUEST_BYTES ? 2 * max_payload : REQUEST_BYTES;
    doubt_all(engine);
    pthread_mutex_unlock(&engine->mutex);
}

void event_bus_nats_engine_down(struct nats_engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
    doubt_all(engine);
    pthread_mutex_unlock(&engine->mutex);
}

void event_bus_nats_engine_refresh(struct nats_engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
    engine->names_hash = 0;
    engine->streams_ns = 0;
    pthread_mutex_unlock(&engine->mutex);
    event_bus_nats_link_wake(&engine->bus->sub);
}

/* ---- streams that appear and vanish ---------------------------------------------------------- */

static uint64_t hash_names(json_t *names)
{
    uint64_t hash = 1;
    size_t i;
    json_t *name;

    json_array_foreach(names, i, name)
    {
        if (json_is_string(name))
            hash = hash * 31 + wb_hash(json_string_value(name), json_string_length(name));
    }
    return hash;
}

/* The next source behind one (NULL: the first) that may be worked on, entered. Mutex held. */
static struct nats_source *enter_next(struct nats_engine *engine, const struct nats_source *behind)
{
    struct nats_source *source = behind != NULL ? behind->next : engine->sources;

    while (source != NULL && (source->starting || source->stopped))
        source = source->next;
    if (source != NULL)
        source->inside++;
    return source;
}

static bool reconcile_all(struct nats_engine *engine, json_t *streams)
{
    struct wb_why why = {""};
    bool whole = true;

    pthread_mutex_lock(&engine->mutex);
    struct nats_source *source = enter_next(engine, NULL);
    while (source != NULL) {
        pthread_mutex_unlock(&engine->mutex);
        if (event_bus_nats_source_reconcile(source, streams, &why) != WB_OK) {
            wb_log(WB_LOG_WARN, "event_bus_nats", "%s", why.text);
            whole = false;
        }
        pthread_mutex_lock(&engine->mutex);
        /* Still inside, so it is still in the list. */
        struct nats_source *next = enter_next(engine, source);
        event_bus_nats_source_leave(source);
        source = next;
    }
    pthread_mutex_unlock(&engine->mutex);
    return whole;
}

static bool has_work(struct nats_engine *engine, int64_t now, uint64_t *ret_hash, bool *ret_all)
{
    pthread_mutex_lock(&engine->mutex);
    bool due = engine->sources != NULL && now >= engine->streams_ns;
    if (due)
        engine->streams_ns = now + STREAMS_NS;
    *ret_hash = engine->names_hash;
    *ret_all = now >= engine->streams_all_ns;
    pthread_mutex_unlock(&engine->mutex);
    return due;
}

static void look_at_streams(struct nats_engine *engine, int64_t now)
{
    json_t *names = NULL;
    json_t *streams = NULL;
    uint64_t known;
    bool all;

    if (!has_work(engine, now, &known, &all) ||
        event_bus_nats_stream_names(engine->bus, NULL, &names, NULL) != WB_OK)
        return;
    uint64_t hash = hash_names(names);
    json_decref(names);
    if ((hash == known && !all) || event_bus_nats_stream_list(engine->bus, &streams, NULL) != WB_OK)
        return;
    bool whole = reconcile_all(engine, streams);
    json_decref(streams);
    pthread_mutex_lock(&engine->mutex);
    /* Asked for anew meanwhile: then look again. */
    if (whole && engine->names_hash == known && engine->streams_ns != 0)
        engine->names_hash = hash;
    engine->streams_all_ns = now + STREAMS_ALL_NS;
    pthread_mutex_unlock(&engine->mutex);
}

/* ---- feeds that are to be opened ------------------------------------------------------------- */

/* One that is due, with its source entered. */
static struct nats_feed *next_to_open(struct nats_engine *engine, int64_t now)
{
    struct nats_feed *found = NULL;

    pthread_mutex_lock(&engine->mutex);
    for (struct nats_source *source = engine->sources; source != NULL && found == NULL;
         source = source->next) {
        if (source->starting || source->stopped)
            continue;
        for (struct nats_feed *feed = source->feeds; feed != NULL && found == NULL;
             feed = feed->next)
            if (feed->state == NATS_FEED_OPENING && feed->open_ns <= now)
                found = feed;
    }
    if (found != NULL)
        found->source->inside++;
    pthread_mutex_unlock(&engine->mutex);
    return found;
}

static void note_failure(struct nats_engine *engine, struct nats_feed *feed, wb_err err,
                         const struct wb_why *why)
{
    if (err == WB_NO_STREAM) {
        event_bus_nats_feed_end(feed);
        engine->names_hash = 0;
        return;
    }
    feed->open_ns = now_ns() + OPEN_MIN_NS +
                    wb_backoff_ns(&engine->rng, feed->failures, OPEN_MIN_NS, OPEN_MAX_NS);
    if (feed->failures++ == 0)
        wb_log(WB_LOG_WARN, "event_bus_nats", "%s; trying again", why->text);
}

static void open_feeds(struct nats_engine *engine)
{
    int64_t now = now_ns(); /* what fails is due later, so this ends */
    struct nats_feed *feed;

    while ((feed = next_to_open(engine, now)) != NULL) {
        struct nats_source *source = feed->source;
        struct wb_why why = {""};
        wb_err err = event_bus_nats_feed_open(feed, source->began, &why);
        pthread_mutex_lock(&engine->mutex);
        if (err == WB_OK)
            feed->failures = 0;
        else
            note_failure(engine, feed, err, &why);
        event_bus_nats_source_leave(source);
        pthread_mutex_unlock(&engine->mutex);
        if (!event_bus_nats_link_is_up(&engine->bus->sub))
            return;
    }
}

/* ---- feeds that run -------------------------------------------------------------------------- */

static void watch_feeds(struct nats_engine *engine, int64_t now)
{
    pthread_mutex_lock(&engine->mutex);
    struct nats_source *source = enter_next(engine, NULL);
    while (source != NULL) {
        for (struct nats_feed *feed = source->feeds; feed != NULL; feed = feed->next)
            if (event_bus_nats_feed_watch(feed, now))
                event_bus_nats_feed_doubt(feed, now);
        event_bus_nats_source_pull(source);
        struct nats_source *next = enter_next(engine, source);
        event_bus_nats_source_leave(source);
        source = next;
    }
    pthread_mutex_unlock(&engine->mutex);
}

int64_t event_bus_nats_engine_tick(struct nats_engine *engine, int64_t now)
{
    look_at_streams(engine, now);
    watch_feeds(engine, now_ns());
    open_feeds(engine);
    return now_ns() + TICK_NS;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

wb_err event_bus_nats_engine_init(struct nats_engine *engine, struct nats_bus *bus, uint32_t batch)
{
    uint64_t seed;

    *engine = (struct nats_engine){.bus = bus, .batch = batch, .max_bytes = REQUEST_BYTES};
    wb_random_fill(&seed, sizeof(seed));
    wb_rng_seed(&engine->rng, seed);
    if (pthread_mutex_init(&engine->mutex, NULL) != 0)
        return WB_NOMEM;
    if (wb_cond_init(&engine->idle) != 0) {
        pthread_mutex_destroy(&engine->mutex);
        return WB_NOMEM;
    }
    return WB_OK;
}

void event_bus_nats_engine_free(struct nats_engine *engine)
{
    struct nats_verdict *next;

    for (struct nats_verdict *verdict = engine->verdict_first; verdict != NULL; verdict = next) {
        next = verdict->next;
        free(verdict);
    }
    pthread_cond_destroy(&engine->idle);
    pthread_mutex_destroy(&engine->mutex);
}
