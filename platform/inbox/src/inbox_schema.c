/* The tables of the inbox. */
#include "inbox_internal.h"

#include <waybill/db.h>

static const char schema_1[] =
    /* How far each consumer has read each stream; created tells a stream made anew. */
    "CREATE TABLE inbox_position("
    " consumer TEXT NOT NULL,"
    " stream TEXT NOT NULL,"
    " created INTEGER NOT NULL," /* ns */
    " sequence INTEGER NOT NULL,"
    " PRIMARY KEY(consumer, stream)) WITHOUT ROWID;"

    /*
     * Which rows of an outbox were handled. full = 0: page has 2048 bits, one for each row. full >
     * 0: so many pages from here on are full, and bits is empty. A consumer that handles everything
     * keeps one run and one page; one that filters keeps a bit for each row.
     */
    "CREATE TABLE inbox_page("
    " consumer TEXT NOT NULL,"
    " source BLOB NOT NULL," /* 8 bytes, see waybill-source */
    " page INTEGER NOT NULL,"
    " full INTEGER NOT NULL,"
    " bits BLOB NOT NULL,"
    " PRIMARY KEY(consumer, source, page)) WITHOUT ROWID;"

    /* Events from elsewhere, bounded by age and number; number counts them in order. */
    "CREATE TABLE inbox_foreign("
    " consumer TEXT NOT NULL,"
    " event TEXT NOT NULL,"
    " number INTEGER NOT NULL,"
    " stored_at INTEGER NOT NULL," /* ns; when the stream took it */
    " PRIMARY KEY(consumer, event)) WITHOUT ROWID;"
    "CREATE INDEX inbox_foreign_number ON inbox_foreign(consumer, number);"

    /* Events whose handler failed and that are still to be handled. */
    "CREATE TABLE inbox_failure("
    " consumer TEXT NOT NULL,"
    " event TEXT NOT NULL,"
    " failures INTEGER NOT NULL,"
    " reason TEXT NOT NULL,"
    " PRIMARY KEY(consumer, event)) WITHOUT ROWID;"

    /* Events given up, whole. The payload comes last, so that listing does not read it. */
    "CREATE TABLE dead_letter("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " consumer TEXT NOT NULL,"
    " subject TEXT NOT NULL,"
    " headers TEXT NOT NULL," /* lines 'Name: value' */
    " msg_id TEXT NOT NULL,"
    " stream TEXT NOT NULL,"
    " sequence INTEGER NOT NULL,"
    " stored_at INTEGER NOT NULL," /* ms */
    " reason TEXT NOT NULL,"
    " failures INTEGER NOT NULL,"
    " parked_at INTEGER NOT NULL," /* ms */
    " payload BLOB NOT NULL);"
    "CREATE INDEX dead_letter_consumer ON dead_letter(consumer);";

/* The header lines of a dead letter of version 1, each between line ends; and a value among them.
 */
#define LINES "(char(10) || headers || char(10))"
#define VALUE(name)                                                                                \
    "substr(" LINES ", instr(" LINES ", char(10) || '" name ": ') + length('" name "') + 3)"
#define HAS(name) "instr(" LINES ", char(10) || '" name ": ') > 0"
#define OURS      HAS("waybill-source") " AND " HAS("waybill-row")

/* What a letter counts for. */
#define BYTES(row) "length(CAST(" row "headers AS BLOB)) + length(CAST(" row "payload AS BLOB))"

