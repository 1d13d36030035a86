/*
 * Whatever is lost - the end of the stream, all of it, messages out of its midst; what was written
 * since a copy of the database was made; messages, answers, connections and publishers besides - in
 * the end the stream holds each row of the table once. Each key is in order, but for what came back
 * late and says so; no two events have one name; what has no row is listed as an orphan.
 */
#include <unistd.h>

#include "outbox_publisher_history.h"

enum { SEEDS = 60, ACTIONS = 250, STREAM_MAX = 20000 };

struct world {
    struct fixture *f;
    struct fault_bus *bus;
    struct wb_rng rng;
    uint64_t seed;
    bool copied;
    unsigned crashes, losses, restores;
};

static unsigned all_losses, all_restores, all_crashes, all_messages, all_late, all_orphans;

static uint64_t below(struct world *w, uint64_t bound)
{
    return wb_rng_below(&w->rng, bound);
}

/* The bus forgets ids at once: what is sent twice shall be stored twice. */
static void declare(struct world *w)
{
    static const char *const subjects[] = {"a.>"};
    const struct event_bus_stream_options options = {
        .name = "A", .subjects = subjects, .subject_count = 1, .duplicate_window_ns = 100 * WB_MS};

    assert_ok(event_bus_declare_stream(w->bus->inner, &options, EVENT_BUS_APPLY, NULL));
}

/* ---- actions --------------------------------------------------------------------------------- */

static void act_write(struct world *w)
{
    static const char *const keys[] = {"", "k", "l", "m"};

    assert_ok(db_begin(w->f->db, NULL));
    for (uint64_t n = 1 + below(w, 12); n > 0; n--)
        fixture_insert(w->f, "a.x", keys[below(w, 4)], "p");
    if (below(w, 20) == 0)
        fixture_insert(w->f, "not a subject", "", "p");
    assert_ok(db_commit(w->f->db, NULL));
}

static void start(struct world *w)
{
    history_start(w->f, &w->rng);
    w->f->publisher->lost_max = 1 + below(w, 8);
    w->f->publisher->survey_ids = 1 + (int64_t)below(w, 200);
}

static void crash(struct world *w)
{
    w->crashes++;
    fixture_crash(w->f);
    fault_bus_orphan(w->bus);
}

static void act_outage(struct world *w)
{
    fault_bus_down(w->bus, !w->bus->down);
}

static void foreign(struct world *w)
{
    const struct message msg = {.subject = wb_str("a.foreign"), .payload = {"F", 1}};

    assert_ok(event_bus_publish(w->bus->inner, &msg, NULL, NULL, NULL));
}

/* The server dies, and comes back with less than it had. */
static void act_loss(struct world *w)
{
    struct event_bus_stream_info info;

    w->losses++;
    fault_bus_down(w->bus, true);
    assert_ok(event_bus_stream_info(w->bus->inner, "A", &info, NULL));
    uint64_t choice = below(w, 10);
    if (choice < 5) {
        event_bus_memory_restart(w->bus->inner, "A",
                                 info.last_seq - below(w, 30) % (info.last_seq + 1));
    } else if (choice < 6) {
        event_bus_memory_restart(w->bus->inner, "A", 0);
    } else if (choice < 7) {
        event_bus_memory_advance(w->bus->inner, WB_MS);
        assert_ok(event_bus_delete_stream(w->bus->inner, "A", NULL));
        declare(w);
    } else {
        /* The first message stays: what goes before it went by the stream's limits. */
        for (uint64_t n = below(w, 6); n > 0 && info.last_seq > 1; n--)
            (void)event_bus_memory_delete(w->bus->inner, "A", 2 + below(w, info.last_seq - 1));
    }
    for (uint64_t n = below(w, 4) == 0 ? below(w, 40) : 0; n > 0; n--)
        foreign(w);
    if (below(w, 2) == 0)
        fault_bus_down(w->bus, false);
}

static void copy_path(struct world *w, char out[400])
{
    (void)snprintf(out, 400, "%s/copy.db", w->f->dir);
}

