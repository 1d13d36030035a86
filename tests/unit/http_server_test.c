/* Connections: keep-alive, pipelining, deadlines, limits, starting and stopping. */
#include "http_test_client.h"

#include <dirent.h>
#include <pthread.h>

#define SHORT_NS       (200 * WB_MS)
#define SHORT_LEAST_NS (180 * WB_MS) /* the loop's clock is coarse: a tick early is right */

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* Say text with {H} replaced by the server's host:port. */
static void say(const struct fixture *f, int fd, const char *text)
{
    const char *mark = strstr(text, "{H}");

    while (mark != NULL) {
        assert_true(client_send(fd, text, (size_t)(mark - text)));
        client_say(fd, f->host);
        text = mark + 3;
        mark = strstr(text, "{H}");
    }
    client_say(fd, text);
}

static void expect_end(int fd, struct wb_buf *input)
{
    while (client_read(fd, input)) {
    }
    if (input->len > 0)
        fail_msg("more than expected: %s", input->ptr);
}

static void hang_up(int fd, struct wb_buf *input)
{
    assert_int_equal(close(fd), 0);
    wb_buf_free(input);
}

/* One request on a connection of its own. */
static void ask(const struct fixture *f, const char *request, const char *status, const char *body)
{
    struct wb_buf input = {0};
    int fd = client_connect(f);

    say(f, fd, request);
    expect_response(fd, &input, status, body);
    hang_up(fd, &input);
}

#define GET_OK "GET /ok HTTP/1.1\r\nHost: {H}\r\n\r\n"

/* ---- good requests --------------------------------------------------------------------------- */

