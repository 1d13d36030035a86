/* outbox_publisher_repair_fixture.h - rows, a stream that loses them, and what is to be found then.
 */
#ifndef OUTBOX_PUBLISHER_REPAIR_FIXTURE_H
#define OUTBOX_PUBLISHER_REPAIR_FIXTURE_H

#include "outbox_publisher_fixture.h"

/* Rows '1' to 'n', payload and number alike; keys may be NULL, or one letter for each row. */
static inline void rows(struct fixture *f, int64_t from, int64_t to, const char *keys)
{
    for (int64_t id = from; id <= to; id++) {
        char payload[24], key[2] = {keys != NULL ? keys[id - from] : '\0', '\0'};
        (void)snprintf(payload, sizeof(payload), "%" PRId64, id);
        fixture_insert(f, "a.x", key, payload);
    }
}

static inline void many_rows(struct fixture *f, int64_t count)
{
    char sql[200];

    (void)snprintf(
        sql, sizeof(sql),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %" PRId64
        ") INSERT INTO outbox(subject, payload) SELECT 'a.n', i FROM n",
        count);
    fixture_sql(f, sql);
}

static inline void foreign(struct fixture *f, const char *payload, const char *msg_id)
{
    const struct message msg = {.subject = wb_str("a.foreign"),
                                .payload = {.ptr = payload, .len = strlen(payload)},
                                .msg_id = wb_str(msg_id)};

    assert_ok(event_bus_publish(f->bus, &msg, NULL, NULL, NULL));
}

static inline void redeclare(struct fixture *f)
{
    event_bus_memory_advance(f->bus, WB_MS); /* another time of creation */
    assert_ok(event_bus_delete_stream(f->bus, "A", NULL));
    fixture_declare(f->bus, "A", "a.>");
}

static inline void declare_short(struct fixture *f, uint64_t max_messages)
{
    static const char *const subjects[] = {"a.>"};
    const struct event_bus_stream_options options = {.name = "A",
                                                     .subjects = subjects,
                                                     .subject_count = 1,
                                                     .max_messages = max_messages,
                                                     .discard_old = true};

    assert_ok(event_bus_declare_stream(f->bus, &options, EVENT_BUS_APPLY, NULL));
}

/* A check finds it: at the next one by itself, or when something is sent. */
static inline void look(struct fixture *f)
{
    fixture_pass(f, 6 * WB_SEC);
}

/* "kind rows gone" of every incident. */
static inline void assert_incidents(struct fixture *f, const char *expected)
{
    assert_column(f, "SELECT kind || ' ' || rows || ' ' || gone FROM outbox_incident ORDER BY id",
                  expected);
}

/* Everything is well: the machine drains, the cursor stands at the end, nothing is left aside. */
static inline void assert_at_rest(struct fixture *f)
{
    struct event_bus_stream_info info;

    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
    assert_string_equal(fixture_health(f).problem, "");
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), info.last_seq);
    assert_int_equal(fixture_int(f, "SELECT repairing FROM outbox_cursor"), 0);
    assert_exceptions(f, "");
}

static inline void assert_late(struct fixture *f, uint64_t sequence, bool late)
{
    struct event_bus_delivery *delivery;

    assert_ok(event_bus_get(f->bus, "A", sequence, &delivery, NULL));
    assert_int_equal(message_header(&delivery->message, OUTBOX_HEADER_LATE).len, late ? 1 : 0);
    event_bus_release(delivery);
}

#endif /* OUTBOX_PUBLISHER_REPAIR_FIXTURE_H */
