/*
 * fault_check.c - the invariants, as questions to the gathered facts, and the proof that each of
 * them would notice. Uses SQLite alone, nothing of the product.
 */
#include "fault.h"

#include <stdio.h>
#include <stdlib.h>

/* Each query lists what breaks the invariant, one row each, as text. */
static const struct {
    const char *name;
    const char *says;
    const char *sql;
} invariants[] = {
    {"atomic-1", "a transaction reported as committed has its events in the outbox",
     "SELECT tx FROM tx WHERE phase = 'ok' AND tx NOT IN (SELECT tx FROM outbox)"
     " AND tx NOT IN (SELECT tx FROM work WHERE key = 97)"},
    {"atomic-2", "a transaction reported as rolled back has none",
     "SELECT o.tx || ' row ' || o.id FROM outbox o JOIN tx USING (tx) WHERE tx.phase = 'fail'"},
    {"atomic-3", "nothing is in the outbox that nobody attempted",
     "SELECT tx || ' row ' || id FROM outbox WHERE tx NOT IN (SELECT tx FROM tx)"},
    {"atomic-4", "a business row exists exactly if its outbox row exists",
     "SELECT tx || ' ' || key || '/' || n FROM (SELECT tx, key, n FROM work WHERE key <> 97 EXCEPT"
     " SELECT tx, key, n FROM outbox) UNION ALL SELECT tx || ' ' || key || '/' || n FROM"
     " (SELECT tx, key, n FROM outbox EXCEPT SELECT tx, key, n FROM work)"},
    {"atomic-5", "a row is taken back, unless it had expired, exactly if its transaction says so",
     "SELECT 'row ' || id FROM (SELECT n AS id FROM work WHERE key = 97 EXCEPT"
     " SELECT id FROM ended) UNION ALL SELECT 'row ' || id FROM"
     " (SELECT id FROM ended WHERE state = 'cancelled' EXCEPT SELECT n FROM work WHERE key = 97)"},
    {"ended-1", "what was taken back or has expired is not stored",
     "SELECT 'row ' || id || ' ' || state FROM ended JOIN outbox USING (id)"
     " WHERE msg_id IN (SELECT msg_id FROM stream)"},
    {"ended-2", "only what was to be sent later ends unsent",
     "SELECT 'row ' || id FROM ended WHERE id NOT IN (SELECT id FROM outbox WHERE key = 98)"},
    {"kept-1", "a row number stands for one event, in the table and in the archive",
     "SELECT 'row ' || id FROM outbox GROUP BY id HAVING count(*) > 1"},
    {"phantom-1", "every stored message is a row of the outbox, with the same bytes",
     "SELECT 'seq ' || seq || ' ' || msg_id FROM stream s WHERE NOT EXISTS (SELECT 1 FROM outbox o"
     " WHERE o.msg_id = s.msg_id AND o.id = s.row_id AND o.payload = s.payload)"},
    {"phantom-2", "every effect comes from a row of the outbox, with the same bytes",
     "SELECT 'effect ' || id || ' ' || msg_id FROM effect e WHERE NOT EXISTS (SELECT 1 FROM outbox "
     "o"
     " WHERE o.msg_id = e.msg_id AND o.payload = e.payload)"},
    {"lost-1", "every row of the outbox is stored, unless it has ended",
     "SELECT 'row ' || id FROM outbox WHERE key <> 99 AND id NOT IN (SELECT id FROM ended) AND"
     " msg_id NOT IN (SELECT msg_id FROM stream)"},
    {"lost-2", "every row of the outbox has its effect, unless it has ended",
     "SELECT 'row ' || id FROM outbox WHERE key <> 99 AND id NOT IN (SELECT id FROM ended) AND"
     " msg_id NOT IN (SELECT msg_id FROM effect)"},
    {"lost-3", "every effect has its follow-up event",
     "SELECT 'effect ' || id FROM effect WHERE msg_id NOT IN (SELECT msg_id FROM follow)"},
    {"doubled-1", "no row is stored twice",
     "SELECT msg_id || ' x ' || count(*) FROM stream GROUP BY msg_id HAVING count(*) > 1"},
    {"doubled-2", "no row has two effects",
     "SELECT msg_id || ' x ' || count(*) FROM effect GROUP BY msg_id HAVING count(*) > 1"},
    {"doubled-3", "no effect has two follow-up events, and none stands alone",
     "SELECT msg_id || ' x ' || count(*) FROM follow GROUP BY msg_id HAVING count(*) > 1"
     " UNION ALL SELECT msg_id FROM follow WHERE msg_id NOT IN (SELECT msg_id FROM effect)"},
    {"reused-1", "no row number stands for two events",
     "SELECT 'row ' || row_id FROM stream GROUP BY row_id HAVING count(DISTINCT msg_id) > 1"},
    {"parked-1", "what no bus takes is parked, and nothing else is",
     "SELECT 'row ' || id FROM outbox WHERE (key = 99) <> (id IN (SELECT id FROM parked))"},
    {"order-1", "the stream holds the rows in their order, but for keys that had to wait",
     "SELECT 'seq ' || seq FROM (SELECT seq, row_id, lag(row_id) OVER (ORDER BY seq) AS before"
     " FROM stream WHERE row_id NOT IN (SELECT id FROM outbox WHERE key = 98"
     " OR key IN (SELECT key FROM aside)))"
     " WHERE before >= row_id"},
    {"order-3", "the stream holds the rows of each key in their order",
     "SELECT 'seq ' || seq FROM (SELECT s.seq, s.row_id, lag(s.row_id) OVER"
     " (PARTITION BY o.key ORDER BY s.seq) AS before FROM stream s JOIN outbox o"
     " ON o.id = s.row_id WHERE o.key <> 98) WHERE before >= row_id"},
    {"order-2", "the effects of a key follow each other without a gap",
     "SELECT 'effect ' || id || ' of key ' || key FROM (SELECT id, key, n, lag(n, 1, 0) OVER"
     " (PARTITION BY key ORDER BY id) AS before FROM effect WHERE key <> 98)"
     " WHERE n <> before + 1"},
};

