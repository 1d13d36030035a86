/* One world: made, moved by actions, made again. */
#include "model.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include "waybill/outbox_impl.h"

enum { CRASH_POINTS = 8, REST_ROUNDS = 4000, KEYS = 2 };

static const char *const stream_name = "A";

/* ---- crashes --------------------------------------------------------------------------------- */

static jmp_buf crash_site;
static unsigned crash_countdown; /* 0: no crash is wanted */

static void crash_hook(const char *name)
{
    (void)name;
    if (crash_countdown > 0 && --crash_countdown == 0)
        longjmp(crash_site, 1);
}

/* true: the step came to its n-th crash point and ends there. */
static bool step_until_crash(struct outbox_publisher *publisher, unsigned n)
{
    bool volatile crashed = n == 0;

    crash_countdown = n;
    if (setjmp(crash_site) != 0)
        crashed = true;
    else if (n > 0)
        (void)outbox_publisher_step(publisher);
    crash_countdown = 0;
    return crashed;
}

/* ---- making ---------------------------------------------------------------------------------- */

static void file_copy(const char *from, const char *to)
{
    char block[65536];
    ssize_t n;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, block, sizeof(block))) > 0)
        assert_int_equal(write(out, block, (size_t)n), n);
    (void)close(in);
    (void)close(out);
}

static void template_make(struct model_world *world)
{
    struct db *db;

    assert_ok(
        db_open(world->template_path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, NULL));
    assert_ok(outbox_schema_prepare(db_handle(db), NULL));
    assert_ok(db_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL));
    db_close(db);
}

static void db_begin_from(struct model_world *world, const char *path)
{
    file_copy(path, world->path);
    assert_ok(db_open(world->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &world->db, NULL));
}

static void begin(struct model_world *world)
{
    const char *pattern = "a.>";
    /* Ids are forgotten almost at once: nothing may rest on the broker's memory of them. */
    const struct event_bus_stream_options options = {.name = stream_name,
                                                     .subjects = &pattern,
                                                     .subject_count = 1,
                                                     .duplicate_window_ns = 100 * WB_MS};

    db_begin_from(world, world->template_path);
    assert_ok(event_bus_memory_create(
        &(struct event_bus_memory_options){
            .manual = true, .seed = 1, .start_wall_ns = 1700000000 * WB_SEC},
        &world->broker));
    assert_ok(event_bus_declare_stream(world->broker, &options, EVENT_BUS_CREATE, NULL));
    for (unsigned i = 0; i < world->scope->publishers; i++)
        world->wires[i] = model_wire_create(world->broker, world->scope->unchained);
    world->enqueued = world->crashes = world->breaks = world->fences = world->losses = 0;
    world->restores = 0;
    world->backed_up = false;
}

static void files_remove(const struct model_world *world)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-queue", "-A-publisher", "-wake"};
    char path[320];

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s%s", world->path, suffixes[i]);
        (void)unlink(path);
    }
    (void)unlink(world->backup_path);
}

static void end(struct model_world *world)
{
    for (unsigned i = 0; i < MODEL_PUBLISHERS; i++) {
        outbox_publisher_abandon(world->publishers[i]);
        world->publishers[i] = NULL;
        if (world->wires[i] != NULL)
            model_wire_destroy(world->wires[i]);
        world->wires[i] = NULL;
    }
    event_bus_destroy(world->broker);
    world->broker = NULL;
    db_close(world->db);
    world->db = NULL;
    files_remove(world);
}

void model_world_open(struct model_world *world, const struct model_scope *scope)
{
    *world = (struct model_world){.scope = scope};
    test_dir_make(world->dir);
    (void)snprintf(world->path, sizeof(world->path), "%s/m.db", world->dir);
    (void)snprintf(world->template_path, sizeof(world->template_path), "%s/t.db", world->dir);
    (void)snprintf(world->backup_path, sizeof(world->backup_path), "%s/b.db", world->dir);
    template_make(world);
    wb_crash_hook(crash_hook);
    begin(world);
}

void model_world_close(struct model_world *world)
{
    end(world);
    wb_crash_hook(NULL);
    test_dir_remove(world->dir);
}

void model_world_replay(struct model_world *world, const struct model_action *path, size_t length)
{
    end(world);
    begin(world);
    for (size_t i = 0; i < length; i++)
        assert_true(model_world_apply(world, path[i]));
}

