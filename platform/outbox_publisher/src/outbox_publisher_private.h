/*
 * outbox_publisher_private.h - one lane for each stream, and what the lanes share.
 *
 * outbox_publisher.c          start, stop, step, flush, health
 * outbox_publisher_lane.c     the state machine: one step, and the thread that drives it
 * outbox_publisher_check.c    CHECK: is the stream as the cursor says
 * outbox_publisher_settle.c   SETTLE: what lies beyond the cursor
 * outbox_publisher_repair.c   REPAIR: the bus has lost something
 * outbox_publisher_restore.c  RESTORE: our database has gone back in time
 * outbox_publisher_survey*.c  comparing stream and table, for both
 * outbox_publisher_ledger.c   the database, for both
 * outbox_publisher_plan.c     what a repair would do
 * outbox_publisher_origin.c   whose is a message
 * outbox_publisher_drain.c    DRAIN: read, sync, send, mark
 * outbox_publisher_send.c     sending what was read, chained
 * outbox_publisher_answer.c   what an answer means
 * outbox_publisher_read.c     rows into memory
 * outbox_publisher_claim.c    rows that may be cancelled until they are sent
 * outbox_publisher_route.c    which rows are this lane's
 * outbox_publisher_store.c    the database
 * outbox_publisher_fence.c    overtaking one that does not move
 * outbox_publisher_suspect.c  rows that end the process which sends them
 * outbox_publisher_audit.c    reading back what was published some time ago
 * outbox_publisher_audit_read.c  a slice of the stream, for that
 * outbox_publisher_verified.c the database, for that
 * outbox_publisher_wake.c     sleeping, and being woken
 */
#ifndef OUTBOX_PUBLISHER_PRIVATE_H
#define OUTBOX_PUBLISHER_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "outbox_publisher_audit.h"
#include "outbox_publisher_exceptions.h"
#include "outbox_publisher_flight.h"
#include "outbox_publisher_schedule.h"
#include "outbox_publisher_store.h"
#include "outbox_publisher_survey.h"

#include <waybill/db.h>
#include <waybill/outbox_publisher.h>

enum {
    OUTBOX_PUBLISHER_STREAMS_MAX = 16,
    OUTBOX_PUBLISHER_WINDOW_MAX = 65536,
    OUTBOX_PUBLISHER_BATCH_ROWS = 1000,
    OUTBOX_PUBLISHER_BATCH_BYTES = 1 << 20,
    OUTBOX_PUBLISHER_MARK_COUNT = 500, /* acks that are worth a transaction */
    OUTBOX_PUBLISHER_LOST_MAX = 10000, /* lost rows in memory; the next ones follow these */
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
    bool late;      /* the stream held it once: it lands behind younger ones */
    bool unclaimed; /* to be claimed before it is sent */
    bool doubtful;  /* whose row it is, only the bus can say */
    bool too_big;   /* the payload was not copied */
};

struct outbox_publisher_batch {
    char *arena; /* owned */
    size_t capacity, used;
    struct outbox_publisher_item *items; /* owned; OUTBOX_PUBLISHER_BATCH_ROWS */
    size_t count, next;                  /* items[next..count) are not sent yet */
    size_t limit;                        /* of count */
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
    uint64_t published, settles, repairs, restores, scanned;
    size_t in_flight;
    int64_t done_id;   /* rows up to here are published or set aside; -1: not known yet */
    int64_t pending;   /* about how many are not */
    int64_t oldest_ns; /* age of the oldest of them */
    int64_t audit_gap; /* rows published and not yet read back */
    int64_t verified_ms;
    uint64_t holes;
    struct outbox_publisher_route route;
};

/* A lane that only says what it would do: it has no role, and writes nothing. */
struct outbox_publisher_planning {
    struct outbox_publisher_plan *plan;
    outbox_publisher_plan_visit visit; /* NULL: nobody */
    void *ctx;
    bool enough; /* no further rows */
    bool done;
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
    atomic_bool abandoned;     /* with stop: end as a crash would */
    atomic_bool bus_changed;   /* connected or disconnected since the last look */
    atomic_bool kicked;        /* somebody wants it to look around */
    atomic_bool reload;        /* another lane left an exception row for this one */
    atomic_bool looked;        /* it has seen its stream once, or that there is none to see */
    atomic_bool sources_stale; /* another lane has found the database gone back in time */
    bool may_send;             /* all lanes have looked */

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
    bool tables_stale; /* sources and exceptions are to be read from the start */
    bool lost_left;    /* there are more lost rows than are loaded, behind this one: */
    int64_t lost_from;
    bool exceptions_stale;  /* others have changed exceptions: read them again */
    bool exceptions_look;   /* others may have */
    int64_t wall_offset_ns; /* wall clock less monotonic clock, as it was when the role was taken */
    bool wall_stepped;      /* the system's clock has left ours, and the log says so */