#define INVARIANT_COUNT (sizeof(invariants) / sizeof(invariants[0]))

static size_t count_broken(sqlite3 *db, size_t which, bool quiet)
{
    sqlite3_stmt *stmt = NULL;
    size_t count = 0;
    int code = sqlite3_prepare_v2(db, invariants[which].sql, -1, &stmt, NULL);

    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(stmt);
        if (code == SQLITE_ROW && count++ < 3 && !quiet)
            (void)printf("  BROKEN %s (%s): %s\n", invariants[which].name, invariants[which].says,
                         (const char *)sqlite3_column_text(stmt, 0));
    }
    fault_must(code == SQLITE_DONE, "checker: %s: %s", invariants[which].name, sqlite3_errmsg(db));
    sqlite3_finalize(stmt);
    return count;
}

size_t fault_check(sqlite3 *gathered, bool quiet)
{
    size_t broken = 0;

    for (size_t i = 0; i < INVARIANT_COUNT && !(quiet && broken > 0); i++)
        broken += count_broken(gathered, i, quiet) > 0;
    return broken;
}

/* ---- planted faults -------------------------------------------------------------------------- */

#define SOME(table) "(SELECT rowid FROM " table " ORDER BY rowid LIMIT 1 OFFSET 7)"

static const struct {
    const char *name;
    const char *sql;
} faults[] = {
    {"an effect is dropped", "DELETE FROM effect WHERE rowid = " SOME("effect")},
    {"an effect is doubled",
     "INSERT INTO effect SELECT 1000000, msg_id, key, n, payload FROM effect WHERE rowid = " SOME(
         "effect")},
    {"two effects of a key change places",
     "UPDATE effect SET id = -id WHERE key = 1 AND n IN (2, 3);"
     "UPDATE effect SET id = (SELECT -e.id FROM effect e WHERE e.key = 1 AND e.n = 5 - effect.n)"
     " WHERE key = 1 AND n IN (2, 3)"},
    {"an effect without an event", "INSERT INTO effect VALUES(1000000, 'f00d', 99, 1, 'invented')"},
    {"an effect with other bytes",
     "UPDATE effect SET payload = payload || 'x' WHERE rowid = " SOME("effect")},
    {"a message is dropped", "DELETE FROM stream WHERE rowid = " SOME("stream")},
    {"the first messages are lost",
     "DELETE FROM stream WHERE seq <= (SELECT min(seq) + 3 FROM stream)"},
    {"the last messages are lost",
     "DELETE FROM stream WHERE seq >= (SELECT max(seq) - 3 FROM stream)"},
    {"messages in the middle are lost",
     "DELETE FROM stream WHERE seq BETWEEN (SELECT max(seq) / 2 FROM stream) AND"
     " (SELECT max(seq) / 2 + 3 FROM stream)"},
    {"a message is stored twice",
     "INSERT INTO stream SELECT (SELECT max(seq) + 1 FROM stream), msg_id, row_id, payload"
     " FROM stream WHERE rowid = " SOME("stream")},
    {"two messages change places",
     "UPDATE stream SET seq = -seq WHERE row_id IN"
     " (SELECT id FROM outbox JOIN stream ON row_id = id WHERE key < 90 AND key NOT IN (SELECT key "
     "FROM aside) ORDER BY id LIMIT 2 OFFSET 7);"
     "UPDATE stream SET seq = (SELECT -sum(s.seq) FROM stream s WHERE s.seq < 0) + seq"
     " WHERE seq < 0"},
    {"a message without a row",
     "INSERT INTO stream VALUES((SELECT max(seq) + 1 FROM stream), 'f00d', 1000000, 'invented')"},
    {"a message with other bytes",
     "UPDATE stream SET payload = payload || 'x' WHERE rowid = " SOME("stream")},
    {"a message under another row's number",
     "UPDATE stream SET row_id = row_id + 1000000 WHERE seq = (SELECT max(seq) FROM stream)"},
    {"a rolled back transaction is in the outbox",
     "UPDATE tx SET phase = 'fail' WHERE tx = (SELECT tx FROM outbox LIMIT 1 OFFSET 7)"},
    {"a committed transaction has no events",
     "DELETE FROM outbox WHERE tx = (SELECT tx FROM tx WHERE phase = 'ok' AND tx IN"
     " (SELECT tx FROM outbox) LIMIT 1 OFFSET 7)"},
    {"an event without its business row",
     "DELETE FROM work WHERE rowid = (SELECT rowid FROM work WHERE key < 90 LIMIT 1 OFFSET 7)"},
    {"a business row without its event",
     "INSERT INTO work VALUES((SELECT tx FROM tx WHERE phase = 'ok' LIMIT 1), 1, 1000000)"},
    {"an event of a transaction nobody attempted",
     "DELETE FROM tx WHERE tx = (SELECT tx FROM outbox LIMIT 1 OFFSET 7)"},
    {"a row number is used twice",
     "UPDATE stream SET row_id = (SELECT row_id FROM stream WHERE rowid = " SOME(
         "stream") ") WHERE rowid = " SOME("stream") " + 1"},
    {"a healthy row is parked",
     "INSERT INTO parked SELECT id FROM outbox WHERE rowid = " SOME("outbox")},
    {"a row that was taken back is sent",
     "INSERT INTO ended SELECT row_id, 'cancelled' FROM stream WHERE rowid = " SOME("stream")},
    {"an expired row is sent",
     "INSERT INTO ended SELECT row_id, 'expired' FROM stream WHERE rowid = " SOME("stream")},
    {"a row is not taken back as its transaction says",
     "INSERT INTO work SELECT (SELECT tx FROM tx WHERE phase = 'ok' LIMIT 1), 97, row_id"
     " FROM stream WHERE rowid = " SOME("stream")},
    {"a row is taken back that should be sent",
     "INSERT INTO ended SELECT id, 'expired' FROM outbox WHERE key = 1 LIMIT 1"},
    {"a row is neither kept nor archived", "DELETE FROM outbox WHERE rowid = " SOME("outbox")},
    {"the archive has other bytes", "INSERT INTO outbox SELECT id, msg_id, tx, key, n, payload || "
                                    "'x' FROM outbox WHERE rowid = " SOME("outbox")},
    {"a follow-up is dropped", "DELETE FROM follow WHERE rowid = " SOME("follow")},
    {"a follow-up is doubled",
     "INSERT INTO follow SELECT msg_id FROM follow WHERE rowid = " SOME("follow")},
    {"a follow-up without its effect", "INSERT INTO follow VALUES('f00d')"},
};

