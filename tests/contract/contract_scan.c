/* Reading a range of a stream without payloads. */
#include "contract.h"

#include <stdatomic.h>

#define MANY 9000 /* more than a bus reads at a time */

/* What a scan showed. */
struct seen {
    uint64_t sequences[MANY];
    size_t count;
    size_t stop_after; /* 0: never */
    bool bare;         /* every one without payload, as read rather than delivered */
};

static bool note(void *ctx, const struct event_bus_delivery *delivery)
{
    struct seen *seen = ctx;

    if (seen->count < MANY)
        seen->sequences[seen->count] = delivery->sequence;
    seen->bare = (seen->bare || seen->count == 0) && delivery->message.payload.len == 0 &&
                 delivery->deliveries == 0;
    return ++seen->count != seen->stop_after;
}

static struct seen *seen_new(void)
{
    struct seen *seen = calloc(1, sizeof(*seen));

    assert_non_null(seen);
    return seen;
}

static void scan(struct contract *c, uint64_t from, uint64_t to, struct seen *seen,
                 uint64_t expected_next)
{
    struct wb_why why = {{0}};
    uint64_t next = 12345;

    seen->count = 0;
    wb_err err = event_bus_scan(c->bus, "ORDERS", from, to, note, seen, &next, &why);
    if (err != WB_OK)
        fail_msg("scan: %s: %s", wb_err_name(err), why.text);
    assert_int_equal(next, expected_next);
}

/* The sequences first to last, but for the holes. */
static void assert_seen(const struct seen *seen, uint64_t first, uint64_t last,
                        const uint64_t *holes, size_t hole_count)
{
    size_t at = 0;

    for (uint64_t sequence = first; sequence <= last; sequence++) {
        if (hole_count > 0 && *holes == sequence) {
            holes++;
            hole_count--;
            continue;
        }
        assert_true(at < seen->count);
        assert_int_equal(seen->sequences[at++], sequence);
    }
    assert_int_equal(seen->count, at);
    assert_true(seen->bare);
}

static void count_answer(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                         const struct wb_why *why)
{
    atomic_uint *failures = ctx;

    (void)ack;
    (void)why;
    if (err != WB_OK)
        atomic_fetch_add(failures, 1);
}

/* n messages; the last one is waited for. */
static void fill(struct contract *c, size_t n)
{
    static atomic_uint failures;

    for (size_t i = 1; i < n; i++) {
        const struct message msg = {.subject = wb_str("orders.a"), .payload = {"payload", 7}};
        assert_ok(event_bus_publish_async(c->bus, &msg, NULL, count_answer, &failures, NULL));
    }
    contract_publish(c, "orders.a", "last");
    assert_int_equal(atomic_load(&failures), 0);
}

static void scan_of_nothing_visits_nobody(void **state)
{
    struct contract *c = *state;
    struct seen *seen = seen_new();
    uint64_t next;

    assert_err(event_bus_scan(c->bus, "ORDERS", 1, 9, note, seen, &next, NULL), WB_NO_STREAM);
    assert_int_equal(next, 1);
    contract_stream(c, "ORDERS", "orders.>");
    scan(c, 1, UINT64_MAX, seen, 1);
    fill(c, 3);
    scan(c, 4, UINT64_MAX, seen, 4);
    scan(c, 7, 9, seen, 7);
    scan(c, 3, 2, seen, 3);
    assert_int_equal(seen->count, 0);
    free(seen);
}

static void scan_reads_just_its_range(void **state)
{
    struct contract *c = *state;
    struct seen *seen = seen_new();

    contract_stream(c, "ORDERS", "orders.>");
    fill(c, 200);
    scan(c, 1, 1, seen, 2);
    assert_seen(seen, 1, 1, NULL, 0);
    scan(c, 0, 64, seen, 65);
    assert_seen(seen, 1, 64, NULL, 0);
    scan(c, 2, 66, seen, 67);
    assert_seen(seen, 2, 66, NULL, 0);
    scan(c, 11, 190, seen, 191);
    assert_seen(seen, 11, 190, NULL, 0);
    scan(c, 100, UINT64_MAX, seen, 201);
    assert_seen(seen, 100, 200, NULL, 0);
    free(seen);
}