    /* REPAIR, RESTORE */
    struct outbox_publisher_survey *survey; /* owned; NULL: none */
    struct outbox_publisher_planning *plan; /* NULL: it acts */
    atomic_bool repair_wanted;              /* compare it whole at the next check */
    bool stream_seen;                       /* this object has found the stream as it should be */
    unsigned repairs_in_a_row;
    int64_t resend_id; /* rows of the straight path up to here were in the stream once */

    /* DRAIN */
    struct outbox_publisher_flight *flight;
    struct outbox_publisher_batch batch;
    outbox_publisher_verdict verdict;
    struct wb_why verdict_why;
    int64_t read_id;       /* rows up to here were read */
    int64_t failed_id;     /* the first of the straight path that was sent in vain; 0: none */
    int64_t taken_wall_ms; /* when it took the role */
    size_t batch_limit;    /* rows read at once: fewer after starts without a mark */
    bool hurry;            /* a row waits for the next mark to be sent by itself */
    bool synced;           /* the batch survives a power cut */
    int64_t synced_id;     /* and so does every row up to this one, as it was committed */
    bool probe;            /* the next message goes alone, see window_open() */
    uint64_t chain_seq;    /* the sequence the next message expects to follow */
    char chain_msg_id[MESSAGE_ID_MAX + 1]; /* and the id of the message there; "": unknown */
    bool aside_full;                       /* so many rows are set aside that no new one is read */
    bool dry; /* the last read found the end of the table; until something wakes us */
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
    bool duplicate_resent;
    int64_t again_row;
    unsigned again_count;
    bool again_all; /* every row that was in the stream once needs another id: the bus remembers */

    uint64_t published, settles, foreign, repairs, restores, scanned;

    struct outbox_publisher_audit audit;

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
    size_t max_set_aside;
    int64_t audit_wait_ns;
    const struct outbox_class *classes; /* borrowed */
    size_t class_count;
    bool manual;
    int64_t started_mono_ns;
    size_t lost_max;    /* OUTBOX_PUBLISHER_LOST_MAX, or less in tests; as below */
    int64_t survey_ids; /* OUTBOX_PUBLISHER_SURVEY_IDS */
    size_t lane_count;
    struct outbox_publisher_lane *lanes[OUTBOX_PUBLISHER_STREAMS_MAX]; /* constant after start */

    struct observe_series *published, *settles, *parked, *barriers, *state, *pending, *oldest;
    struct observe_series *repairs, *republished, *late, *restores, *orphans;
    struct observe_series *audit_gap, *verified, *holes;

    pthread_mutex_t mutex;
    pthread_cond_t progress; /* some lane's done_id has moved */
    struct outbox_publisher_report reports[OUTBOX_PUBLISHER_STREAMS_MAX]; /* guarded by mutex */
    struct outbox_wake_page *wake_page;                                   /* constant; NULL: none */
};

/* ---- outbox_publisher.c ---------------------------------------------------------------------- */

/** A publisher with its lanes, at rest: nobody steps them, and the bus does not know it. */
wb_err outbox_publisher_make(const struct outbox_publisher_options *options,
                             struct outbox_publisher **ret_publisher, struct wb_why *why);
/** Its lanes let go as after a crash. */
void outbox_publisher_free(struct outbox_publisher *publisher);
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

/* ---- outbox_publisher_origin.c --------------------------------------------------------------- */

typedef enum outbox_publisher_origin_kind {
    OUTBOX_PUBLISHER_FOREIGN,
    OUTBOX_PUBLISHER_STORED, /* a row of the table */
    OUTBOX_PUBLISHER_PAST,   /* of ours; its row has served its time and gone */
    OUTBOX_PUBLISHER_ORPHAN  /* of ours, but the table tells another story */
} outbox_publisher_origin_kind;

struct outbox_publisher_origin {
    outbox_publisher_origin_kind kind;
    int64_t id;   /* the row it says it is; 0: none */
    bool current; /* its source is the one that rows of this number have now */
};

/** A message as it is known again: the 16 bytes of an id of ours, the text of another, else when it
 * was stored. Returns the length. */
size_t outbox_publisher_identity(const struct event_bus_delivery *delivery,
                                 uint8_t out[MESSAGE_ID_MAX]);
/** Does the message say it is from this outbox? */
bool outbox_publisher_claims(const struct outbox_publisher_lane *lane, const struct message *msg);
/** Whose is it? Asks the table. */
wb_err outbox_publisher_origin_of(struct outbox_publisher_lane *lane, const struct message *msg,
                                  struct outbox_publisher_origin *ret_origin, struct wb_why *why);

/* ---- outbox_publisher_suspect.c -------------------------------------------------------------- */

