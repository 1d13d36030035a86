/* The tables of an outbox, and the names of the states in them. */
#include "waybill/outbox_impl.h"

#include <assert.h>
#include <sqlite3.h>

#include <waybill/db.h>

static const char schema_1[] =
    /*
     * Append-only: a row is written in the transaction it tells of and never changed, so publishing
     * never rewrites a payload. AUTOINCREMENT: a number is not given out again after a delete. No
     * index: the publisher reads in the order of id alone. The payload comes last, so that reading
     * the columns before it does not walk its overflow pages.
     */
    "CREATE TABLE outbox("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " stream TEXT NOT NULL DEFAULT ''," /* '': the stream that covers the subject */
    " key TEXT NOT NULL DEFAULT '',"    /* rows of one key keep their order; '': no key */
    " subject TEXT NOT NULL,"
    " headers TEXT NOT NULL DEFAULT ''," /* lines 'Name: value' */
    " msg_id BLOB NOT NULL DEFAULT (randomblob(16))"
    "  CHECK(typeof(msg_id) = 'blob' AND length(msg_id) = 16),"
    " due_at INTEGER,"     /* ms; NULL: at once */
    " expires_at INTEGER," /* ms; NULL: never */
    " created INTEGER NOT NULL"
    "  DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)),"
    " traceparent TEXT NOT NULL DEFAULT '',"
    " payload BLOB NOT NULL DEFAULT x'');" /* BLOB affinity keeps TEXT as it was given */
    "CREATE TRIGGER outbox_append_only BEFORE UPDATE ON outbox BEGIN"
    " SELECT RAISE(ABORT, 'outbox rows are never updated: insert a new row instead'); END;"

    /* How far each stream is; one narrow row, written once per batch. */
    "CREATE TABLE outbox_cursor("
    " stream TEXT PRIMARY KEY NOT NULL,"
    " last_id INTEGER NOT NULL DEFAULT 0,"        /* rows up to here are stored, exceptions apart */
    " last_seq INTEGER NOT NULL DEFAULT 0,"       /* the stream as we know it ends here, */
    " last_msg_id BLOB NOT NULL DEFAULT x'',"     /* with this message */
    " stream_created INTEGER NOT NULL DEFAULT 0," /* ns; which incarnation of the stream */
    " verified_id INTEGER NOT NULL DEFAULT 0,"
    " verified_seq INTEGER NOT NULL DEFAULT 0,"
    " verified_msg_id BLOB NOT NULL DEFAULT x'',"
    " holder INTEGER NOT NULL DEFAULT 0," /* counts publishers: only the newest may write */
    " starts INTEGER NOT NULL DEFAULT 0,"
    " suspect_id INTEGER) WITHOUT ROWID;"

    /* Rows off the straight path. next_at in ms; NULL: nothing happens by itself. */
    "CREATE TABLE outbox_exception("
    " id INTEGER PRIMARY KEY,"
    " state TEXT NOT NULL CHECK(state IN ('lost', 'waiting', 'retry', 'blocked', 'parked',"
    "  'expired', 'cancelled')),"
    " attempts INTEGER NOT NULL DEFAULT 0,"
    " next_at INTEGER,"
    " error TEXT NOT NULL DEFAULT '');"

    /* Who numbers the rows from from_id on: 64 random bits, told in every message. */
    "CREATE TABLE outbox_source("
    " from_id INTEGER PRIMARY KEY,"
    " source BLOB NOT NULL CHECK(typeof(source) = 'blob' AND length(source) = 8));"
    "INSERT INTO outbox_source(from_id, source) VALUES(0, randomblob(8));";

