/* fault_gather.c - everything that happened, from history, databases and stream, in one place. */
#include "fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GET_TRIES = 600 };

static const char schema[] =
    "CREATE TABLE tx(tx TEXT PRIMARY KEY, phase TEXT);"
    "CREATE TABLE work(tx TEXT, key INTEGER, n INTEGER);"
    "CREATE TABLE outbox(id INTEGER, msg_id TEXT, tx TEXT, key INTEGER, n INTEGER, payload TEXT);"
    "CREATE TABLE parked(id INTEGER);"
    "CREATE TABLE archived(id INTEGER);"
    "CREATE TABLE ended(id INTEGER PRIMARY KEY, state TEXT);" /* 'cancelled', 'expired' */
    "CREATE TABLE aside(key INTEGER);" /* keys of rows that waited on their way, with those behind
                                        */
    "CREATE TABLE stream(seq INTEGER, msg_id TEXT, row_id INTEGER, payload TEXT);"
    "CREATE TABLE effect(id INTEGER, msg_id TEXT, key INTEGER, n INTEGER, payload TEXT);"
    "CREATE TABLE follow(msg_id TEXT);"
    "CREATE INDEX outbox_msg ON outbox(msg_id); CREATE INDEX stream_msg ON stream(msg_id);"
    "CREATE INDEX effect_msg ON effect(msg_id); CREATE INDEX outbox_tx ON outbox(tx);";

static void run(sqlite3 *db, const char *sql)
{
    fault_must(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "gather: %s: %s", sql,
               sqlite3_errmsg(db));
}

/* Word number index (0: first) of a payload "tx key n padding"; for SQL. */
static void word(sqlite3_context *context, int count, sqlite3_value **values)
{
    const char *text = (const char *)sqlite3_value_text(values[0]);
    int index = sqlite3_value_int(values[1]);

    (void)count;
    for (; text != NULL && index > 0; index--) {
        text = strchr(text, ' ');
        text = text == NULL ? NULL : text + 1;
    }
    if (text != NULL)
        sqlite3_result_text(context, text, (int)strcspn(text, " "), SQLITE_TRANSIENT);
}

/* What lies in the files, as one; of an archive that was never begun an empty one. */
static wb_err attach(sqlite3 *db, const struct fault_paths *paths)
{
    bool archived = access(paths->archive, F_OK) == 0;
    char *sql =
        sqlite3_mprintf("ATTACH %Q AS producer; ATTACH %Q AS consumer; ATTACH %Q AS archive;"
                        "CREATE TEMP TABLE outbox_archive(id, msg_id, state, payload)",
                        paths->producer, paths->consumer, archived ? paths->archive : ":memory:");
    int code = sqlite3_busy_timeout(db, 5000);

    if (code == SQLITE_OK)
        code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_free(sql);
    if (code == SQLITE_OK &&
        sqlite3_table_column_metadata(db, "archive", "outbox_archive", NULL, NULL, NULL, NULL, NULL,
                                      NULL) == SQLITE_OK)
        code = sqlite3_exec(db, "DROP TABLE temp.outbox_archive", NULL, NULL, NULL);
    return code == SQLITE_OK ? WB_OK : WB_IO;
}

/* Rows that are not to be sent (any more). */
#define ENDED                                                                                      \
    "(SELECT id, lower(hex(o.msg_id)) AS msg_id, e.state FROM producer.outbox_exception e"         \
    " JOIN producer.outbox o USING (id) WHERE e.state IN ('cancelled', 'expired')"                 \
    " UNION SELECT id, lower(hex(msg_id)), state FROM outbox_archive"                              \
    " WHERE state IN ('cancelled', 'expired'))"