/* ---- actions --------------------------------------------------------------------------------- */

static bool enqueue(struct model_world *world)
{
    char sql[200];

    world->enqueued++;
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, key, msg_id, created, payload)"
                   " VALUES('a.x', 'k%u', x'%032x', 1700000000000, '%u')",
                   world->enqueued % KEYS, world->enqueued, world->enqueued);
    assert_ok(db_exec(world->db, sql, NULL));
    for (unsigned i = 0; i < MODEL_PUBLISHERS; i++)
        if (world->publishers[i] != NULL)
            world->publishers[i]->lanes[0]->dry = false; /* as a wake-up does */
    return true;
}

static bool start(struct model_world *world, unsigned who)
{
    const struct outbox_publisher_options options = {.path = world->path,
                                                     .bus = &world->wires[who]->wrap.base,
                                                     .streams = &stream_name,
                                                     .stream_count = 1,
                                                     .clock = event_bus_memory_clock(world->broker),
                                                     .manual = true,
                                                     .seed = who + 1};

    assert_ok(outbox_publisher_start(&options, &world->publishers[who], NULL));
    return true;
}

static bool crash(struct model_world *world, unsigned who, unsigned n)
{
    if (!step_until_crash(world->publishers[who], n))
        return false;
    world->crashes++;
    outbox_publisher_abandon(world->publishers[who]);
    world->publishers[who] = NULL;
    model_wire_break(world->wires[who]);
    return true;
}

static bool step_all(struct model_world *world, unsigned which)
{
    bool did = false;

    for (unsigned i = 0; i < MODEL_PUBLISHERS; i++)
        if ((which & (1U << i)) != 0 && world->publishers[i] != NULL)
            did = outbox_publisher_step(world->publishers[i]) || did;
    return did;
}

static bool pass_time(struct model_world *world, unsigned which)
{
    bool did = false;

    for (int i = 0; i < 80 && !did; i++) { /* longer than any timer */
        event_bus_memory_advance(world->broker, i < 20 ? 15 * WB_MS : 100 * WB_MS);
        did = step_all(world, which);
    }
    return did;
}

static bool fence(struct model_world *world)
{
    world->fences++;
    return outbox_publisher_fence(world->path, stream_name, NULL) == WB_OK;
}

static bool lose(struct model_world *world, unsigned keep_last)
{
    world->losses++;
    for (unsigned i = 0; i < world->scope->publishers; i++) {
        model_wire_break(world->wires[i]);
        model_wire_drop(world->wires[i]);
    }
    event_bus_memory_restart(world->broker, stream_name, keep_last);
    return true;
}

static bool back_up(struct model_world *world)
{
    char sql[400];

    (void)unlink(world->backup_path);
    (void)snprintf(sql, sizeof(sql), "VACUUM INTO '%s'", world->backup_path);
    assert_ok(db_exec(world->db, sql, NULL));
    world->backed_up = true;
    return true;
}

static bool restore(struct model_world *world)
{
    for (unsigned i = 0; i < MODEL_PUBLISHERS; i++) {
        outbox_publisher_abandon(world->publishers[i]);
        world->publishers[i] = NULL;
        if (world->wires[i] != NULL)
            model_wire_break(world->wires[i]);
    }
    db_close(world->db);
    db_begin_from(world, world->backup_path);
    world->restores++;
    return true;
}

bool model_world_apply(struct model_world *world, struct model_action action)
{
    switch (action.kind) {
    case MODEL_ENQUEUE:
        return enqueue(world);
    case MODEL_STEP:
        return outbox_publisher_step(world->publishers[action.who]);
    case MODEL_CRASH:
        return crash(world, action.who, action.n);
    case MODEL_START:
        return start(world, action.who);
    case MODEL_ARRIVE:
    case MODEL_ARRIVE_LATE:
        model_wire_arrive(world->wires[action.who], action.kind == MODEL_ARRIVE_LATE);
        return true;
    case MODEL_DROP_LATE:
        model_wire_drop(world->wires[action.who]);
        return true;
    case MODEL_BREAK:
        world->breaks++;
        model_wire_break(world->wires[action.who]);
        return true;
    case MODEL_PASS_TIME:
        return pass_time(world, action.n);
    case MODEL_FENCE:
        return fence(world);
    case MODEL_LOSE:
        return lose(world, action.n);
    case MODEL_BACK_UP:
        return back_up(world);
    case MODEL_RESTORE:
        return restore(world);
    }
    return false;
}