static const char schema_2[] =
    /*
     * Without AUTOINCREMENT, whose counter is a second page in every commit. In its place stands a
     * rule: the highest row is never deleted, so the next number is always a new one. Where the
     * counter was ahead of the rows, what follows has a source of its own.
     */
    "INSERT OR IGNORE INTO outbox_source(from_id, source)"
    " SELECT ifnull((SELECT max(id) FROM outbox), 0) + 1, randomblob(8) FROM sqlite_sequence"
    " WHERE name = 'outbox' AND seq > ifnull((SELECT max(id) FROM outbox), 0);"
    "DROP TRIGGER outbox_append_only;"
    "ALTER TABLE outbox RENAME TO outbox_1;"
    "CREATE TABLE outbox("
    " id INTEGER PRIMARY KEY,"
    " stream TEXT NOT NULL DEFAULT ''," /* '': the stream that covers the subject */
    " key TEXT NOT NULL DEFAULT '',"    /* rows of one key keep their order; '': no key */
    " subject TEXT NOT NULL,"
    " headers TEXT NOT NULL DEFAULT ''," /* lines 'Name: value' */
    " msg_id BLOB NOT NULL DEFAULT (randomblob(16))"
    "  CHECK(typeof(msg_id) = 'blob' AND length(msg_id) = 16),"
    " due_at INTEGER,"     /* ms; NULL: at once */
    " expires_at INTEGER," /* ms; NULL: never */
    " created INTEGER NOT NULL"
    "  DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)),"
    " traceparent TEXT NOT NULL DEFAULT '',"
    " payload BLOB NOT NULL DEFAULT x'');" /* BLOB affinity keeps TEXT as it was given */
    "INSERT INTO outbox(id, stream, key, subject, headers, msg_id, due_at, expires_at, created,"
    " traceparent, payload) SELECT id, stream, key, subject, headers, msg_id, due_at, expires_at,"
    " created, traceparent, payload FROM outbox_1;"
    "DROP TABLE outbox_1;"
    "CREATE TRIGGER outbox_append_only BEFORE UPDATE ON outbox BEGIN"
    " SELECT RAISE(ABORT, 'outbox rows are never updated: insert a new row instead'); END;"
    "CREATE TRIGGER outbox_keeps_newest BEFORE DELETE ON outbox"
    " WHEN OLD.id = (SELECT max(id) FROM outbox) BEGIN"
    " SELECT RAISE(ABORT, 'the newest row of an outbox stays: its number must not be used again');"
    " END;"

    "ALTER TABLE outbox_cursor ADD COLUMN verified_at INTEGER NOT NULL DEFAULT 0;" /* ms */
    /* A repair was begun and has not ended: of the stream created then (ns); 0: none. */
    "ALTER TABLE outbox_cursor ADD COLUMN repairing INTEGER NOT NULL DEFAULT 0;"
    /* Messages that expect a sequence below it may come from a publisher that was put out. */
    "ALTER TABLE outbox_cursor ADD COLUMN fenced_seq INTEGER NOT NULL DEFAULT 0;"
    /* How many processes ended while they were about to send the row. */
    "ALTER TABLE outbox_exception ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;"
    /* 1: the stream holds younger rows, and may have held this one. */
    "ALTER TABLE outbox_exception ADD COLUMN resent INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX outbox_exception_lost ON outbox_exception(id) WHERE state = 'lost';"

    /* Rows that were stored behind younger ones, and where (or before where): of all others the
     * order of the table tells what a stream's own limits have removed. */
    "CREATE TABLE outbox_late("
    " row_id INTEGER PRIMARY KEY,"
    " stream TEXT NOT NULL,"
    " sequence INTEGER NOT NULL);"

    /* Whose turn is next among many that wait, and how many there are of a kind. */
    "CREATE INDEX outbox_exception_state ON outbox_exception(state, next_at);"

    /*
     * Counts the changes that others than publishers make to outbox_exception: what a person has
     * decided about a row is noticed by one look. (A publisher's connection fires no triggers.)
     */
    "CREATE TABLE outbox_revision(exceptions INTEGER NOT NULL);"
    "INSERT INTO outbox_revision(exceptions) VALUES(1);"
    "CREATE TRIGGER outbox_exception_inserted AFTER INSERT ON outbox_exception BEGIN"
    " UPDATE outbox_revision SET exceptions = exceptions + 1; END;"
    "CREATE TRIGGER outbox_exception_updated AFTER UPDATE ON outbox_exception BEGIN"
    " UPDATE outbox_revision SET exceptions = exceptions + 1; END;"
    "CREATE TRIGGER outbox_exception_deleted AFTER DELETE ON outbox_exception BEGIN"
    " UPDATE outbox_revision SET exceptions = exceptions + 1; END;"

    /* What a row is sent as instead, after a person has mended it. The row stays as it was. */
    "CREATE TABLE outbox_edit("
    " id INTEGER PRIMARY KEY,"
    " subject TEXT NOT NULL,"
    " headers TEXT NOT NULL,"
    " edited_at INTEGER NOT NULL," /* ms */
    " payload BLOB NOT NULL);"

    /* A caller's own name for an event; as long as the row is kept it is not written twice. */
    "CREATE TABLE outbox_idempotency("
    " caller TEXT NOT NULL,"
    " key TEXT NOT NULL,"
    " row_id INTEGER NOT NULL,"
    " PRIMARY KEY(caller, key)) WITHOUT ROWID;"
    "CREATE INDEX outbox_idempotency_row ON outbox_idempotency(row_id);"

    /* Who still needs rows from from_id on, say to send them again: until then none of them goes.
     */
    "CREATE TABLE outbox_hold("
    " name TEXT PRIMARY KEY NOT NULL,"
    " from_id INTEGER NOT NULL,"
    " until INTEGER NOT NULL) WITHOUT ROWID;" /* ms */

    /* What went by retention so far; one row. Tells others that keep count that it went. */
    "CREATE TABLE outbox_purged("
    " rows INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL,"
    " last_at INTEGER NOT NULL);" /* ms */
    "INSERT INTO outbox_purged(rows, bytes, last_at) VALUES(0, 0, 0);"

    /* Messages of ours whose row went when the database went back in time: out, yet undone. */
    "CREATE TABLE outbox_orphan("
    " stream TEXT NOT NULL,"
    " sequence INTEGER NOT NULL,"
    " source TEXT NOT NULL,"
    " row_id INTEGER NOT NULL,"
    " msg_id TEXT NOT NULL,"
    " subject TEXT NOT NULL,"
    " stored_at INTEGER NOT NULL,"  /* ms; when the stream took it */
    " noticed_at INTEGER NOT NULL," /* ms */
    " PRIMARY KEY(stream, sequence)) WITHOUT ROWID;"

    /* What the publisher found wrong, and what it did about it. Bounded: the oldest go. */
    "CREATE TABLE outbox_incident("
    " id INTEGER PRIMARY KEY,"
    " at INTEGER NOT NULL," /* ms */
    " stream TEXT NOT NULL,"
    " kind TEXT NOT NULL," /* 'rolled-back', 'made-anew', 'overwritten', 'hole', 'restored', ... */
    " first_seq INTEGER NOT NULL,"
    " last_seq INTEGER NOT NULL,"
    " rows INTEGER NOT NULL,"           /* of ours that are concerned */
    " gone INTEGER NOT NULL DEFAULT 0," /* at most so many cannot come back: no longer kept */
    " detail TEXT NOT NULL);";