static void scan_of_many_thousands_is_complete_and_in_order(void **state)
{
    struct contract *c = *state;
    struct seen *seen = seen_new();

    contract_stream(c, "ORDERS", "orders.>");
    fill(c, MANY);
    scan(c, 1, UINT64_MAX, seen, MANY + 1);
    assert_seen(seen, 1, MANY, NULL, 0);
    free(seen);
}

static void scan_ends_where_the_visitor_stops(void **state)
{
    struct contract *c = *state;
    struct seen *seen = seen_new();

    contract_stream(c, "ORDERS", "orders.>");
    fill(c, 300);
    seen->stop_after = 5;
    scan(c, 1, 20, seen, 6);
    assert_int_equal(seen->count, 5);
    scan(c, 6, UINT64_MAX, seen, 11);
    assert_int_equal(seen->count, 5);
    seen->stop_after = 0;
    scan(c, 11, UINT64_MAX, seen, 301);
    assert_seen(seen, 11, 300, NULL, 0);
    free(seen);
}

static void scan_passes_over_what_was_deleted(void **state)
{
    struct contract *c = *state;
    struct seen *seen = seen_new();
    static const uint64_t holes[] = {1, 2, 50, 51, 300};
    const size_t count = sizeof(holes) / sizeof(holes[0]);

    contract_stream(c, "ORDERS", "orders.>");
    fill(c, 300);
    for (size_t i = 0; i < count; i++)
        c->kind->delete_message(c->kind->ctx, c->bus, "ORDERS", holes[i]);
    scan(c, 1, UINT64_MAX, seen, 301);
    assert_seen(seen, 1, 300, holes, count);
    scan(c, 40, 60, seen, 61);
    assert_seen(seen, 40, 60, &holes[2], 2);
    scan(c, 50, 51, seen, 52);
    assert_int_equal(seen->count, 0);
    for (uint64_t sequence = 150; sequence < 300; sequence++)
        c->kind->delete_message(c->kind->ctx, c->bus, "ORDERS", sequence);
    scan(c, 3, 280, seen, 281);
    assert_seen(seen, 3, 149, &holes[2], 2);
    scan(c, 160, UINT64_MAX, seen, 301);
    assert_int_equal(seen->count, 0);
    free(seen);
}

static void scan_begins_with_what_the_limits_have_left(void **state)
{
    struct contract *c = *state;
    struct seen *seen = seen_new();
    static const char *const subjects[] = {"orders.>"};

    contract_stream_with(c, &(struct event_bus_stream_options){.name = "ORDERS",
                                                               .subjects = subjects,
                                                               .subject_count = 1,
                                                               .max_messages = 100,
                                                               .discard_old = true});
    fill(c, 300);
    scan(c, 1, UINT64_MAX, seen, 301);
    assert_seen(seen, 201, 300, NULL, 0);
    scan(c, 190, 210, seen, 211);
    assert_seen(seen, 201, 210, NULL, 0);
    scan(c, 5, 10, seen, 11);
    assert_int_equal(seen->count, 0);
    free(seen);
}

/* ---- what a visitor sees --------------------------------------------------------------------- */

struct whole {
    size_t count;
    struct event_bus_delivery *read; /* by event_bus_get() */
};

static bool compare(void *ctx, const struct event_bus_delivery *delivery)
{
    struct whole *whole = ctx;
    const struct message *a = &delivery->message, *b = &whole->read->message;

    if (delivery->sequence != whole->read->sequence)
        return true;
    assert_true(wb_str_eq(a->subject, b->subject));
    assert_true(wb_str_eq(a->msg_id, wb_str("0123456789abcdef")));
    assert_int_equal(a->header_count, b->header_count);
    assert_true(wb_str_eq(message_header(a, "waybill-row"), wb_str("17")));
    assert_true(wb_str_eq(message_header(a, "Kind"), wb_str("first")));
    assert_int_equal(a->payload.len, 0);
    assert_true(wb_str_eq(delivery->stream, wb_str("ORDERS")));
    assert_true(delivery->stored_wall_ns == whole->read->stored_wall_ns);
    whole->count++;
    return true;
}