#define FAULT_COUNT (sizeof(faults) / sizeof(faults[0]))

static sqlite3 *copy_of(sqlite3 *db)
{
    sqlite3 *copy = NULL;

    fault_must(sqlite3_open(":memory:", &copy) == SQLITE_OK, "checker: no memory");
    sqlite3_backup *backup = sqlite3_backup_init(copy, "main", db, "main");
    fault_must(backup != NULL && sqlite3_backup_step(backup, -1) == SQLITE_DONE,
               "checker: copy: %s", sqlite3_errmsg(copy));
    sqlite3_backup_finish(backup);
    return copy;
}

void fault_prove_checker(sqlite3 *gathered)
{
    fault_must(fault_check(gathered, true) == 0, "checker: the unbroken history does not pass");
    for (size_t i = 0; i < FAULT_COUNT; i++) {
        sqlite3 *copy = copy_of(gathered);
        fault_must(sqlite3_exec(copy, faults[i].sql, NULL, NULL, NULL) == SQLITE_OK,
                   "checker: planting '%s': %s", faults[i].name, sqlite3_errmsg(copy));
        fault_must(fault_check(copy, true) > 0, "checker: does not notice that %s", faults[i].name);
        sqlite3_close(copy);
    }
    (void)printf("checker: %zu invariants; catches %zu of %zu planted faults\n", INVARIANT_COUNT,
                 FAULT_COUNT, FAULT_COUNT);
}
