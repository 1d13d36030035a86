/* outbox_publisher_ledger.h - the database as a repair needs it: comparing, noting, concluding. */
#ifndef OUTBOX_PUBLISHER_LEDGER_H
#define OUTBOX_PUBLISHER_LEDGER_H

#include "outbox_publisher_store.h"

#include <waybill/subject.h>

struct outbox_publisher_ledger;

/** Borrows the store until _close(). */
wb_err outbox_publisher_ledger_open(struct outbox_publisher_store *store,
                                    struct outbox_publisher_ledger **ret_ledger,
                                    struct wb_why *why);
void outbox_publisher_ledger_close(struct outbox_publisher_ledger *ledger);

struct outbox_publisher_bounds {
    int64_t low, high;     /* the rows that are kept have numbers in (low, high] */
    int64_t lost;          /* the highest one with an exception 'lost'; 0: none */
    uint64_t orphans;      /* in outbox_orphan */
    int64_t other_last_id; /* the highest last_id of the other streams' cursors */
};

wb_err outbox_publisher_ledger_bounds(struct outbox_publisher_ledger *ledger, const char *stream,
                                      struct outbox_publisher_bounds *ret_bounds,
                                      struct wb_why *why);

/* ---- comparing ------------------------------------------------------------------------------- */

/* A row to compare with what the stream holds. */
struct outbox_publisher_kept {
    int64_t id;
    struct wb_str stream, subject; /* views, valid during the visit */
    bool excepted;
    outbox_exception_state state; /* when excepted */
};

/** Return false to stop. */
typedef bool (*outbox_publisher_kept_visit)(void *ctx, const struct outbox_publisher_kept *row);

/* Which rows: those in (after_id, last_id], at most limit. */
struct outbox_publisher_part {
    int64_t after_id, last_id;
    size_t limit;
};

/** By rising id. */
wb_err outbox_publisher_ledger_rows(struct outbox_publisher_ledger *ledger,
                                    const struct outbox_publisher_part *part,
                                    outbox_publisher_kept_visit visit, void *ctx,
                                    struct wb_why *why);

/** Of those only rows that have an exception, or were stored late at first_seq or behind it. */
wb_err outbox_publisher_ledger_aside(struct outbox_publisher_ledger *ledger, const char *stream,
                                     uint64_t first_seq, const struct outbox_publisher_part *part,
                                     outbox_publisher_kept_visit visit, void *ctx,
                                     struct wb_why *why);

/** Rows without an exception up to last_id, by falling id. */
wb_err outbox_publisher_ledger_back(struct outbox_publisher_ledger *ledger, int64_t last_id,
                                    outbox_publisher_kept_visit visit, void *ctx,
                                    struct wb_why *why);

/* ---- noting ---------------------------------------------------------------------------------- */

typedef enum outbox_publisher_change_kind {
    OUTBOX_PUBLISHER_CHANGE_LOST,   /* to be sent again, before all others */
    OUTBOX_PUBLISHER_CHANGE_STORED, /* its exception goes: the stream holds it */
    OUTBOX_PUBLISHER_CHANGE_NEW     /* its exception 'lost' goes: the straight path comes to it */
} outbox_publisher_change_kind;

struct outbox_publisher_change {
    int64_t id;
    outbox_publisher_change_kind kind;
};

/* Whose notes these are, for one transaction. */
struct outbox_publisher_note {
    const char *stream;
    int64_t holder;
    int64_t repairing;  /* what the cursor remembers until the repair has ended */
    uint64_t stored_by; /* rows found stored lie at this sequence or before it */
    const char *text;   /* error of the lost ones */
};

/** In one transaction. WB_CONFLICT: somebody else is the holder now, nothing was written. */
wb_err outbox_publisher_ledger_change(struct outbox_publisher_ledger *ledger,
                                      const struct outbox_publisher_note *note,
                                      const struct outbox_publisher_change *changes, size_t count,
                                      struct wb_why *why);

struct outbox_publisher_orphan {
    uint64_t sequence;
    int64_t row_id;
    int64_t stored_wall_ns;
    char source[OUTBOX_SOURCE_TEXT];
    char msg_id[MESSAGE_ID_MAX + 1];
    char subject[SUBJECT_MAX + 1];
};

/** Those that are not noted yet, the first room of them; *ret_added counts them. */
wb_err outbox_publisher_ledger_orphans(struct outbox_publisher_ledger *ledger, const char *stream,
                                       int64_t now_ms, const struct outbox_publisher_orphan *list,
                                       size_t count, size_t room, size_t *ret_added,
                                       struct wb_why *why);

/* ---- concluding ------------------------------------------------------------------------------ */

struct outbox_publisher_conclusion {
    struct outbox_publisher_cursor cursor;
    bool verify_anew;       /* nothing is verified any more */
    bool made_anew;         /* sequences of the past mean nothing */
    uint64_t stream_first;  /* what lay before is gone by the stream's limits */
    int64_t source_from_id; /* a new source begins here; 0: none */
    bool amiss;             /* the incident is noted */
    struct outbox_incident incident;
};

/** All in one transaction. WB_CONFLICT as above. */
wb_err outbox_publisher_ledger_conclude(struct outbox_publisher_ledger *ledger, const char *stream,
                                        const struct outbox_publisher_conclusion *conclusion,
                                        struct wb_why *why);

#endif /* OUTBOX_PUBLISHER_LEDGER_H */
