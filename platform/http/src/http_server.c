#include "http_server_internal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/listener.h>
#include <event2/thread.h>

#define BACKLOG           4096             /* a storm of reconnects must not wait for SYN retries */
#define ACCEPT_PAUSE_NS   (100 * WB_MS)    /* when descriptors have run out */
#define STOP_PATIENCE_NS  (2 * WB_SEC)     /* for answers still being written */
#define REFUSALS_MAX(max) ((max) / 4 + 16) /* connections being told that there is no room */

static struct timeval to_timeval(int64_t ns)
{
    return (struct timeval){(time_t)(ns / WB_SEC), (suseconds_t)(ns % WB_SEC / WB_US)};
}

/* ---- accepting ------------------------------------------------------------------------------- */

/* One client: an IPv4 address, or the /64 of IPv6 that one subscriber is given. */
static bool same_client(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET6) {
        const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)(const void *)a;
        const struct sockaddr_in6 *b6 = (const struct sockaddr_in6 *)(const void *)b;
        return memcmp(&a6->sin6_addr, &b6->sin6_addr, 8) == 0;
    }
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)(const void *)a;
    const struct sockaddr_in *b4 = (const struct sockaddr_in *)(const void *)b;
    return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
}

static bool has_room(const struct http_server *server, const struct sockaddr *peer)
{
    uint32_t same = 0;

    if (server->served_count >= server->options.max_connections)
        return false;
    for (const struct http_connection *c = server->connections; c != NULL; c = c->next)
        if (c->served && same_client(peer, (const struct sockaddr *)&c->peer))
            same++;
    return same < server->options.max_per_address;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer,
                      int peer_len, void *ctx)
{
    struct http_server *server = ctx;
    bool room = has_room(server, peer);
    size_t refusals = server->connection_count - server->served_count;

    (void)listener;
    if (!room && refusals >= REFUSALS_MAX(server->options.max_connections)) {
        (void)close(fd); /* too many even to be told so */
        return;
    }
    http_connection_open(server, fd, peer, (size_t)peer_len, !room);
}

/* accept(2) fails, as a rule because descriptors have run out: trying again at once would spin. */
static void on_accept_error(struct evconnlistener *listener, void *ctx)
{
    struct http_server *server = ctx;
    struct timeval pause = to_timeval(ACCEPT_PAUSE_NS);

    wb_log(WB_LOG_WARN, "http", "cannot accept connections: %s; trying again in 100 ms",
           strerror(errno));
    (void)evconnlistener_disable(listener);
    (void)evtimer_add(server->pause, &pause);
}

static void on_pause_over(evutil_socket_t fd, short what, void *ctx)
{
    struct http_server *server = ctx;

    (void)fd;
    (void)what;
    if (server->listener != NULL)
        (void)evconnlistener_enable(server->listener);
}

/* ---- stopping -------------------------------------------------------------------------------- */

static void on_patience_over(evutil_socket_t fd, short what, void *ctx)
{
    struct http_server *server = ctx;

    (void)fd;
    (void)what;
    (void)event_base_loopbreak(server->base);
}

static void on_stop(evutil_socket_t fd, short what, void *ctx)
{
    struct http_server *server = ctx;
    struct timeval patience = to_timeval(STOP_PATIENCE_NS);
    struct http_connection *next;

    (void)fd;
    (void)what;
    server->stopping = true;
    evconnlistener_free(server->listener);
    server->listener = NULL;
    for (struct http_connection *c = server->connections; c != NULL; c = next) {
        next = c->next;
        http_connection_stop(c);
    }
    if (server->connection_count == 0)
        (void)event_base_loopbreak(server->base);
    else
        (void)evtimer_add(server->give_up, &patience);
}

/* ---- starting -------------------------------------------------------------------------------- */

static size_t or_size(size_t value, size_t fallback)
{
    return value != 0 ? value : fallback;
}

static int64_t or_ns(int64_t value, int64_t fallback)
{
    return value != 0 ? value : fallback;
}

static struct http_options with_defaults(const struct http_options *given)
{
    struct http_options options = *given;

    options.listen = NULL;
    options.hosts = NULL;
    options.max_header_bytes = or_size(given->max_header_bytes, 8192);
    options.max_headers = or_size(given->max_headers, 100);
    options.max_body = or_size(given->max_body, 1U << 20);
    options.header_deadline_ns = or_ns(given->header_deadline_ns, 5 * WB_SEC);
    options.body_deadline_ns = or_ns(given->body_deadline_ns, 30 * WB_SEC);
    options.write_deadline_ns = or_ns(given->write_deadline_ns, 30 * WB_SEC);
    options.idle_ns = or_ns(given->idle_ns, 60 * WB_SEC);
    options.max_connections = (uint32_t)or_size(given->max_connections, 1024);
    options.max_per_address = (uint32_t)or_size(given->max_per_address, 256);
    return options;
}

