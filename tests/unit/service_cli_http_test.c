/* The HTTP client of the command line, against a server that answers as it is told to. */
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test_support.h"

#include "cli_http.h"

#define SAYS_OK "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"

/* One connection after the other; on each, one reply for each request, then it is closed. */
struct server {
    int listener;
    uint16_t port;
    const char *const *const *connections; /* NULL-terminated lists, NULL-terminated */
    int accepted;                          /* after the thread was joined */
    char last_request[4096];
    pthread_t thread;
};

/* Reads one request; its body is as long as Content-Length says. */
static bool read_request(int fd, char *out, size_t size)
{
    size_t len = 0;
    size_t want = SIZE_MAX;

    while (len < want) {
        ssize_t got = recv(fd, out + len, size - 1 - len, 0);
        if (got <= 0)
            return false;
        len += (size_t)got;
        out[len] = '\0';
        const char *end = strstr(out, "\r\n\r\n");
        const char *field = strstr(out, "Content-Length: ");
        if (end != NULL)
            want = (size_t)(end - out) + 4 +
                   (field != NULL ? strtoul(field + strlen("Content-Length: "), NULL, 10) : 0);
    }
    return true;
}

static void *serve(void *arg)
{
    struct server *server = arg;

    for (const char *const *const *replies = server->connections; *replies != NULL; replies++) {
        int fd = accept(server->listener, NULL, NULL);
        server->accepted++;
        for (const char *const *reply = *replies; *reply != NULL; reply++) {
            if (!read_request(fd, server->last_request, sizeof(server->last_request)))
                break;
            if (send(fd, *reply, strlen(*reply), MSG_NOSIGNAL) < 0)
                break;
        }
        (void)close(fd);
    }
    return NULL;
}

static void server_start(struct server *server, const char *const *const *connections)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);

    *server = (struct server){.connections = connections};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(server->listener >= 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(listen(server->listener, 8), 0);
    server->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_end(struct server *server)
{
    assert_int_equal(pthread_join(server->thread, NULL), 0);
    (void)close(server->listener);
}

/* A client of it, as `--http` would make it. */
static void client_open(struct cli_http *http, struct cli *cli, uint16_t port)
{
    static const struct service_program program = {.modules = NULL};
    char address[32];

    *cli = (struct cli){.program = &program, .timeout_ns = 5 * WB_SEC};
    assert_ok(service_config_create(NULL, 0, &cli->config));
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    assert_ok(config_set(cli->config, "http.listen", address, "--http", NULL));
    assert_ok(service_cli_http_open(cli, http));
}

static void client_close(struct cli_http *http, struct cli *cli)
{
    service_cli_http_close(http);
    config_destroy(cli->config);
}

static const struct cli_http_request get = {.method = "GET", .target = "/x", .headers = ""};

/* One call whose reply is `reply`; the connection is closed behind it. */
static wb_err ask(const char *reply, struct cli_http_reply *ret_reply, struct wb_why *why)
{
    const char *const replies[] = {reply, NULL};
    const char *const *const connections[] = {replies, NULL};
    struct server server;
    struct cli_http http;
    struct cli cli;

    server_start(&server, connections);
    client_open(&http, &cli, server.port);
    wb_err err = service_cli_http_call(&http, &get, ret_reply, why);
    if (err == WB_OK && ret_reply->status >= 300)
        err = service_cli_http_error(&http, ret_reply, why);
    client_close(&http, &cli);
    server_end(&server);
    return err;
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void call_sends_what_was_asked_and_gives_back_the_body(void **state)
{
    const char *const replies[] = {SAYS_OK, NULL};
    const char *const *const connections[] = {replies, NULL};
    const struct cli_http_request post = {
        .method = "POST", .target = "/a?b=c", .headers = "X-A: 1\r\n", .body = {"hello", 5}};
    struct cli_http_reply reply = {.status = 0};
    struct server server;
    struct cli_http http;
    struct cli cli;

    (void)state;
    server_start(&server, connections);
    client_open(&http, &cli, server.port);
    assert_ok(service_cli_http_call(&http, &post, &reply, NULL));
    client_close(&http, &cli);
    server_end(&server);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body.ptr, "yes");
    assert_non_null(strstr(server.last_request, "POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:"));
    assert_non_null(strstr(server.last_request, "\r\nX-A: 1\r\n"));
    assert_non_null(strstr(server.last_request, "\r\nContent-Length: 5\r\n\r\nhello"));
    wb_buf_free(&reply.body);
}

static void calls_share_a_connection_until_the_service_closes_it(void **state)
{
    const char *const two[] = {SAYS_OK, SAYS_OK, NULL};
    const char *const closing[] = {"HTTP/1.1 200 OK\r\nconnection: close\r\n"
                                   "content-length: 3\r\n\r\nyes",
                                   NULL};
    const char *const last[] = {SAYS_OK, NULL};
    const char *const *const connections[] = {two, closing, last, NULL};
    struct cli_http_reply reply = {.status = 0};
    struct server server;
    struct cli_http http;
    struct cli cli;

    (void)state;
    server_start(&server, connections);
    client_open(&http, &cli, server.port);
    for (int i = 0; i < 4; i++) {
        wb_buf_clear(&reply.body);
        assert_ok(service_cli_http_call(&http, &get, &reply, NULL));
        assert_string_equal(reply.body.ptr, "yes");
    }
    client_close(&http, &cli);
    server_end(&server);
    assert_int_equal(server.accepted, 3);
    wb_buf_free(&reply.body);
}

/* ---- what is no service ---------------------------------------------------------------------- */

static void call_to_a_closed_port_says_how_to_start_a_service(void **state)
{
    const char *const *const connections[] = {NULL};
    struct cli_http_reply reply = {.status = 0};
    struct server server;
    struct cli_http http;
    struct cli cli;
    struct wb_why why;

    (void)state;
    server_start(&server, connections);
    server_end(&server); /* the port was free a moment ago */
    client_open(&http, &cli, server.port);
    assert_err(service_cli_http_call(&http, &get, &reply, &why), WB_UNREACHABLE);
    assert_non_null(strstr(why.text, "waybill serve"));
    client_close(&http, &cli);
}

static void call_to_something_else_is_told_from_the_service(void **state)
{
    static const char *const bad[] = {
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nno length",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        "HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
    };
    struct wb_why why;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct cli_http_reply reply = {.status = 0};
        assert_err(ask(bad[i], &reply, &why), WB_INVALID);
        assert_non_null(strstr(why.text, "not the service"));
        wb_buf_free(&reply.body);
    }
}

