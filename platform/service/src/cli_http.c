/* cli_http.c - a blocking HTTP/1.1 client for one service on this machine. */
#include "cli_http.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#define REPLY_MAX                                                                                  \
    (64U << 20) /* bytes; a poll of 100 messages of 1 MiB as base64 is no longer sane */

static int64_t now(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* ---- connecting ------------------------------------------------------------------------------ */

wb_err service_cli_http_open(struct cli *cli, struct cli_http *http)
{
    const char *listen = config_str(cli->config, "http.listen");
    const char *colon = strrchr(listen, ':');

    *http = (struct cli_http){.timeout_ns = cli->timeout_ns, .fd = -1};
    if (strcmp(listen, "off") == 0)
        return wb_fail(&cli->why, WB_UNREACHABLE,
                       "http.listen is off, so no service can be asked; name one with --http "
                       "HOST:PORT, or talk straight to NATS with -s URL");
    size_t host_len = colon == NULL ? 0 : (size_t)(colon - listen);
    bool bracketed = host_len > 2 && listen[0] == '[' && colon[-1] == ']';
    if (host_len == 0 || strlen(colon + 1) > 5 || strlen(listen) >= sizeof(http->host) ||
        strcmp(colon + 1, "0") == 0)
        return wb_fail(&cli->why, WB_INVALID,
                       "http.listen '%s': expected HOST:PORT of a running service, such as "
                       "127.0.0.1:8480; name it with --http",
                       listen);
    (void)snprintf(http->address, sizeof(http->address), "%s", listen);
    (void)snprintf(http->port, sizeof(http->port), "%s", colon + 1);
    (void)snprintf(http->host, sizeof(http->host), "%.*s",
                   (int)(bracketed ? host_len - 2 : host_len), listen + (bracketed ? 1 : 0));
    return WB_OK;
}

void service_cli_http_close(struct cli_http *http)
{
    if (http->fd >= 0)
        (void)close(http->fd);
    http->fd = -1;
}

static wb_err fail_connect(const struct cli_http *http, const char *reason, struct wb_why *why)
{
    return wb_fail(
        why, WB_UNREACHABLE,
        "no service answers at %s: %s; start one with `waybill serve`, name another with "
        "--http HOST:PORT, or talk straight to NATS with -s nats://127.0.0.1:4222",
        http->address, reason);
}

static wb_err connect_to(struct cli_http *http, struct wb_why *why)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct timeval limit = {http->timeout_ns / WB_SEC, (http->timeout_ns % WB_SEC) / WB_US};
    struct addrinfo *found;
    int problem = getaddrinfo(http->host, http->port, &hints, &found);
    int error = 0;

    if (problem != 0)
        return fail_connect(http, gai_strerror(problem), why);
    for (const struct addrinfo *at = found; at != NULL && http->fd < 0; at = at->ai_next) {
        int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
        if (fd < 0) {
            error = errno;
            continue;
        }
        /* The limit of sending is that of connect(), too. */
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        if (connect(fd, at->ai_addr, at->ai_addrlen) == 0) {
            http->fd = fd;
        } else {
            error = errno == EINPROGRESS ? ETIMEDOUT : errno;
            (void)close(fd);
        }
    }
    freeaddrinfo(found);
    return http->fd >= 0 ? WB_OK : fail_connect(http, strerror(error), why);
}

/* ---- sending and receiving ------------------------------------------------------------------- */

static bool send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t put = send(fd, data, len, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        data += put;
        len -= (size_t)put;
    }
    return true;
}

/* Append what comes. WB_CLOSED at the end of the connection. */
static wb_err receive(const struct cli_http *http, int64_t deadline, struct wb_buf *in)
{
    char chunk[16384];

    for (;;) {
        int64_t left = (deadline - now()) / WB_MS;
        struct pollfd ready = {.fd = http->fd, .events = POLLIN};
        if (left <= 0)
            return WB_TIMEOUT;
        int polled = poll(&ready, 1, (int)(left > 60000 ? 60000 : left));
        if (polled == 0 || (polled < 0 && errno == EINTR))
            continue;
        ssize_t got = recv(http->fd, chunk, sizeof(chunk), 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return WB_CLOSED;
        wb_buf_add(in, chunk, (size_t)got);
        return in->failed || in->len > REPLY_MAX ? WB_TOO_BIG : WB_OK;
    }
}

/* Value of a header in the head of a reply; "" when absent. */
static struct wb_str head_value(const char *head, const char *name)
{
    size_t len = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) != 0 || line[len] != ':')
            continue;
        const char *value = line + len + 1 + strspn(line + len + 1, " \t");
        return wb_str_n(value, strcspn(value, " \t\r\n"));
    }
    return wb_str("");
}

/* Read a reply whose body is as long as Content-Length says. */
static wb_err read_reply(const struct cli_http *http, int64_t deadline, struct wb_buf *in,
                         struct cli_http_reply *reply, bool *ret_ends)
{
    char *end = NULL;
    uint64_t len;