static void scan_shows_all_but_the_payload(void **state)
{
    struct contract *c = *state;
    const struct message_header headers[] = {{wb_str("kind"), wb_str("first")},
                                             {wb_str("waybill-row"), wb_str("17")},
                                             {wb_str("kind"), wb_str("second")}};
    const struct message msg = {.subject = wb_str("orders.eu.x"),
                                .payload = {"body", 4},
                                .headers = headers,
                                .header_count = 3,
                                .msg_id = wb_str("0123456789abcdef")};
    struct whole whole = {.count = 0};
    uint64_t next;

    contract_stream(c, "ORDERS", "orders.>");
    fill(c, 50);
    assert_ok(event_bus_publish(c->bus, &msg, NULL, NULL, NULL));
    fill(c, 50);
    assert_ok(event_bus_get(c->bus, "ORDERS", 51, &whole.read, NULL));
    assert_ok(event_bus_scan(c->bus, "ORDERS", 51, 51, compare, &whole, &next, NULL));
    assert_ok(event_bus_scan(c->bus, "ORDERS", 1, UINT64_MAX, compare, &whole, &next, NULL));
    assert_int_equal(whole.count, 2);
    event_bus_release(whole.read);
}

/* ---- when it cannot -------------------------------------------------------------------------- */

static void scan_on_a_closed_bus_is_told(void **state)
{
    struct contract *c = *state;
    struct seen *seen = seen_new();
    uint64_t next;

    contract_stream(c, "ORDERS", "orders.>");
    fill(c, 3);
    event_bus_close(c->bus);
    assert_err(event_bus_scan(c->bus, "ORDERS", 1, 3, note, seen, &next, NULL), WB_CLOSED);
    assert_int_equal(next, 1);
    assert_int_equal(seen->count, 0);
    free(seen);
}

struct losing {
    struct contract *c;
    struct seen *seen;
};

static bool lose_at_100(void *ctx, const struct event_bus_delivery *delivery)
{
    struct losing *losing = ctx;
    struct contract *c = losing->c;

    (void)note(losing->seen, delivery);
    if (losing->seen->count == 100)
        c->kind->lose_server(c->kind->ctx, c->bus);
    return true;
}

static void scan_that_loses_its_server_says_where_to_go_on(void **state)
{
    struct contract *c = *state;
    struct losing losing = {.c = c, .seen = seen_new()};
    uint64_t next;

    contract_stream(c, "ORDERS", "orders.>");
    fill(c, MANY);
    assert_err(event_bus_scan(c->bus, "ORDERS", 1, MANY, lose_at_100, &losing, &next, NULL),
               WB_UNREACHABLE);
    assert_true(next > 100 && next < MANY);
    assert_seen(losing.seen, 1, next - 1, NULL, 0);
    c->kind->return_server(c->kind->ctx, c->bus);
    scan(c, next, MANY, losing.seen, MANY + 1);
    assert_seen(losing.seen, next, MANY, NULL, 0);
    free(losing.seen);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(scan_of_nothing_visits_nobody),
    CONTRACT_CASE(scan_reads_just_its_range),
    CONTRACT_CASE(scan_of_many_thousands_is_complete_and_in_order),
    CONTRACT_CASE(scan_ends_where_the_visitor_stops),
    {.name = "scan_passes_over_what_was_deleted",
     .run = scan_passes_over_what_was_deleted,
     .needs_delete = true},
    CONTRACT_CASE(scan_begins_with_what_the_limits_have_left),
    CONTRACT_CASE(scan_shows_all_but_the_payload),
    CONTRACT_CASE(scan_on_a_closed_bus_is_told),
    {.name = "scan_that_loses_its_server_says_where_to_go_on",
     .run = scan_that_loses_its_server_says_where_to_go_on,
     .needs_server = true},
};

const struct contract_cases contract_scan_cases = {cases, sizeof(cases) / sizeof(cases[0])};