static void response_has_length_type_date_and_security_headers(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    say(&f, fd, GET_OK);
    char *response = client_response(fd, &input);
    assert_int_equal(strncmp(response, "HTTP/1.1 200 OK\r\nDate: ", 23), 0);
    assert_non_null(strstr(response, " GMT\r\nContent-Type: text/plain\r\n"
                                     "Content-Length: 10\r\n"
                                     "X-Content-Type-Options: nosniff\r\n"
                                     "Cache-Control: no-store\r\n\r\nGET /ok? 0"));
    free(response);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void connection_serves_many_requests(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    for (int i = 0; i < 100; i++) {
        say(&f, fd, "GET /ok?n=1 HTTP/1.1\r\nHost: {H}\r\n\r\n");
        expect_response(fd, &input, "HTTP/1.1 200 OK\r\n", "GET /ok?n=1 0");
        say(&f, fd, "POST /echo HTTP/1.1\r\nhost: {H}\r\ncontent-length: 3\r\n\r\nabc");
        expect_response(fd, &input, "HTTP/1.1 200 OK\r\n", "abc");
    }
    assert_int_equal(observe_value(observe_series(f.observe, OBSERVE_HTTP_REQUESTS, "200")), 200);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct wb_buf input = {0}, requests = {0};
    struct fixture f;
    char expected[32];

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    for (int i = 0; i < 300; i++)
        wb_buf_printf(&requests,
                      "GET /ok?%d HTTP/1.1\r\nHost: %s\r\n\r\n"
                      "POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\n\r\n%04d",
                      i, f.host, f.host, i);
    client_say(fd, requests.ptr);
    assert_int_equal(shutdown(fd, SHUT_WR), 0); /* no reason not to answer what was asked */
    for (int i = 0; i < 300; i++) {
        (void)snprintf(expected, sizeof(expected), "GET /ok?%d 0", i);
        expect_response(fd, &input, "HTTP/1.1 200 ", expected);
        (void)snprintf(expected, sizeof(expected), "%04d", i);
        expect_response(fd, &input, "HTTP/1.1 200 ", expected);
    }
    expect_end(fd, &input);
    wb_buf_free(&requests);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void handler_sees_the_exact_bytes_of_the_body(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;
    char body[4096];

    (void)state;
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (char)(i * 7 + i / 256);
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    say(&f, fd, "POST /echo HTTP/1.1\r\nHost: {H}\r\nContent-Length: 4096\r\n\r\n");
    for (size_t at = 0; at < sizeof(body); at += 512)
        assert_true(client_send(fd, body + at, 512));
    while (response_length(&input) == 0)
        assert_true(client_read(fd, &input));
    assert_true(input.len > sizeof(body));
    assert_memory_equal(input.ptr + input.len - sizeof(body), body, sizeof(body));
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void path_is_decoded_exactly_once(void **state)
{
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    ask(&f, "GET /%252e%252e?q=%252e HTTP/1.1\r\nHost: {H}\r\n\r\n", "HTTP/1.1 200 ",
        "GET /%2e%2e?q=%252e 0");
    ask(&f, "GET /a%20b%C3%a9 HTTP/1.1\r\nHost: {H}\r\n\r\n", "HTTP/1.1 200 ",
        "GET /a b\xc3\xa9? 0");
    fixture_stop(&f);
}

static void host_may_be_localhost_in_any_case_or_a_configured_name(void **state)
{
    static const char *const hosts[] = {"Waybill.example", "proxy.example:444", NULL};
    const char *allowed[] = {"LOCALHOST:%s", "waybill.EXAMPLE", "waybill.example:%s",
                             "proxy.example:444"};
    const char *foreign[] = {"proxy.example", "proxy.example:%s", "waybill.example:444"};
    struct fixture f;
    char host[64], request[160];

    (void)state;
    fixture_start(&f, (struct http_options){.hosts = hosts});
    const char *port = strchr(f.host, ':') + 1;
    for (size_t i = 0; i < 7; i++) {
        const char *form = i < 4 ? allowed[i] : foreign[i - 4];
        size_t len = strcspn(form, "%");
        (void)snprintf(host, sizeof(host), "%.*s%s", (int)len, form, form[len] == '%' ? port : "");
        (void)snprintf(request, sizeof(request), "GET /ok HTTP/1.1\r\nHost:%s \r\n\r\n", host);
        if (i < 4)
            ask(&f, request, "HTTP/1.1 200 ", "GET /ok? 0");
        else
            ask(&f, request, "HTTP/1.1 421 ",
                "{\"error\":\"this server is not the one named in Host\",\"next\":\"use its own "
                "name, or add it to the allowed hosts\"}\n");
    }
    fixture_stop(&f);
}

static void connection_close_is_honoured(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    say(&f, fd, "GET /ok HTTP/1.1\r\nHost: {H}\r\nConnection: TE, Close\r\n\r\n" GET_OK);
    char *response = client_response(fd, &input);
    assert_non_null(strstr(response, "\r\nConnection: close\r\n"));
    free(response);
    expect_end(fd, &input);
    assert_int_equal(atomic_load(&f.handled), 1);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void body_is_asked_for_with_100_continue(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    say(&f, fd,
        "POST /echo HTTP/1.1\r\nHost: {H}\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n");
    expect_response(fd, &input, "HTTP/1.1 100 Continue\r\n\r\n", "");
    client_say(fd, "hello");
    expect_response(fd, &input, "HTTP/1.1 200 OK\r\n", "hello");
    say(&f, fd, GET_OK);
    expect_response(fd, &input, "HTTP/1.1 200 OK\r\n", "GET /ok? 0");
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void error_of_a_handler_keeps_the_connection(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    say(&f, fd, "GET /teapot HTTP/1.1\r\nHost: {H}\r\n\r\n");
    expect_response(fd, &input, "HTTP/1.1 418 \r\n", "{\"error\":\"short and stout\"}\n");
    say(&f, fd, "GET /none HTTP/1.1\r\nHost: {H}\r\n\r\n");
    char *response = client_response(fd, &input);
    assert_int_equal(strncmp(response, "HTTP/1.1 204 No Content\r\n", 25), 0);
    assert_null(strstr(response, "Content-Length"));
    free(response);
    say(&f, fd, GET_OK);
    expect_response(fd, &input, "HTTP/1.1 200 OK\r\n", "GET /ok? 0");
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void answer_of_many_megabytes_arrives_whole(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    say(&f, fd, "GET /big HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n");
    client_read_to_end(fd, &input);
    assert_int_equal(response_length(&input), input.len);
    assert_true(input.len > BIG_ANSWER);
    hang_up(fd, &input);
    fixture_stop(&f);
}

/* A reset could overtake the answer and take it away from the client. */
static void refused_client_that_is_still_sending_sees_an_orderly_end(void **state)
{
    static const char more[200000];
    struct wb_buf input = {0};
    struct fixture f;
    char byte;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    say(&f, fd, "POST /echo HTTP/1.1\r\nHost: {H}\r\nContent-Length: 200000\r\n\r\n");
    assert_true(client_send(fd, more, sizeof(more)));
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    char *response = client_response(fd, &input);
    assert_int_equal(strncmp(response, "HTTP/1.1 413 ", 13), 0);
    free(response);
    client_wait(fd, POLLIN);
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    hang_up(fd, &input);
    fixture_stop(&f);
}

/* ---- slow clients ---------------------------------------------------------------------------- */

/* Keep sending a byte every few milliseconds until something comes back. */
static void drip_until_answered(int fd, const char *drop)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    int64_t end = now_ns() + PATIENCE_MS * WB_MS;

    while (poll(&poll_fd, 1, 10) == 0) {
        assert_true(now_ns() < end);
        if (!client_send(fd, drop, 1))
            return;
    }
}

static void head_that_drips_is_ended_by_an_absolute_deadline(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){.header_deadline_ns = SHORT_NS});
    int64_t start = now_ns();
    int fd = client_connect(&f);
    client_say(fd, "GET /ok HTTP/1.1\r\nA: ");
    drip_until_answered(fd, "a");
    assert_true(now_ns() - start >= SHORT_LEAST_NS);
    expect_response(fd, &input, "HTTP/1.1 408 ",
                    "{\"error\":\"the request took too long\",\"next\":\"send the whole head at "
                    "once\"}\n");
    expect_end(fd, &input);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void second_head_has_a_deadline_of_its_own_from_its_first_byte(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){.header_deadline_ns = SHORT_NS});
    int fd = client_connect(&f);
    say(&f, fd, GET_OK);
    expect_response(fd, &input, "HTTP/1.1 200 ", "GET /ok? 0");
    int64_t start = now_ns();
    drip_until_answered(fd, "G");
    assert_true(now_ns() - start < 10 * WB_SEC); /* not the idle time of 60 s */
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void silent_connection_is_closed_without_a_word(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){.header_deadline_ns = SHORT_NS});
    int64_t start = now_ns();
    int fd = client_connect(&f);
    expect_end(fd, &input);
    assert_true(now_ns() - start >= SHORT_LEAST_NS);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void body_that_drips_is_ended_by_an_absolute_deadline(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){.body_deadline_ns = SHORT_NS});
    int64_t start = now_ns();
    int fd = client_connect(&f);
    say(&f, fd, "POST /echo HTTP/1.1\r\nHost: {H}\r\nContent-Length: 4096\r\n\r\n");
    drip_until_answered(fd, "b");
    assert_true(now_ns() - start >= SHORT_LEAST_NS);
    expect_response(
        fd, &input, "HTTP/1.1 408 ",
        "{\"error\":\"the body took too long\",\"next\":\"send it faster, or in smaller "
        "requests\"}\n");
    assert_int_equal(atomic_load(&f.handled), 0);
    assert_int_equal(observe_value(observe_series(f.observe, OBSERVE_HTTP_REFUSED, "deadline")), 1);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void idle_connection_is_closed_without_a_word(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){.idle_ns = SHORT_NS});
    int fd = client_connect(&f);
    say(&f, fd, GET_OK);
    expect_response(fd, &input, "HTTP/1.1 200 ", "GET /ok? 0");
    expect_end(fd, &input);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void client_that_does_not_read_is_reset(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;
    struct pollfd poll_fd;

    (void)state;
    fixture_start(&f, (struct http_options){.write_deadline_ns = SHORT_NS});
    int fd = client_connect(&f);
    say(&f, fd, "GET /big HTTP/1.1\r\nHost: {H}\r\n\r\n");
    poll_fd =
        (struct pollfd){.fd = fd, .events = 0}; /* POLLERR and POLLHUP need not be asked for */
    assert_int_equal(poll(&poll_fd, 1, PATIENCE_MS), 1);
    client_read_to_end(fd, &input);
    assert_true(input.len < BIG_ANSWER);
    hang_up(fd, &input);
    fixture_stop(&f);
}