static void act_copy(struct world *w)
{
    char path[400], sql[450];

    copy_path(w, path);
    (void)unlink(path);
    (void)snprintf(sql, sizeof(sql), "VACUUM INTO '%s'", path);
    fixture_sql(w->f, sql);
    w->copied = true;
}

static void act_restore(struct world *w)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char path[400], copy[400];
    size_t len = 0;

    if (!w->copied)
        return;
    w->restores++;
    crash(w);
    /* What a dead publisher sent is there or lost before a person has put a copy back. */
    while (fault_bus_pump(w->bus))
        continue;
    db_close(w->f->db);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s%s", w->f->path, suffixes[i]);
        (void)unlink(path);
    }
    copy_path(w, copy);
    char *content = test_file_read(copy, &len);
    FILE *out = fopen(w->f->path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(content, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
    free(content);
    assert_ok(db_open(w->f->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &w->f->db, NULL));
    if (below(w, 2) == 0)
        act_write(w); /* before anybody has noticed */
    start(w);
}

static void act(struct world *w)
{
    uint64_t choice = below(w, 100);

    if (w->bus->down && below(w, 5) == 0)
        fault_bus_down(w->bus, false);
    if (choice < 25) {
        act_write(w);
    } else if (choice < 60) {
        for (uint64_t n = below(w, 40); n > 0; n--)
            (void)outbox_publisher_step(w->f->publisher);
    } else if (choice < 76) {
        for (uint64_t n = below(w, 80); n > 0; n--)
            (void)fault_bus_pump(w->bus);
    } else if (choice < 86) {
        fault_bus_advance(w->bus, (int64_t)below(w, below(w, 3) == 0 ? 6000 : 150) * WB_MS);
    } else if (choice < 90) {
        crash(w);
        start(w);
    } else if (choice < 93) {
        act_outage(w);
    } else if (choice < 96) {
        act_loss(w);
    } else if (choice < 98) {
        act_copy(w);
    } else if (choice < 99 && w->seed % 3 != 0) {
        act_restore(w);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

#define ROWS_LEFT "SELECT count(*) FROM outbox_exception WHERE state <> 'parked'"

/* Everything heals; then the stream is compared whole, for holes leave its end as it was. */
static void settle_down(struct world *w)
{
    history_rest(w->f, w->bus, w->seed, ROWS_LEFT);
    outbox_publisher_stop(w->f->publisher);
    w->f->options.repair = "*";
    start(w);
    history_rest(w->f, w->bus, w->seed, ROWS_LEFT);
    w->f->options.repair = NULL;
}

static void check_messages(struct world *w)
{
    struct event_bus_stream_info info;

    fixture_sql(w->f, "CREATE TEMP TABLE stream(seq, source, row, msg_id, late, key)");
    assert_ok(event_bus_stream_info(w->bus->inner, "A", &info, NULL));
    assert_true(info.last_seq < STREAM_MAX);
    assert_ok(db_begin(w->f->db, NULL));
    for (uint64_t seq = 1; seq <= info.last_seq; seq++) {
        struct event_bus_delivery *delivery;
        struct wb_buf sql = {0};
        if (event_bus_get(w->bus->inner, "A", seq, &delivery, NULL) != WB_OK)
            continue;
        const struct message *msg = &delivery->message;
        struct wb_str source = message_header(msg, MESSAGE_HEADER_SOURCE);
        struct wb_str row = message_header(msg, MESSAGE_HEADER_ROW);
        struct wb_str key = message_header(msg, MESSAGE_HEADER_KEY);
        if (row.len > 0) {
            wb_buf_printf(&sql,
                          "INSERT INTO stream VALUES(%llu, '%.*s', %.*s, substr('%.*s', 1, 32), %d,"
                          " '%.*s')",
                          (unsigned long long)seq, (int)source.len, source.ptr, (int)row.len,
                          row.ptr, (int)msg->msg_id.len, msg->msg_id.ptr,
                          message_header(msg, OUTBOX_HEADER_LATE).len > 0, (int)key.len,
                          key.len > 0 ? key.ptr : "");
            fixture_sql(w->f, sql.ptr);
        }
        wb_buf_free(&sql);
        event_bus_release(delivery);
    }
    assert_ok(db_commit(w->f->db, NULL));
}

static void none(struct world *w, const char *what, const char *sql)
{
    int64_t count = fixture_int(w->f, sql);

    if (count != 0)
        fail_msg("seed %llu: %lld %s", (unsigned long long)w->seed, (long long)count, what);
}

static void assert_all_is_well(struct world *w)
{
    check_messages(w);
    none(w, "events stand in the stream twice",
         "SELECT count(*) FROM (SELECT 1 FROM stream GROUP BY msg_id HAVING count(*) > 1)");
    none(w, "names belong to two events",
         "SELECT count(*) FROM (SELECT 1 FROM stream GROUP BY source, row HAVING count(*) > 1)");
    none(w, "rows are not in the stream",
         "SELECT count(*) FROM outbox o WHERE subject = 'a.x' AND NOT EXISTS"
         " (SELECT 1 FROM stream s WHERE s.row = o.id AND s.msg_id = lower(hex(o.msg_id)))");
    none(w, "events are out of the order of their key",
         "SELECT count(*) FROM (SELECT s.row AS id, s.late AS late, max(s.row) FILTER (WHERE NOT"
         " s.late) OVER (PARTITION BY s.key ORDER BY s.seq ROWS BETWEEN UNBOUNDED PRECEDING AND"
         " 1 PRECEDING) AS older FROM stream s JOIN outbox o ON o.id = s.row"
         " AND lower(hex(o.msg_id)) = s.msg_id WHERE s.key <> '') WHERE NOT late AND older > id");
    none(w, "events without a row are not listed",
         "SELECT count(*) FROM stream s WHERE NOT EXISTS (SELECT 1 FROM outbox o"
         " WHERE o.id = s.row AND lower(hex(o.msg_id)) = s.msg_id) AND NOT EXISTS"
         " (SELECT 1 FROM outbox_orphan p WHERE substr(p.msg_id, 1, 32) = s.msg_id)"
         " AND s.source IN (SELECT lower(hex(source)) FROM outbox_source)");
    none(w, "rows are parked without reason, or bad ones are not",
         "SELECT count(*) FROM outbox o LEFT JOIN outbox_exception e ON e.id = o.id"
         " WHERE (o.subject = 'a.x') <> (e.id IS NULL)");
    none(w, "cursors are still under repair",
         "SELECT count(*) FROM outbox_cursor WHERE repairing <> 0");
    all_messages += (unsigned)fixture_int(w->f, "SELECT count(*) FROM stream");
    all_late += (unsigned)fixture_int(w->f, "SELECT count(*) FROM stream WHERE late");
    all_orphans += (unsigned)fixture_int(w->f, "SELECT count(*) FROM outbox_orphan");
}

static void history_run(uint64_t seed)
{
    void *state;
    struct world w = {.seed = seed};

    wb_rng_seed(&w.rng, seed);
    (void)fixture_setup(&state);
    w.f = state;
    w.bus = fault_bus_create(w.f->bus, wb_rng_next(&w.rng));
    w.bus->faults_per_thousand = seed % 2 == 0 ? (unsigned)below(&w, 60) : 0;
    declare(&w);
    w.f->options.audit_wait_ns = seed % 4 == 1 ? 300 * WB_MS : 0;
    w.f->options.max_attempts = 1000000;
    w.f->options.bus = &w.bus->base;
    w.f->options.observe = NULL;
    start(&w);
    for (int i = 0; i < ACTIONS; i++)
        act(&w);
    settle_down(&w);
    assert_all_is_well(&w);
    history_end(w.f, w.bus);
    all_losses += w.losses;
    all_restores += w.restores;
    all_crashes += w.crashes;
}

static void any_loss_ends_with_each_row_once(void **state)
{
    (void)state;
    uint64_t count = history_seeds(SEEDS, history_run);
    print_message("%llu histories: %u losses, %u restores, %u crashes; %u messages, %u late, "
                  "%u orphans\n",
                  (unsigned long long)count, all_losses, all_restores, all_crashes, all_messages,
                  all_late, all_orphans);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_loss_ends_with_each_row_once),
    };
    return cmocka_run_group_tests_name("outbox_publisher_loss_property", tests, NULL, NULL);
}
