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

static const struct db_migration steps[] = {{.sql = schema_1}};

wb_err inbox_schema_prepare(struct sqlite3 *handle, struct wb_why *why)
{
    return db_migrate(handle, "inbox", steps, sizeof(steps) / sizeof(steps[0]), why);
}
