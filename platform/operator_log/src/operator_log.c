/* Who changed what by hand: writing and reading the table operator_log. */
#include "waybill/operator_log.h"

#include <assert.h>
#include <pwd.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <waybill/db.h>

static const struct db_migration steps[] = {{
    .sql = "CREATE TABLE operator_log("
           " id INTEGER PRIMARY KEY," /* the newest entry is never deleted, so ids rise */
           " at INTEGER NOT NULL,"    /* ms */
           " who TEXT NOT NULL,"
           " command TEXT NOT NULL,"
           " target TEXT NOT NULL,"
           " reason TEXT NOT NULL,"
           " detail TEXT NOT NULL);",
}};

#define STEP_COUNT (sizeof(steps) / sizeof(steps[0]))

/* ---- who ------------------------------------------------------------------------------------- */

void operator_log_who(char out[OPERATOR_LOG_WHO_MAX + 1])
{
    const char *claimed = getenv("WAYBILL_OPERATOR"); /* NOLINT(concurrency-mt-unsafe) */
    char host[65] = "?";
    char room[4096];
    struct passwd account;
    struct passwd *found = NULL;
    const uid_t uid = getuid();
    const char *name = "?";

    if (getpwuid_r(uid, &account, room, sizeof(room), &found) == 0 && found != NULL)
        name = found->pw_name;
    if (gethostname(host, sizeof(host)) == 0)
        host[sizeof(host) - 1] = '\0';
    if (claimed == NULL || claimed[0] == '\0')
        claimed = name;
    (void)snprintf(out, OPERATOR_LOG_WHO_MAX + 1, "%.80s (%.32s %ld) on %s", claimed, name,
                   (long)uid, host);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The text, or a shorter copy that ends with "..." behind a whole character. */
static struct wb_str cut(struct wb_str text, size_t max, char *room)
{
    size_t len = max - 3;

    if (text.len <= max)
        return text;
    while (len > 0 && ((unsigned char)text.ptr[len] & 0xc0) == 0x80)
        len--;
    memcpy(room, text.ptr, len);
    memcpy(room + len, "...", 3);
    return wb_str_n(room, len + 3);
}

/* One room for each text that may have to be cut. */
struct rooms {
    char who[OPERATOR_LOG_WHO_MAX + 1];
    char command[OPERATOR_LOG_TEXT_MAX];
    char target[OPERATOR_LOG_TEXT_MAX];
    char reason[OPERATOR_LOG_TEXT_MAX];
    char detail[OPERATOR_LOG_DETAIL_MAX];
};

static void bind(struct sqlite3_stmt *stmt, const struct operator_log_entry *entry,
                 struct rooms *rooms)
{
    int64_t at = entry->at_wall_ns != 0 ? entry->at_wall_ns : wb_wall_ns(wb_clock_system());
    struct wb_str who = entry->who;

    if (who.len == 0) {
        operator_log_who(rooms->who);
        who = wb_str(rooms->who);
    } else {
        who = cut(who, OPERATOR_LOG_WHO_MAX, rooms->who);
    }
    (void)sqlite3_bind_int64(stmt, 1, at / WB_MS);
    db_bind_text(stmt, 2, who);
    db_bind_text(stmt, 3, cut(entry->command, OPERATOR_LOG_TEXT_MAX, rooms->command));
    db_bind_text(stmt, 4, cut(entry->target, OPERATOR_LOG_TEXT_MAX, rooms->target));
    db_bind_text(stmt, 5, cut(entry->reason, OPERATOR_LOG_TEXT_MAX, rooms->reason));
    db_bind_text(stmt, 6, cut(entry->detail, OPERATOR_LOG_DETAIL_MAX, rooms->detail));
}

/* The table and its statement live for one entry: what is done by hand is done rarely. */
static wb_err insert(struct sqlite3 *handle, const struct operator_log_entry *entry,
                     struct rooms *rooms, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(handle,
                                "INSERT INTO main.operator_log(at, who, command, target, reason,"
                                " detail) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                                -1, &stmt, NULL);

    if (rc == SQLITE_OK) {
        bind(stmt, entry, rooms);
        rc = sqlite3_step(stmt);
    }
    wb_err err = rc == SQLITE_DONE ? WB_OK : db_error(handle, rc, "write the operator log", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

static wb_err prune(struct sqlite3 *handle, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    int rc =
        sqlite3_prepare_v2(handle, "DELETE FROM main.operator_log WHERE id <= ?1", -1, &stmt, NULL);

    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(stmt, 1,
                                 sqlite3_last_insert_rowid(handle) - OPERATOR_LOG_ROWS_MAX);
        rc = sqlite3_step(stmt);
    }
    wb_err err = rc == SQLITE_DONE ? WB_OK : db_error(handle, rc, "prune the operator log", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

wb_err operator_log_add(struct sqlite3 *handle, const struct operator_log_entry *entry,
                        struct wb_why *why)
{
    assert(handle != NULL);
    assert(entry != NULL);
    if (sqlite3_get_autocommit(handle) != 0)
        return wb_fail(why, WB_MISUSE,
                       "write the operator log: no transaction is open; the entry belongs into the "
                       "one that does what it tells of");
    wb_err err = db_migrate(handle, "operator_log", steps, STEP_COUNT, why);
    if (err != WB_OK)
        return err;
    struct rooms *rooms = malloc(sizeof(*rooms));
    if (rooms == NULL)
        return wb_fail(why, WB_NOMEM, "write the operator log: out of memory");
    err = insert(handle, entry, rooms, why);
    if (err == WB_OK)
        err = prune(handle, why);
    free(rooms);
    return err;
}

/* ---- reading --------------------------------------------------------------------------------- */

enum {
    FIELD_ID,
    FIELD_AT,
    FIELD_AGE,
    FIELD_WHO,
    FIELD_COMMAND,
    FIELD_TARGET,
    FIELD_REASON,
    FIELD_DETAIL
};

const struct filter_field operator_log_fields[] = {
    [FIELD_ID] = {"id", FILTER_ID},
    [FIELD_AT] = {"at", FILTER_TIME},
    [FIELD_AGE] = {"age", FILTER_AGE},
    [FIELD_WHO] = {"who", FILTER_TEXT},
    [FIELD_COMMAND] = {"command", FILTER_TEXT},
    [FIELD_TARGET] = {"target", FILTER_TEXT},
    [FIELD_REASON] = {"reason", FILTER_TEXT},
    [FIELD_DETAIL] = {"detail", FILTER_TEXT},
};
const size_t operator_log_field_count =
    sizeof(operator_log_fields) / sizeof(operator_log_fields[0]);

struct reading {
    struct operator_log_entry entry;
    int64_t now_wall_ns;
};

static bool reading_get(void *ctx, size_t field, struct filter_value *ret_value)
{
    const struct reading *reading = ctx;
    const struct operator_log_entry *entry = &reading->entry;
    const struct wb_str texts[] = {[FIELD_WHO] = entry->who,
                                   [FIELD_COMMAND] = entry->command,
                                   [FIELD_TARGET] = entry->target,
                                   [FIELD_REASON] = entry->reason,
                                   [FIELD_DETAIL] = entry->detail};

    if (field == FIELD_ID)
        ret_value->number = entry->id;
    else if (field == FIELD_AT)
        ret_value->number = entry->at_wall_ns;
    else if (field == FIELD_AGE)
        ret_value->number = reading->now_wall_ns - entry->at_wall_ns;
    else
        ret_value->text = texts[field];
    return true;
}

static void entry_read(struct sqlite3_stmt *stmt, struct operator_log_entry *ret_entry)
{
    *ret_entry = (struct operator_log_entry){
        .id = sqlite3_column_int64(stmt, 0),
        .at_wall_ns = sqlite3_column_int64(stmt, 1) * WB_MS,
        .who = db_column_text(stmt, 2),
        .command = db_column_text(stmt, 3),
        .target = db_column_text(stmt, 4),
        .reason = db_column_text(stmt, 5),
        .detail = db_column_text(stmt, 6),
    };
}

static int visit_all(struct sqlite3_stmt *stmt, const struct operator_log_query *query,
                     operator_log_visit visit, void *ctx)
{
    struct reading reading = {.now_wall_ns = query->now_wall_ns};
    size_t left = query->limit > 0 ? query->limit : 100;
    int rc = SQLITE_DONE;

    (void)sqlite3_bind_int64(stmt, 1, query->before_id > 0 ? query->before_id : INT64_MAX);
    while (left > 0 && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        entry_read(stmt, &reading.entry);
        if (!filter_matches(query->filter, reading_get, &reading))
            continue;
        left--;
        if (!visit(ctx, &reading.entry))
            break;
    }
    return rc;
}

wb_err operator_log_list(struct sqlite3 *handle, const struct operator_log_query *query,
                         operator_log_visit visit, void *ctx, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    unsigned version = 0;

    assert(query != NULL);
    wb_err err = db_schema_version(handle, "operator_log", &version, why);
    if (err != WB_OK || version == 0)
        return err;
    int rc = sqlite3_prepare_v2(handle,
                                "SELECT id, at, who, command, target, reason, detail"
                                " FROM main.operator_log WHERE id < ?1 ORDER BY id DESC",
                                -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = visit_all(stmt, query, visit, ctx);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = db_error(handle, rc, "read the operator log", why);
    (void)sqlite3_finalize(stmt);
    return err;
}
