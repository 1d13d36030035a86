/* The write side: what enqueue stores, what it refuses, whom it wakes. */
#include "outbox_fixture.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct outbox_event event_of(const char *subject, const char *payload)
{
    return (struct outbox_event){.subject = wb_str(subject),
                                 .payload = {.ptr = payload, .len = strlen(payload)}};
}

static bool copy_row(void *ctx, const struct outbox_row *row)
{
    struct wb_buf *out = ctx;

    wb_buf_printf(out, "%lld %.*s %.*s [%.*s] %.*s %.*s %s\n", (long long)row->id,
                  (int)row->subject.len, row->subject.ptr, (int)row->key.len, row->key.ptr,
                  (int)row->headers.len, row->headers.ptr, (int)row->traceparent.len,
                  row->traceparent.ptr, (int)row->payload.len, (const char *)row->payload.ptr,
                  outbox_state_name(row->state));
    return true;
}

static void enqueue_in_a_transaction_stores_the_event_as_given(void **state)
{
    struct fixture *f = *state;
    const struct message_header headers[] = {{wb_str("Color"), wb_str("red")},
                                             {wb_str("Size"), wb_str("9")}};
    struct outbox_event event = event_of("auth.user.created", "hello");
    struct outbox_receipt receipt;
    struct wb_buf out = {0};
    char id[WB_ID_TEXT];

    event.key = wb_str("user 7");
    event.headers = headers;
    event.header_count = 2;
    event.traceparent = wb_str("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_ok(db_begin(f->db, NULL));
    assert_ok(outbox_enqueue(f->outbox, &event, &receipt, NULL));
    assert_ok(db_commit(f->db, NULL));
    assert_int_equal(receipt.row_id, 1);

    wb_hex_encode(receipt.msg_id, WB_ID_SIZE, id);
    assert_ok(outbox_show(db_handle(f->db), wb_str(id), copy_row, &out, NULL));
    assert_string_equal(out.ptr,
                        "1 auth.user.created user 7 [Color: red\nSize: 9] "
                        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 hello pending\n");
    assert_int_equal(receipt.msg_id[6] >> 4, 7); /* UUIDv7 */
    wb_buf_free(&out);
}

static void enqueue_outside_a_transaction_is_misuse(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = event_of("a.b", "x");

    assert_err(outbox_enqueue(f->outbox, &event, NULL, NULL), WB_MISUSE);
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 0);
}

static void enqueue_rolled_back_leaves_no_row(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = event_of("a.b", "x");

    assert_ok(db_begin(f->db, NULL));
    assert_ok(outbox_enqueue(f->outbox, &event, NULL, NULL));
    db_rollback(f->db);
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 0);
}

static void enqueue_leaves_the_transaction_open_when_it_refuses(void **state)
{
    struct fixture *f = *state;
    struct outbox_event good = event_of("a.b", "x");
    struct outbox_event bad = event_of("a..b", "x");

    assert_ok(db_begin(f->db, NULL));
    assert_ok(outbox_enqueue(f->outbox, &good, NULL, NULL));
    assert_err(outbox_enqueue(f->outbox, &bad, NULL, NULL), WB_INVALID);
    assert_ok(db_commit(f->db, NULL));
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 1);
}

static void enqueue_of_what_no_bus_would_take_is_refused(void **state)
{
    struct fixture *f = *state;
    static const struct message_header spoofed[] = {{{"Waybill-Row", 11}, {"1", 1}}};
    static const struct message_header broken[] = {{{"a b", 3}, {"1", 1}}};
    struct outbox_event event = event_of("a.b", "x");
    char *big = calloc(1, MESSAGE_PAYLOAD_MAX);
    char long_key[OUTBOX_KEY_MAX + 1];

    assert_non_null(big);
    memset(long_key, 'k', sizeof(long_key));
    assert_ok(db_begin(f->db, NULL));

    event.headers = spoofed;
    event.header_count = 1;
    assert_err(outbox_enqueue(f->outbox, &event, NULL, NULL), WB_INVALID);
    event.headers = broken;
    assert_err(outbox_enqueue(f->outbox, &event, NULL, NULL), WB_INVALID);
    event.header_count = 0;

    event.key = wb_str_n(long_key, sizeof(long_key));
    assert_err(outbox_enqueue(f->outbox, &event, NULL, NULL), WB_INVALID);
    event.key = wb_str_n(long_key, sizeof(long_key) - 1);
    assert_ok(outbox_enqueue(f->outbox, &event, NULL, NULL));
    event.key = wb_str(NULL);

    event.stream = wb_str("not a name");
    assert_err(outbox_enqueue(f->outbox, &event, NULL, NULL), WB_INVALID);
    event.stream = wb_str(NULL);

    event.payload = (struct wb_bytes){.ptr = big, .len = MESSAGE_PAYLOAD_MAX};
    assert_err(outbox_enqueue(f->outbox, &event, NULL, NULL), WB_TOO_BIG);
    event.payload.len = MESSAGE_PAYLOAD_MAX - 300; /* room for our own headers */
    assert_ok(outbox_enqueue(f->outbox, &event, NULL, NULL));
    db_rollback(f->db);
    free(big);
}

