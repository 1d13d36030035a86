/*
 * engine.h - the pull engine: sources, their feeds, and the requests that keep them flowing.
 *
 * A subscription has one source; a source has one feed for each stream that its patterns reach; a
 * feed has one consumer at the server. A feed keeps two overlapping requests open, so that the
 * server never waits for us. nats.c's own pull subscriptions overflow the heap when an answer comes
 * late, hence an engine of our own on plain messages.
 *
 * What can go wrong with a consumer - deleted, lost with a server, ahead of a stream that was
 * rolled back, of a stream made anew - is noticed by missed heartbeats, by statuses, by gaps in its
 * numbering and on each new connection; the feed is then opened again, which looks at the server
 * and mends what is wrong. Opening takes requests that wait for answers, so only the thread of the
 * link and event_bus_subscribe() do it, without the mutex.
 */
#ifndef EVENT_BUS_NATS_ENGINE_H
#define EVENT_BUS_NATS_ENGINE_H

#include <jansson.h>

#include <waybill/event_bus_impl.h>
#include <waybill/subject.h>

#include "delivery.h"
#include "link.h"
#include "unsettled.h"

#define NATS_REQUESTS 2   /* open at a time, for each feed */
#define NATS_BUCKETS  256 /* of feeds, by stream and consumer */

struct nats_bus;

struct nats_request {
    bool open;
    uint64_t serial;
    uint32_t left; /* messages that may still come */
    int64_t sent_ns;
};

enum nats_feed_state {
    NATS_FEED_OPENING, /* to be opened, at open_ns or later */
    NATS_FEED_RUNNING,
    NATS_FEED_GONE /* its stream is; kept while deliveries may point to it */
};

struct nats_feed {
    struct nats_source *source; /* constant, as the next two */
    char stream[EVENT_BUS_NAME_MAX + 1];
    uint64_t id;
    struct nats_feed *next; /* of the source; guarded by the engine's mutex, as all below */
    struct nats_feed *bucket_next;
    bool listed; /* in its bucket */
    enum nats_feed_state state;
    int64_t open_ns;
    unsigned failures; /* to open, one after another */
    char consumer[EVENT_BUS_NAME_MAX + 1];
    char filter[SUBJECT_MAX + 1]; /* "": none */
    bool match_here;              /* the consumer delivers more than the patterns match */
    int64_t created_wall_ns;      /* of the stream; 0: not opened yet */
    struct nats_request requests[NATS_REQUESTS];
    uint64_t request_serial;
    int64_t heard_ns;           /* when the server last sent anything for it */
    int64_t pull_ns;            /* no request before */
    bool positioned;            /* last_seq says where to go on */
    bool received;              /* last_seq was really handled, by us or by who told a position */
    uint64_t last_seq;          /* of the stream */
    int64_t last_seq_stored_ns; /* when the stream took that one; 0: not received by us */
    uint64_t looked_seq;        /* last_seq at the last look at the stream, and its own then */
    uint64_t looked_stream_seq;
    int64_t last_stored_ns; /* when the stream took it, by its clock; 0: not received by us */
    int64_t resume_wall_ns; /* not positioned: begin with what was stored since; 0: as it started */
    uint64_t consumer_seq;  /* the last one, to find gaps */
    struct nats_unsettled unsettled; /* with acks */
};

struct nats_source {
    struct nats_bus *bus; /* constant, as the next ones */
    struct event_bus_subscription *subscription;
    const struct event_bus_subscription_options *options;
    /* Of a durable. Requests are open at the server when a subscription ends; it must see that they
     * have lost their listener, or it would hand them what is for the next holder. */
    struct nats_tap tap;
    char description[1024];   /* the patterns, as consumers carry them */
    struct nats_source *next; /* guarded by the engine's mutex, as all below */
    struct nats_feed *feeds;
    struct event_bus_delivery_impl *first; /* received, not yet taken by the dispatcher */
    struct event_bus_delivery_impl *last;
    size_t queued;
    unsigned inside; /* threads that use it without the mutex */
    uint64_t resumes;
    bool starting; /* event_bus_subscribe() has not returned */
    bool began;    /* it has seen the streams once */
    bool pumping;  /* a thread offers */
    bool blocked;  /* the dispatcher's queue is full */
    bool stopped;
};

/* A verdict that waits for a connection. */
struct nats_verdict {
    struct nats_verdict *next;
    const char *body;
    char text[]; /* reply subject, NUL, and the body if it has a delay */
};

struct nats_engine {
    struct nats_bus *bus; /* constant, as the next one */
    uint32_t batch;

