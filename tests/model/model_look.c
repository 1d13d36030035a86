/* What a world looks like, and what must be true of it. */
#include "model.h"

#include <sqlite3.h>
#include <stdio.h>

static const char *const tables_sql =
    "SELECT 'c', last_id, last_seq, hex(last_msg_id), stream_created, starts, holder"
    " FROM outbox_cursor"
    " UNION ALL SELECT 'e', id, state, attempts, next_at, '', '' FROM outbox_exception"
    " UNION ALL SELECT 's', from_id, '', '', '', '', '' FROM outbox_source"
    " UNION ALL SELECT 'o', id, hex(msg_id), '', '', '', '' FROM outbox";

/* ---- the hash -------------------------------------------------------------------------------- */

static void add_tables(struct model_world *world, struct wb_buf *out)
{
    struct sqlite3_stmt *stmt;

    assert_ok(db_prepare(world->db, tables_sql, &stmt, NULL));
    while (sqlite3_step(stmt) == SQLITE_ROW)
        for (int i = 0; i < 7; i++)
            wb_buf_printf(out, "%s,",
                          (const char *)sqlite3_column_text(stmt, i) != NULL
                              ? (const char *)sqlite3_column_text(stmt, i)
                              : "");
    (void)sqlite3_finalize(stmt);
}

static void add_stream(struct model_world *world, struct wb_buf *out)
{
    struct event_bus_stream_info info;

    assert_ok(event_bus_stream_info(world->broker, "A", &info, NULL));
    wb_buf_printf(out, "|%llu:", (unsigned long long)info.last_seq);
    for (uint64_t seq = 1; seq <= info.last_seq; seq++) {
        struct event_bus_delivery *delivery;
        if (event_bus_get(world->broker, "A", seq, &delivery, NULL) != WB_OK)
            continue;
        wb_buf_printf(out, "%llu=", (unsigned long long)seq);
        wb_buf_add(out, delivery->message.msg_id.ptr, delivery->message.msg_id.len);
        event_bus_release(delivery);
    }
}

static void add_messages(const struct model_message *list, struct wb_buf *out)
{
    for (wb_buf_str(out, "|"); list != NULL; list = list->next) {
        wb_buf_add(out, list->message->msg_id.ptr, list->message->msg_id.len);
        wb_buf_printf(out, "@%llu%c", (unsigned long long)list->options.last_seq,
                      list->done != NULL ? '!' : '?');
    }
}

static void add_exceptions(const struct outbox_publisher_lane *lane, struct wb_buf *out)
{
    for (size_t i = 0; i < lane->exceptions.count; i++) {
        const struct outbox_publisher_exception *one = &lane->exceptions.list[i];
        wb_buf_printf(out, "x%lld,%d,%d%d%d", (long long)one->id, (int)one->state, one->in_flight,
                      one->dirty, one->gone);
    }
}

/* Timers are reduced to "due or not": passing time goes on until one is. */
static void add_lane(const struct outbox_publisher_lane *lane, struct wb_buf *out)
{
    int64_t now = outbox_publisher_now_ns(lane);

    wb_buf_printf(out, "|%d,%d,%d,%d,%u,%u", (int)lane->state, lane->retry_mono_ns <= now,
                  lane->grace_ns != 0, lane->grace_mono_ns != 0 && lane->grace_mono_ns <= now,
                  lane->looks, lane->outages > 0);
    wb_buf_printf(out, ",%lld,%llu,%lld,%llu,%d,%d,%d", (long long)lane->cursor.last_id,
                  (unsigned long long)lane->cursor.last_seq, (long long)lane->read_id,
                  (unsigned long long)lane->chain_seq, (int)lane->verdict, lane->probe, lane->dry);
    wb_buf_printf(out, ",%lld,%llu,%zu,%d,%d,%lld,%llu", (long long)lane->failed_id,
                  (unsigned long long)lane->acked_seq, lane->unmarked, lane->synced,
                  lane->tables_stale, (long long)lane->duplicate_row,
                  (unsigned long long)lane->stream_last);
    wb_buf_printf(out, ",%lld,%d,", (long long)lane->cursor.holder,
                  now - lane->alive_mono_ns > OUTBOX_PUBLISHER_TAKEOVER_GRACE_NS);
    wb_buf_printf(out, "%lld,%d,%zu,%lld;", (long long)lane->again_row,
                  atomic_load(&lane->bus_changed), outbox_publisher_flight_count(lane->flight),
                  (long long)outbox_publisher_flight_oldest(lane->flight));
    wb_buf_printf(out, "%d,%d,%d,%lld,%u,%d,%d;", lane->may_send, lane->lost_left,
                  lane->exceptions_stale, (long long)lane->resend_id, lane->again_count,
                  lane->again_all, lane->survey != NULL);
    for (size_t i = lane->batch.next; i < lane->batch.count; i++)
        wb_buf_printf(out, "b%lld", (long long)lane->batch.items[i].row.id);
    add_exceptions(lane, out);
}

