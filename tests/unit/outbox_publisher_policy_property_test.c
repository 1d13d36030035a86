/*
 * Whatever happens on the way, rows that are refused for good touch only their own key, and there
 * do what the class of the row says. A model that knows nothing of time or crashes says what each
 * key must look like in the end.
 */
#include "outbox_publisher_history.h"

enum { SEEDS = 60, ACTIONS = 250, KEYS = 12, ROWS_MAX = 4000 };

static const char *const block_subjects[] = {"a.block.>"};
static const char *const park_subjects[] = {"a.park.>"};
static const char *const latest_subjects[] = {"a.latest.>"};
static const struct outbox_class classes[] = {
    {.name = "block", .patterns = block_subjects, .pattern_count = 1, .policy = OUTBOX_BLOCK_KEY},
    {.name = "park", .patterns = park_subjects, .pattern_count = 1, .policy = OUTBOX_PARK},
    {.name = "latest",
     .patterns = latest_subjects,
     .pattern_count = 1,
     .policy = OUTBOX_LATEST_WINS},
};
static const char *const subjects[] = {"a.block.x", "a.park.x", "a.latest.x"};

/* What a row is, and what became of it. */
struct fate {
    int key;            /* its class is key % 3; keys from 9 on never get a bad row */
    bool bad;           /* the bus never takes it */
    bool shy;           /* the bus takes it when it likes; only where the latest wins */
    uint64_t stored_at; /* 0: not stored */
    char state[16];     /* of its exception; "" */
};

struct world {
    struct fixture *f;
    struct fault_bus *bus;
    struct wb_rng rng;
    uint64_t seed;
    struct fate fates[ROWS_MAX];
    int64_t rows;
};

static uint64_t below(struct world *w, uint64_t bound)
{
    return wb_rng_below(&w->rng, bound);
}

static struct wb_rng moods;

static bool is_refused(const struct message *msg)
{
    return memcmp(msg->payload.ptr, "bad", 3) == 0 ||
           (memcmp(msg->payload.ptr, "shy", 3) == 0 && wb_rng_below(&moods, 2) == 0);
}

/* ---- actions --------------------------------------------------------------------------------- */

static void act_write(struct world *w)
{
    for (uint64_t n = 1 + below(w, 8); n > 0 && w->rows + 1 < ROWS_MAX; n--) {
        int key = (int)below(w, KEYS);
        bool bad = key < 9 && below(w, 12) == 0;
        /* Refused by the bus, or before: both ways lead to the same end. */
        const char *subject = bad && below(w, 4) == 0 ? "a.latest.x y" : subjects[key % 3];
        const char text[] = {'k', (char)('a' + key), '\0'};
        if (strcmp(subject, "a.latest.x y") == 0 && key % 3 != 2)
            subject = subjects[key % 3];
        bool shy = !bad && key % 3 == 2 && below(w, 4) == 0;
        fixture_insert(w->f, subject, text, bad ? "bad" : shy ? "shy" : "good");
        w->fates[++w->rows] = (struct fate){.key = key, .bad = bad, .shy = shy};
    }
}

