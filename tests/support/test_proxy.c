/* test_proxy.c - see test_proxy.h. One thread, poll(), two queues of chunks for each connection. */
#include "test_proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test_support.h"

enum { CONNECTIONS_MAX = 64, CHUNK = 16384, QUEUE_MAX = 4 << 20 };

/* What was read at once, waiting for its time. */
struct chunk {
    struct chunk *next;
    int64_t due_ns;
    size_t len, sent;
    char bytes[];
};

/* One direction: read from one side, written to the other. */
struct way {
    struct chunk *first, **last;
    size_t queued;
    int64_t next_ns; /* by the rate, nothing before */
    bool ended;      /* no more to read */
};

struct connection {
    int client, server;  /* -1: closed */
    struct way up, down; /* from the client; from the server */
};

struct test_proxy {
    pthread_t thread;
    int listener, wake;
    uint16_t port, to_port;
    pthread_mutex_t mutex; /* guards what follows up to connections */
    struct test_proxy_weather weather;
    bool stop, reset, half_open;
    struct connection connections[CONNECTIONS_MAX]; /* the thread's */
    size_t count;
};

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* ---- connections ----------------------------------------------------------------------------- */

static void way_clear(struct way *way)
{
    while (way->first != NULL) {
        struct chunk *next = way->first->next;
        free(way->first);
        way->first = next;
    }
    way->last = &way->first;
    way->queued = 0;
}

static void fd_close(int *fd, bool reset)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};

    if (*fd < 0)
        return;
    if (reset)
        (void)setsockopt(*fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    (void)close(*fd);
    *fd = -1;
}

static void connection_close(struct connection *c, bool reset)
{
    fd_close(&c->client, reset);
    fd_close(&c->server, reset);
    way_clear(&c->up);
    way_clear(&c->down);
}

