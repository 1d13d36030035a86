/*
 * chain.h - the hash chain of the audit record.
 *
 * hash(n) = SHA-256(hash(n - 1) || encoding of entry n), hash(0) = 32 zero bytes. The encoding:
 * seq, stream, stream sequence, subject, msg_id, SHA-256 of the payload (32 bytes), stored time in
 * Unix nanoseconds; numbers as 8 bytes big-endian, texts as 4 bytes big-endian length and their
 * bytes. Lengths stand before what they measure, so no two entries share an encoding.
 */
#ifndef AUDIT_CHAIN_H
#define AUDIT_CHAIN_H

#include <waybill/base.h>

struct db;
struct module_event;
struct module_scope;

#define AUDIT_HASH_SIZE 32
#define AUDIT_HASH_TEXT (2 * AUDIT_HASH_SIZE + 1)

/* One event as the record keeps it. */
struct audit_entry {
    int64_t seq; /* 1, 2, 3 ...: place in the record */
    struct wb_str stream;
    int64_t stream_seq;
    struct wb_str subject;
    struct wb_str msg_id; /* "": none */
    uint8_t payload_sha256[AUDIT_HASH_SIZE];
    int64_t stored_at_ns;
};

/** The hash of an entry behind prev. WB_NOMEM, WB_INTERNAL. */
wb_err audit_chain_hash(const uint8_t prev[AUDIT_HASH_SIZE], const struct audit_entry *entry,
                        uint8_t ret_hash[AUDIT_HASH_SIZE], struct wb_why *why);

/** Inside the open transaction: add an event to the end of the record. */
wb_err audit_chain_append(struct module_scope *scope, const struct module_event *event,
                          struct wb_why *why);

/* The end of the record, to be kept where the writer of the file cannot reach. */
struct audit_anchor {
    int64_t seq;
    uint8_t hash[AUDIT_HASH_SIZE];
};

/**
 * Compute the whole chain anew, from the first entry to the last.
 *
 * @param anchor      an end noted earlier, which must still be in the record; NULL: none.
 * @param ret_end     the end now; on WB_CORRUPT seq is the first broken entry.
 * @return WB_CORRUPT with the first broken link in why.
 */
wb_err audit_chain_verify(struct db *db, const struct audit_anchor *anchor,
                          struct audit_anchor *ret_end, struct wb_why *why);

#endif /* AUDIT_CHAIN_H */