static void gather_databases(sqlite3 *db, const struct fault_paths *paths)
{
    fault_must(sqlite3_create_function(db, "word", 2, SQLITE_UTF8, NULL, word, NULL, NULL) ==
                       SQLITE_OK &&
                   attach(db, paths) == WB_OK,
               "gather: %s", sqlite3_errmsg(db));
    run(db, "INSERT INTO main.work SELECT tx, key, n FROM producer.work;"
            "INSERT INTO main.outbox SELECT id, lower(hex(msg_id)), word(payload, 0),"
            " CAST(word(payload, 1) AS INTEGER), CAST(word(payload, 2) AS INTEGER), payload FROM"
            " (SELECT id, msg_id, CAST(payload AS TEXT) AS payload FROM producer.outbox"
            " UNION SELECT id, msg_id, CAST(payload AS TEXT) FROM outbox_archive);"
            "INSERT INTO main.parked SELECT id FROM producer.outbox_exception"
            " WHERE state = 'parked';"
            "INSERT INTO main.archived SELECT id FROM outbox_archive;"
            "INSERT INTO main.ended SELECT id, state FROM " ENDED ";"
            "INSERT INTO main.effect SELECT id, substr(msg_id, 1, 32),"
            " CAST(word(payload, 1) AS INTEGER), CAST(word(payload, 2) AS INTEGER), payload FROM "
            "consumer.effect;"
            "INSERT INTO main.follow SELECT substr(CAST(payload AS TEXT), 1, 32)"
            " FROM consumer.outbox;"
            "DETACH producer; DETACH consumer; DETACH archive");
}

bool fault_history_next(FILE *history, char ret_phase[FAULT_PHASE_SIZE], char ret_tx[FAULT_TX_SIZE])
{
    char line[FAULT_PHASE_SIZE + FAULT_TX_SIZE + 8];
    char end = 0;

    while (end != '.' && fgets(line, sizeof(line), history) != NULL)
        (void)sscanf(line, "%15s %79s %c", ret_phase, ret_tx, &end);
    return end == '.';
}

/* The last phase told of a transaction counts; one that was only begun is of unknown outcome. */
static void gather_history(sqlite3 *db, const struct fault_paths *paths)
{
    FILE *file = fopen(paths->history, "re");
    sqlite3_stmt *stmt = NULL;
    char phase[FAULT_PHASE_SIZE], tx[FAULT_TX_SIZE];

    fault_must(file != NULL, "gather: open %s", paths->history);
    run(db, "BEGIN");
    fault_must(sqlite3_prepare_v2(db, "INSERT OR REPLACE INTO tx VALUES(?2, ?1)", -1, &stmt,
                                  NULL) == SQLITE_OK,
               "gather: %s", sqlite3_errmsg(db));
    while (fault_history_next(file, phase, tx)) {
        sqlite3_bind_text(stmt, 1, phase, -1, SQLITE_TRANSIENT);
        sqlite3_bind_text(stmt, 2, tx, -1, SQLITE_TRANSIENT);
        fault_must(sqlite3_step(stmt) == SQLITE_DONE, "gather: %s", sqlite3_errmsg(db));
        sqlite3_reset(stmt);
    }
    sqlite3_finalize(stmt);
    run(db, "COMMIT");
    (void)fclose(file);
}

static void store(sqlite3_stmt *stmt, const struct event_bus_delivery *delivery)
{
    const struct message *msg = &delivery->message;
    struct wb_str row = message_header(msg, MESSAGE_HEADER_ROW);

    sqlite3_bind_int64(stmt, 1, (sqlite3_int64)delivery->sequence);
    /* An event that is sent again keeps the first 32 digits of its id. */
    size_t digits = msg->msg_id.len < WB_ID_TEXT - 1 ? msg->msg_id.len : WB_ID_TEXT - 1;
    sqlite3_bind_text(stmt, 2, msg->msg_id.ptr, (int)digits, SQLITE_TRANSIENT);
    sqlite3_bind_text(stmt, 3, row.ptr, (int)row.len, SQLITE_TRANSIENT);
    sqlite3_bind_text(stmt, 4, msg->payload.ptr, (int)msg->payload.len, SQLITE_TRANSIENT);
    fault_must(sqlite3_step(stmt) == SQLITE_DONE, "gather: store a message");
    sqlite3_reset(stmt);
}

