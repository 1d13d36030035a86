/*
 * outbox_publisher_private.h - one lane for each stream, and what the lanes share.
 *
 * outbox_publisher.c          start, stop, step, flush, health
 * outbox_publisher_lane.c     the state machine: one step, and the thread that drives it
 * outbox_publisher_check.c    CHECK and SETTLE: what does the stream hold
 * outbox_publisher_drain.c    DRAIN: read, sync, send, mark
 * outbox_publisher_answer.c   what an answer means
 * outbox_publisher_read.c     rows into memory
 * outbox_publisher_claim.c    rows that may be cancelled until they are sent
 * outbox_publisher_route.c    which rows are this lane's
 * outbox_publisher_store.c    the database
 * outbox_publisher_fence.c    overtaking one that does not move
 * outbox_publisher_wake.c     sleeping, and being woken
 */
#ifndef OUTBOX_PUBLISHER_PRIVATE_H
#define OUTBOX_PUBLISHER_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "outbox_publisher_exceptions.h"
#include "outbox_publisher_flight.h"
#include "outbox_publisher_schedule.h"
#include "outbox_publisher_store.h"

#include <waybill/db.h>
#include <waybill/outbox_publisher.h>

enum {
    OUTBOX_PUBLISHER_STREAMS_MAX = 16,
    OUTBOX_PUBLISHER_BATCH_ROWS = 1000,
    OUTBOX_PUBLISHER_BATCH_BYTES = 1 << 20,
    OUTBOX_PUBLISHER_MARK_COUNT = 500, /* acks that are worth a transaction */
    OUTBOX_PUBLISHER_PATTERNS_MAX = 128
};

/*
 * What was sent and not answered may still arrive, each message at the one place in the chain it
 * expects. As long as nothing else is sent it can only land in order; behind a row that was not in
 * the old chain it could land before the row it followed there. So nothing is sent for a moment: a
 * long one after lost answers, a short one after a predecessor, who was a process on this host.
 */
#define OUTBOX_PUBLISHER_GRACE_NS          (200 * WB_MS)
#define OUTBOX_PUBLISHER_TAKEOVER_GRACE_NS (10 * WB_MS)

/* What ended the sending: the rest of the flight may answer, then the lane goes elsewhere. */
typedef enum outbox_publisher_verdict {
    OUTBOX_PUBLISHER_GOES_ON,
    OUTBOX_PUBLISHER_LOOKS, /* the stream is not as expected: read it back */
    OUTBOX_PUBLISHER_WAITS  /* the bus cannot take it now */
} outbox_publisher_verdict;

/* A row that was read, waiting to be sent. */
struct outbox_publisher_item {
    struct outbox_row row; /* views into the batch's arena */
    uint64_t key_hash;
    bool exception;
    bool unclaimed; /* to be claimed before it is sent */
    bool doubtful;  /* whose row it is, only the bus can say */
    bool too_big;   /* the payload was not copied */
};

struct outbox_publisher_batch {
    char *arena; /* owned */
    size_t capacity, used;
    struct outbox_publisher_item *items; /* owned; OUTBOX_PUBLISHER_BATCH_ROWS */
    size_t count, next;                  /* items[next..count) are not sent yet */
};

/* The patterns of a stream, as CHECK has seen them. */
struct outbox_publisher_route {
    bool known;
    char text[1024];
    struct wb_str patterns[OUTBOX_PUBLISHER_PATTERNS_MAX]; /* views into text */
    size_t count;
};

/* What others may ask about a lane; guarded by the publisher's mutex. */
struct outbox_publisher_report {
    outbox_publisher_state state;
    char problem[512];
    uint64_t published, settles;
    size_t in_flight;
    int64_t done_id;   /* rows up to here are published or set aside; -1: not known yet */
    int64_t pending;   /* about how many are not */
    int64_t oldest_ns; /* age of the oldest of them */
    struct outbox_publisher_route route;
};

/* Everything without a note belongs to the thread that steps the lane. */
struct outbox_publisher_lane {
    struct outbox_publisher *publisher;  /* constant */
    size_t index;                        /* constant */
    char stream[EVENT_BUS_NAME_MAX + 1]; /* constant */
    const struct wb_clock *clock;        /* constant */
    struct wb_rng rng;
    pthread_t thread; /* constant after start */
    bool threaded;    /* constant after start */