static void act(struct world *w)
{
    uint64_t choice = below(w, 100);

    if (choice < 25) {
        act_write(w);
    } else if (choice < 60) {
        for (uint64_t n = below(w, 6); n > 0; n--)
            (void)outbox_publisher_step(w->f->publisher);
    } else if (choice < 82) {
        for (uint64_t n = below(w, 20); n > 0; n--)
            (void)fault_bus_pump(w->bus);
    } else if (choice < 94) {
        fault_bus_advance(w->bus, (int64_t)below(w, below(w, 3) == 0 ? 3000 : 150) * WB_MS);
    } else if (choice < 97) {
        fixture_crash(w->f);
        fault_bus_orphan(w->bus);
        history_start(w->f, &w->rng);
    } else {
        fault_bus_down(w->bus, !w->bus->down);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

static void gather(struct world *w)
{
    struct event_bus_stream_info info;
    struct sqlite3_stmt *stmt;

    assert_ok(event_bus_stream_info(w->bus->inner, "A", &info, NULL));
    for (uint64_t sequence = 1; sequence <= info.last_seq; sequence++) {
        struct event_bus_delivery *delivery;
        uint64_t id = 0;
        assert_ok(event_bus_get(w->bus->inner, "A", sequence, &delivery, NULL));
        assert_true(wb_str_to_u64(message_header(&delivery->message, "waybill-row"), &id));
        event_bus_release(delivery);
        assert_in_range(id, 1, w->rows);
        if (w->fates[id].stored_at != 0)
            fail_msg("seed %llu: row %llu is stored twice", (unsigned long long)w->seed,
                     (unsigned long long)id);
        w->fates[id].stored_at = sequence;
    }
    assert_ok(db_prepare(w->f->db, "SELECT id, state FROM outbox_exception", &stmt, NULL));
    while (sqlite3_step(stmt) == SQLITE_ROW)
        (void)snprintf(w->fates[sqlite3_column_int64(stmt, 0)].state, sizeof(w->fates[0].state),
                       "%s", sqlite3_column_text(stmt, 1));
    (void)sqlite3_finalize(stmt);
}

static bool younger_is_out(const struct world *w, int64_t id)
{
    for (int64_t younger = id + 1; younger <= w->rows; younger++)
        if (w->fates[younger].key == w->fates[id].key && w->fates[younger].stored_at != 0)
            return true;
    return false;
}

/* What the model says of one row: the state it must have, "" for stored. */
static const char *expected(const struct world *w, int64_t id)
{
    const struct fate *fate = &w->fates[id];
    const outbox_policy policy = classes[fate->key % 3].policy;

    if (policy == OUTBOX_BLOCK_KEY)
        for (int64_t older = 1; older < id; older++)
            if (w->fates[older].key == fate->key && w->fates[older].bad)
                return "blocked";
    if (!fate->bad && (!fate->shy || fate->stored_at != 0))
        return "";
    return policy == OUTBOX_LATEST_WINS && younger_is_out(w, id) ? "cancelled" : "parked";
}

static void assert_as_the_model_says(struct world *w)
{
    uint64_t newest[KEYS] = {0};

    for (int64_t id = 1; id <= w->rows; id++) {
        const struct fate *fate = &w->fates[id];
        const char *state = expected(w, id);
        if (strcmp(fate->state, state) != 0 || (fate->stored_at == 0) != (state[0] != '\0'))
            fail_msg("seed %llu: row %lld (key %d%s) is '%s' at %llu, expected '%s'",
                     (unsigned long long)w->seed, (long long)id, fate->key,
                     fate->bad ? ", bad" : "", fate->state, (unsigned long long)fate->stored_at,
                     state);
        if (fate->stored_at == 0)
            continue;
        if (fate->stored_at < newest[fate->key])
            fail_msg("seed %llu: row %lld stands before an older one of its key",
                     (unsigned long long)w->seed, (long long)id);
        newest[fate->key] = fate->stored_at;
    }
}

static void history_run(uint64_t seed)
{
    static struct world w;
    void *state;

    memset(&w, 0, sizeof(w));
    w.seed = seed;
    wb_rng_seed(&w.rng, seed);
    (void)fixture_setup(&state);
    w.f = state;
    w.bus = fault_bus_create(w.f->bus, wb_rng_next(&w.rng));
    w.bus->faults_per_thousand = (unsigned)below(&w, 60);
    w.bus->refuses = is_refused;
    wb_rng_seed(&moods, wb_rng_next(&w.rng));
    w.f->options.classes = classes;
    w.f->options.class_count = 3;
    w.f->options.max_attempts = 4;
    w.f->options.bus = &w.bus->base;
    w.f->options.observe = NULL;
    history_start(w.f, &w.rng);
    for (int i = 0; i < ACTIONS; i++)
        act(&w);
    history_rest(w.f, w.bus, seed,
                 "SELECT count(*) FROM outbox_exception"
                 " WHERE state IN ('lost', 'retry', 'waiting')");
    gather(&w);
    assert_as_the_model_says(&w);
    history_end(w.f, w.bus);
}

static void any_history_ends_as_the_policies_say(void **state)
{
    (void)state;
    (void)history_seeds(SEEDS, history_run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_history_ends_as_the_policies_say),
    };
    return cmocka_run_group_tests_name("outbox_publisher_policy_property", tests, NULL, NULL);
}