static const struct db_migration steps[] = {{.sql = schema_1}, {.sql = schema_2}};

#define STEP_COUNT (sizeof(steps) / sizeof(steps[0]))

wb_err outbox_schema_prepare(struct sqlite3 *handle, struct wb_why *why)
{
    return db_migrate(handle, "outbox", steps, STEP_COUNT, why);
}

wb_err outbox_schema_require(struct sqlite3 *handle, struct wb_why *why)
{
    unsigned version = 0;
    wb_err err = db_schema_version(handle, "outbox", &version, why);

    if (err != WB_OK)
        return err;
    if (version == 0)
        return wb_fail(why, WB_NOT_FOUND,
                       "database %s has no outbox: a module makes it at its first start, or "
                       "'waybill outbox add' with the first event",
                       sqlite3_db_filename(handle, "main"));
    if (version > STEP_COUNT)
        return wb_fail(why, WB_UNSUPPORTED,
                       "the outbox in %s has version %u, this program knows versions up to %zu: "
                       "use the newer program",
                       sqlite3_db_filename(handle, "main"), version, STEP_COUNT);
    return WB_OK;
}

static const char *const exception_names[] = {
    [OUTBOX_EXCEPTION_LOST] = "lost",           [OUTBOX_EXCEPTION_WAITING] = "waiting",
    [OUTBOX_EXCEPTION_RETRY] = "retry",         [OUTBOX_EXCEPTION_BLOCKED] = "blocked",
    [OUTBOX_EXCEPTION_PARKED] = "parked",       [OUTBOX_EXCEPTION_EXPIRED] = "expired",
    [OUTBOX_EXCEPTION_CANCELLED] = "cancelled",
};

#define EXCEPTION_COUNT (sizeof(exception_names) / sizeof(exception_names[0]))

const char *outbox_exception_state_name(outbox_exception_state state)
{
    assert((size_t)state < EXCEPTION_COUNT);
    return exception_names[state];
}

bool outbox_exception_state_parse(struct wb_str name, outbox_exception_state *ret_state)
{
    for (size_t i = 0; i < EXCEPTION_COUNT; i++) {
        if (wb_str_eq(name, wb_str(exception_names[i]))) {
            *ret_state = (outbox_exception_state)i;
            return true;
        }
    }
    return false;
}
