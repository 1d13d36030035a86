/*
 * outbox_publisher_survey.h - compares what a stream holds with the rows that should be in it.
 *
 * In slices, so that nothing is held up: the stream's headers are read from one sequence to another
 * and the rows found noted in a bitmap; then the rows of the table are walked. What a slice finds
 * is written down with it. A table with more rows than the bitmap has room for is compared range by
 * range, each with a reading of its own.
 */
#ifndef OUTBOX_PUBLISHER_SURVEY_H
#define OUTBOX_PUBLISHER_SURVEY_H

#include "outbox_publisher_ledger.h"

#include <waybill/event_bus.h>

enum {
    OUTBOX_PUBLISHER_SURVEY_IDS = 1 << 26, /* row numbers in the bitmap: at most 8 MiB */
    OUTBOX_PUBLISHER_SURVEY_CHANGES = 512,
    OUTBOX_PUBLISHER_SURVEY_ORPHANS = 64,
    OUTBOX_PUBLISHER_ORPHANS_MAX = 100000 /* rows of outbox_orphan; beyond that only counted */
};

typedef enum outbox_publisher_phase {
    OUTBOX_PUBLISHER_PHASE_BEGIN,
    OUTBOX_PUBLISHER_PHASE_READ,  /* the stream */
    OUTBOX_PUBLISHER_PHASE_FLOOR, /* what the stream's limits have removed is not lost */
    OUTBOX_PUBLISHER_PHASE_ASIDE, /* rows up to the floor that are a case apart */
    OUTBOX_PUBLISHER_PHASE_ROWS,  /* those beyond it */
    OUTBOX_PUBLISHER_PHASE_END
} outbox_publisher_phase;

/* A row of which only the bus can say whose it is. */
struct outbox_publisher_doubt {
    int64_t id;
    bool lost; /* else it is only counted */
    char stream[EVENT_BUS_NAME_MAX + 1];
    char subject[SUBJECT_MAX + 1];
};

struct outbox_publisher_survey {
    outbox_publisher_phase phase;
    struct outbox_publisher_store *store;   /* the lane's */
    struct outbox_publisher_ledger *ledger; /* owned */
    const char *kind;                       /* of the incident */
    bool whole;      /* the whole stream: rows may be lost; else only what lies behind the cursor */
    bool made_anew;  /* the stream, since the cursor was written */
    int64_t created; /* of the stream */
    uint64_t first;  /* of the stream; at the end, as it is then */
    uint64_t from, last; /* what is read, both included */
    uint64_t next;
    struct outbox_publisher_bounds bounds;

    /* found in the stream */
    uint64_t own, foreign;
    int64_t top;      /* the newest row of the table; 0: none */
    uint64_t top_seq; /* where */
    int64_t told;     /* the newest row of ours, kept or not */
    int64_t straight; /* the first row that was stored in the order of the table; 0: none */
    uint8_t last_msg_id[MESSAGE_ID_MAX];
    size_t last_msg_id_len; /* 0: nothing lies at the end */
    uint64_t *bits;         /* owned; of the rows in (base, base + ids] */
    int64_t base, ids;
    bool again_read; /* a further range of rows: all but the bitmap is known already */

    /* orphans */
    struct outbox_publisher_orphan *orphan_list; /* owned */
    size_t orphan_count;
    uint64_t orphans;   /* all that were found */
    uint64_t noted;     /* those that were not known yet */
    int64_t orphan_low; /* the lowest row of those under the source their numbers have now, which
                           must change; 0: there are none */

    /* compared */
    int64_t floor;   /* rows up to here are not missed */
    int64_t last_id; /* where the cursor will stand: what is missed beyond is new again */
    int64_t walk, walk_to;
    struct outbox_publisher_change changes[OUTBOX_PUBLISHER_SURVEY_CHANGES];
    size_t change_count;
    struct outbox_publisher_doubt *doubts; /* owned */
    size_t doubt_count;
    uint64_t again;     /* rows that are sent again */
    uint64_t late;      /* those of them that land behind younger ones */
    uint64_t uncovered; /* rows that no stream covers any more */

    /* of a slice */
    size_t seen;
    bool stopped;
    wb_err err;
    struct wb_why why;
};

#endif /* OUTBOX_PUBLISHER_SURVEY_H */