static void attach_needs_wal_and_a_synced_log(void **state)
{
    struct fixture *f = *state;
    struct sqlite3 *handle;
    struct outbox *outbox = NULL;
    char path[320];

    (void)snprintf(path, sizeof(path), "%s/plain.db", f->dir);
    assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
    assert_err(outbox_attach(handle, &outbox, NULL), WB_INVALID);
    assert_int_equal(sqlite3_exec(handle, "PRAGMA journal_mode=WAL", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(handle, "PRAGMA synchronous=OFF", NULL, NULL, NULL), SQLITE_OK);
    assert_err(outbox_attach(handle, &outbox, NULL), WB_INVALID);
    assert_null(outbox);
    assert_int_equal(sqlite3_exec(handle, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL),
                     SQLITE_OK);
    assert_ok(outbox_attach(handle, &outbox, NULL));
    outbox_detach(outbox);
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

static void attach_to_newer_tables_is_refused(void **state)
{
    struct fixture *f = *state;
    struct outbox *second = NULL;

    assert_ok(
        db_exec(f->db, "UPDATE waybill_schema SET version = 99 WHERE component = 'outbox'", NULL));
    assert_err(outbox_attach(db_handle(f->db), &second, NULL), WB_UNSUPPORTED);
}

static void rows_are_never_updated(void **state)
{
    struct fixture *f = *state;

    assert_ok(db_exec(f->db, "INSERT INTO outbox(subject, payload) VALUES('a.b', 'x')", NULL));
    assert_err(db_exec(f->db, "UPDATE outbox SET payload = 'y'", NULL), WB_INVALID);
    assert_int_equal(query_int(f, "SELECT payload = 'x' FROM outbox"), 1);
}

static void plain_insert_gets_an_identity_and_a_time(void **state)
{
    struct fixture *f = *state;
    int64_t now_ms = wb_wall_ns(wb_clock_system()) / WB_MS;

    assert_ok(db_exec(
        f->db, "INSERT INTO outbox(subject, payload) VALUES('a.b', 'x'), ('a.b', 'y')", NULL));
    assert_int_equal(query_int(f, "SELECT count(DISTINCT msg_id) FROM outbox"), 2);
    assert_int_equal(query_int(f, "SELECT min(length(msg_id)) FROM outbox"), 16);
    assert_in_range(query_int(f, "SELECT created FROM outbox"), now_ms - 1, now_ms + 60000);
    assert_int_equal(query_int(f, "SELECT typeof(payload) = 'text' FROM outbox"), 1);
    assert_err(db_exec(f->db, "INSERT INTO outbox(subject, msg_id) VALUES('a.b', 'x')", NULL),
               WB_INVALID);
}

static void deleted_numbers_are_not_given_out_again(void **state)
{
    struct fixture *f = *state;

    assert_ok(db_exec(f->db, "INSERT INTO outbox(subject) VALUES('a'), ('b')", NULL));
    assert_err(db_exec(f->db, "DELETE FROM outbox", NULL), WB_INVALID);
    assert_ok(db_exec(f->db,
                      "DELETE FROM outbox WHERE id < (SELECT max(id) FROM outbox);"
                      "INSERT INTO outbox(subject) VALUES('c')",
                      NULL));
    assert_int_equal(query_int(f, "SELECT min(id) FROM outbox"), 2);
    assert_int_equal(query_int(f, "SELECT max(id) FROM outbox"), 3);
}

static int listen_for_wakes(struct fixture *f, unsigned slot)
{
    struct sockaddr_un address;
    socklen_t length;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    assert_ok(outbox_wake_address(f->path, slot, &address, &length, NULL));
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, length), 0);
    return fd;
}

