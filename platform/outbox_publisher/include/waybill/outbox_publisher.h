/*
 * waybill/outbox_publisher.h - carries the rows of one outbox to the bus: each once, in order.
 *
 * For each stream it is a state machine: it takes the role of the stream's publisher (a lock file,
 * so that of several processes one publishes and the others stand by), checks the stream against
 * its cursor, settles what a dead predecessor left open by reading it back, then drains: read a
 * batch, sync the log unless an earlier sync covers it, send chained by the stream's sequence,
 * mark. No transaction is open while it waits for the network.
 *
 * Order     Rows go out in the order of the table. A row that is refused steps aside; whether the
 *           younger rows of its key wait for it, and until when, its class says (enum
 *           outbox_policy); a row of no class blocks its key. Rows without a key, of other keys, or
 *           waiting for their due_at hold back nobody. A stream should have one writer; messages of
 *           others are accepted and counted, and each costs reading back what was in flight.
 *
 * Priority  Each stream is carried by itself and waits for no other: events that must overtake a
 *           backlog belong to a stream of their own.
 *
 * Failure   What concerns every row - no connection, no answer, no stream, no room - is an outage:
 *           the stream is tried again after 50 ms, doubling to 750 ms, each time by chance anything
 *           up to that; at once when the connection is back. It counts against no row. What
 *           concerns one row - too big, no subject, not permitted - counts an attempt against it;
 *           it is tried again by chance within 400 ms, doubling to 60 s, and after max_attempts it
 *           is parked. Answers that leave open what the stream holds count for nothing: it is read
 *           back.
 *
 * Loss      A stream that was rolled back, wiped, made anew, written over by others or has a hole
 *           is noticed when the connection is back, and within 5 s otherwise. It is compared with
 *           the rows that are kept, all of them: those that are missing go out again before any new
 *           one, in the order of the table, as the same events (source, row, first 32 digits of
 *           msg_id). What was lost out of the midst comes behind younger events, with the header
 *           waybill-late. What lay before the stream's first sequence went by its limits or a purge
 *           and is not sent again. Rows that are no longer kept cannot be; how many those may be,
 *           the incident says (outbox_incident). A bus that forgets when its process ends is not
 *           given all history when it starts anew.
 *
 * Restore   A database put back from a copy is noticed by events in the stream that it does not
 *           know. They are listed (outbox_orphan), the rest goes on from where the stream is, and
 *           the rows that follow go out under a new source, since their numbers are used again.
 *           Stop the publisher before you replace its file. At the start no stream is written to
 *           before each has been looked at, for at most 10 s.
 *
 * Audit     Some time after they were published, rows are read back from the stream. Those that are
 *           there are confirmed (outbox_cursor.verified_id), which is what retention waits for;
 *           what the stream has lost in its midst goes out again, and outbox_incident tells of it.
 *           What went by the stream's own limits meanwhile counts as confirmed.
 *
 * Time      Rows are due by the wall clock of the system as it was when the role was taken, carried
 *           on by the monotonic clock and following corrections of less than a second. Steps send
 *           nothing early or late; the log tells of them, and the next to take the role (a restart,
 *           a takeover) starts with the clock as it is then. Of many rows that wait the nearest are
 *           kept in memory, the rest in the table.
 *
 * Cancel    What has a due time or stands aside is claimed in the table right before it is sent, so
 *           that outbox_cancel() is either in time or told that it is too late.
 *
 * Threads   One for each stream. In manual mode none: outbox_publisher_step() does the work.
 */
#ifndef WAYBILL_OUTBOX_PUBLISHER_H
#define WAYBILL_OUTBOX_PUBLISHER_H

#include <waybill/base.h>
#include <waybill/event_bus.h>
#include <waybill/observe.h>

