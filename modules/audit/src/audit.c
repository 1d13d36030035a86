#include <waybill_modules/audit.h>

#include <string.h>

#include <sqlite3.h>

#include "chain.h"

#define LIST_MAX 100000

static const struct db_migration migrations[] = {
    {"CREATE TABLE audit_entry("
     "seq INTEGER PRIMARY KEY,"
     "stream TEXT NOT NULL,"
     "stream_seq INTEGER NOT NULL,"
     "subject TEXT NOT NULL,"
     "msg_id TEXT NOT NULL,"
     "payload_sha256 BLOB NOT NULL,"
     "stored_at_ns INTEGER NOT NULL,"
     "hash BLOB NOT NULL) STRICT;"
     /* Where the record ends: the chain alone cannot tell that its last entries are gone. */
     "CREATE TABLE audit_end("
     "one INTEGER PRIMARY KEY CHECK(one = 1),"
     "seq INTEGER NOT NULL,"
     "hash BLOB NOT NULL) STRICT;"
     "INSERT INTO audit_end(one, seq, hash) VALUES(1, 0, zeroblob(32));"
     "CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON audit_entry BEGIN "
     "SELECT RAISE(ABORT, 'the audit record is append-only'); END;"
     "CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry BEGIN "
     "SELECT RAISE(ABORT, 'the audit record is append-only'); END;"
     /* INSERT OR REPLACE deletes without a delete trigger; so only the next number may come. */
     "CREATE TRIGGER audit_entry_next BEFORE INSERT ON audit_entry "
     "WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM audit_entry) BEGIN "
     "SELECT RAISE(ABORT, 'the audit record is append-only'); END"},
};

/* ---- events ---------------------------------------------------------------------------------- */

static const char *const everything[] = {">", NULL};

static const struct module_subscription subscriptions[] = {
    {"record", everything, audit_chain_append},
};

/* ---- commands -------------------------------------------------------------------------------- */

/* "SEQ:HASH", as verify prints it */
static bool anchor_parse(struct wb_str text, struct audit_anchor *ret_anchor)
{
    const char *colon = memchr(text.ptr, ':', text.len);
    uint64_t seq;

    if (colon == NULL)
        return false;
    size_t digits = (size_t)(colon - text.ptr);
    if (!wb_str_to_u64(wb_str_n(text.ptr, digits), &seq) || seq > INT64_MAX)
        return false;
    ret_anchor->seq = (int64_t)seq;
    return wb_hex_decode(wb_str_n(colon + 1, text.len - digits - 1), ret_anchor->hash,
                         AUDIT_HASH_SIZE);
}

static void verdict_write(wb_err err, const struct audit_anchor *end, bool json,
                          const struct wb_why *why, struct wb_buf *out)
{
    char hash[AUDIT_HASH_TEXT];

    wb_hex_encode(end->hash, AUDIT_HASH_SIZE, hash);
    if (err == WB_OK && json)
        wb_buf_printf(out, "{\"ok\":true,\"entries\":%lld,\"anchor\":\"%lld:%s\"}\n",
                      (long long)end->seq, (long long)end->seq, hash);
    else if (err == WB_OK)
        wb_buf_printf(out, "ok: %lld entries\nanchor: %lld:%s\n", (long long)end->seq,
                      (long long)end->seq, hash);
    else if (json) {
        wb_buf_printf(out, "{\"ok\":false,\"broken_at\":%lld,\"reason\":", (long long)end->seq);
        wb_buf_json_str(out, wb_str(why->text));
        wb_buf_str(out, "}\n");
    }
}

static wb_err verify_run(struct module_scope *scope, int argc, const char *const *argv, bool json,
                         struct wb_buf *out, struct wb_why *why)
{
    struct audit_anchor anchor;
    struct audit_anchor end = {0};
    struct wb_why reason = {""};

    if (argc != 0 && (argc != 2 || !wb_str_eq(wb_str(argv[0]), wb_str("--anchor")) ||
                      !anchor_parse(wb_str(argv[1]), &anchor)))
        return wb_fail(why, WB_MISUSE,
                       "audit verify: expected nothing, or --anchor SEQ:HASH as printed earlier");
    wb_err err = audit_chain_verify(scope->db, argc == 2 ? &anchor : NULL, &end, &reason);
    if (err == WB_OK || err == WB_CORRUPT)
        verdict_write(err, &end, json, &reason, out);
    return err == WB_OK ? WB_OK : wb_fail(why, err, "%s", reason.text);
}

/* SQLite writes the text. Lines are safe: subjects and ids have no control characters. */
#define NEWEST                                                                                     \
    "FROM (SELECT * FROM (SELECT * FROM audit_entry ORDER BY seq DESC LIMIT ?1) ORDER BY seq)"
static const char *const list_json =
    "SELECT json_object('entries', json_group_array(json_object('seq', seq, 'stream', stream, "
    "'stream_seq', stream_seq, 'subject', subject, 'msg_id', msg_id, 'payload_sha256', "
    "lower(hex(payload_sha256)), 'stored_at_ns', stored_at_ns, 'hash', lower(hex(hash))))) " NEWEST;
static const char *const list_text =
    "SELECT group_concat(seq || '  ' || stream || ' ' || stream_seq || '  ' || subject || '  ' || "
    "msg_id || '  ' || lower(hex(substr(hash, 1, 8))), char(10)) " NEWEST;

static wb_err ls_run(struct module_scope *scope, int argc, const char *const *argv, bool json,
                     struct wb_buf *out, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    int64_t limit;
    wb_err err = module_command_limit(argc, argv, LIST_MAX, &limit, why);

    if (err == WB_OK)
        err = db_prepare(scope->db, json ? list_json : list_text, &stmt, why);
    if (err != WB_OK)
        return err;
    sqlite3_bind_int64(stmt, 1, limit);
    int code = sqlite3_step(stmt);
    if (code != SQLITE_ROW) {
        err = db_error(db_handle(scope->db), code, "list the audit record", why);
    } else if (sqlite3_column_type(stmt, 0) != SQLITE_NULL) {
        wb_buf_str(out, (const char *)sqlite3_column_text(stmt, 0));
        wb_buf_str(out, "\n");
    }
    sqlite3_finalize(stmt);
    return err;
}

static const struct module_command commands[] = {
    {"verify", "[--anchor SEQ:HASH]", "compute the whole chain anew; 7 when it is broken",
     verify_run},
    {"ls", "[--limit N]", "list the newest entries", ls_run},
};

const struct module audit_module = {
    .name = "audit",
    .stream = NULL,
    .migrations = migrations,
    .migration_count = sizeof(migrations) / sizeof(migrations[0]),
    .subscriptions = subscriptions,
    .subscription_count = sizeof(subscriptions) / sizeof(subscriptions[0]),
    .commands = commands,
    .command_count = sizeof(commands) / sizeof(commands[0]),
};
