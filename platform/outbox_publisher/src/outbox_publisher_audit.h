/* outbox_publisher_audit.h - what a lane remembers of reading its stream back. */
#ifndef OUTBOX_PUBLISHER_AUDIT_H
#define OUTBOX_PUBLISHER_AUDIT_H

#include "outbox_publisher_verified.h"

enum {
    OUTBOX_PUBLISHER_AUDIT_SLICE = 2000, /* sequences read at a time, and rows compared */
};

/* A message that says which row of ours it is. */
struct outbox_publisher_witness {
    int64_t id;
    uint64_t sequence;
    uint8_t msg_id[WB_ID_SIZE];
    char source[OUTBOX_SOURCE_TEXT];
};

/* Belongs to the thread that steps the lane. */
struct outbox_publisher_audit {
    struct outbox_publisher_verifier *verifier; /* owned; NULL: not opened yet */
    bool loaded;
    struct outbox_publisher_verified verified; /* as the table has it */
    uint64_t next;                             /* sequence to be read next */
    int64_t due_mono_ns;                       /* the next slice: not before */
    int64_t retry_mono_ns;                     /* after a failure: nothing before */
    bool jumped; /* messages went by the limits, and no row has told yet which they were */

    /* the slice that was read, as long as its rows are not all compared */
    bool in_hand;
    struct outbox_publisher_verified reached; /* where it ends; id: rows up to it are compared */
    int64_t target;                           /* rows up to here are to be */
    uint64_t first_seq;                       /* of the stream, if it has passed what was read */
    int64_t gone_id; /* rows before this one went by the limits, if not found; 0: none */
    struct outbox_publisher_witness *witnesses; /* owned; AUDIT_SLICE, by rising id */
    size_t witness_count;
    struct outbox_publisher_found *found; /* owned; AUDIT_SLICE: those that are what they say */
    size_t found_count;
    int64_t *missed; /* owned; AUDIT_SLICE */
    size_t missed_count;
    int64_t asked_id; /* the bus was asked whose this row is, */
    bool asked_mine;  /* and said: ours */

    uint64_t holes; /* found by this object */
};

#endif /* OUTBOX_PUBLISHER_AUDIT_H */
