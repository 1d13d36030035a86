#include "http_server_internal.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "http_response.h"

#define READ_AHEAD_MAX   65536      /* bytes of input held for one connection */
#define LINGER_NS        WB_SEC     /* wait for the client to hang up */
#define LINGER_BYTES_MAX (1U << 20) /* thrown away meanwhile */

/* ---- phases ---------------------------------------------------------------------------------- */

static void enter(struct http_connection *c, http_phase phase)
{
    const struct http_options *options = &c->server->options;
    const int64_t limits_ns[] = {
        [HTTP_PHASE_HEAD] = options->header_deadline_ns,
        [HTTP_PHASE_BODY] = options->body_deadline_ns,
        [HTTP_PHASE_WRITE] = options->write_deadline_ns,
        [HTTP_PHASE_IDLE] = options->idle_ns,
        [HTTP_PHASE_LINGER] = LINGER_NS,
    };
    struct timeval limit = {(time_t)(limits_ns[phase] / WB_SEC),
                            (suseconds_t)(limits_ns[phase] % WB_SEC / WB_US)};

    c->phase = phase;
    if (phase == HTTP_PHASE_WRITE)
        (void)bufferevent_disable(c->bev, EV_READ);
    else
        (void)bufferevent_enable(c->bev, EV_READ);
    (void)evtimer_add(c->deadline, &limit);
}

/* The kernel would keep what a client does not fetch; a reset lets go of it. */
static void reset(struct http_connection *c)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(bufferevent_getfd(c->bev), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    http_connection_free(c);
}

/* Closing with unread input would send a reset, which can overtake the answer; so wait a little. */
static void linger(struct http_connection *c)
{
    if (c->server->stopping) {
        http_connection_free(c);
        return;
    }
    http_parser_reset(&c->parser);
    (void)evbuffer_drain(bufferevent_get_input(c->bev), SIZE_MAX);
    (void)shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    enter(c, HTTP_PHASE_LINGER);
}

/* ---- answering ------------------------------------------------------------------------------- */

static void count(struct http_connection *c, observe_metric metric, const char *label)
{
    observe_add(observe_series(c->server->options.observe, metric, label), 1);
}

/* Frees the response's body. */
static void send_response(struct http_connection *c, struct module_response *response,
                          const char *allow)
{
    struct http_envelope envelope = {
        .close = c->close_after_write,
        .without_body = wb_str_eq(c->parser.method, wb_str("HEAD")),
        .allow = allow,
        .wall_ns = wb_wall_ns(wb_clock_system()),
    };
    struct wb_buf out = {0};
    char status[16];

    (void)snprintf(status, sizeof(status), "%d", response->status);
    count(c, OBSERVE_HTTP_REQUESTS, status);
    http_response_render(&out, response, &envelope);
    wb_buf_free(&response->body);
    if (out.failed || bufferevent_write(c->bev, out.ptr, out.len) != 0) {
        wb_buf_free(&out);
        reset(c); /* no memory even for an answer */
        return;
    }
    wb_buf_free(&out);
    enter(c, HTTP_PHASE_WRITE);
}

static void refuse(struct http_connection *c, const struct http_refusal *refusal, const char *allow)
{
    struct module_response response = {0};

    count(c, OBSERVE_HTTP_REFUSED, http_refusal_reason(refusal->status));
    c->close_after_write = true;
    module_respond_error(&response, refusal->status, refusal->error, refusal->next);
    send_response(c, &response, allow);
}