    atomic_bool stop;
    atomic_bool abandoned;   /* with stop: end as a crash would */
    atomic_bool bus_changed; /* connected or disconnected since the last look */
    atomic_bool kicked;      /* somebody wants it to look around */
    atomic_bool reload;      /* another lane left an exception row for this one */

    struct outbox_publisher_store *store;
    struct db_barrier *barrier;
    struct db_role *role;

    outbox_publisher_state state;
    char problem[512];
    int64_t retry_mono_ns; /* STANDBY, OUTAGE, HALTED: not before */
    unsigned standby_soon; /* further tries after a notice that the role may be free */
    int64_t alive_mono_ns; /* when it last knew that it is the holder, or looked at the clock */
    unsigned outages;      /* in a row, without an ack between */
    unsigned looks;        /* in a row, without an ack between */
    int64_t checked_mono_ns;
    int64_t grace_ns;      /* messages may still be on their way: wait so long; 0: none are */
    int64_t grace_mono_ns; /* the wait ends; 0: it has not begun, the bus was out of reach */

    struct outbox_publisher_cursor cursor; /* as in the table */
    uint64_t stream_last;                  /* SETTLE reads up to here */
    size_t max_payload;
    struct outbox_publisher_route route;
    struct outbox_publisher_sources sources;
    struct outbox_publisher_exceptions exceptions;
    struct outbox_publisher_schedule schedule;
    bool tables_stale;      /* sources and exceptions are to be read from the start */
    bool exceptions_stale;  /* others have changed exceptions: read them again */
    bool exceptions_look;   /* others may have */
    int64_t wall_offset_ns; /* wall clock less monotonic clock, as it was when the role was taken */
    bool wall_stepped;      /* the system's clock has left ours, and the log says so */

    /* DRAIN */
    struct outbox_publisher_flight *flight;
    struct outbox_publisher_batch batch;
    outbox_publisher_verdict verdict;
    struct wb_why verdict_why;
    int64_t read_id;    /* rows up to here were read */
    int64_t failed_id;  /* the first of the straight path that was sent in vain; 0: none */
    bool synced;        /* the batch survives a power cut */
    bool probe;         /* the next message goes alone, see window_open() */
    uint64_t chain_seq; /* the sequence the next message expects to follow */
    bool dry;           /* the last read found the end of the table; until something wakes us */
    int64_t exception_due_ms; /* when the next one falls due */
    int64_t news_mono_ns;     /* when something was last sent or answered */
    int64_t tick_mono_ns;     /* of the measurements made once a second */

    uint64_t acked_seq; /* the end of the stream as acknowledged */
    uint8_t acked_msg_id[WB_ID_SIZE];
    size_t unmarked, unmarked_bytes; /* acked, not yet in the cursor */
    int64_t unmarked_mono_ns;        /* since when there is something to mark; 0: nothing */
    int64_t database_retry_mono_ns;  /* the database failed: do nothing before; 0: it did not */
    unsigned database_failures;      /* in a row */

    /*
     * A duplicate answer that is to be looked at, and a row that needs another id because of one.
     */
    int64_t duplicate_row;
    uint64_t duplicate_seq;
    int64_t again_row;
    unsigned again_count;

    uint64_t published, settles, foreign;

    int watch_fd; /* inotify on the write-ahead log; -1: none */
    int watch_wd; /* -1: none */
    unsigned rechecks;
    int wake_fd;                /* where outbox_wake() of others arrives; -1: none */
    unsigned wake_slot;         /* that of wake_fd */
    int64_t wake_retry_mono_ns; /* without one: do not try before */
    bool announced;             /* writers know that we sleep */
};

struct outbox_publisher {
    char *path, *name; /* constant, owned */
    struct event_bus *bus;
    const struct wb_clock *clock;
    size_t window, window_bytes;
    int64_t ack_timeout_ns;
    uint32_t max_attempts;
    const struct outbox_class *classes; /* borrowed */
    size_t class_count;
    bool manual;
    size_t lane_count;
    struct outbox_publisher_lane *lanes[OUTBOX_PUBLISHER_STREAMS_MAX]; /* constant after start */