/* A busy disk may hold the server up for longer than a connection waits for it. */
static struct event_bus_delivery *get(struct event_bus *bus, uint64_t seq)
{
    struct event_bus_delivery *delivery = NULL;
    struct wb_why why = {""};

    wb_err err = event_bus_get(bus, FAULT_STREAM, seq, &delivery, &why);
    for (int tries = 0; tries < GET_TRIES && wb_err_class(err) == WB_RETRY; tries++) {
        fault_rest(100 * WB_MS);
        err = event_bus_get(bus, FAULT_STREAM, seq, &delivery, &why);
    }
    fault_must(err == WB_OK, "gather: message %llu: %s", (unsigned long long)seq, why.text);
    return delivery;
}

static void gather_stream(sqlite3 *db, struct event_bus *bus)
{
    struct event_bus_stream_info info;
    struct wb_why why = {""};
    sqlite3_stmt *stmt = NULL;

    fault_must(event_bus_stream_info(bus, FAULT_STREAM, &info, &why) == WB_OK, "%s", why.text);
    run(db, "BEGIN");
    fault_must(sqlite3_prepare_v2(db, "INSERT INTO stream VALUES(?, ?, ?, ?)", -1, &stmt, NULL) ==
                   SQLITE_OK,
               "gather: %s", sqlite3_errmsg(db));
    for (uint64_t seq = 1; seq <= info.last_seq; seq++) {
        struct event_bus_delivery *delivery = get(bus, seq);

        store(stmt, delivery);
        event_bus_release(delivery);
    }
    sqlite3_finalize(stmt);
    run(db, "COMMIT");
}

sqlite3 *fault_gather(const struct fault_paths *paths, struct event_bus *bus)
{
    sqlite3 *db = NULL;

    fault_must(sqlite3_open(":memory:", &db) == SQLITE_OK, "gather: no memory");
    run(db, schema);
    gather_databases(db, paths);
    gather_history(db, paths);
    gather_stream(db, bus);
    return db;
}

/* Each event is one row of work; of those that ended some were handled before. */
int64_t fault_behind(const struct fault_paths *paths)
{
    static const char sql[] =
        "SELECT (SELECT count(*) FROM producer.work WHERE key NOT IN (97, 99))"
        " - (SELECT count(*) FROM consumer.effect)"
        " - (SELECT count(*) FROM " ENDED
        " WHERE msg_id NOT IN (SELECT substr(msg_id, 1, 32) FROM consumer.effect))";
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    int64_t behind = INT64_MAX;

    if (sqlite3_open(":memory:", &db) == SQLITE_OK && attach(db, paths) == WB_OK &&
        sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        behind = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return behind;
}

uint64_t fault_rows(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    uint64_t rows = 0;

    fault_must(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
                   sqlite3_step(stmt) == SQLITE_ROW,
               "gather: %s", sqlite3_errmsg(db));
    rows = (uint64_t)sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return rows;
}

void fault_conclude(const struct fault_paths *paths, struct event_bus *bus,
                    struct fault_report *report)
{
    sqlite3 *gathered = fault_gather(paths, bus);
    char sql[64];

    for (unsigned key = 0; key < FAULT_KEYS; key++) {
        (void)snprintf(sql, sizeof(sql), "INSERT INTO aside VALUES(%u)", key);
        if ((report->keys_aside >> key & 1) != 0)
            run(gathered, sql);
    }
    report->broken = fault_check(gathered, false);
    if (report->broken == 0)
        fault_prove_checker(gathered);
    report->transactions = fault_rows(gathered, "SELECT count(*) FROM tx");
    report->events = fault_rows(gathered, "SELECT count(*) FROM outbox");
    report->archived = fault_rows(gathered, "SELECT count(*) FROM archived");
    report->ended = fault_rows(gathered, "SELECT count(*) FROM ended");
    sqlite3_close(gathered);
}