/* ---- what can be done ------------------------------------------------------------------------ */

struct choices {
    struct model_action *list;
    size_t count, max;
};

static void add(struct choices *choices, model_kind kind, unsigned who, unsigned n)
{
    if (choices->count < choices->max)
        choices->list[choices->count++] = (struct model_action){kind, who, n};
}

static void add_of(const struct model_world *world, unsigned who, struct choices *choices)
{
    const struct model_wire *wire = world->wires[who];

    if (wire->live != NULL)
        add(choices, MODEL_ARRIVE, who, 0);
    if (world->publishers[who] != NULL)
        add(choices, MODEL_STEP, who, 0);
    else
        add(choices, MODEL_START, who, 0);
    if (wire->late != NULL) {
        add(choices, MODEL_ARRIVE_LATE, who, 0);
        add(choices, MODEL_DROP_LATE, who, 0);
    }
    if (wire->live != NULL && world->breaks < world->scope->breaks)
        add(choices, MODEL_BREAK, who, 0);
    if (world->publishers[who] == NULL || world->crashes >= world->scope->crashes)
        return;
    for (unsigned n = 0; n <= CRASH_POINTS; n++)
        add(choices, MODEL_CRASH, who, n);
}

size_t model_world_actions(const struct model_world *world, struct model_action *ret, size_t max)
{
    struct choices choices = {.list = ret, .max = max};
    struct event_bus_stream_info info;

    if (world->enqueued < world->scope->events)
        add(&choices, MODEL_ENQUEUE, 0, 0);
    for (unsigned i = 0; i < world->scope->publishers; i++)
        add_of(world, i, &choices);
    /* What is late may be later than any timer. */
    for (unsigned which = 1; which < 1U << world->scope->publishers; which++)
        add(&choices, MODEL_PASS_TIME, 0, which);
    if (world->fences < world->scope->fences)
        add(&choices, MODEL_FENCE, 0, 0);
    if (world->restores < world->scope->restores)
        add(&choices, world->backed_up ? MODEL_RESTORE : MODEL_BACK_UP, 0, 0);
    assert_ok(event_bus_stream_info(world->broker, stream_name, &info, NULL));
    if (world->losses < world->scope->losses)
        for (unsigned n = 0; n < info.last_seq; n++)
            add(&choices, MODEL_LOSE, 0, n);
    return choices.count;
}

/* ---- rest ------------------------------------------------------------------------------------ */

static bool pump_all(struct model_world *world)
{
    bool did = false;

    for (unsigned i = 0; i < world->scope->publishers; i++) {
        model_wire_drop(world->wires[i]);
        for (; world->wires[i]->live != NULL; did = true)
            model_wire_arrive(world->wires[i], false);
    }
    return did;
}

void model_world_heal(struct model_world *world)
{
    unsigned quiet = 0;

    for (unsigned i = 0; i < world->scope->publishers; i++)
        if (world->publishers[i] == NULL)
            (void)start(world, i);
    for (int i = 0; i < REST_ROUNDS && quiet < 45; i++) {
        bool did = step_all(world, ~0U);
        did = pump_all(world) || did;
        quiet = did ? 0 : quiet + 1;
        if (!did)
            event_bus_memory_advance(world->broker, quiet < 20 ? 15 * WB_MS : 100 * WB_MS);
    }
}

void model_action_print(struct wb_buf *out, struct model_action action)
{
    static const char *const names[] = {
        [MODEL_ENQUEUE] = "enqueue",     [MODEL_STEP] = "step",
        [MODEL_CRASH] = "crash",         [MODEL_START] = "start",
        [MODEL_ARRIVE] = "arrive",       [MODEL_ARRIVE_LATE] = "arrive-late",
        [MODEL_DROP_LATE] = "drop-late", [MODEL_BREAK] = "break",
        [MODEL_PASS_TIME] = "pass-time", [MODEL_LOSE] = "lose-behind",
    };

    wb_buf_printf(out, "%s(%u,%u) ", names[action.kind], action.who, action.n);
}