/* Macros between strings: the formatter would push each line to the right of the last. */
/* clang-format off */
static const char schema_2[] =
    /*
     * A hash of the message at that position and of when it was stored: after the stream has lost
     * its end and grown again, another message stands there. 0: not known.
     */
    "ALTER TABLE inbox_position ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;"

    /* Starts of the consumer since the position was last written. */
    "ALTER TABLE inbox_position ADD COLUMN starts INTEGER NOT NULL DEFAULT 0;"

    /* Older positions, from which to go on when the stream does not hold the newest any more. */
    "CREATE TABLE inbox_anchor("
    " consumer TEXT NOT NULL,"
    " stream TEXT NOT NULL,"
    " created INTEGER NOT NULL," /* ns */
    " sequence INTEGER NOT NULL,"
    " mark INTEGER NOT NULL,"
    " PRIMARY KEY(consumer, stream, created, sequence)) WITHOUT ROWID;"

    /*
     * Starts since anything was committed; the event in the handler's hands, kept only after many
     * starts in vain; and the one that was in its hands when so many processes ended, one after
     * another.
     */
    "CREATE TABLE inbox_start("
    " consumer TEXT PRIMARY KEY NOT NULL,"
    " starts INTEGER NOT NULL DEFAULT 0,"
    " suspect TEXT NOT NULL DEFAULT '',"
    " accused TEXT NOT NULL DEFAULT '',"
    " crashes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"

    "ALTER TABLE dead_letter RENAME TO dead_letter_1;"
    "CREATE TABLE dead_letter("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " consumer TEXT NOT NULL,"
    " state TEXT NOT NULL DEFAULT 'parked' CHECK(state IN ('parked', 'retry')),"
    " next_at INTEGER,"                      /* ms; in state retry: not before; NULL: at once */
    " key TEXT NOT NULL DEFAULT '',"         /* of order, see waybill-key; '': none */
    " source TEXT NOT NULL DEFAULT '',"      /* 16 hex digits, see waybill-source; '': foreign */
    " row_id INTEGER NOT NULL DEFAULT 0,"    /* see waybill-row; 0: foreign */
    " fingerprint TEXT NOT NULL DEFAULT ''," /* 16 hex digits: the same for reasons of a kind */
    " subject TEXT NOT NULL,"
    " headers TEXT NOT NULL," /* lines 'Name: value' */
    " msg_id TEXT NOT NULL,"
    " stream TEXT NOT NULL,"
    " sequence INTEGER NOT NULL,"
    " stored_at INTEGER NOT NULL," /* ms */
    " reason TEXT NOT NULL,"
    " failures INTEGER NOT NULL,"
    " parked_at INTEGER NOT NULL," /* ms */
    " payload BLOB NOT NULL);"
    "INSERT INTO dead_letter(id, consumer, key, source, row_id, subject, headers, msg_id, stream,"
    " sequence, stored_at, reason, failures, parked_at, payload) SELECT id, consumer,"
    " CASE WHEN " HAS("waybill-key") " THEN substr(" VALUE("waybill-key") ", 1,"
    "  instr(" VALUE("waybill-key") ", char(10)) - 1) ELSE '' END,"
    " CASE WHEN " OURS " THEN lower(substr(" VALUE("waybill-source") ", 1, 16)) ELSE '' END,"
    " CASE WHEN " OURS " THEN CAST(" VALUE("waybill-row") " AS INTEGER) ELSE 0 END,"
    " subject, headers, msg_id, stream, sequence, stored_at, reason, failures, parked_at, payload"
    " FROM dead_letter_1;"

    /* The numbers go on where they were, also when the table is empty. */
    "DELETE FROM sqlite_sequence WHERE name = 'dead_letter';"
    "UPDATE sqlite_sequence SET name = 'dead_letter' WHERE name = 'dead_letter_1';"
    "DROP TABLE dead_letter_1;"
    "CREATE INDEX dead_letter_event ON dead_letter(consumer, source, row_id);"
    "CREATE INDEX dead_letter_retry ON dead_letter(consumer, id, next_at) WHERE state = 'retry';"
    "CREATE INDEX dead_letter_key ON dead_letter(consumer, key) WHERE key <> '';"

    /* How full dead_letter is, so that its limits cost no counting. */
    "CREATE TABLE dead_letter_total("
    " one INTEGER PRIMARY KEY CHECK(one = 1),"
    " letters INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL);" /* of headers and payloads */
    "INSERT INTO dead_letter_total(one, letters, bytes)"
    " SELECT 1, count(*), ifnull(sum(" BYTES("") "), 0) FROM dead_letter;"
    "CREATE TRIGGER dead_letter_comes AFTER INSERT ON dead_letter BEGIN"
    " UPDATE dead_letter_total SET letters = letters + 1, bytes = bytes + " BYTES("NEW.") "; END;"
    "CREATE TRIGGER dead_letter_goes AFTER DELETE ON dead_letter BEGIN"
    " UPDATE dead_letter_total SET letters = letters - 1, bytes = bytes - (" BYTES("OLD.") ");"
    " END;"
    "CREATE TRIGGER dead_letter_changes AFTER UPDATE OF headers, payload ON dead_letter BEGIN"
    " UPDATE dead_letter_total SET bytes = bytes + " BYTES("NEW.") " - (" BYTES("OLD.") "); END;";
/* clang-format on */

static const struct db_migration steps[] = {{.sql = schema_1}, {.sql = schema_2}};

#define STEP_COUNT (sizeof(steps) / sizeof(steps[0]))

wb_err inbox_schema_require(struct sqlite3 *handle, struct wb_why *why)
{
    unsigned version = 0;
    wb_err err = db_schema_version(handle, "inbox", &version, why);

    if (err != WB_OK)
        return err;
    if (version == 0)
        return wb_fail(why, WB_NOT_FOUND,
                       "database %s has no inbox: a consumer makes it at its first start",
                       sqlite3_db_filename(handle, "main"));
    if (version != STEP_COUNT)
        return wb_fail(why, WB_UNSUPPORTED,
                       "the inbox in %s has version %u, this program reads version %zu: %s",
                       sqlite3_db_filename(handle, "main"), version, STEP_COUNT,
                       version > STEP_COUNT
                           ? "use the newer program"
                           : "start its consumer once, which brings it up to date");
    return WB_OK;
}

wb_err inbox_schema_prepare(struct sqlite3 *handle, struct wb_why *why)
{
    return db_migrate(handle, "inbox", steps, STEP_COUNT, why);
}