static void two_hundred_dripping_clients_do_not_delay_a_good_one(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;
    int slow[200];
    int64_t worst = 0;

    (void)state;
    fixture_start(&f, (struct http_options){.header_deadline_ns = 60 * WB_SEC});
    for (size_t i = 0; i < 200; i++)
        slow[i] = client_connect(&f);
    int fd = client_connect(&f);
    const char *head = "GET /ok HTTP/1.1\r\nHost: a-slow-one";
    for (size_t round = 0; head[round] != '\0'; round++) {
        for (size_t i = 0; i < 200; i++)
            assert_true(client_send(slow[i], head + round, 1));
        int64_t start = now_ns();
        say(&f, fd, GET_OK);
        expect_response(fd, &input, "HTTP/1.1 200 ", "GET /ok? 0");
        int64_t took = now_ns() - start;
        worst = took > worst ? took : worst;
    }
    assert_true(worst < WB_SEC); /* far above what it takes, far below any deadline of the slow */
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(close(slow[i]), 0);
    hang_up(fd, &input);
    fixture_stop(&f);
}

/* ---- many clients ---------------------------------------------------------------------------- */

static void expect_no_room(const struct fixture *f)
{
    struct wb_buf input = {0};
    int fd = client_connect(f);

    expect_response(fd, &input, "HTTP/1.1 503 ",
                    "{\"error\":\"too many connections\",\"next\":\"close some, or try again "
                    "later\"}\n");
    expect_end(fd, &input);
    hang_up(fd, &input);
}