uint64_t model_look_hash(struct model_world *world)
{
    struct wb_buf out = {0};

    wb_buf_printf(&out, "%u,%u,%u,%u,%u", world->enqueued, world->crashes, world->breaks,
                  world->fences, world->losses);
    wb_buf_printf(&out, ",%u,%d", world->restores, world->backed_up);
    add_tables(world, &out);
    add_stream(world, &out);
    for (unsigned i = 0; i < world->scope->publishers; i++) {
        add_messages(world->wires[i]->live, &out);
        add_messages(world->wires[i]->late, &out);
        if (world->publishers[i] != NULL)
            add_lane(world->publishers[i]->lanes[0], &out);
    }
    assert_false(out.failed);
    uint64_t hash = wb_hash(out.ptr, out.len);
    wb_buf_free(&out);
    return hash;
}

/* ---- what must hold -------------------------------------------------------------------------- */

struct counted {
    unsigned times[MODEL_EVENTS + 1]; /* each event stands in the stream */
    unsigned newest[2];               /* of each key */
};

/* Which event it is says its identity: after a restore two events may have the same row number. */
static unsigned event_of(const struct message *msg)
{
    uint8_t id[WB_ID_SIZE] = {0};

    if (msg->msg_id.len < WB_ID_TEXT - 1 ||
        !wb_hex_decode(wb_str_n(msg->msg_id.ptr, WB_ID_TEXT - 1), id, WB_ID_SIZE))
        return 0;
    return id[WB_ID_SIZE - 1];
}

static bool count_one(struct counted *counted, const struct message *msg, struct wb_buf *out)
{
    unsigned event = event_of(msg);

    if (event < 1 || event > MODEL_EVENTS) {
        wb_buf_printf(out, "a message of event %u, which nobody wrote", event);
        return false;
    }
    if (++counted->times[event] > 1) {
        wb_buf_printf(out, "event %u stands twice", event);
        return false;
    }
    if (event < counted->newest[event % 2]) {
        wb_buf_printf(out, "event %u stands behind event %u of its key", event,
                      counted->newest[event % 2]);
        return false;
    }
    counted->newest[event % 2] = event;
    return true;
}

/* Two messages may not call themselves the same row of the same source: a consumer would take the
 * second for handled. */
static bool names_differ(struct wb_buf *names, const struct message *msg, struct wb_buf *out)
{
    struct wb_buf name = {0};

    wb_buf_str(&name, "<");
    wb_buf_add(&name, message_header(msg, MESSAGE_HEADER_SOURCE).ptr,
               message_header(msg, MESSAGE_HEADER_SOURCE).len);
    wb_buf_str(&name, "/");
    wb_buf_add(&name, message_header(msg, MESSAGE_HEADER_ROW).ptr,
               message_header(msg, MESSAGE_HEADER_ROW).len);
    wb_buf_str(&name, ">");
    bool differ = names->len == 0 || strstr(names->ptr, name.ptr) == NULL;
    wb_buf_str(names, name.ptr);
    if (!differ)
        wb_buf_printf(out, "two messages are named %s", name.ptr);
    wb_buf_free(&name);
    return differ;
}

static bool count_stream(struct model_world *world, struct counted *counted, struct wb_buf *out)
{
    struct event_bus_stream_info info;
    struct wb_buf names = {0};
    bool right = true;

    assert_ok(event_bus_stream_info(world->broker, "A", &info, NULL));
    for (uint64_t seq = 1; right && seq <= info.last_seq; seq++) {
        struct event_bus_delivery *delivery;
        if (event_bus_get(world->broker, "A", seq, &delivery, NULL) != WB_OK)
            continue;
        right = count_one(counted, &delivery->message, out) &&
                names_differ(&names, &delivery->message, out);
        event_bus_release(delivery);
    }
    wb_buf_free(&names);
    return right;
}

bool model_look_wrong(struct model_world *world, struct wb_buf *out)
{
    struct counted counted = {.newest = {0}};

    return !count_stream(world, &counted, out);
}

static int64_t query(struct model_world *world, const char *sql)
{
    struct sqlite3_stmt *stmt;

    assert_ok(db_prepare(world->db, sql, &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return value;
}

static bool all_stored(struct model_world *world, const struct counted *counted, struct wb_buf *out)
{
    for (unsigned event = 1; event <= world->enqueued; event++) {
        char sql[100];
        (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM outbox WHERE msg_id = x'%032x'",
                       event);
        if (counted->times[event] == 0 && query(world, sql) > 0) {
            wb_buf_printf(out, "event %u never arrives", event);
            return false;
        }
    }
    return true;
}

bool model_look_unfinished(struct model_world *world, struct wb_buf *out)
{
    struct counted counted = {.newest = {0}};

    if (!count_stream(world, &counted, out) || !all_stored(world, &counted, out))
        return true;
    if (query(world, "SELECT count(*) FROM outbox_exception") > 0) {
        wb_buf_str(out, "all is stored, but exceptions are left");
        return true;
    }
    int64_t last_id = query(world, "SELECT ifnull(max(last_id), 0) FROM outbox_cursor");
    if (last_id != query(world, "SELECT ifnull(max(id), 0) FROM outbox")) {
        wb_buf_printf(out, "all is stored, but the cursor stands at row %lld", (long long)last_id);
        return true;
    }
    return false;
}