#ifdef __cplusplus
extern "C" {
#endif

struct outbox_publisher;

struct outbox_publisher_options {
    const char *path;           /* the database; its outbox tables are made if absent */
    struct event_bus *bus;      /* borrowed until stop */
    const char *const *streams; /* names of the streams this outbox writes to; they need not exist
                                   yet. A row belongs to the stream its column names, or to the one
                                   whose subjects cover its subject; what none covers is retried
                                   and shown as an exception */
    size_t stream_count;        /* 1 to 16 */
    const char *name;           /* of the outbox, in metrics and logs; NULL: the file's name */
    size_t window;          /* sent and not yet marked, messages; 0: 2000. A crash leaves as many
                               to be read back; with 1000 a drain takes a tenth longer */
    size_t window_bytes;    /* 0: 2 MiB */
    int64_t ack_timeout_ns; /* 0: 5 s */
    int64_t audit_wait_ns;  /* what was published so long ago is read back; 0: 5 min. Shorter
                               than a server's sync interval, it tells little about power cuts */
    uint32_t max_attempts;  /* of a row that is refused, before it is parked; 0: 10 */
    size_t max_set_aside;   /* rows of a stream that are refused, parked or blocked by one that
                               is; 0: 100 000. So many, or up to a batch more, and no new row
                               is read until one of them is sent or discarded */
    const struct wb_clock *clock;       /* NULL: the system's */
    const struct outbox_class *classes; /* borrowed until stop; their policy counts here */
    size_t class_count;
    const char *repair; /* compare this stream, "*": every one, whole at the first look, also if its
                           end is as expected: finds holes. NULL: only when something is amiss */
    bool manual;
    uint64_t seed;           /* of jitter */
    struct observe *observe; /* NULL: none */
};

/**
 * Start to publish, one thread for each stream unless manual. A bus that is away or a stream that
 * is missing is no error here: health tells.
 *
 * @return WB_INVALID (streams, window), WB_UNSUPPORTED (tables of a newer version), what db_open()
 *         returns, WB_NOMEM.
 */
wb_err outbox_publisher_start(const struct outbox_publisher_options *options,
                              struct outbox_publisher **ret_publisher, struct wb_why *why);

/** Stop reading, wait up to 1 s for acks, mark, release the roles, free. NULL does nothing. */
void outbox_publisher_stop(struct outbox_publisher *publisher);

/**
 * Let go as a crash would: nothing is waited for and nothing marked; the next publisher settles it.
 * For drills and tests. NULL does nothing.
 */
void outbox_publisher_abandon(struct outbox_publisher *publisher);

/**
 * Put out a publisher that is stopped or hangs, and so keeps its role: whoever stands by takes over
 * at once, in this process or another. For one that is dead nothing needs to be done. The one put
 * out writes nothing any more; when it moves again it notices, and stands by. The act stands in the
 * operator log.
 *
 * @param path  the database, by the name its publisher was started with: the role file is beside
 * it.
 * @return WB_NOT_FOUND (no such file, no outbox, nobody ever published to the stream), WB_BUSY (it
 *         was stopped inside a transaction: only ending it helps), WB_DENIED, WB_IO.
 */
wb_err outbox_publisher_fence(const char *path, const char *stream, struct wb_why *why);

/** Manual mode: one step of every stream's machine; true if anything was done. */
bool outbox_publisher_step(struct outbox_publisher *publisher);

/**
 * Wait until every row that was committed before the call is published or set aside, and of those
 * set aside every one that was due.
 */
wb_err outbox_publisher_flush(struct outbox_publisher *publisher, int64_t timeout_ns,
                              struct wb_why *why);

typedef enum outbox_publisher_state {
    OUTBOX_PUBLISHER_STANDBY, /* another process has the role */
    OUTBOX_PUBLISHER_CHECK,
    OUTBOX_PUBLISHER_SETTLE,
    OUTBOX_PUBLISHER_DRAIN,
    OUTBOX_PUBLISHER_OUTAGE, /* the bus is away; waits with backoff, burns no attempts */
    OUTBOX_PUBLISHER_FENCED, /* overtaken by another publisher */
    OUTBOX_PUBLISHER_STOPPING,
    /* Repaired again and again, the stream contradicts the outbox each time: somebody else keeps
     * changing it, and a person has to find out who. Looks by itself every 5 s. */
    OUTBOX_PUBLISHER_HALTED,
    OUTBOX_PUBLISHER_REPAIR, /* the bus has lost published events: finds out which */
    OUTBOX_PUBLISHER_RESTORE /* the database has gone back in time: finds out how far */
} outbox_publisher_state;

/** In lower case, as status, logs and --json say it; "unknown" for no state. Static. */
const char *outbox_publisher_state_name(outbox_publisher_state state);

struct outbox_publisher_health {
    outbox_publisher_state state; /* the worst of all streams */
    uint64_t published;           /* by this object */
    uint64_t settles;
    uint64_t repairs;  /* of streams that had lost something */
    uint64_t restores; /* times the database was found to have gone back */
    uint64_t scanned;  /* messages read back by both */
    size_t in_flight;
    int64_t audit_gap; /* rows published and not read back yet; of the stream furthest behind */
    int64_t
        verified_wall_ns; /* what was stored by then is read back; of the same; 0: nothing yet */
    uint64_t holes;       /* rows found missing by the audit, and sent again */
    char problem[512];    /* what keeps it from draining; "" */
};

/** How it is at this moment. From any thread, until stop. */
void outbox_publisher_health(struct outbox_publisher *publisher,
                             struct outbox_publisher_health *ret_health);

/* ---- what a repair would do ------------------------------------------------------------------ */

struct outbox_publisher_plan {
    bool needed;       /* else the rest is zero, but for the first four */
    int64_t cursor_id; /* the cursor says: rows up to here are stored, */
    uint64_t cursor_seq;
    uint64_t stream_first, stream_last; /* what the stream says */
    char kind[16];                      /* see struct outbox_incident */
    uint64_t first_seq, last_seq;       /* the sequences in doubt */
    uint64_t rows;                      /* that would be sent again */
    uint64_t late;                      /* those of them that would land behind younger ones */
    uint64_t gone;                      /* at most so many events cannot come back */
    uint64_t orphans;                   /* messages whose row is gone */
    char detail[512];
};

/** Called with each row that would be sent again; false: no further ones. */
typedef bool (*outbox_publisher_plan_visit)(void *ctx, int64_t row_id, bool late);

/**
 * Read the stream whole, see whether it holds what it should, and say what a publisher started with
 * `repair` would do about it. Takes no role and changes nothing; a publisher may run meanwhile.
 *
 * @param options  as for a start; streams must hold `stream`.
 * @param visit    may be NULL.
 * @return WB_NOT_FOUND (no outbox, or never published to this stream), WB_NO_STREAM,
 * WB_UNREACHABLE, WB_TIMEOUT, WB_BUSY, WB_IO, WB_NOMEM.
 */
wb_err outbox_publisher_plan(const struct outbox_publisher_options *options, const char *stream,
                             outbox_publisher_plan_visit visit, void *ctx,
                             struct outbox_publisher_plan *ret_plan, struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_OUTBOX_PUBLISHER_H */