static void handle(struct http_connection *c)
{
    const struct http_parser *p = &c->parser;
    const struct http_options *options = &c->server->options;
    const struct module_request request = {
        .method = p->method,
        .path = p->path,
        .query = p->query,
        .body = {p->body.ptr, p->body.len},
        .headers = p->headers,
        .header_count = p->header_count,
    };
    struct module_response response = {.status = 200, .content_type = "application/json"};

    options->handle(options->ctx, &request, &response);
    if (response.body.failed)
        module_respond_error(&response, 500, "the answer does not fit into memory", NULL);
    c->close_after_write = p->wants_close || c->server->stopping;
    send_response(c, &response, NULL);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Whom is it for, is there such a thing, may the body be that large? In this order. */
static bool head_refused(struct http_connection *c)
{
    static const struct http_refusal foreign = {421, "this server is not the one named in Host",
                                                "use its own name, or add it to the allowed hosts"};
    static const struct http_refusal no_route = {
        404, "no such path", "check the spelling of the path; case and slashes count"};
    static const struct http_refusal no_method = {405, "this path has another method",
                                                  "use the method in Allow"};
    static const struct http_refusal too_big = {413, "the body is larger than this path accepts",
                                                "send less at once"};
    const struct http_parser *p = &c->parser;
    const struct http_options *options = &c->server->options;
    size_t limit;

    if (!http_hosts_allow(c->server, p->host)) {
        refuse(c, &foreign, NULL);
        return true;
    }
    limit = options->body_limit(options->ctx, p->method, p->path);
    if (limit == SIZE_MAX)
        refuse(c, &no_route, NULL);
    else if (limit == SIZE_MAX - 1)
        refuse(c, &no_method, wb_str_eq(p->method, wb_str("GET")) ? "POST" : "GET");
    else if (p->content_length > limit || p->content_length > options->max_body)
        refuse(c, &too_big, NULL);
    else
        return false;
    return true;
}

/* true: a body is to come. false: it is answered, and c may be gone. */
static bool head_complete(struct http_connection *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

    if (head_refused(c))
        return false;
    if (c->parser.content_length == 0) {
        handle(c);
        return false;
    }
    enter(c, HTTP_PHASE_BODY);
    if (c->parser.expects_continue)
        (void)bufferevent_write(c->bev, go_on, sizeof(go_on) - 1);
    return true;
}

/* One piece of input. false: nothing more can be done now; c may be gone. */
static bool process_piece(struct http_connection *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    size_t len = evbuffer_get_contiguous_space(input), used = 0;
    const char *data = (const char *)evbuffer_pullup(input, (ev_ssize_t)len);
    struct http_refusal refusal;

    if (len == 0 || data == NULL)
        return false;
    if (c->phase == HTTP_PHASE_IDLE)
        enter(c, HTTP_PHASE_HEAD);
    http_step step = http_parser_feed(&c->parser, data, len, &used);
    (void)evbuffer_drain(input, used);
    switch (step) {
    case HTTP_MORE:
        return true;
    case HTTP_HEAD:
        return head_complete(c);
    case HTTP_DONE:
        handle(c);
        return false;
    case HTTP_REFUSED:
        refusal = (struct http_refusal){c->parser.status, c->parser.error, c->parser.next};
        refuse(c, &refusal, refusal.status == 405 ? "GET, POST" : NULL);
        return false;
    }
    return false;
}

static void process(struct http_connection *c)
{
    while (process_piece(c)) {
    }
}

/* ---- what libevent calls --------------------------------------------------------------------- */

static void on_read(struct bufferevent *bev, void *ctx)
{
    struct http_connection *c = ctx;
    struct evbuffer *input = bufferevent_get_input(bev);

    if (c->phase != HTTP_PHASE_LINGER) {
        process(c);
        return;
    }
    c->thrown_away += evbuffer_get_length(input);
    (void)evbuffer_drain(input, evbuffer_get_length(input));
    if (c->thrown_away > LINGER_BYTES_MAX)
        reset(c);
}

/* The output has gone to the kernel. One request at a time: only now is the next one looked at. */
static void on_write(struct bufferevent *bev, void *ctx)
{
    struct http_connection *c = ctx;

    if (c->phase != HTTP_PHASE_WRITE || evbuffer_get_length(bufferevent_get_output(bev)) > 0)
        return;
    if (c->close_after_write) {
        linger(c);
        return;
    }
    http_parser_reset(&c->parser);
    enter(c, HTTP_PHASE_IDLE);
    process(c);
}

/* The end of the stream, or an error: in no phase is there anybody left to answer. */
static void on_end(struct bufferevent *bev, short what, void *ctx)
{
    (void)bev;
    (void)what;
    http_connection_free(ctx);
}

static void on_deadline(int fd, short what, void *ctx)
{
    static const struct http_refusal slow_head = {408, "the request took too long",
                                                  "send the whole head at once"};
    static const struct http_refusal slow_body = {408, "the body took too long",
                                                  "send it faster, or in smaller requests"};
    struct http_connection *c = ctx;

    (void)fd;
    (void)what;
    if (c->phase == HTTP_PHASE_HEAD && http_parser_started(&c->parser))
        refuse(c, &slow_head, NULL);
    else if (c->phase == HTTP_PHASE_BODY)
        refuse(c, &slow_body, NULL);
    else if (c->phase == HTTP_PHASE_WRITE)
        reset(c);
    else
        http_connection_free(c);
}

/* ---- coming and going ------------------------------------------------------------------------ */

static void link_in(struct http_connection *c)
{
    struct http_server *server = c->server;

    c->next = server->connections;
    if (c->next != NULL)
        c->next->previous = c;
    server->connections = c;
    server->connection_count++;
    server->served_count += c->served ? 1 : 0;
}

static void link_out(struct http_connection *c)
{
    struct http_server *server = c->server;

    if (c->next != NULL)
        c->next->previous = c->previous;
    if (c->previous != NULL)
        c->previous->next = c->next;
    else
        server->connections = c->next;
    server->connection_count--;
    server->served_count -= c->served ? 1 : 0;
}

void http_connection_open(struct http_server *server, int fd, const struct sockaddr *peer,
                          size_t peer_len, bool refused)
{
    static const struct http_refusal no_room = {503, "too many connections",
                                                "close some, or try again later"};
    struct http_connection *c = calloc(1, sizeof(*c));
    const int on = 1;

    assert(peer_len <= sizeof(c->peer));
    if (c == NULL)
        goto close_fd;
    c->deadline = evtimer_new(server->base, on_deadline, c);
    if (c->deadline == NULL)
        goto free_c;
    c->bev = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (c->bev == NULL)
        goto free_deadline;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    c->server = server;
    c->served = !refused;
    memcpy(&c->peer, peer, peer_len);
    http_parser_init(&c->parser, server->options.max_header_bytes, server->options.max_headers);
    bufferevent_setcb(c->bev, on_read, on_write, on_end, c);
    bufferevent_setwatermark(c->bev, EV_READ, 0, READ_AHEAD_MAX);
    link_in(c);
    (void)bufferevent_enable(c->bev, EV_WRITE);
    if (refused)
        refuse(c, &no_room, NULL);
    else
        enter(c, HTTP_PHASE_HEAD);
    return;

free_deadline:
    event_free(c->deadline);
free_c:
    free(c);
close_fd:
    (void)close(fd);
}

void http_connection_free(struct http_connection *c)
{
    struct http_server *server = c->server;

    link_out(c);
    event_free(c->deadline);
    bufferevent_free(c->bev);
    http_parser_reset(&c->parser);
    free(c);
    if (server->stopping && server->connection_count == 0)
        (void)event_base_loopbreak(server->base);
}

void http_connection_stop(struct http_connection *c)
{
    if (c->phase == HTTP_PHASE_WRITE)
        c->close_after_write = true;
    else
        http_connection_free(c);
}