    while (end == NULL) {
        wb_err err = receive(http, deadline, in);
        if (err != WB_OK)
            return err;
        end = strstr(in->ptr, "\r\n\r\n");
    }
    size_t head_len = (size_t)(end - in->ptr) + 4;
    *end = '\0';
    uint64_t status;
    if (strncmp(in->ptr, "HTTP/1.1 ", 9) != 0 || strlen(in->ptr) < 12 ||
        !wb_str_to_u64(wb_str_n(in->ptr + 9, 3), &status) ||
        !wb_str_to_u64(head_value(in->ptr, "Content-Length"), &len) || len > REPLY_MAX)
        return WB_INVALID;
    *ret_ends = wb_str_case_eq(head_value(in->ptr, "Connection"), wb_str("close"));
    while (in->len - head_len < len) {
        wb_err err = receive(http, deadline, in);
        if (err != WB_OK)
            return err;
    }
    reply->status = (int)status;
    wb_buf_add(&reply->body, in->ptr + head_len, (size_t)len);
    return reply->body.failed ? WB_NOMEM : WB_OK;
}

static void format_request(const struct cli_http *http, const struct cli_http_request *request,
                           struct wb_buf *out)
{
    wb_buf_printf(out, "%s %s HTTP/1.1\r\nHost: %s\r\n%s", request->method, request->target,
                  http->address, request->headers);
    if (strcmp(request->method, "POST") == 0)
        wb_buf_printf(out, "Content-Length: %zu\r\n", request->body.len);
    wb_buf_str(out, "\r\n");
    wb_buf_add(out, request->body.ptr, request->body.len);
}

/* ---- one call -------------------------------------------------------------------------------- */

static wb_err exchange(struct cli_http *http, const struct wb_buf *text,
                       struct cli_http_reply *reply, struct wb_why *why)
{
    int64_t deadline = now() + http->timeout_ns;
    struct wb_buf in = {0};
    bool ends = true;
    /* A service that refuses answers before it has read all, and hangs up: read what it said. */
    bool sent = send_all(http->fd, text->ptr, text->len);
    wb_err err = read_reply(http, deadline, &in, reply, &ends);
    bool silent = in.len == 0;

    wb_buf_free(&in);
    if (err != WB_OK || ends || !sent)
        service_cli_http_close(http);
    if (err == WB_TIMEOUT)
        return wb_fail(why, WB_TIMEOUT,
                       "the service at %s did not answer within %lld ms; see its log, or give it "
                       "longer with --timeout",
                       http->address, (long long)(http->timeout_ns / WB_MS));
    if (err == WB_CLOSED)
        return wb_fail(why, WB_UNREACHABLE, "the service at %s hung up%s; is it being stopped?",
                       http->address, silent ? "" : " in the middle of its answer");
    if (err != WB_OK)
        return wb_fail(why, err,
                       "what answers at %s is not the service: no HTTP/1.1 reply with "
                       "Content-Length; name the service with --http HOST:PORT",
                       http->address);
    return WB_OK;
}

wb_err service_cli_http_call(struct cli_http *http, const struct cli_http_request *request,
                             struct cli_http_reply *reply, struct wb_why *why)
{
    struct wb_buf text = {0};
    bool used = http->fd >= 0;
    wb_err err = used ? WB_OK : connect_to(http, why);

    if (err != WB_OK)
        return err;
    format_request(http, request, &text);
    if (text.failed) {
        wb_buf_free(&text);
        return WB_NOMEM;
    }
    err = exchange(http, &text, reply, why);
    /* A kept connection may have been closed for idleness: once more on a new one. What a publish
     * may have stored the first time is known by its id. */
    if (used && err == WB_UNREACHABLE) {
        wb_buf_clear(&reply->body);
        err = connect_to(http, why);
        if (err == WB_OK)
            err = exchange(http, &text, reply, why);
    }
    wb_buf_free(&text);
    return err;
}

/* ---- what an error reply says ---------------------------------------------------------------- */

static wb_err err_of_status(int status)
{
    switch (status) {
    case 400:
        return WB_INVALID;
    case 401:
    case 403:
    case 421:
        return WB_DENIED;
    case 404:
        return WB_NOT_FOUND;
    case 409:
        return WB_CONFLICT;
    case 413:
    case 431:
        return WB_TOO_BIG;
    case 503:
        return WB_UNREACHABLE;
    default:
        return WB_INTERNAL;
    }
}

wb_err service_cli_http_error(const struct cli_http *http, const struct cli_http_reply *reply,
                              struct wb_why *why)
{
    json_t *root =
        json_loadb(reply->body.ptr == NULL ? "" : reply->body.ptr, reply->body.len, 0, NULL);
    const char *code = json_string_value(json_object_get(root, "code"));
    const char *error = json_string_value(json_object_get(root, "error"));
    const char *next = json_string_value(json_object_get(root, "next"));
    wb_err err = code != NULL ? service_cli_err_of_name(code) : err_of_status(reply->status);

    if (error != NULL)
        (void)wb_fail(why, err, "the service at %s: %s%s%s", http->address, error,
                      next != NULL ? "; " : "", next != NULL ? next : "");
    else
        (void)wb_fail(why, err, "the service at %s answered with status %d", http->address,
                      reply->status);
    json_decref(root);
    return err;
}

void service_cli_http_encode(struct wb_buf *out, struct wb_str text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '\0' && strchr(plain, text.ptr[i]) != NULL)
            wb_buf_add(out, text.ptr + i, 1);
        else
            wb_buf_printf(out, "%%%02X", (unsigned char)text.ptr[i]);
    }
}