static void nodelay(int fd)
{
    const int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void accept_one(struct test_proxy *self, bool refuse)
{
    struct sockaddr_in address = loopback(self->to_port);
    int client = accept4(self->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (client < 0)
        return;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (refuse || self->count == CONNECTIONS_MAX || server < 0 ||
        connect(server, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        fcntl(server, F_SETFL, O_NONBLOCK) != 0) {
        fd_close(&client, true);
        fd_close(&server, true);
        return;
    }
    nodelay(client);
    nodelay(server);
    struct connection *c = &self->connections[self->count++];
    *c = (struct connection){.client = client, .server = server};
    c->up.last = &c->up.first;
    c->down.last = &c->down.first;
}

static void sweep(struct test_proxy *self)
{
    for (size_t i = 0; i < self->count; i++) {
        struct connection *c = &self->connections[i];
        if (c->client >= 0)
            continue;
        connection_close(c, false);
        *c = self->connections[--self->count];
        /* An empty queue points into itself. */
        if (c->up.first == NULL)
            c->up.last = &c->up.first;
        if (c->down.first == NULL)
            c->down.last = &c->down.first;
        i--;
    }
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* false: the connection is over. */
static bool take(int fd, struct way *way, const struct test_proxy_weather *weather)
{
    struct chunk *chunk = malloc(sizeof(*chunk) + CHUNK);

    assert_non_null(chunk);
    ssize_t got = recv(fd, chunk->bytes, CHUNK, 0);
    if (got <= 0) {
        free(chunk);
        way->ended = got == 0;
        return got == 0 || errno == EAGAIN || errno == EINTR;
    }
    *chunk = (struct chunk){.due_ns = now_ns() + weather->delay_ns, .len = (size_t)got};
    *way->last = chunk;
    way->last = &chunk->next;
    way->queued += (size_t)got;
    return true;
}

static int64_t due_ns(const struct way *way)
{
    if (way->first == NULL)
        return INT64_MAX;
    return way->first->due_ns > way->next_ns ? way->first->due_ns : way->next_ns;
}

static bool give(int fd, struct way *way, const struct test_proxy_weather *weather, int64_t now)
{
    struct chunk *chunk;

    while (fd >= 0 && (chunk = way->first) != NULL && due_ns(way) <= now) {
        size_t len = chunk->len - chunk->sent;
        if (weather->piece > 0 && len > weather->piece)
            len = weather->piece;
        if (weather->rate > 0 && len > weather->rate / 100 + 1)
            len = (size_t)(weather->rate / 100 + 1);
        ssize_t sent = send(fd, chunk->bytes + chunk->sent, len, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR;
        chunk->sent += (size_t)sent;
        way->queued -= (size_t)sent;
        if (weather->rate > 0)
            way->next_ns = now + (int64_t)((uint64_t)sent * (uint64_t)WB_SEC / weather->rate);
        if (chunk->sent < chunk->len)
            continue;
        way->first = chunk->next;
        if (way->first == NULL)
            way->last = &way->first;
        free(chunk);
    }
    return true;
}

/* An end is passed on once all before it is through. */
static bool over(const struct connection *c)
{
    return (c->up.ended && c->up.first == NULL) || (c->down.ended && c->down.first == NULL);
}

static void work(struct connection *c, const struct test_proxy_weather *weather, short client_ready,
                 short server_ready, int64_t now)
{
    bool alive = true;

    if (client_ready != 0)
        alive = take(c->client, &c->up, weather);
    if (c->server < 0) { /* half open: what the client says is heard and forgotten */
        way_clear(&c->up);
        if (!alive || c->up.ended)
            connection_close(c, false);
        return;
    }
    if (alive && server_ready != 0)
        alive = take(c->server, &c->down, weather);
    alive =
        alive && give(c->server, &c->up, weather, now) && give(c->client, &c->down, weather, now);
    if (!alive || over(c))
        connection_close(c, !alive);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void orders(struct test_proxy *self, struct test_proxy_weather *ret_weather, bool *ret_stop)
{
    uint64_t woken;

    if (read(self->wake, &woken, sizeof(woken)) < 0)
        woken = 0; /* nobody woke us: a time has come */
    pthread_mutex_lock(&self->mutex);
    *ret_weather = self->weather;
    *ret_stop = self->stop;
    for (size_t i = 0; i < self->count; i++) {
        if (self->reset)
            connection_close(&self->connections[i], true);
        else if (self->half_open)
            fd_close(&self->connections[i].server, false);
    }
    self->reset = self->half_open = false;
    pthread_mutex_unlock(&self->mutex);
    sweep(self);
}

/* A side is read unless we are deaf to it or have too much of it. */
static int readable(int fd, const struct way *way, bool deaf)
{
    return fd >= 0 && !deaf && !way->ended && way->queued < QUEUE_MAX ? fd : -1;
}

static int until_due(const struct test_proxy *self, int64_t now)
{
    int64_t due = now + WB_SEC;

    for (size_t i = 0; i < self->count; i++) {
        int64_t up = due_ns(&self->connections[i].up), down = due_ns(&self->connections[i].down);
        due = up < due ? up : due;
        due = down < due ? down : due;
    }
    return due <= now ? 1 : (int)((due - now + WB_MS - 1) / WB_MS);
}

static void *run(void *arg)
{
    struct test_proxy *self = arg;
    struct pollfd fds[2 + 2 * CONNECTIONS_MAX];
    struct test_proxy_weather weather;
    bool stop = false;

    for (orders(self, &weather, &stop); !stop; orders(self, &weather, &stop)) {
        size_t count = self->count;
        fds[0] = (struct pollfd){.fd = self->wake, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = self->listener, .events = POLLIN};
        for (size_t i = 0; i < count; i++) {
            struct connection *c = &self->connections[i];
            fds[2 + 2 * i] = (struct pollfd){
                .fd = readable(c->client, &c->up, weather.deaf_to_client), .events = POLLIN};
            fds[3 + 2 * i] = (struct pollfd){
                .fd = readable(c->server, &c->down, weather.deaf_to_server), .events = POLLIN};
        }
        (void)poll(fds, 2 + 2 * count, until_due(self, now_ns()));
        int64_t now = now_ns();
        for (size_t i = 0; i < count; i++)
            work(&self->connections[i], &weather, fds[2 + 2 * i].revents, fds[3 + 2 * i].revents,
                 now);
        /* The weather may have changed before somebody connected: then look at it first. */
        if (fds[1].revents != 0 && fds[0].revents == 0)
            accept_one(self, weather.refuse);
    }
    return NULL;
}

/* ---- orders ---------------------------------------------------------------------------------- */

static void wake(struct test_proxy *self)
{
    const uint64_t one = 1;

    /* Fails only when the counter is full, and then it is awake. */
    if (write(self->wake, &one, sizeof(one)) < 0)
        return;
}

void test_proxy_start(uint16_t to_port, struct test_proxy **ret_proxy)
{
    struct test_proxy *self = calloc(1, sizeof(*self));
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof(address);

    assert_non_null(self);
    self->to_port = to_port;
    self->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    self->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self->wake < 0 || self->listener < 0 ||
        bind(self->listener, (struct sockaddr *)&address, len) != 0 ||
        listen(self->listener, 64) != 0 ||
        getsockname(self->listener, (struct sockaddr *)&address, &len) != 0)
        fail_msg("cannot listen on 127.0.0.1");
    self->port = ntohs(address.sin_port);
    (void)pthread_mutex_init(&self->mutex, NULL);
    if (pthread_create(&self->thread, NULL, run, self) != 0)
        fail_msg("cannot start a thread");
    *ret_proxy = self;
}

uint16_t test_proxy_port(const struct test_proxy *proxy)
{
    return proxy->port;
}

void test_proxy_set(struct test_proxy *proxy, const struct test_proxy_weather *weather)
{
    pthread_mutex_lock(&proxy->mutex);
    proxy->weather = *weather;
    pthread_mutex_unlock(&proxy->mutex);
    wake(proxy);
}

void test_proxy_reset(struct test_proxy *proxy)
{
    pthread_mutex_lock(&proxy->mutex);
    proxy->reset = true;
    pthread_mutex_unlock(&proxy->mutex);
    wake(proxy);
}

void test_proxy_half_open(struct test_proxy *proxy)
{
    pthread_mutex_lock(&proxy->mutex);
    proxy->half_open = true;
    pthread_mutex_unlock(&proxy->mutex);
    wake(proxy);
}

void test_proxy_stop(struct test_proxy *proxy)
{
    if (proxy == NULL)
        return;
    pthread_mutex_lock(&proxy->mutex);
    proxy->stop = true;
    proxy->reset = true;
    pthread_mutex_unlock(&proxy->mutex);
    wake(proxy);
    (void)pthread_join(proxy->thread, NULL);
    (void)pthread_mutex_destroy(&proxy->mutex);
    (void)close(proxy->listener);
    (void)close(proxy->wake);
    free(proxy);
}
