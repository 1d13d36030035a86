/* Outages burn no attempts; what one row did wrong is counted against that row alone. */
#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

/* ---- classes --------------------------------------------------------------------------------- */

static const struct {
    wb_err err;
    outbox_publisher_error_class expected;
} table[] = {
    {WB_INVALID, OUTBOX_PUBLISHER_OF_ROW},        {WB_TOO_BIG, OUTBOX_PUBLISHER_OF_ROW},
    {WB_DENIED, OUTBOX_PUBLISHER_OF_ROW},         {WB_CONFLICT, OUTBOX_PUBLISHER_OF_CHAIN},
    {WB_TIMEOUT, OUTBOX_PUBLISHER_OF_CHAIN},      {WB_UNKNOWN, OUTBOX_PUBLISHER_OF_CHAIN},
    {WB_NOMEM, OUTBOX_PUBLISHER_OF_STREAM},       {WB_NOT_FOUND, OUTBOX_PUBLISHER_OF_STREAM},
    {WB_EXISTS, OUTBOX_PUBLISHER_OF_STREAM},      {WB_FULL, OUTBOX_PUBLISHER_OF_STREAM},
    {WB_BUSY, OUTBOX_PUBLISHER_OF_STREAM},        {WB_UNREACHABLE, OUTBOX_PUBLISHER_OF_STREAM},
    {WB_NO_STREAM, OUTBOX_PUBLISHER_OF_STREAM},   {WB_NO_JETSTREAM, OUTBOX_PUBLISHER_OF_STREAM},
    {WB_IO, OUTBOX_PUBLISHER_OF_STREAM},          {WB_DISK_FULL, OUTBOX_PUBLISHER_OF_STREAM},
    {WB_READ_ONLY, OUTBOX_PUBLISHER_OF_STREAM},   {WB_CORRUPT, OUTBOX_PUBLISHER_OF_STREAM},
    {WB_UNSUPPORTED, OUTBOX_PUBLISHER_OF_STREAM}, {WB_MISUSE, OUTBOX_PUBLISHER_OF_STREAM},
    {WB_CLOSED, OUTBOX_PUBLISHER_OF_STREAM},      {WB_INTERNAL, OUTBOX_PUBLISHER_OF_STREAM},
};

enum {
#define X(name, class, text) COUNTED_##name,
    WB_ERR_MAP(X)
#undef X
        ERR_COUNT,
};

static void every_error_has_its_class(void **state)
{
    (void)state;
    assert_int_equal(sizeof(table) / sizeof(table[0]) + 1, ERR_COUNT); /* and WB_OK */
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (outbox_publisher_classify(table[i].err) != table[i].expected)
            fail_msg("%s is of another class", wb_err_name(table[i].err));
}

/* ---- what a class does ----------------------------------------------------------------------- */

/* A bus that answers every publish with one error: at once, or later. */
struct answering {
    struct fixture *f;
    struct fault_bus *bus;
};

static int setup(void **state)
{
    struct answering *self = calloc(1, sizeof(*self));
    void *fixture;

    assert_non_null(self);
    (void)fixture_setup(&fixture);
    self->f = fixture;
    self->bus = fault_bus_create(self->f->bus, 1);
    self->f->options.bus = &self->bus->base;
    self->f->options.observe = NULL;
    *state = self;
    return 0;
}

static int teardown(void **state)
{
    struct answering *self = *state;
    void *fixture = self->f;

    outbox_publisher_stop(self->f->publisher);
    self->f->publisher = NULL;
    event_bus_destroy(&self->bus->base);
    free(self);
    return fixture_teardown(&fixture);
}

static void answer_all(struct answering *self, wb_err err)
{
    while (self->bus->first != NULL) {
        struct transit *one = transit_take(self->bus);
        transit_answer(one, err, &(struct event_bus_ack_info){.sequence = 0});
        transit_free(one);
    }
}

/* Every message gets the answer for so long; then all is well again. */
static void trouble(struct answering *self, wb_err err, int64_t ns)
{
    for (int64_t done = 0; done < ns; done += 10 * WB_MS) {
        for (int i = 0; i < 20; i++) {
            (void)outbox_publisher_step(self->f->publisher);
            answer_all(self, err);
        }
        fault_bus_advance(self->bus, 10 * WB_MS);
    }
}

static void peace(struct answering *self, int64_t ns)
{
    for (int64_t done = 0; done < ns; done += 10 * WB_MS) {
        while (fault_bus_pump(self->bus) || outbox_publisher_step(self->f->publisher))
            continue;
        fault_bus_advance(self->bus, 10 * WB_MS);
    }
}