/** How many rows are read at once after so many starts in vain. */
size_t outbox_publisher_batch_limit(int64_t starts);
/** The start has found this row noted by a publisher that ended; 0: none. */
void outbox_publisher_suspected(struct outbox_publisher_lane *lane, int64_t id);
/** When an exception is due: one that has ended processes only after a while without an end. */
int64_t outbox_publisher_suspect_due(const struct outbox_publisher_lane *lane,
                                     const struct outbox_publisher_exception *one);
/** What a mark says about starts and suspects. */
void outbox_publisher_suspect_mark(const struct outbox_publisher_lane *lane,
                                   struct outbox_publisher_cursor *cursor);
/** Before a batch is read: may it be? Notes the row that goes by itself, if it is one's turn. */
bool outbox_publisher_suspect(struct outbox_publisher_lane *lane);
/** After it was read: is the row that goes by itself the one that was noted? Notes it, if not. */
bool outbox_publisher_suspect_read(struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_check.c ---------------------------------------------------------------- */

bool outbox_publisher_check(struct outbox_publisher_lane *lane);
/** Stream and cursor agree: go to DRAIN. */
void outbox_publisher_drain_begin(struct outbox_publisher_lane *lane);
/** *ret_delivery NULL when the stream holds nothing at this sequence. */
wb_err outbox_publisher_message_at(struct outbox_publisher_lane *lane, uint64_t sequence,
                                   struct event_bus_delivery **ret_delivery, struct wb_why *why);
/** An exception as read from the table: into memory, if it is ours. false: out of memory. */
bool outbox_publisher_exception_load(struct outbox_publisher_lane *lane,
                                     const struct outbox_row *row,
                                     const struct outbox_publisher_exception *one);

/* ---- outbox_publisher_settle.c --------------------------------------------------------------- */

bool outbox_publisher_settle(struct outbox_publisher_lane *lane);
/** Write the cursor and the exceptions; false: the lane has gone to another state. */
bool outbox_publisher_cursor_set(struct outbox_publisher_lane *lane,
                                 const struct outbox_publisher_cursor *cursor);
/** Is the row stored that the bus called a duplicate? false: the lane has gone elsewhere. */
bool outbox_publisher_duplicate_resolve(struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_repair.c --------------------------------------------------------------- */

/** Go to REPAIR. kind: of the incident, static; text: what was found, NULL: nothing amiss so far.
 */
void outbox_publisher_repair_begin(struct outbox_publisher_lane *lane, const char *kind,
                                   const struct event_bus_stream_info *info, const char *text);
/** REPAIR and RESTORE. */
bool outbox_publisher_repair(struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_restore.c -------------------------------------------------------------- */

/** Go to RESTORE: SETTLE has found an event of ours without a row. */
void outbox_publisher_restore_begin(struct outbox_publisher_lane *lane);
/** The first row that must go out under a new source, by what was found; 0: none. */
int64_t outbox_publisher_restore_source(const struct outbox_publisher_lane *lane);
/** All lanes read the sources again before they send on. */
void outbox_publisher_restore_tell(struct outbox_publisher_lane *lane);
/** The lane has seen its stream, or that it cannot. */
void outbox_publisher_looked(struct outbox_publisher_lane *lane);
bool outbox_publisher_may_send(struct outbox_publisher_lane *lane);
/** The sources are as in the table; false: they could not be read. */
bool outbox_publisher_sources_fresh(struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_survey.c --------------------------------------------------------------- */

/** wanted: what to read and why; the rest is zero. The old survey, if any, is freed. */
wb_err outbox_publisher_survey_start(struct outbox_publisher_lane *lane,
                                     const struct outbox_publisher_survey *wanted,
                                     struct wb_why *why);
/** NULL does nothing. */
void outbox_publisher_survey_free(struct outbox_publisher_survey *survey);
/** Was this row found in the stream? Of rows in the range of the bitmap only. */
bool outbox_publisher_survey_found(const struct outbox_publisher_survey *survey, int64_t id);
/** The next range of rows, with a reading of the stream of its own. */
void outbox_publisher_survey_range_next(struct outbox_publisher_survey *survey);
/** Give it up: what was looked at is not as it was. */
void outbox_publisher_survey_end(struct outbox_publisher_lane *lane);
/** The database refused: the lane comes back to this very step, or has lost its role. */
void outbox_publisher_survey_database(struct outbox_publisher_lane *lane, wb_err err,
                                      const char *text);
/** The bus refused: all begins anew when it is back, it may be another stream then. */
void outbox_publisher_survey_bus(struct outbox_publisher_lane *lane, const char *text);
/** One slice; may send the lane elsewhere, and then end the survey. */
void outbox_publisher_survey_step(struct outbox_publisher_lane *lane);
/* ---- outbox_publisher_survey_rows.c ---------------------------------------------------------- */

/** Its second half, one slice: what is not missed, then what is. */
void outbox_publisher_survey_floor(struct outbox_publisher_lane *lane);
void outbox_publisher_survey_walk(struct outbox_publisher_lane *lane);
/** Write down what was found so far, and that a repair was begun. */
wb_err outbox_publisher_survey_note(struct outbox_publisher_lane *lane, struct wb_why *why);
/** For how many messages of ours, that are not there, the stream had room. */
uint64_t outbox_publisher_survey_lost_room(const struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_plan.c ----------------------------------------------------------------- */

void outbox_publisher_plan_fill(struct outbox_publisher_lane *lane,
                                const struct outbox_publisher_conclusion *conclusion);

/* ---- outbox_publisher_drain.c ---------------------------------------------------------------- */

bool outbox_publisher_drain(struct outbox_publisher_lane *lane);
/** Start anew behind the cursor. */
void outbox_publisher_drain_reset(struct outbox_publisher_lane *lane);
/** What leaves from now on may rest on what was committed just now: earlier syncs do not count. */
void outbox_publisher_unsynced(struct outbox_publisher_lane *lane);
/** Every row up to here is acknowledged, or has an exception. */
int64_t outbox_publisher_done_id(const struct outbox_publisher_lane *lane);
/** Move the cursor behind what is acknowledged, and write the exceptions. */
wb_err outbox_publisher_mark(struct outbox_publisher_lane *lane, struct wb_why *why);
/** Of the rows that left the straight path some are due, or may be: the table has changed. */
bool outbox_publisher_exceptions_wait(const struct outbox_publisher_lane *lane);
/** Nothing to read, to send, or to wait for. */
bool outbox_publisher_idle(const struct outbox_publisher_lane *lane);
/** Nanoseconds until DRAIN has something to do by itself. */
int64_t outbox_publisher_drain_wait_ns(const struct outbox_publisher_lane *lane);

/* ---- outbox_publisher_audit.c ---------------------------------------------------------------- */

/** In DRAIN: one step, if one is due. true: it did something. */
bool outbox_publisher_audit(struct outbox_publisher_lane *lane);
/** When the next step is due; INT64_MAX: everything is read back. */
int64_t outbox_publisher_audit_due_ns(const struct outbox_publisher_lane *lane);
/** The tables or the stream may have changed: begin again where the tables say. */
void outbox_publisher_audit_reset(struct outbox_publisher_lane *lane);
void outbox_publisher_audit_report(const struct outbox_publisher_lane *lane,
                                   struct outbox_publisher_report *out);
void outbox_publisher_audit_free(struct outbox_publisher_lane *lane);
/** Read the next slice; afterwards it is in hand, or nothing is old enough, or known yet. */
wb_err outbox_publisher_audit_read(struct outbox_publisher_lane *lane, struct wb_why *why);

/* ---- outbox_publisher_send.c ----------------------------------------------------------------- */

/** Send what was read, as far as the window lets; true if anything was done. */
bool outbox_publisher_send(struct outbox_publisher_lane *lane);

/** How many answers a lane that goes to sleep waits for. */
size_t outbox_publisher_answers_wanted(const struct outbox_publisher_lane *lane);

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
/** Rows off the straight path are sent up to here. */
int64_t outbox_publisher_limit_id(const struct outbox_publisher_lane *lane);
/** Fill the empty batch: due exceptions, then rows beyond read_id; those that can be cancelled are
 * claimed. WB_CONFLICT: overtaken. */
wb_err outbox_publisher_batch_read(struct outbox_publisher_lane *lane, struct wb_why *why);

/* ---- outbox_publisher_claim.c ---------------------------------------------------------------- */

/** Claim the rows of the batch that need it, and drop those that others have decided about. */
wb_err outbox_publisher_batch_claim(struct outbox_publisher_lane *lane, struct wb_why *why);
/** Load the lost rows behind after_id, as many as there is room for. */
wb_err outbox_publisher_lost_load(struct outbox_publisher_lane *lane, int64_t after_id,
                                  struct wb_why *why);
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
typedef enum outbox_publisher_asked {
    OUTBOX_PUBLISHER_ASKED_MINE,
    OUTBOX_PUBLISHER_ASKED_OTHER,    /* of another lane */
    OUTBOX_PUBLISHER_ASKED_STRANGER, /* of a stream that no lane writes to */
    OUTBOX_PUBLISHER_ASKED_UNCOVERED /* of no stream there is */
} outbox_publisher_asked;

/** Ask the bus whose a doubtful row is. Fails only when it does not answer. */
wb_err outbox_publisher_route_ask(struct outbox_publisher_lane *lane, struct wb_str named,
                                  struct wb_str subject, outbox_publisher_asked *ret_asked,
                                  struct wb_why *why);
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