/* Split "127.0.0.1:8480", "[::1]:8480" or "localhost:8480". Names are not looked up. */
static bool parse_listen(const char *text, struct sockaddr_storage *ret_address)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;
    char host[64];
    size_t len = colon == NULL ? 0 : (size_t)(colon - text);

    if (len == 0 || len >= sizeof(host) || !wb_str_to_u64(wb_str(colon + 1), &port) || port > 65535)
        return false;
    memset(ret_address, 0, sizeof(*ret_address));
    if (text[0] == '[' && text[len - 1] == ']') {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret_address;
        memcpy(host, text + 1, len - 2);
        host[len - 2] = '\0';
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1;
    }
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret_address;
    memcpy(host, text, len);
    host[len] = '\0';
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &v4->sin_addr) ==
           1;
}

static wb_err fail_bind(const char *listen, struct wb_why *why)
{
    switch (errno) {
    case EADDRINUSE:
        return wb_fail(why, WB_BUSY,
                       "listening on %s: the port is taken; stop whoever has it or choose another",
                       listen);
    case EACCES:
        return wb_fail(why, WB_DENIED,
                       "listening on %s: not permitted; ports below 1024 need rights", listen);
    case EADDRNOTAVAIL:
        return wb_fail(why, WB_INVALID, "listening on %s: this machine has no such address",
                       listen);
    default:
        return wb_fail(why, WB_IO, "listening on %s: %s", listen, strerror(errno));
    }
}

static wb_err start_listening(struct http_server *server, const struct http_options *given,
                              struct wb_why *why)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;

    if (!parse_listen(given->listen, &address))
        return wb_fail(why, WB_INVALID,
                       "listening on \"%s\": expected ADDRESS:PORT, such as 127.0.0.1:8480 or "
                       "[::1]:8480 (port 0: any)",
                       given->listen);
    if (address.ss_family == AF_INET6)
        flags |= LEV_OPT_BIND_IPV6ONLY;
    server->listener = evconnlistener_new_bind(
        server->base, on_accept, server, flags, BACKLOG, (struct sockaddr *)&address,
        address.ss_family == AF_INET6 ? (int)sizeof(struct sockaddr_in6)
                                      : (int)sizeof(struct sockaddr_in));
    if (server->listener == NULL)
        return fail_bind(given->listen, why);
    evconnlistener_set_error_cb(server->listener, on_accept_error);
    if (getsockname(evconnlistener_get_fd(server->listener), (struct sockaddr *)&address, &len) !=
        0)
        return wb_fail(why, WB_IO, "listening on %s: %s", given->listen, strerror(errno));
    server->port =
        ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                            : ((struct sockaddr_in *)&address)->sin_port);
    if (http_hosts_build(server, given, (struct sockaddr *)&address) != WB_OK)
        return wb_fail(why, WB_NOMEM, "listening on %s: out of memory", given->listen);
    return WB_OK;
}

static void make_libevent_thread_safe(void)
{
    (void)evthread_use_pthreads();
}

static bool make_events(struct http_server *server)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, make_libevent_thread_safe);
    server->base = event_base_new();
    if (server->base == NULL)
        return false;
    server->stop = event_new(server->base, -1, 0, on_stop, server);
    server->pause = evtimer_new(server->base, on_pause_over, server);
    server->give_up = evtimer_new(server->base, on_patience_over, server);
    return server->stop != NULL && server->pause != NULL && server->give_up != NULL;
}

static void *run(void *ctx)
{
    struct http_server *server = ctx;

    (void)event_base_loop(server->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

/* Signals belong to the thread that started us; SIGPIPE becomes EPIPE. */
static int start_thread(struct http_server *server)
{
    sigset_t all, before;
    int failed;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&server->thread, NULL, run, server);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static void event_free_if(struct event *event)
{
    if (event != NULL)
        event_free(event);
}

/* Without its thread. */
static void server_free(struct http_server *server)
{
    while (server->connections != NULL)
        http_connection_free(server->connections);
    if (server->listener != NULL)
        evconnlistener_free(server->listener);
    event_free_if(server->stop);
    event_free_if(server->pause);
    event_free_if(server->give_up);
    if (server->base != NULL)
        event_base_free(server->base);
    http_hosts_free(server);
    free(server);
}

wb_err http_server_start(const struct http_options *options, struct http_server **ret_server,
                         struct wb_why *why)
{
    struct http_server *server;
    wb_err err = WB_OK;

    assert(options != NULL);
    assert(options->listen != NULL);
    assert(options->body_limit != NULL);
    assert(options->handle != NULL);
    assert(ret_server != NULL);
    server = calloc(1, sizeof(*server));
    if (server == NULL)
        return wb_fail(why, WB_NOMEM, "listening on %s: out of memory", options->listen);
    server->options = with_defaults(options);
    if (!make_events(server))
        err = wb_fail(why, WB_NOMEM, "listening on %s: no memory or descriptors for an event loop",
                      options->listen);
    if (err == WB_OK)
        err = start_listening(server, options, why);
    if (err == WB_OK && start_thread(server) != 0)
        err = wb_fail(why, WB_NOMEM, "listening on %s: cannot start a thread", options->listen);
    if (err != WB_OK) {
        server_free(server);
        return err;
    }
    *ret_server = server;
    return WB_OK;
}

uint16_t http_server_port(const struct http_server *server)
{
    assert(server != NULL);
    return server->port;
}

void http_server_stop(struct http_server *server)
{
    if (server == NULL)
        return;
    event_active(server->stop, 0, 0);
    (void)pthread_join(server->thread, NULL);
    server_free(server);
}