    struct observe_series *published, *settles, *parked, *barriers, *state, *pending, *oldest;

    pthread_mutex_t mutex;
    pthread_cond_t progress; /* some lane's done_id has moved */
    struct outbox_publisher_report reports[OUTBOX_PUBLISHER_STREAMS_MAX]; /* guarded by mutex */
    struct outbox_wake_page *wake_page;                                   /* constant; NULL: none */
};

/* ---- outbox_publisher.c ---------------------------------------------------------------------- */

/** The worst of all lanes, for the metrics; under the mutex. */
void outbox_publisher_metrics(struct outbox_publisher *publisher);

/* ---- outbox_publisher_lane.c ----------------------------------------------------------------- */

wb_err outbox_publisher_lane_create(struct outbox_publisher *publisher, size_t index,
                                    const char *stream, uint64_t seed,
                                    struct outbox_publisher_lane **ret_lane, struct wb_why *why);
/** Lets go of everything at once, marked or not: what a crash does. NULL does nothing. */
void outbox_publisher_lane_destroy(struct outbox_publisher_lane *lane);
bool outbox_publisher_lane_step(struct outbox_publisher_lane *lane);
/** Take what is answered, wait for the rest, mark, release the role. */
void outbox_publisher_lane_finish(struct outbox_publisher_lane *lane);
/** The thread. */
void *outbox_publisher_lane_main(void *lane);

/** The role may be free now. */
void outbox_publisher_standby_notice(struct outbox_publisher_lane *lane);
/** Go to a state; text (may be NULL) says what keeps the lane from draining, and is logged when
 * new. */
void outbox_publisher_lane_go(struct outbox_publisher_lane *lane, outbox_publisher_state state,
                              const char *text);
/** The bus cannot be used now: back off, then check. */
void outbox_publisher_lane_outage(struct outbox_publisher_lane *lane, const char *text);
/** The database cannot be used now: nothing is sent until it can. */
void outbox_publisher_lane_ours(struct outbox_publisher_lane *lane, const char *text);

/** Tell what status pages and alerts are to see: how many rows are left, and for how long. */
void outbox_publisher_lane_measured(struct outbox_publisher_lane *lane, int64_t pending,
                                    int64_t oldest_ns);

