/* http_test_client.h - a raw client and a server with a few routes, for the tests of http. */
#ifndef HTTP_TEST_CLIENT_H
#define HTTP_TEST_CLIENT_H

#include "test_support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <waybill/http.h>

#define PATIENCE_MS 20000 /* the tests wait for events; this only bounds a broken server */
#define BIG_ANSWER  (32U << 20)

/* A server whose handler says what it was given. */
struct fixture {
    struct http_server *server;
    struct observe *observe;
    char host[32]; /* "127.0.0.1:PORT" */
    atomic_int handled;
};

static inline size_t fixture_body_limit(void *ctx, struct wb_str method, struct wb_str path)
{
    (void)ctx;
    if (wb_str_eq(path, wb_str("/echo")))
        return wb_str_eq(method, wb_str("POST")) ? 4096 : SIZE_MAX - 1;
    if (wb_str_eq(path, wb_str("/upload")))
        return wb_str_eq(method, wb_str("POST")) ? SIZE_MAX / 2 : SIZE_MAX - 1;
    if (wb_str_eq(path, wb_str("/ok")) || wb_str_eq(path, wb_str("/big")) ||
        wb_str_eq(path, wb_str("/%2e%2e")) || wb_str_eq(path, wb_str("/a b\xc3\xa9")) ||
        wb_str_eq(path, wb_str("/none")) || wb_str_eq(path, wb_str("/teapot")))
        return wb_str_eq(method, wb_str("GET")) ? 0 : SIZE_MAX - 1;
    return SIZE_MAX;
}

/* "GET /ok?a=b" and the body for small paths; see the names for the others. */
static inline void fixture_handle(void *ctx, const struct module_request *request,
                                  struct module_response *response)
{
    static const char zeros[65536];
    struct fixture *f = ctx;

    atomic_fetch_add(&f->handled, 1);
    if (wb_str_eq(request->path, wb_str("/none"))) {
        response->status = 204;
        return;
    }
    if (wb_str_eq(request->path, wb_str("/teapot"))) {
        module_respond_error(response, 418, "short and stout", NULL);
        return;
    }
    if (wb_str_eq(request->path, wb_str("/big"))) {
        for (size_t len = 0; len < BIG_ANSWER; len += sizeof(zeros))
            wb_buf_add(&response->body, zeros, sizeof(zeros));
        return;
    }
    response->content_type = "text/plain";
    if (wb_str_eq(request->path, wb_str("/echo"))) {
        wb_buf_add(&response->body, request->body.ptr, request->body.len);
        return;
    }
    wb_buf_printf(&response->body, "%.*s %.*s?%.*s %zu", (int)request->method.len,
                  request->method.ptr, (int)request->path.len, request->path.ptr,
                  (int)request->query.len, request->query.ptr == NULL ? "" : request->query.ptr,
                  request->body.len);
}

/* Fields of options that are 0 keep the server's defaults. */
static inline void fixture_start(struct fixture *f, struct http_options options)
{
    struct wb_why why = {""};

    memset(f, 0, sizeof(*f));
    assert_ok(observe_create(&f->observe));
    if (options.listen == NULL)
        options.listen = "127.0.0.1:0";
    options.observe = f->observe;
    options.body_limit = fixture_body_limit;
    options.handle = fixture_handle;
    options.ctx = f;
    if (http_server_start(&options, &f->server, &why) != WB_OK)
        fail_msg("%s", why.text);
    (void)snprintf(f->host, sizeof(f->host), "127.0.0.1:%u", (unsigned)http_server_port(f->server));
}

static inline void fixture_stop(struct fixture *f)
{
    http_server_stop(f->server);
    observe_destroy(f->observe);
}

/* ---- the client ------------------------------------------------------------------------------ */

static inline int client_connect(const struct fixture *f)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(f->server)),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    return fd;
}

/* false: the server has hung up. */
static inline bool client_send(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        data += sent;
        len -= (size_t)sent;
    }
    return true;
}

static inline void client_say(int fd, const char *text)
{
    assert_true(client_send(fd, text, strlen(text)));
}

static inline void client_wait(int fd, short events)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};

    if (poll(&poll_fd, 1, PATIENCE_MS) != 1)
        fail_msg("the server is silent for %d ms", PATIENCE_MS);
}

/* Append what comes; false at the end of the stream. */
static inline bool client_read(int fd, struct wb_buf *into)
{
    char chunk[16384];
    ssize_t got;

    client_wait(fd, POLLIN);
    got = recv(fd, chunk, sizeof(chunk), 0);
    if (got > 0)
        wb_buf_add(into, chunk, (size_t)got);
    return got > 0;
}

static inline void client_read_to_end(int fd, struct wb_buf *into)
{
    while (client_read(fd, into)) {
    }
    wb_buf_str(into, "");
}

/* Cut the first complete response off input; 0 when it is not complete yet. */
static inline size_t response_length(const struct wb_buf *input)
{
    const char *head_end = input->len == 0 ? NULL : strstr(input->ptr, "\r\n\r\n");
    const char *length;
    size_t total;

    if (head_end == NULL)
        return 0;
    length = strstr(input->ptr, "Content-Length: ");
    total = (size_t)(head_end - input->ptr) + 4;
    if (length != NULL && length < head_end)
        total += strtoul(length + strlen("Content-Length: "), NULL, 10);
    return total <= input->len ? total : 0;
}

/* One response; what comes behind it stays in input. To be freed. */
static inline char *client_response(int fd, struct wb_buf *input)
{
    size_t len;
    char *response;

    while ((len = response_length(input)) == 0)
        if (!client_read(fd, input))
            fail_msg("the server hung up after: %s", input->len == 0 ? "" : input->ptr);
    response = wb_str_dup(wb_str_n(input->ptr, len));
    if (response == NULL || input->ptr == NULL)
        abort();
    memmove(input->ptr, input->ptr + len, input->len - len);
    input->len -= len;
    input->ptr[input->len] = '\0';
    return response;
}

static inline void expect_response(int fd, struct wb_buf *input, const char *status,
                                   const char *body)
{
    char *response = client_response(fd, input);
    const char *got = strstr(response, "\r\n\r\n") + 4;

    if (strncmp(response, status, strlen(status)) != 0 || strcmp(got, body) != 0)
        fail_msg("expected %s with <<%s>>, got <<%s>>", status, body, response);
    free(response);
}

#endif /* HTTP_TEST_CLIENT_H */