static void call_whose_answer_breaks_off_is_unreachable(void **state)
{
    static const char *const cut[] = {"", "HTTP/1.1 200 OK\r\nContent-Le",
                                      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nye"};
    struct wb_why why;

    (void)state;
    for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
        struct cli_http_reply reply = {.status = 0};
        assert_err(ask(cut[i], &reply, &why), WB_UNREACHABLE);
        assert_non_null(strstr(why.text, "hung up"));
        wb_buf_free(&reply.body);
    }
}

static void call_without_an_answer_times_out(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    struct cli_http_reply reply = {.status = 0};
    struct cli_http http;
    struct cli cli;
    struct wb_why why;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(listen(listener, 8), 0); /* the kernel accepts, nobody answers */
    client_open(&http, &cli, ntohs(address.sin_port));
    http.timeout_ns = 20 * WB_MS;
    assert_err(service_cli_http_call(&http, &get, &reply, &why), WB_TIMEOUT);
    assert_non_null(strstr(why.text, "20 ms"));
    client_close(&http, &cli);
    (void)close(listener);
    wb_buf_free(&reply.body);
}

static void error_reply_gives_its_code_and_text(void **state)
{
    static const struct {
        int status;
        const char *body;
        wb_err err;
        const char *text;
    } rows[] = {
        {404, "{\"code\":\"NO_STREAM\",\"error\":\"none\",\"next\":\"declare it\"}", WB_NO_STREAM,
         "none; declare it"},
        {403, "{\"error\":\"no.\"}", WB_DENIED, "no."},
        {413, "", WB_TOO_BIG, "status 413"},
        {503, "[1]", WB_UNREACHABLE, "status 503"},
        {500, "{\"code\":\"BROKEN\"}", WB_INTERNAL, "status 500"},
    };
    struct wb_why why;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct cli_http_reply reply = {.status = 0};
        char text[256];
        (void)snprintf(text, sizeof(text), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n%s",
                       rows[i].status, strlen(rows[i].body), rows[i].body);
        assert_err(ask(text, &reply, &why), rows[i].err);
        if (strstr(why.text, rows[i].text) == NULL)
            fail_msg("'%s' lacks '%s'", why.text, rows[i].text);
        wb_buf_free(&reply.body);
    }
}

static void open_refuses_addresses_nobody_can_listen_on(void **state)
{
    static const struct {
        const char *listen;
        wb_err err;
    } rows[] = {
        {"off", WB_UNREACHABLE},     {"127.0.0.1", WB_INVALID},        {":8480", WB_INVALID},
        {"127.0.0.1:0", WB_INVALID}, {"127.0.0.1:123456", WB_INVALID}, {"127.0.0.1:8480", WB_OK},
        {"[::1]:8480", WB_OK},       {"localhost:8480", WB_OK},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct cli cli = {.timeout_ns = WB_SEC};
        struct cli_http http;
        assert_ok(service_config_create(NULL, 0, &cli.config));
        assert_ok(config_set(cli.config, "http.listen", rows[i].listen, "--http", NULL));
        assert_err(service_cli_http_open(&cli, &http), rows[i].err);
        if (strcmp(rows[i].listen, "[::1]:8480") == 0)
            assert_string_equal(http.host, "::1");
        config_destroy(cli.config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(call_sends_what_was_asked_and_gives_back_the_body),
        cmocka_unit_test(calls_share_a_connection_until_the_service_closes_it),
        cmocka_unit_test(call_to_a_closed_port_says_how_to_start_a_service),
        cmocka_unit_test(call_to_something_else_is_told_from_the_service),
        cmocka_unit_test(call_whose_answer_breaks_off_is_unreachable),
        cmocka_unit_test(call_without_an_answer_times_out),
        cmocka_unit_test(error_reply_gives_its_code_and_text),
        cmocka_unit_test(open_refuses_addresses_nobody_can_listen_on),
    };
    return cmocka_run_group_tests_name("service_cli_http", tests, NULL, NULL);
}