int64_t outbox_publisher_now_ns(const struct outbox_publisher_lane *lane);
int64_t outbox_publisher_wall_ms(const struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_fence.c ---------------------------------------------------------------- */

/** The role file of a stream's publisher. */
void outbox_publisher_role_path(struct wb_buf *buf, const char *path, const char *stream);
/** Away for so long that somebody may have taken over? false: still the holder, go on. */
bool outbox_publisher_overtaken(struct outbox_publisher_lane *lane);

/** Take the system's wall clock for ours. */
void outbox_publisher_wall_anchor(struct outbox_publisher_lane *lane);
/** Follow it in small corrections, and tell of a step. */
void outbox_publisher_wall_compare(struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_check.c ---------------------------------------------------------------- */

bool outbox_publisher_check(struct outbox_publisher_lane *lane);
/** An exception as read from the table: into memory, if it is ours. false: out of memory. */
bool outbox_publisher_exception_load(struct outbox_publisher_lane *lane,
                                     const struct outbox_row *row,
                                     const struct outbox_publisher_exception *one);
bool outbox_publisher_settle(struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_drain.c ---------------------------------------------------------------- */

bool outbox_publisher_drain(struct outbox_publisher_lane *lane);
/** Start anew behind the cursor. */
void outbox_publisher_drain_reset(struct outbox_publisher_lane *lane);
/** Every row up to here is acknowledged, or has an exception. */
int64_t outbox_publisher_done_id(const struct outbox_publisher_lane *lane);
/** Move the cursor behind what is acknowledged, and write the exceptions. */
wb_err outbox_publisher_mark(struct outbox_publisher_lane *lane, struct wb_why *why);
/** Nothing to read, to send, or to wait for. */
bool outbox_publisher_idle(const struct outbox_publisher_lane *lane);
/** Nanoseconds until DRAIN has something to do by itself. */
int64_t outbox_publisher_drain_wait_ns(const struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_answer.c --------------------------------------------------------------- */

/** Take what is answered; true if anything was. */
bool outbox_publisher_collect(struct outbox_publisher_lane *lane);
/** Something to mark has come up. */
void outbox_publisher_unmarked(struct outbox_publisher_lane *lane);
/** The policy of the class of a subject. */
outbox_policy outbox_publisher_policy_of(const struct outbox_publisher_lane *lane,
                                         struct wb_str subject);

/* What an error says, and about what. */
typedef enum outbox_publisher_error_class {
    OUTBOX_PUBLISHER_OF_ROW,   /* this row cannot be stored: others can */
    OUTBOX_PUBLISHER_OF_CHAIN, /* what the stream holds is open */
    OUTBOX_PUBLISHER_OF_STREAM /* nothing can be stored now */
} outbox_publisher_error_class;

outbox_publisher_error_class outbox_publisher_classify(wb_err err);
/** A row of the key is in the stream: older ones that yield to it are cancelled. */
void outbox_publisher_supersede(struct outbox_publisher_lane *lane, int64_t id, uint64_t key_hash);
/** A row was refused: try it again later, or set it aside. */
void outbox_publisher_refuse(struct outbox_publisher_lane *lane, int64_t id, uint64_t key_hash,
                             bool for_good, const char *error);
/** Remember why sending ends. The first reason counts. */
void outbox_publisher_judge(struct outbox_publisher_lane *lane, outbox_publisher_verdict verdict,
                            const char *text);

/* ---- outbox_publisher_read.c ----------------------------------------------------------------- */

wb_err outbox_publisher_batch_init(struct outbox_publisher_batch *batch);
void outbox_publisher_batch_free(struct outbox_publisher_batch *batch);
/** Fill the empty batch: due exceptions, then rows beyond read_id; those that can be cancelled are
 * claimed. WB_CONFLICT: overtaken. */
wb_err outbox_publisher_batch_read(struct outbox_publisher_lane *lane, struct wb_why *why);

/* ---- outbox_publisher_claim.c ---------------------------------------------------------------- */

/** Claim the rows of the batch that need it, and drop those that others have decided about. */
wb_err outbox_publisher_batch_claim(struct outbox_publisher_lane *lane, struct wb_why *why);
/** Read the exceptions again if others have changed them. */
wb_err outbox_publisher_exceptions_reload(struct outbox_publisher_lane *lane, struct wb_why *why);

/* ---- outbox_publisher_route.c ---------------------------------------------------------------- */

typedef enum outbox_publisher_owner {
    OUTBOX_PUBLISHER_MINE,
    OUTBOX_PUBLISHER_OTHER,
    OUTBOX_PUBLISHER_DOUBTFUL /* the first lane's to look up */
} outbox_publisher_owner;

void outbox_publisher_route_set(struct outbox_publisher_lane *lane, const char *subjects);
outbox_publisher_owner outbox_publisher_route_of(struct outbox_publisher_lane *lane,
                                                 struct wb_str stream, struct wb_str subject);
/**
 * Ask the bus whose a doubtful item is. true: ours, send it. Otherwise an exception was made of it,
 * or the verdict says that the bus could not be asked.
 */
bool outbox_publisher_route_resolve(struct outbox_publisher_lane *lane,
                                    const struct outbox_publisher_item *item);

/* ---- outbox_publisher_wake.c ----------------------------------------------------------------- */

void outbox_publisher_watch_open(struct outbox_publisher_lane *lane);
void outbox_publisher_watch_close(struct outbox_publisher_lane *lane);
/** Sleep until woken, at most so long. */
void outbox_publisher_sleep(struct outbox_publisher_lane *lane, int64_t wait_ns);
/** Wake a lane, and let it look around. Any thread. */
void outbox_publisher_lane_kick(struct outbox_publisher_lane *lane);

#endif /* OUTBOX_PUBLISHER_PRIVATE_H */
