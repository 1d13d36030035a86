/*
 * demo_check.c - compares what was committed with what the streams hold and what the modules did.
 *
 * The streams are read back into a table beside the modules' databases; SQL does the comparing.
 */
#include "demo.h"

#include <stdio.h>
#include <string.h>

#include <sqlite3.h>

#include <waybill/outbox.h>

static const struct {
    const char *module;
    const char *stream;
} publishing[DEMO_ROWS] = {{"webhooks", "WEBHOOKS"}, {"auth", "AUTH"}, {"ar", "AR"}};

/* ---- one number from SQL --------------------------------------------------------------------- */

/* %m and %s in sql stand for the module's and the stream's name. -1 on any error. */
static int64_t number(sqlite3 *handle, const char *sql, size_t row)
{
    struct wb_buf text = {0};
    sqlite3_stmt *stmt = NULL;
    int64_t value = -1;

    for (const char *p = sql; *p != '\0'; p++)
        if (*p == '%' && p[1] == 'm')
            wb_buf_str(&text, publishing[row].module), p++;
        else if (*p == '%' && p[1] == 's')
            wb_buf_str(&text, publishing[row].stream), p++;
        else
            wb_buf_add(&text, p, 1);
    if (!text.failed && sqlite3_prepare_v2(handle, text.ptr, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        value = sqlite3_column_int64(stmt, 0);
    else
        (void)fprintf(stderr, "demo: %s: %s\n", text.ptr, sqlite3_errmsg(handle));
    sqlite3_finalize(stmt);
    wb_buf_free(&text);
    return value;
}

/* A connection with the databases of all modules. NULL on failure. */
static sqlite3 *attach_all(const struct demo_stage *stage)
{
    static const char *const names[] = {"webhooks", "auth", "ar", "notify", "audit"};
    sqlite3 *handle = NULL;
    bool good = sqlite3_open(":memory:", &handle) == SQLITE_OK;

    for (size_t i = 0; good && i < sizeof(names) / sizeof(names[0]); i++) {
        char *sql = sqlite3_mprintf("ATTACH '%q/data/%q.db' AS %Q", stage->dir, names[i], names[i]);
        good = sql != NULL && sqlite3_exec(handle, sql, NULL, NULL, NULL) == SQLITE_OK;
        sqlite3_free(sql);
    }
    if (good && sqlite3_busy_timeout(handle, 5000) == SQLITE_OK)
        return handle;
    sqlite3_close(handle);
    return NULL;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static int64_t pending_of(sqlite3 *handle, size_t row)
{
    return number(handle,
                  "SELECT count(*) FROM %m.outbox WHERE id > "
                  "coalesce((SELECT max(last_id) FROM %m.outbox_cursor), 0)",
                  row) +
           number(handle, "SELECT count(*) FROM %m.outbox_exception", row);
}

int64_t demo_pending(struct demo_stage *stage)
{
    sqlite3 *handle = attach_all(stage);
    int64_t pending = 0;

    for (size_t i = 0; handle != NULL && i < DEMO_ROWS; i++)
        pending += pending_of(handle, i);
    sqlite3_close(handle);
    return handle == NULL ? -1 : pending;
}

/* Every module is level with the rows: each event in the audit, its followers where they belong. */
bool demo_settled(struct demo_stage *stage)
{
    static const char behind[] =
        "SELECT (SELECT count(*) FROM webhooks.outbox) + (SELECT count(*) FROM auth.outbox)"
        " + (SELECT count(*) FROM ar.outbox) - (SELECT count(*) FROM audit.audit_entry)"
        " + (SELECT count(*) FROM auth.auth_user) - (SELECT count(*) FROM ar.ar_account)"
        " + (SELECT count(*) FROM auth.auth_user) + (SELECT count(*) FROM ar.ar_invoice)"
        " - (SELECT count(*) FROM notify.notify_notification)";
    sqlite3 *handle = attach_all(stage);
    bool settled = handle != NULL && number(handle, behind, 0) == 0;

    for (size_t i = 0; settled && i < DEMO_ROWS; i++)
        settled = pending_of(handle, i) == 0;
    sqlite3_close(handle);
    return settled;
}

int demo_user_ids(struct demo_stage *stage, char ids[][64], int max)
{
    sqlite3 *handle = attach_all(stage);
    sqlite3_stmt *stmt = NULL;
    int count = 0;

    if (handle != NULL && sqlite3_prepare_v2(handle, "SELECT id FROM auth.auth_user ORDER BY id",
                                             -1, &stmt, NULL) == SQLITE_OK)
        while (count < max && sqlite3_step(stmt) == SQLITE_ROW)
            (void)snprintf(ids[count++], 64, "%s", (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
    sqlite3_close(handle);
    return count;
}

/* ---- the streams, read back ------------------------------------------------------------------ */

static wb_err store(sqlite3_stmt *insert, const struct event_bus_delivery *delivery)
{
    const struct message *msg = &delivery->message;
    struct wb_str row = message_header(msg, MESSAGE_HEADER_ROW);
    struct wb_str key = message_header(msg, MESSAGE_HEADER_KEY);

    sqlite3_bind_text(insert, 1, delivery->stream.ptr, (int)delivery->stream.len, SQLITE_TRANSIENT);
    sqlite3_bind_int64(insert, 2, (sqlite3_int64)delivery->sequence);
    sqlite3_bind_text(insert, 3, msg->subject.ptr, (int)msg->subject.len, SQLITE_TRANSIENT);
    sqlite3_bind_text(insert, 4, msg->msg_id.ptr, (int)msg->msg_id.len, SQLITE_TRANSIENT);
    sqlite3_bind_text(insert, 5, row.ptr, (int)row.len, SQLITE_TRANSIENT);
    sqlite3_bind_text(insert, 6, key.ptr, (int)key.len, SQLITE_TRANSIENT);
    wb_err err = sqlite3_step(insert) == SQLITE_DONE ? WB_OK : WB_IO;
    sqlite3_reset(insert);
    return err;
}

static wb_err read_stream(struct event_bus *bus, const char *stream, sqlite3_stmt *insert,
                          struct wb_why *why)
{
    struct event_bus_stream_info info;
    wb_err err = event_bus_stream_info(bus, stream, &info, why);

    for (uint64_t seq = info.first_seq; err == WB_OK && seq > 0 && seq <= info.last_seq; seq++) {
        struct event_bus_delivery *delivery;
        err = event_bus_get(bus, stream, seq, &delivery, why);
        if (err != WB_OK)
            break;
        err = store(insert, delivery);
        event_bus_release(delivery);
    }
    return err;
}

static wb_err read_streams(struct demo_stage *stage, sqlite3 *handle, struct wb_why *why)
{
    sqlite3_stmt *insert = NULL;
    wb_err err = WB_OK;

    if (sqlite3_exec(handle,
                     "CREATE TABLE stored(stream TEXT, seq INTEGER, subject TEXT, msg_id TEXT,"
                     " row_id INTEGER, key TEXT)",
                     NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(handle, "INSERT INTO main.stored VALUES(?, ?, ?, ?, ?, ?)", -1, &insert,
                           NULL) != SQLITE_OK)
        err = wb_fail(why, WB_IO, "demo: %s", sqlite3_errmsg(handle));
    for (size_t i = 0; err == WB_OK && i < DEMO_ROWS; i++)
        err = read_stream(stage->bus, publishing[i].stream, insert, why);
    sqlite3_finalize(insert);
    return err;
}

/* ---- the comparison -------------------------------------------------------------------------- */

#define NOTIFIED "(subject GLOB '*.events.*.created' OR subject GLOB '*.events.*.issued')"

static int64_t lost(sqlite3 *handle, size_t i)
{
    return number(handle,
                  "SELECT count(*) FROM %m.outbox o WHERE lower(hex(o.msg_id)) NOT IN"
                  " (SELECT msg_id FROM stored WHERE stream = '%s')",
                  i) +
           number(handle,
                  "SELECT count(*) FROM stored s WHERE stream = '%s' AND msg_id NOT IN"
                  " (SELECT msg_id FROM audit.audit_entry)",
                  i) +
           number(handle,
                  "SELECT count(*) FROM stored s WHERE stream = '%s' AND " NOTIFIED
                  " AND msg_id NOT IN (SELECT event_id FROM notify.notify_notification)",
                  i) +
           (i != 1 ? 0
                   : number(handle,
                            "SELECT count(*) FROM auth.auth_user WHERE id NOT IN"
                            " (SELECT user_id FROM ar.ar_account)",
                            i));
}

/*
 * What stands twice, and what stands in a stream without a row (as good as doubled: it should not).
 */
static int64_t doubled(sqlite3 *handle, size_t i)
{
    return number(handle,
                  "SELECT count(*) - count(DISTINCT msg_id) FROM stored WHERE stream = '%s'", i) +
           number(handle,
                  "SELECT count(*) FROM stored WHERE stream = '%s' AND msg_id NOT IN"
                  " (SELECT lower(hex(msg_id)) FROM %m.outbox)",
                  i) +
           number(handle,
                  "SELECT count(*) - count(DISTINCT msg_id) FROM audit.audit_entry"
                  " WHERE stream = '%s'",
                  i) +
           number(handle,
                  "SELECT count(*) - count(DISTINCT event_id) FROM notify.notify_notification"
                  " WHERE stream = '%s'",
                  i);
}

static int64_t out_of_order(sqlite3 *handle, size_t i)
{
    return number(handle,
                  "SELECT count(*) FROM (SELECT row_id, lag(row_id) OVER (PARTITION BY key"
                  " ORDER BY seq) AS before FROM stored WHERE stream = '%s') WHERE before > row_id",
                  i) +
           number(
               handle,
               "SELECT count(*) FROM (SELECT stream_seq, lag(stream_seq) OVER (ORDER BY seq)"
               " AS before FROM audit.audit_entry WHERE stream = '%s') WHERE before > stream_seq",
               i);
}

static struct demo_row compare(sqlite3 *handle, size_t i)
{
    return (struct demo_row){
        .module = publishing[i].module,
        .stream = publishing[i].stream,
        .committed = number(handle, "SELECT count(*) FROM %m.outbox", i),
        .published = number(handle, "SELECT count(*) FROM %m.outbox", i) - pending_of(handle, i),
        .stored = number(handle, "SELECT count(*) FROM stored WHERE stream = '%s'", i),
        .audited = number(handle, "SELECT count(*) FROM audit.audit_entry WHERE stream = '%s'", i),
        .notified = i == 0 ? -1
                           : number(handle,
                                    "SELECT count(*) FROM notify.notify_notification"
                                    " WHERE stream = '%s'",
                                    i),
        .accounts = i != 1 ? -1 : number(handle, "SELECT count(*) FROM ar.ar_account", i),
        .lost = lost(handle, i),
        .doubled = doubled(handle, i),
        .out_of_order = out_of_order(handle, i),
    };
}

wb_err demo_check(struct demo_stage *stage, struct demo_row rows[DEMO_ROWS], struct wb_why *why)
{
    sqlite3 *handle = attach_all(stage);
    wb_err err = handle == NULL
                     ? wb_fail(why, WB_IO, "open the modules' databases in %s/data", stage->dir)
                     : stage->open_bus(stage, why);
    if (err == WB_OK)
        err = read_streams(stage, handle, why);
    for (size_t i = 0; err == WB_OK && i < DEMO_ROWS; i++)
        rows[i] = compare(handle, i);
    sqlite3_close(handle);
    return err;
}