static bool has_room_again(void *ctx)
{
    struct fixture *f = ctx;
    struct wb_buf input = {0};
    int fd = client_connect(f);

    say(f, fd, GET_OK);
    while (client_read(fd, &input) && response_length(&input) == 0) {
    }
    bool served = input.len > 0 && strncmp(input.ptr, "HTTP/1.1 200 ", 13) == 0;
    hang_up(fd, &input);
    return served;
}

static void limit_is_kept(struct http_options options)
{
    struct fixture f;
    struct wb_buf input = {0};
    int clients[3];

    fixture_start(&f, options);
    for (size_t i = 0; i < 3; i++)
        clients[i] = client_connect(&f);
    for (size_t i = 0; i < 3; i++) { /* they are served, also when they speak later */
        say(&f, clients[i], GET_OK);
        expect_response(clients[i], &input, "HTTP/1.1 200 ", "GET /ok? 0");
    }
    expect_no_room(&f);
    expect_no_room(&f);
    assert_int_equal(observe_value(observe_series(f.observe, OBSERVE_HTTP_REFUSED, "overload")), 2);
    assert_int_equal(close(clients[0]), 0);
    assert_true(test_wait(has_room_again, &f, PATIENCE_MS));
    assert_int_equal(close(clients[1]), 0);
    hang_up(clients[2], &input);
    fixture_stop(&f);
}

static void connection_beyond_the_limit_of_all_is_told_so(void **state)
{
    (void)state;
    limit_is_kept((struct http_options){.max_connections = 3});
}

static void connection_beyond_the_limit_of_its_address_is_told_so(void **state)
{
    (void)state;
    limit_is_kept((struct http_options){.max_per_address = 3});
}

static size_t open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    assert_int_equal(closedir(dir), 0);
    return count;
}

static bool descriptors_are_back(void *ctx)
{
    return open_descriptors() <= *(size_t *)ctx;
}

static void descriptors_return_after_clients_vanish_at_any_point(void **state)
{
    static const char whole[] = "POST /echo HTTP/1.1\r\nHost: {H}\r\nContent-Length: 99\r\n\r\nabc";
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    size_t before = open_descriptors();
    for (size_t i = 0; i < 500; i++) {
        struct linger reset = {.l_onoff = i % 2 == 0, .l_linger = 0};
        int fd = client_connect(&f);
        assert_true(client_send(fd, whole, i % sizeof(whole)));
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
        assert_int_equal(close(fd), 0);
    }
    assert_true(test_wait(descriptors_are_back, &before, PATIENCE_MS));
    fixture_stop(&f);
}

/* ---- starting and stopping ------------------------------------------------------------------- */

static void listen_address_that_is_none_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "8480",
        ":8480",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:-1",
        "127.0.0.1:65536",
        "256.0.0.1:80",
        "example.com:80",
        "::1:8480",
        "[::1]",
        "[::1:8480",
        "[127.0.0.1]:8480",
        "192.0.2.1:0",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct http_options options = {
            .listen = bad[i], .body_limit = fixture_body_limit, .handle = fixture_handle};
        struct http_server *server = NULL;
        struct wb_why why = {""};
        if (http_server_start(&options, &server, &why) != WB_INVALID)
            fail_msg("accepted: %s", bad[i]);
        assert_null(server);
        assert_non_null(strstr(why.text, "listening on"));
    }
}

