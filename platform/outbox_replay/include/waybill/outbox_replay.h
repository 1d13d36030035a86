/*
 * waybill/outbox_replay.h - send published events once more, as events of their own.
 *
 * For each row chosen a new row is written into the outbox, in the order of the old ones; the
 * publisher carries it like any other. So order by key, exactly-once and audit hold for it too, and
 * no duplicate window can swallow it: it has a row number and a msg_id of its own. Headers, key and
 * payload are those that were sent; the header waybill-replay-of names the original
 * ("<source>/<row>"), so that a consumer can tell. Expiry times and trace contexts are left out.
 *
 * Only rows that were published are taken; one that waits, is parked or was cancelled is not. Rows
 * written after the start are not taken either, so a replay never meets its own. Rows can come from
 * an archive too (outbox_retention.h), merged with those of the table by number.
 *
 * While it runs, retention keeps what it still needs; a run that is interrupted has done all rows
 * up to the progress's last_id and can be continued behind it.
 *
 * Threads   One at a time.
 * Errors    As db.h. WB_NOT_FOUND: no such file, no outbox or no archive in it.
 */
#ifndef WAYBILL_OUTBOX_REPLAY_H
#define WAYBILL_OUTBOX_REPLAY_H

#include <waybill/base.h>
#include <waybill/filter.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OUTBOX_REPLAY_BATCH 500  /* rows in one transaction, at most */
#define OUTBOX_REPLAY_RATE  1000 /* rows a second, unless the caller says otherwise */

struct outbox_replay;

/* What a filter may ask of a row: id, subject, stream, key, msg_id, headers, payload, size, at
 * (when it was written), age. */
extern const struct filter_field outbox_replay_fields[];
extern const size_t outbox_replay_field_count;

/* Which rows: those for which everything that is given is true. All zeros: every published one. */
struct outbox_replay_selection {
    int64_t first_id, last_id;   /* both included; 0: no bound */
    int64_t since_wall_ns;       /* written then or later; 0: no bound */
    int64_t until_wall_ns;       /* written before; 0: no bound */
    struct wb_str key;           /* {NULL, 0}: any; else rows of this key */
    struct wb_str pattern;       /* of the subject as it was sent; {NULL, 0}: any */
    const struct filter *filter; /* of outbox_replay_fields; NULL: any */
};

struct outbox_replay_options {
    const char *path;                         /* the outbox, read and written */
    const char *archive_path;                 /* rows that are here are taken too; NULL: none */
    struct outbox_replay_selection selection; /* what it points to is borrowed until close */
    struct wb_str to_subject; /* send all to this subject; {NULL, 0}: to their own */
    unsigned rate;            /* rows a second, up to 1000000; 0: OUTBOX_REPLAY_RATE */
    bool full_sync;           /* new rows survive a power cut at once */
    bool plan_only;           /* the file is opened for reading; step() may not be called */
    struct wb_str log_target; /* for the operator's log: what is sent, in words */
    struct wb_str log_reason;
    const struct wb_clock *clock; /* NULL: the system's */
};

/** WB_INVALID (pattern, subject), WB_NOMEM; else as db_open(). */
wb_err outbox_replay_open(const struct outbox_replay_options *options,
                          struct outbox_replay **ret_replay, struct wb_why *why);

/** Lets go what was held. NULL does nothing. */
void outbox_replay_close(struct outbox_replay *replay);

struct outbox_replay_plan {
    uint64_t rows, bytes; /* bytes of payload */
    uint64_t archived;    /* of the rows, from the archive */
    int64_t first_id, last_id;
    int64_t first_wall_ns, last_wall_ns; /* when these two were written */
    int64_t took_ns;                     /* how long it will take at the rate */
    uint64_t in_window; /* rows written less than window_ns ago: sent under their own msg_id the
                           stream would drop them as duplicates; replays have ids of their own */
};

/** Read all that would be sent, and say how much it is. Changes nothing. */
wb_err outbox_replay_plan(struct outbox_replay *replay, int64_t window_ns,
                          struct outbox_replay_plan *ret_plan, struct wb_why *why);

struct outbox_replay_progress {
    uint64_t rows, bytes; /* since open */
    int64_t last_id;      /* of the original; 0: none yet */
    bool done;
    int64_t wait_ns; /* until the next step is due by the rate */
};

/**
 * Write the next batch: one transaction, in which the first also writes the operator's log. A step
 * that fails has written nothing.
 * @return WB_INVALID, WB_TOO_BIG (a row cannot be sent so: why names it), WB_BUSY, WB_DISK_FULL.
 */
wb_err outbox_replay_step(struct outbox_replay *replay, struct outbox_replay_progress *ret_progress,
                          struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_OUTBOX_REPLAY_H */