static void only_errors_of_a_row_count_attempts(void **state)
{
    struct answering *self = *state;

    self->f->options.max_attempts = 1000;
    fixture_start(self->f);
    peace(self, 20 * WB_MS);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        fixture_insert(self->f, "a.x", "", "p");
        trouble(self, table[i].err, 300 * WB_MS);
        int64_t counted = fixture_int(
            self->f,
            "SELECT count(*) FROM outbox_exception WHERE attempts > 0 OR state = 'parked'");
        if ((counted > 0) != (table[i].expected == OUTBOX_PUBLISHER_OF_ROW))
            fail_msg("%s: %d rows have attempts", wb_err_name(table[i].err), (int)counted);
        peace(self, 70 * WB_SEC);
        assert_exceptions(self->f, "");
    }
}

static void outage_of_thirty_minutes_burns_no_attempts_and_parks_nothing(void **state)
{
    struct answering *self = *state;
    static const wb_err kinds[] = {WB_UNREACHABLE, WB_NO_STREAM, WB_FULL, WB_TIMEOUT};

    self->f->options.max_attempts = 1;
    fixture_start(self->f);
    peace(self, 20 * WB_MS);
    for (size_t i = 0; i < 4; i++) {
        for (int n = 0; n < 5; n++)
            fixture_insert(self->f, "a.x", "k", "p");
        for (int minute = 0; minute < 30; minute++) {
            trouble(self, kinds[i], WB_SEC);
            fault_bus_advance(self->bus, 59 * WB_SEC);
        }
        assert_exceptions(self->f, "");
        peace(self, WB_SEC); /* nobody tells when it is over */
        assert_int_equal(fixture_int(self->f, "SELECT last_id FROM outbox_cursor"), 5 * (i + 1));
        assert_exceptions(self->f, "");
    }
}

/* The pauses are by chance, so it is tried often. */
static void stream_that_is_back_is_used_within_a_second(void **state)
{
    struct answering *self = *state;

    fixture_start(self->f);
    peace(self, 20 * WB_MS);
    for (int n = 1; n <= 20; n++) {
        fixture_insert(self->f, "a.x", "", "p");
        trouble(self, WB_FULL, 10 * WB_SEC);
        peace(self, WB_SEC);
        assert_int_equal(fixture_int(self->f, "SELECT last_id FROM outbox_cursor"), n);
    }
}

static void disconnection_of_thirty_minutes_burns_nothing_and_ends_at_once(void **state)
{
    struct answering *self = *state;

    self->f->options.max_attempts = 1;
    fixture_start(self->f);
    peace(self, 20 * WB_MS);
    fault_bus_down(self->bus, true);
    for (int n = 0; n < 5; n++)
        fixture_insert(self->f, "a.x", "k", "p");
    for (int minute = 0; minute < 30; minute++)
        peace(self, WB_SEC), fault_bus_advance(self->bus, 59 * WB_SEC);
    assert_int_equal(fixture_health(self->f).state, OUTBOX_PUBLISHER_OUTAGE);
    fault_bus_down(self->bus, false);
    peace(self, 300 * WB_MS); /* what was in flight may arrive for a moment */
    assert_int_equal(fixture_int(self->f, "SELECT last_id FROM outbox_cursor"), 5);
    assert_exceptions(self->f, "");
}

/* The pauses are by chance, and grow. */
static void refused_row_is_tried_after_pauses_by_chance_that_grow(void **state)
{
    struct answering *self = *state;
    int64_t longest_ms = 0, now_ms;

    self->f->options.max_attempts = 1000;
    fixture_insert(self->f, "a.x", "", "p");
    fixture_start(self->f);
    for (uint32_t attempt = 1; attempt <= 12; attempt++) {
        while (fixture_int(self->f, "SELECT ifnull(max(attempts), 0) FROM outbox_exception") <
               (int64_t)attempt)
            trouble(self, WB_DENIED, 10 * WB_MS);
        now_ms = wb_wall_ns(self->f->options.clock) / WB_MS;
        int64_t wait_ms =
            fixture_int(self->f, "SELECT next_at FROM outbox_exception WHERE id = 1") - now_ms;
        int64_t most_ms = attempt < 9 ? INT64_C(200) << attempt : 60000;
        assert_in_range(wait_ms + 100, 0, (most_ms < 60000 ? most_ms : 60000) + 100);
        longest_ms = wait_ms > longest_ms ? wait_ms : longest_ms;
    }
    assert_true(longest_ms > 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        cmocka_unit_test(every_error_has_its_class),
        T(only_errors_of_a_row_count_attempts),
        T(outage_of_thirty_minutes_burns_no_attempts_and_parks_nothing),
        T(stream_that_is_back_is_used_within_a_second),
        T(disconnection_of_thirty_minutes_burns_nothing_and_ends_at_once),
        T(refused_row_is_tried_after_pauses_by_chance_that_grow),
    };
    return cmocka_run_group_tests_name("outbox_publisher_errors", tests, NULL, NULL);
}
