/*
 * waybill/outbox.h - write events into the outbox table, in the transaction that changes the rows
 * they tell of.
 *
 * An event is a row of the table `outbox` in the module's own database. It is there if and only if
 * the caller's transaction commits. A publisher (outbox_publisher.h) carries it to the bus; rows
 * are never updated. Any SQL client may insert too: INSERT INTO outbox(subject, payload)
 * VALUES(...).
 *
 * A struct outbox belongs to one sqlite3 connection and is used by whoever uses that connection.
 * The connection is the caller's: it is never opened, closed, committed or rolled back here.
 *
 * Files     Beside the database path-wake is made, one page that tells which publishers sleep. It
 *           may be deleted while nobody has the database open.
 */
#ifndef WAYBILL_OUTBOX_H
#define WAYBILL_OUTBOX_H

#include <waybill/base.h>
#include <waybill/message.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct outbox;

/**
 * Attach to a connection: creates or migrates the tables when needed (in the open transaction, or
 * one of its own), and prepares the INSERT.
 *
 * @param handle  borrowed until outbox_detach(). The database must be in WAL mode and the
 *                connection not at synchronous=OFF.
 * @return WB_INVALID (not WAL, synchronous=OFF), WB_UNSUPPORTED (newer tables), WB_READ_ONLY,
 *         WB_BUSY, WB_IO, WB_CORRUPT, WB_NOMEM.
 */
wb_err outbox_attach(struct sqlite3 *handle, struct outbox **ret_outbox, struct wb_why *why);

/** Before the connection is closed. NULL does nothing. */
void outbox_detach(struct outbox *outbox);

/* One event to write. */
struct outbox_event {
    struct wb_str subject;
    struct wb_bytes payload;
    struct wb_str key; /* events of one key are handled in order; {NULL, 0}: order of the stream */
    struct wb_str stream; /* {NULL, 0}: the stream whose subjects cover the subject */
    const struct message_header *headers;
    size_t header_count;
    struct wb_str traceparent; /* W3C trace context of the caller, or {NULL, 0} */

    /* When: at once, or not before a time of day, or not before a delay has passed; and not at all
     * from expires_wall_ns on. 0: none. The table keeps milliseconds. A row with a due time can be
     * cancelled, and takes no part in the order of its key: others do not wait for it. */
    int64_t due_wall_ns;     /* Unix time */
    int64_t delay_ns;        /* from now; not together with due_wall_ns */
    int64_t expires_wall_ns; /* Unix time, later than the due time */

    /* The caller's own name for the event: a second one with the same two is not written. Both or
     * neither, each of 1 to OUTBOX_IDEMPOTENCY_MAX bytes. Known as long as the first row is kept,
     * see outbox_retention.h. */
    struct wb_str caller;
    struct wb_str idempotency_key;
};

#define OUTBOX_IDEMPOTENCY_MAX 255

struct outbox_receipt {
    int64_t row_id;
    uint8_t msg_id[WB_ID_SIZE]; /* its identity on the bus, as 32 hex digits */
    bool existed; /* nothing was written: this is the row with the caller's idempotency key */
};

/**
 * Write one event inside the caller's open transaction. Never commits or rolls back, but for what
 * SQLite rolls back by itself when the disk is full: roll back and try again later.
 *
 * @param ret_receipt  may be NULL.
 * @return WB_MISUSE (no transaction is open), WB_INVALID (subject, header, times, idempotency key),
 *         WB_TOO_BIG, WB_FULL (a limit of its class, see outbox_use_classes()), WB_BUSY,
 *         WB_DISK_FULL, WB_IO, WB_READ_ONLY. When it fails nothing was written.
 */
wb_err outbox_enqueue(struct outbox *outbox, const struct outbox_event *event,
                      struct outbox_receipt *ret_receipt, struct wb_why *why);

/**
 * Call after COMMIT: wakes the publisher at once, in whatever process it runs. Costs a datagram
 * only when a publisher sleeps, and nothing when nothing was enqueued since the last call.
 * Forgetting it costs a little time only.
 */
void outbox_wake(struct outbox *outbox);

/**
 * Take a row back inside the caller's open transaction, so that it is never sent. It must have a
 * due time, or stand aside (refused, blocked, parked). Its idempotency key stays taken. Call
 * outbox_wake() after COMMIT: younger rows of its key may be waiting for it.
 *
 * @return WB_OK: once the transaction is committed the row will never be sent (also when it was
 *         cancelled before, or has expired). WB_CONFLICT: too late, it is published or on its way,
 *         or it has no due time. WB_BUSY: it cannot be told now; try again in a second.
 *         WB_NOT_FOUND, WB_MISUSE (no transaction is open), WB_DISK_FULL, WB_IO.
 */
