#include "chain.h"

#include <string.h>

#include <sqlite3.h>

#include <waybill/db.h>

/* One statement sees one state of the file: entries and the note of their end belong together. */
static const char *const all =
    "SELECT n.seq, n.hash, e.seq, e.stream, e.stream_seq, e.subject, e.msg_id, e.payload_sha256, "
    "e.stored_at_ns, e.hash FROM audit_end AS n LEFT JOIN audit_entry AS e WHERE n.one = 1 "
    "ORDER BY e.seq";
enum {
    END_SEQ,
    END_HASH,
    SEQ,
    STREAM,
    STREAM_SEQ,
    SUBJECT,
    MSG_ID,
    PAYLOAD_SHA256,
    STORED_AT,
    HASH
};

/* false: not 32 bytes */
static bool column_hash(struct sqlite3_stmt *stmt, int column, uint8_t ret_hash[AUDIT_HASH_SIZE])
{
    const void *hash = sqlite3_column_blob(stmt, column);

    if (hash == NULL || sqlite3_column_bytes(stmt, column) != AUDIT_HASH_SIZE)
        return false;
    memcpy(ret_hash, hash, AUDIT_HASH_SIZE);
    return true;
}

/* Is the row the entry that follows at? Then at moves on to it. */
static wb_err link_check(struct sqlite3_stmt *stmt, struct audit_anchor *at, struct wb_why *why)
{
    uint8_t kept[AUDIT_HASH_SIZE];
    struct audit_entry entry = {
        .seq = sqlite3_column_int64(stmt, SEQ),
        .stream = db_column_text(stmt, STREAM),
        .stream_seq = sqlite3_column_int64(stmt, STREAM_SEQ),
        .subject = db_column_text(stmt, SUBJECT),
        .msg_id = db_column_text(stmt, MSG_ID),
        .stored_at_ns = sqlite3_column_int64(stmt, STORED_AT),
    };

    at->seq++;
    if (entry.seq != at->seq)
        return wb_fail(
            why, WB_CORRUPT,
            "entry %lld is missing: entry %lld stands in its place; compare with a backup",
            (long long)at->seq, (long long)entry.seq);
    if (!column_hash(stmt, PAYLOAD_SHA256, entry.payload_sha256) || !column_hash(stmt, HASH, kept))
        return wb_fail(why, WB_CORRUPT,
                       "entry %lld: a hash is not 32 bytes long; compare with a "
                       "backup",
                       (long long)at->seq);
    wb_err err = audit_chain_hash(at->hash, &entry, at->hash, why);
    if (err == WB_OK && memcmp(at->hash, kept, AUDIT_HASH_SIZE) != 0)
        return wb_fail(
            why, WB_CORRUPT,
            "entry %lld (%.*s): its hash does not follow from it and the entry before; one "
            "of them was changed; compare with a backup",
            (long long)at->seq, (int)entry.subject.len, entry.subject.ptr);
    return err;
}

static wb_err anchor_check(const struct audit_anchor *at, const struct audit_anchor *anchor,
                           struct wb_why *why)
{
    if (anchor == NULL || at->seq != anchor->seq ||
        memcmp(at->hash, anchor->hash, AUDIT_HASH_SIZE) == 0)
        return WB_OK;
    return wb_fail(why, WB_CORRUPT,
                   "entry %lld has another hash than the anchor: the record was written anew up to "
                   "here; compare with a backup",
                   (long long)at->seq);
}

/* The record must end where its note says, and not before the anchor. */
static wb_err end_check(const struct audit_anchor *at, const struct audit_anchor *noted,
                        const struct audit_anchor *anchor, struct wb_why *why)
{
    if (at->seq != noted->seq || memcmp(at->hash, noted->hash, AUDIT_HASH_SIZE) != 0)
        return wb_fail(
            why, WB_CORRUPT,
            "the record ends with entry %lld, but its end was noted at %lld: entries were "
            "cut off or added by hand; compare with a backup",
            (long long)at->seq, (long long)noted->seq);
    if (anchor != NULL && anchor->seq > at->seq)
        return wb_fail(why, WB_CORRUPT,
                       "the record ends with entry %lld, before the anchor %lld: it was cut off; "
                       "compare with a backup",
                       (long long)at->seq, (long long)anchor->seq);
    return WB_OK;
}

static wb_err walk(struct db *db, struct sqlite3_stmt *stmt, const struct audit_anchor *anchor,
                   struct audit_anchor *at, struct wb_why *why)
{
    struct audit_anchor noted = {.seq = -1};
    wb_err err = anchor_check(at, anchor, why);
    int code;

    while (err == WB_OK && (code = sqlite3_step(stmt)) != SQLITE_DONE) {
        if (code != SQLITE_ROW)
            return db_error(db_handle(db), code, "read the audit record", why);
        noted.seq = sqlite3_column_int64(stmt, END_SEQ);
        if (!column_hash(stmt, END_HASH, noted.hash))
            noted.seq = -1;
        if (sqlite3_column_type(stmt, SEQ) == SQLITE_NULL)
            continue; /* the record is empty */
        err = link_check(stmt, at, why);
        if (err == WB_OK)
            err = anchor_check(at, anchor, why);
    }
    if (err != WB_OK)
        return err;
    if (noted.seq < 0)
        return wb_fail(why, WB_CORRUPT,
                       "the note of the record's end is gone; compare with a backup");
    return end_check(at, &noted, anchor, why);
}

wb_err audit_chain_verify(struct db *db, const struct audit_anchor *anchor,
                          struct audit_anchor *ret_end, struct wb_why *why)
{
    struct audit_anchor at = {0};
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(db, all, &stmt, why);

    if (err != WB_OK)
        return err;
    err = walk(db, stmt, anchor, &at, why);
    sqlite3_finalize(stmt);
    if (err == WB_OK || err == WB_CORRUPT)
        *ret_end = at;
    return err;
}