static void write_and_wake(struct fixture *f)
{
    struct outbox_event event = event_of("a.b", "x");

    assert_ok(db_begin(f->db, NULL));
    assert_ok(outbox_enqueue(f->outbox, &event, NULL, NULL));
    assert_ok(outbox_enqueue(f->outbox, &event, NULL, NULL));
    assert_ok(db_commit(f->db, NULL));
    outbox_wake(f->outbox);
    outbox_wake(f->outbox);
}

static size_t datagrams(int fd)
{
    char byte[8];
    size_t count = 0;

    while (recv(fd, byte, sizeof(byte), 0) >= 0)
        count++;
    return count;
}

static void wake_sends_a_datagram_only_to_sleepers_and_only_after_writing(void **state)
{
    struct fixture *f = *state;
    int first = listen_for_wakes(f, 0), last = listen_for_wakes(f, OUTBOX_WAKE_SLOTS - 1);
    struct outbox_wake_page *page;

    assert_ok(outbox_wake_open(f->path, &page, NULL));
    write_and_wake(f); /* everybody is awake */
    assert_int_equal(datagrams(first) + datagrams(last), 0);

    outbox_wake_sleeping(page, 0);
    outbox_wake_sleeping(page, OUTBOX_WAKE_SLOTS - 1);
    outbox_wake(f->outbox); /* nothing was written */
    assert_int_equal(datagrams(first) + datagrams(last), 0);
    write_and_wake(f);
    assert_int_equal(datagrams(first), 1);
    assert_int_equal(datagrams(last), 1);
    write_and_wake(f); /* they are awake now */
    assert_int_equal(datagrams(first) + datagrams(last), 0);

    outbox_wake_sleeping(page, 0);
    outbox_wake_sleeping(page, OUTBOX_WAKE_SLOTS - 1);
    outbox_wake_awake(page, 0);
    write_and_wake(f);
    assert_int_equal(datagrams(first), 0);
    assert_int_equal(datagrams(last), 1);
    outbox_wake_close(page);
    (void)close(first);
    (void)close(last);
}

static void wake_of_a_sleeper_that_died_costs_one_refused_datagram(void **state)
{
    struct fixture *f = *state;
    struct outbox_wake_page *page;

    assert_ok(outbox_wake_open(f->path, &page, NULL));
    outbox_wake_sleeping(page, 3);
    write_and_wake(f);
    assert_int_equal(outbox_wake_take(page), 0);
    outbox_wake_close(page);
}

static void wake_of_a_full_listener_returns_at_once(void **state)
{
    struct fixture *f = *state;
    int fd = listen_for_wakes(f, 0);
    struct outbox_wake_page *page;

    assert_ok(outbox_wake_open(f->path, &page, NULL));
    for (int i = 0; i < 2000; i++) { /* far beyond the queue of a datagram socket */
        outbox_wake_sleeping(page, 0);
        write_and_wake(f);
    }
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 4000);
    outbox_wake_close(page);
    (void)close(fd);
}

static void wake_page_is_private_and_has_its_block_on_the_disk(void **state)
{
    struct fixture *f = *state;
    char name[320];
    struct stat st;

    (void)snprintf(name, sizeof(name), "%s-wake", f->path);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, 4096);
    assert_true(st.st_blocks > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(enqueue_in_a_transaction_stores_the_event_as_given),
        T(enqueue_outside_a_transaction_is_misuse),
        T(enqueue_rolled_back_leaves_no_row),
        T(enqueue_leaves_the_transaction_open_when_it_refuses),
        T(enqueue_of_what_no_bus_would_take_is_refused),
        T(attach_needs_wal_and_a_synced_log),
        T(attach_to_newer_tables_is_refused),
        T(rows_are_never_updated),
        T(plain_insert_gets_an_identity_and_a_time),
        T(deleted_numbers_are_not_given_out_again),
        T(wake_sends_a_datagram_only_to_sleepers_and_only_after_writing),
        T(wake_of_a_sleeper_that_died_costs_one_refused_datagram),
        T(wake_of_a_full_listener_returns_at_once),
        T(wake_page_is_private_and_has_its_block_on_the_disk),
    };
    return cmocka_run_group_tests_name("outbox_enqueue", tests, NULL, NULL);
}