wb_err outbox_cancel(struct outbox *outbox, int64_t row_id, struct wb_why *why);

/* ---- classes --------------------------------------------------------------------------------- */

/*
 * What becomes of the younger rows of a key when one is refused. The refused row's class decides;
 * rows without a key hold back nobody, and rows of other keys never notice.
 *
 *   BLOCK_KEY    They wait as long as it is tried again, and, once it is parked, until a person
 *                retries or discards it. The stream has the key in the order of the table.
 *   PARK         They wait as long as it is tried again. Once it is parked they go on; if a person
 *                retries it later, it comes late. Apart from that, as above.
 *   LATEST_WINS  They go on at once. As soon as one of them is acknowledged, the refused one,
 * parked or not, is cancelled; while one is on its way it is not tried. The stream has the key in
 * the order of the table, with older rows left out; never an older row behind a younger one. Rows
 * that wait for their due_at are not left out for that.
 *
 * What a broker has lost is sent again whatever the policy.
 */
typedef enum outbox_policy { OUTBOX_BLOCK_KEY, OUTBOX_PARK, OUTBOX_LATEST_WINS } outbox_policy;

/*
 * How rows of some subjects are treated: by the writer (limits), the publisher (policy) and
 * retention (keep). The first class with a pattern that matches counts; what none matches is
 * treated as by a class of zeros. Borrowed, and constant, as long as its users live.
 */
struct outbox_class {
    const char *name; /* [A-Za-z0-9_-]{1,64} */
    const char *const *patterns;
    size_t pattern_count;
    outbox_policy policy;

    /* Limits of what is not yet published, over all classes together. 0: none. Past one of them
     * outbox_enqueue() answers WB_FULL to rows of this class; or only warns, with warn. */
    uint64_t max_pending_rows;
    uint64_t max_pending_bytes;
    int64_t max_pending_age_ns;
    bool warn;

    /* Confirmed rows go when they are older, or when there are more. 0: the default, see
     * outbox_retention.h. */
    int64_t keep_age_ns;
    uint64_t keep_bytes;
    uint64_t keep_rows;
    bool archive; /* copied to the archive file first */
};

/** The class of a row, by its subject; NULL when none of the patterns matches. */
const struct outbox_class *outbox_class_of(const struct outbox_class *classes, size_t count,
                                           struct wb_str subject);

/**
 * From now on outbox_enqueue() keeps the limits of the classes; count 0: none. What is not yet
 * published is everything behind the cursor that is least far, rows of other connections included.
 * Rows that wait for their time or were set aside do not count. The look at the table is at most
 * 5 ms or 256 events old; nobody is refused by an old one. Bytes are those of payloads and headers;
 * of a backlog that is found at the first look only a part is counted, the rest is taken to be like
 * it.
 *
 * @param classes  borrowed until outbox_detach().
 */
void outbox_use_classes(struct outbox *outbox, const struct outbox_class *classes, size_t count);

/* ---- what the rows say, for status and listing ----------------------------------------------- */

typedef enum outbox_state {
    OUTBOX_PENDING,   /* not yet published */
    OUTBOX_PUBLISHED, /* acknowledged by the bus */
    OUTBOX_RETRY,     /* refused, will be tried again */
    OUTBOX_WAITING,   /* not due yet */
    OUTBOX_PARKED,    /* refused for good, or too often: needs a person */
    OUTBOX_EXPIRED,
    OUTBOX_CANCELLED /* taken back, discarded, or replaced by a younger row of its key */
} outbox_state;

/** "pending", "published", ... Static. */
const char *outbox_state_name(outbox_state state);

/* Takes the same time however long the table is: what would have to be counted is bounded. */
struct outbox_status {
    uint64_t rows;      /* from the oldest to the newest, as if none were missing between */
    uint64_t pending;   /* beyond every cursor that covers them */
    bool pending_exact; /* false: more than OUTBOX_STATUS_SCAN, counted by their numbers */
    uint64_t retry, waiting, parked, expired, cancelled; /* each at most OUTBOX_STATUS_COUNT */
    bool counts_exact;      /* false: of some there are more than that */
    int64_t last_id;        /* highest row id */
    int64_t oldest_wall_ns; /* when the oldest pending row was written; 0: none */
    char source[17];        /* hex; the current source number */
    size_t stream_count;    /* entries used in streams */
    struct outbox_stream_status {
        char stream[65];
        int64_t last_id;     /* rows up to here are published, exceptions apart */
        uint64_t last_seq;   /* the sequence of the newest of them in the stream */
        int64_t holder;      /* counts the publishers so far */
        int64_t verified_id; /* rows up to here were read back from the stream */
    } streams[16];
};