    pthread_mutex_t mutex; /* guards all below, sources and feeds */
    pthread_cond_t idle;   /* nobody is inside a source any more */
    struct nats_source *sources;
    struct nats_feed *buckets[NATS_BUCKETS];
    uint64_t ids;                       /* of feeds and taps */
    struct nats_verdict *verdict_first; /* in order */
    struct nats_verdict *verdict_last;
    size_t verdicts;
    size_t max_bytes;       /* of one request */
    uint64_t names_hash;    /* of the streams, when last looked at */
    int64_t streams_ns;     /* when to look at the streams again */
    int64_t streams_all_ns; /* when to look at all about them */
    struct wb_rng rng;      /* of the link's thread */
};

wb_err event_bus_nats_engine_init(struct nats_engine *engine, struct nats_bus *bus, uint32_t batch);
void event_bus_nats_engine_free(struct nats_engine *engine);

/* Events of the link. */
void event_bus_nats_engine_up(struct nats_engine *engine, size_t max_payload);
void event_bus_nats_engine_down(struct nats_engine *engine);
int64_t event_bus_nats_engine_tick(struct nats_engine *engine, int64_t now_ns);
/** source: whose tap it came by, or NULL. Takes msg over. */
void event_bus_nats_engine_message(struct nats_engine *engine, struct nats_source *source,
                                   natsMsg *msg);

/** Look at the streams soon: they have changed. */
void event_bus_nats_engine_refresh(struct nats_engine *engine);

/* Operations of the bus. */
wb_err event_bus_nats_start(struct event_bus *self, struct event_bus_subscription *subscription,
                            void **ret_source, struct wb_why *why);
void event_bus_nats_stop(struct event_bus *self, void *source, bool keep_settling);
void event_bus_nats_resume(struct event_bus *self, void *source);
size_t event_bus_nats_streams(struct event_bus *self, void *source);
wb_err event_bus_nats_settle(struct event_bus *self, void *source,
                             struct event_bus_delivery_impl *delivery, event_bus_verdict verdict,
                             int64_t delay_ns);
wb_err event_bus_nats_delete_durable(struct event_bus *self, const char *durable,
                                     struct wb_why *why);

/* ---- feed.c ---------------------------------------------------------------------------------- */

/** Offer what is queued, as far as the dispatcher takes it. The mutex is held, and released around
 * offers; the caller is inside. */
void event_bus_nats_source_pump(struct nats_source *source);
/** Send the requests that the feeds of a source want. The mutex is held, and released around. */
void event_bus_nats_source_pull(struct nats_source *source);
void event_bus_nats_feed_list(struct nats_engine *engine, struct nats_feed *feed);
void event_bus_nats_feed_unlist(struct nats_engine *engine, struct nats_feed *feed);
/** Open it again, soon. The mutex is held. */
void event_bus_nats_feed_doubt(struct nats_feed *feed, int64_t at_ns);
/** Is it silent although it should send heartbeats? The mutex is held. */
bool event_bus_nats_feed_watch(struct nats_feed *feed, int64_t now_ns);
/** Its stream is gone. The mutex is held. */
void event_bus_nats_feed_end(struct nats_feed *feed);

/* ---- consumer.c ------------------------------------------------------------------------------ */

/** What a source wants of a stream: the filter of its consumer. false: nothing. */
bool event_bus_nats_plan(const struct nats_source *source, json_t *stream_config,
                         char ret_filter[SUBJECT_MAX + 1], bool *ret_match_here);
/** The patterns as text, for consumers to carry. */
void event_bus_nats_describe(struct nats_source *source);
/**
 * Make sure that the feed's consumer is there, stands where it should, and then let it run. Takes
 * requests; without the mutex, inside the source.
 * @param anew  the stream appeared after the subscription was made.
 */
wb_err event_bus_nats_feed_open(struct nats_feed *feed, bool anew, struct wb_why *why);
/** Remove an ephemeral consumer, without waiting. */
void event_bus_nats_feed_drop_consumer(struct nats_feed *feed);

/* ---- streams.c ------------------------------------------------------------------------------- */

/** Names of all streams, or of those that a subject (a pattern, too) reaches: an array. */
wb_err event_bus_nats_stream_names(struct nats_bus *bus, const char *subject, json_t **ret_names,
                                   struct wb_why *why);
/** All about all streams: an array of {config, created, state}. */
wb_err event_bus_nats_stream_list(struct nats_bus *bus, json_t **ret_streams, struct wb_why *why);

/* ---- source.c -------------------------------------------------------------------------------- */

/** Bring the feeds of a source in line with the streams there are. Inside, without the mutex. */
wb_err event_bus_nats_source_reconcile(struct nats_source *source, json_t *streams,
                                       struct wb_why *why);
void event_bus_nats_source_leave(struct nats_source *source);
void event_bus_nats_verdicts_flush(struct nats_engine *engine);

#endif /* EVENT_BUS_NATS_ENGINE_H */
