#include "chain.h"

#include <string.h>

#include <openssl/sha.h>
#include <sqlite3.h>

#include <waybill/module.h>

static void add_number(struct wb_buf *out, int64_t number)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)number >> (8 * (7 - i)));
    wb_buf_add(out, bytes, sizeof(bytes));
}

static void add_text(struct wb_buf *out, struct wb_str text)
{
    uint8_t length[4];

    for (int i = 0; i < 4; i++)
        length[i] = (uint8_t)(text.len >> (8 * (3 - i)));
    wb_buf_add(out, length, sizeof(length));
    if (text.len > 0)
        wb_buf_add(out, text.ptr, text.len);
}

wb_err audit_chain_hash(const uint8_t prev[AUDIT_HASH_SIZE], const struct audit_entry *entry,
                        uint8_t ret_hash[AUDIT_HASH_SIZE], struct wb_why *why)
{
    struct wb_buf text = {0};
    wb_err err = WB_OK;

    wb_buf_add(&text, prev, AUDIT_HASH_SIZE);
    add_number(&text, entry->seq);
    add_text(&text, entry->stream);
    add_number(&text, entry->stream_seq);
    add_text(&text, entry->subject);
    add_text(&text, entry->msg_id);
    wb_buf_add(&text, entry->payload_sha256, AUDIT_HASH_SIZE);
    add_number(&text, entry->stored_at_ns);
    if (text.failed)
        err = wb_fail(why, WB_NOMEM, "out of memory while hashing an entry; try again");
    else if (SHA256((const unsigned char *)text.ptr, text.len, ret_hash) == NULL)
        err = wb_fail(why, WB_INTERNAL, "libcrypto refuses SHA-256");
    wb_buf_free(&text);
    return err;
}

/* ---- append ---------------------------------------------------------------------------------- */

static wb_err end_read(struct db *db, struct audit_anchor *ret_end, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(db, "SELECT seq, hash FROM audit_end WHERE one = 1", &stmt, why);

    if (err != WB_OK)
        return err;
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW && sqlite3_column_bytes(stmt, 1) == AUDIT_HASH_SIZE) {
        ret_end->seq = sqlite3_column_int64(stmt, 0);
        memcpy(ret_end->hash, sqlite3_column_blob(stmt, 1), AUDIT_HASH_SIZE);
    } else if (code == SQLITE_ROW || code == SQLITE_DONE) {
        err = wb_fail(why, WB_CORRUPT,
                      "the note of the record's end is gone; run 'waybill audit verify'");
    } else {
        err = db_error(db_handle(db), code, "read the end of the audit record", why);
    }
    sqlite3_finalize(stmt);
    return err;
}

static wb_err entry_insert(struct db *db, const struct audit_entry *entry, const uint8_t *hash,
                           struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(db,
                            "INSERT INTO audit_entry(seq, stream, stream_seq, subject, msg_id, "
                            "payload_sha256, stored_at_ns, hash) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)",
                            &stmt, why);

    if (err != WB_OK)
        return err;
    sqlite3_bind_int64(stmt, 1, entry->seq);
    db_bind_text(stmt, 2, entry->stream);
    sqlite3_bind_int64(stmt, 3, entry->stream_seq);
    db_bind_text(stmt, 4, entry->subject);
    db_bind_text(stmt, 5, entry->msg_id);
    sqlite3_bind_blob(stmt, 6, entry->payload_sha256, AUDIT_HASH_SIZE, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 7, entry->stored_at_ns);
    sqlite3_bind_blob(stmt, 8, hash, AUDIT_HASH_SIZE, SQLITE_STATIC);
    int code = sqlite3_step(stmt);
    if (code != SQLITE_DONE)
        err = db_error(db_handle(db), code, "add to the audit record", why);
    sqlite3_finalize(stmt);
    return err;
}

static wb_err end_write(struct db *db, const struct audit_anchor *end, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err =
        db_prepare(db, "UPDATE audit_end SET seq = ?1, hash = ?2 WHERE one = 1", &stmt, why);

    if (err != WB_OK)
        return err;
    sqlite3_bind_int64(stmt, 1, end->seq);
    sqlite3_bind_blob(stmt, 2, end->hash, AUDIT_HASH_SIZE, SQLITE_STATIC);
    int code = sqlite3_step(stmt);
    if (code != SQLITE_DONE)
        err = db_error(db_handle(db), code, "note the end of the audit record", why);
    sqlite3_finalize(stmt);
    return err;
}

wb_err audit_chain_append(struct module_scope *scope, const struct module_event *event,
                          struct wb_why *why)
{
    const struct wb_bytes payload = event->message->payload;
    struct audit_anchor end = {0};
    struct audit_entry entry = {
        .stream = event->stream,
        .stream_seq = (int64_t)event->sequence,
        .subject = event->message->subject,
        .msg_id = event->message->msg_id,
        .stored_at_ns = event->stored_wall_ns,
    };

    wb_err err = end_read(scope->db, &end, why);
    if (err != WB_OK)
        return err;
    entry.seq = ++end.seq;
    SHA256(payload.len > 0 ? payload.ptr : (const void *)"", payload.len, entry.payload_sha256);
    err = audit_chain_hash(end.hash, &entry, end.hash, why);
    if (err == WB_OK)
        err = entry_insert(scope->db, &entry, end.hash, why);
    if (err == WB_OK)
        err = end_write(scope->db, &end, why);
    return err;
}