#define OUTBOX_STATUS_SCAN  500
#define OUTBOX_STATUS_COUNT 1000

/** WB_NOT_FOUND when the database has no outbox. */
wb_err outbox_status(struct sqlite3 *handle, struct outbox_status *ret_status, struct wb_why *why);

/* One row, with what became of it. Views are valid during the call that hands it out. */
struct outbox_row {
    int64_t id;
    uint8_t msg_id[WB_ID_SIZE];
    struct wb_str stream, key, subject, headers, traceparent;
    struct wb_bytes payload;
    int64_t created_wall_ns, due_wall_ns, expires_wall_ns; /* the last two: 0 for none */
    outbox_state state;
    uint32_t attempts;
    int64_t next_wall_ns; /* when it is tried again; 0: at once, or never */
    struct wb_str error;  /* of the last attempt */
};

/** Return false to stop. */
typedef bool (*outbox_visit)(void *ctx, const struct outbox_row *row);

struct outbox_filter {
    int64_t after_id; /* rows with a greater id */
    size_t limit;     /* 0: 1000 */
    bool by_state;    /* only this state */
    outbox_state state;
    struct wb_str pattern; /* only subjects it matches; {NULL, 0}: all */
};

/**
 * Rows by rising id, each handed to visit. WB_NOT_FOUND when the database has no outbox, WB_INVALID
 * for a pattern that is none, WB_UNSUPPORTED, and what reading a database may return (db_error()).
 */
wb_err outbox_list(struct sqlite3 *handle, const struct outbox_filter *filter, outbox_visit visit,
                   void *ctx, struct wb_why *why);

/** One row by its number, or by the 32 hex digits of its msg_id. WB_NOT_FOUND, WB_INVALID. */
wb_err outbox_show(struct sqlite3 *handle, struct wb_str id, outbox_visit visit, void *ctx,
                   struct wb_why *why);

#define OUTBOX_TRAIL_REPLAYS 16

/* What the tables know of a row besides the row. */
struct outbox_trail {
    char source[17];        /* hex; of the row: messages carry it */
    int64_t edited_wall_ns; /* it is sent as a person has mended it; 0: as it was written */
    uint32_t crashes;  /* processes that ended while they sent it; counted until it is through */
    bool suspect;      /* it is being sent by itself, because starts were in vain */
    uint64_t late_seq; /* about where it was stored behind younger rows; 0: it was not */
    int64_t replays[OUTBOX_TRAIL_REPLAYS]; /* rows that send it once more, the oldest */
    size_t replay_count;
};

/** Replays are looked for among the million rows behind it. Errors as db.h. */
wb_err outbox_trail(struct sqlite3 *handle, int64_t row_id, struct outbox_trail *ret_trail,
                    struct wb_why *why);

/* ---- what went wrong with a stream or with the database -------------------------------------- */

/* Something the publisher found, and mended as far as it could. The newest 10 000 are kept. */
struct outbox_incident {
    int64_t id;
    int64_t at_wall_ns;
    struct wb_str stream;
    struct wb_str
        kind; /* "rolled-back", "made-anew", "overwritten", "hole", "resumed", "adopted":
                 the bus has lost events; "restored": the database has gone back in time */
    uint64_t first_seq, last_seq; /* the sequences concerned, as far as known */
    uint64_t rows;                /* sent again; when restored: orphans found */
    uint64_t gone;                /* at most so many events cannot come back: no longer kept */
    struct wb_str detail;
};

/** Return false to stop. Views are valid during the call. */
typedef bool (*outbox_incident_visit)(void *ctx, const struct outbox_incident *incident);

/** Incidents with a greater id than after_id, by rising id, at most limit (0: 1000). */
wb_err outbox_incidents(struct sqlite3 *handle, int64_t after_id, size_t limit,
                        outbox_incident_visit visit, void *ctx, struct wb_why *why);

/* An event that is out although its transaction is undone, since the database went back in time. */
struct outbox_orphan {
    struct wb_str stream;
    uint64_t sequence;
    struct wb_str source; /* 16 hex digits */
    int64_t row_id;       /* as it was numbered then; another row may have the number now */
    struct wb_str msg_id, subject;
    int64_t stored_wall_ns, noticed_wall_ns;
};

/** Return false to stop. Views are valid during the call. */
typedef bool (*outbox_orphan_visit)(void *ctx, const struct outbox_orphan *orphan);

/** Orphans by stream and sequence, at most limit (0: 1000). At most 100 000 are kept. */
wb_err outbox_orphans(struct sqlite3 *handle, size_t limit, outbox_orphan_visit visit, void *ctx,
                      struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_OUTBOX_H */
