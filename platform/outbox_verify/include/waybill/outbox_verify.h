/*
 * waybill/outbox_verify.h - does a stream hold what an outbox has published to it?
 *
 * Compares every row that is said to be published with what the stream really holds, by identity:
 * the source and row number in the message's headers, and the first 32 digits of its Nats-Msg-Id.
 * Reads only, on both sides, and may run beside a publisher: what changes meanwhile is looked at
 * twice before it is called missing.
 *
 * Memory    3 bits for each row number in the span compared in one pass, and 2 MiB. A wider span is
 *           compared in several passes, each over that part of the stream where its rows can be.
 * Threads   The caller's. No statement is open while it waits for the bus.
 */
#ifndef WAYBILL_OUTBOX_VERIFY_H
#define WAYBILL_OUTBOX_VERIFY_H

#include <waybill/base.h>
#include <waybill/event_bus.h>

#ifdef __cplusplus
extern "C" {
#endif

struct db;

struct outbox_verify_options {
    const char *stream;
    uint64_t from_seq; /* look at the stream from here on; 0: all of it */
    size_t list_max;   /* numbers kept in each list of the report; 0: 1000 */
    size_t span;       /* row numbers compared in one pass; rounded up to a multiple of 16384;
                          0: 2^27, which takes 48 MiB */
};

/* The lowest of the numbers that were found. */
struct outbox_verify_list {
    int64_t *ids; /* owned by the report */
    size_t count;
    bool truncated; /* there are more than list_max */
};

struct outbox_verify_report {
    char stream[EVENT_BUS_NAME_MAX + 1];
    uint64_t first_seq, last_seq; /* what was looked at of the stream */
    int64_t last_id;              /* the cursor: rows up to here are said to be published */
    bool made_anew;               /* it is not the stream that the cursor tells of */
    bool rolled_back;             /* it ends before the sequence that the cursor tells of */

    uint64_t messages; /* looked at */
    uint64_t rows;     /* of this stream, up to last_id, without an exception: to be found */
    uint64_t found;
    uint64_t missing; /* not stored, although they should be */
    uint64_t gone;    /* below first_seq: removed by the stream's limits, or not looked at */
    uint64_t doubled; /* rows stored more than once */
    uint64_t beyond;  /* messages of rows behind last_id: published, not yet marked */
    uint64_t purged;  /* messages of rows that were read back once and are kept no longer */
    uint64_t orphans; /* messages of ours without a row, or with another row under its number */
    uint64_t foreign; /* messages of others */
    uint64_t out_of_order; /* at least so many messages stand behind a younger row of their key */
    struct outbox_verify_list missing_ids;
    struct outbox_verify_list doubled_ids;
    struct outbox_verify_list orphan_seqs; /* sequences, not rows */
};

/**
 * Compare.
 *
 * @param db          borrowed; may be read-only, else tables of an older version are migrated.
 * @param ret_report  written on success; end it with outbox_verify_report_free().
 * @return WB_OK whatever was found; WB_NOT_FOUND (no outbox, or it never published to the stream),
 *         WB_NO_STREAM, WB_CONFLICT (the stream was made anew or cut short meanwhile: once more),
 *         WB_UNREACHABLE, WB_TIMEOUT, WB_DENIED, WB_NOMEM, WB_UNSUPPORTED (newer tables), and the
 *         errors of db.h.
 */
wb_err outbox_verify(struct db *db, struct event_bus *bus,
                     const struct outbox_verify_options *options,
                     struct outbox_verify_report *ret_report, struct wb_why *why);

void outbox_verify_report_free(struct outbox_verify_report *report);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_OUTBOX_VERIFY_H */