static void port_that_is_taken_is_busy(void **state)
{
    struct fixture f;
    struct http_server *second = NULL;
    struct wb_why why = {""};

    (void)state;
    fixture_start(&f, (struct http_options){0});
    const struct http_options options = {
        .listen = f.host, .body_limit = fixture_body_limit, .handle = fixture_handle};
    assert_err(http_server_start(&options, &second, &why), WB_BUSY);
    assert_non_null(strstr(why.text, "the port is taken"));
    fixture_stop(&f);
    assert_ok(http_server_start(&options, &second, &why)); /* at once, without TIME_WAIT */
    http_server_stop(second);
}

static void stop_hangs_up_on_those_who_wait(void **state)
{
    struct wb_buf input = {0};
    struct fixture f;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int idle = client_connect(&f), half = client_connect(&f), fresh = client_connect(&f);
    say(&f, idle, GET_OK);
    expect_response(idle, &input, "HTTP/1.1 200 ", "GET /ok? 0");
    client_say(half, "GET /ok HT");
    fixture_stop(&f);
    expect_end(idle, &input);
    assert_int_equal(close(idle), 0);
    assert_int_equal(close(half), 0);
    hang_up(fresh, &input);
}

/* Counts on a thread of its own; the main thread asserts. */
static void *count_to_end(void *ctx)
{
    char chunk[65536];
    size_t *count = ctx;
    int fd = (int)*count;
    ssize_t got;

    *count = 0;
    while ((got = recv(fd, chunk, sizeof(chunk), 0)) > 0)
        *count += (size_t)got;
    return NULL;
}

static void stop_lets_an_answer_at_hand_finish(void **state)
{
    struct fixture f;
    pthread_t reader;

    (void)state;
    fixture_start(&f, (struct http_options){0});
    int fd = client_connect(&f);
    size_t count = (size_t)fd;
    say(&f, fd, "GET /big HTTP/1.1\r\nHost: {H}\r\n\r\n");
    client_wait(fd, POLLIN); /* the answer has begun, and does not fit into the kernel */
    assert_int_equal(pthread_create(&reader, NULL, count_to_end, &count), 0);
    fixture_stop(&f);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_true(count > BIG_ANSWER);
    assert_int_equal(close(fd), 0);
}

static void stop_of_null_is_a_no_op(void **state)
{
    (void)state;
    http_server_stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(response_has_length_type_date_and_security_headers),
        cmocka_unit_test(connection_serves_many_requests),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(handler_sees_the_exact_bytes_of_the_body),
        cmocka_unit_test(path_is_decoded_exactly_once),
        cmocka_unit_test(host_may_be_localhost_in_any_case_or_a_configured_name),
        cmocka_unit_test(connection_close_is_honoured),
        cmocka_unit_test(body_is_asked_for_with_100_continue),
        cmocka_unit_test(error_of_a_handler_keeps_the_connection),
        cmocka_unit_test(answer_of_many_megabytes_arrives_whole),
        cmocka_unit_test(refused_client_that_is_still_sending_sees_an_orderly_end),
        cmocka_unit_test(head_that_drips_is_ended_by_an_absolute_deadline),
        cmocka_unit_test(second_head_has_a_deadline_of_its_own_from_its_first_byte),
        cmocka_unit_test(silent_connection_is_closed_without_a_word),
        cmocka_unit_test(body_that_drips_is_ended_by_an_absolute_deadline),
        cmocka_unit_test(idle_connection_is_closed_without_a_word),
        cmocka_unit_test(client_that_does_not_read_is_reset),
        cmocka_unit_test(two_hundred_dripping_clients_do_not_delay_a_good_one),
        cmocka_unit_test(connection_beyond_the_limit_of_all_is_told_so),
        cmocka_unit_test(connection_beyond_the_limit_of_its_address_is_told_so),
        cmocka_unit_test(descriptors_return_after_clients_vanish_at_any_point),
        cmocka_unit_test(listen_address_that_is_none_is_refused),
        cmocka_unit_test(port_that_is_taken_is_busy),
        cmocka_unit_test(stop_hangs_up_on_those_who_wait),
        cmocka_unit_test(stop_lets_an_answer_at_hand_finish),
        cmocka_unit_test(stop_of_null_is_a_no_op),
    };
    return cmocka_run_group_tests_name("http_server", tests, NULL, NULL);
}
