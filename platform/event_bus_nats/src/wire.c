#include "wire.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH_NS  WB_MS
#define BATCH_MIN 16 /* sends in BATCH_NS: from here on it is a stream of them */

/* Pings unanswered in a row, after which a peer is dead that takes nothing meanwhile, or that does.
 */
#define PINGS_IDLE 2
#define PINGS_MAX  30

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

static void wake_reader(struct nats_wire *wire)
{
    (void)eventfd_write(wire->wake_fd, 1); /* fails when it is full: then it is awake */
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The turn is held. nats.c takes a write of nothing for the end of the connection. */
static void write_out(struct nats_wire *wire)
{
    if (atomic_load(&wire->unwritten))
        natsConnection_ProcessWriteEvent(wire->nc);
}

/* The reader writes now. */
static void have_reader_write(struct nats_wire *wire)
{
    atomic_store(&wire->urgent, true);
    wake_reader(wire);
}

/* One more was sent. The reader is to be woken when a stream begins. */
static enum nats_wire_mode count_send(struct nats_wire *wire, bool *ret_begins)
{
    int64_t now = now_ns();

    pthread_mutex_lock(&wire->mutex);
    enum nats_wire_mode before = wire->mode;
    if (before == NATS_WIRE_DIRECT && now - wire->batch_ns >= BATCH_NS) {
        wire->batch_ns = now;
        wire->batch_count = 0;
    }
    if (++wire->batch_count >= BATCH_MIN && before == NATS_WIRE_DIRECT)
        wire->mode = NATS_WIRE_STREAM;
    enum nats_wire_mode mode = wire->mode;
    pthread_mutex_unlock(&wire->mutex);
    *ret_begins = mode != before;
    return mode;
}

void event_bus_nats_wire_sending(struct nats_wire *wire)
{
    atomic_fetch_add(&wire->senders, 1);
}

void event_bus_nats_wire_sent(struct nats_wire *wire)
{
    bool begins;

    /* First this: whom others have relied on until now must see the mode that holds from now on. */
    atomic_fetch_sub(&wire->senders, 1);
    enum nats_wire_mode mode = count_send(wire, &begins);
    if (mode == NATS_WIRE_DIRECT && atomic_load(&wire->unwritten)) {
        if (pthread_mutex_trylock(&wire->turn) == 0) {
            write_out(wire);
            pthread_mutex_unlock(&wire->turn);
        }
        /* The socket is full, or it was somebody else's turn. */
        if (atomic_load(&wire->unwritten))
            have_reader_write(wire);
    } else if (begins) {
        wake_reader(wire);
    }
}

/* ---- the reader ------------------------------------------------------------------------------ */

/* Until there is something to read or to write, or the reader is woken. */
static void wait_for_work(struct nats_wire *wire, struct pollfd *polled)
{
    pthread_mutex_lock(&wire->mutex);
    enum nats_wire_mode mode = wire->mode;
    int64_t left = wire->batch_ns + BATCH_NS - now_ns();
    pthread_mutex_unlock(&wire->mutex);
    struct timespec limit = {.tv_nsec = left > 0 ? left : 0};
    eventfd_t count;

    polled[0] = (struct pollfd){.fd = wire->fd, .events = POLLIN};
    polled[1] = (struct pollfd){.fd = wire->wake_fd, .events = POLLIN};
    if (mode == NATS_WIRE_FULL)
        polled[0].events |= POLLOUT;
    if (ppoll(polled, 2, mode == NATS_WIRE_STREAM ? &limit : NULL, NULL) < 0)
        polled[0].revents = polled[1].revents = 0;
    if (polled[1].revents != 0)
        (void)eventfd_read(wire->wake_fd, &count);
}

/* After a write. Who came before, and saw another mode than the direct one, left it to us. */
static void choose_mode(struct nats_wire *wire)
{
    pthread_mutex_lock(&wire->mutex);
    bool left = atomic_load(&wire->unwritten);
    if (left || wire->mode != NATS_WIRE_DIRECT) {
        bool stream = wire->batch_count >= BATCH_MIN;
        wire->mode = left ? NATS_WIRE_FULL : stream ? NATS_WIRE_STREAM : NATS_WIRE_DIRECT;
        wire->batch_ns = now_ns();
        wire->batch_count = 0;
    }
    pthread_mutex_unlock(&wire->mutex);
}

/* At the socket. false: the connection is closed. */
static bool take_turn(struct nats_wire *wire, short revents)
{
    pthread_mutex_lock(&wire->mutex);
    bool open = wire->state != NATS_WIRE_ENDED;
    bool due = wire->mode == NATS_WIRE_STREAM && now_ns() - wire->batch_ns >= BATCH_NS;
    pthread_mutex_unlock(&wire->mutex);
    if (!open)
        return false;
    if ((revents & ~POLLOUT) != 0)
        natsConnection_ProcessReadEvent(wire->nc);
    if (atomic_exchange(&wire->urgent, false) || (revents & POLLOUT) != 0 || due) {
        write_out(wire);
        choose_mode(wire);
    }
    return true;
}

static void *read_on(void *arg)
{
    struct nats_wire *wire = arg;
    struct pollfd polled[2];
    bool open = true;

    while (open) {
        wait_for_work(wire, polled);
        pthread_mutex_lock(&wire->turn);
        open = take_turn(wire, polled[0].revents);
        pthread_mutex_unlock(&wire->turn);
    }
    nats_ReleaseThreadMemory();
    return NULL;
}

/* ---- the pinger ------------------------------------------------------------------------------ */

/* false: the connection is not open any more. */
static bool pause_between(struct nats_wire *wire)
{
    int64_t until = now_ns() + wire->ping_ns;
    bool waiting = true;

    pthread_mutex_lock(&wire->mutex);
    while (waiting && wire->state == NATS_WIRE_OPEN)
        waiting = wb_cond_wait_until(&wire->changed, &wire->mutex, until);
    bool open = wire->state == NATS_WIRE_OPEN;
    pthread_mutex_unlock(&wire->mutex);
    return open;
}

/* Has the peer taken something since *taken, while there is more on its way to it? */
static bool takes_more(struct nats_wire *wire, uint64_t *taken)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    int on_way = 0;

    pthread_mutex_lock(&wire->mutex);
    bool open = wire->state == NATS_WIRE_OPEN;
    bool known = open && ioctl(wire->fd, SIOCOUTQ, &on_way) == 0 &&
                 getsockopt(wire->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0;
    pthread_mutex_unlock(&wire->mutex);
    bool took = info.tcpi_bytes_acked != *taken;
    *taken = info.tcpi_bytes_acked;
    return known && took && (on_way > 0 || atomic_load(&wire->unwritten));
}

/* A ping waits behind all that was sent before: who takes that is alive, only slow. */
static bool is_dead(struct nats_wire *wire)
{
    int64_t answer_ms = wire->ping_ns >= WB_MS ? wire->ping_ns / WB_MS : 1;
    uint64_t taken = 0;
    int idle = 0;

    (void)takes_more(wire, &taken);
    for (int missed = 0; missed < PINGS_MAX && idle < PINGS_IDLE; missed++) {
        if (natsConnection_FlushTimeout(wire->nc, answer_ms) != NATS_TIMEOUT)
            return false; /* it answers, or is closed */
        idle = takes_more(wire, &taken) ? 0 : idle + 1;
    }
    return true;
}

/* It is closed at the socket, by who finds its end there. */
static void shut_down(struct nats_wire *wire)
{
    pthread_mutex_lock(&wire->mutex);
    if (wire->state == NATS_WIRE_OPEN) {
        wire->state = NATS_WIRE_SHUT;
        (void)shutdown(wire->fd, SHUT_RDWR);
        pthread_cond_broadcast(&wire->changed);
    }
    pthread_mutex_unlock(&wire->mutex);
}

static void *ping_on(void *arg)
{
    struct nats_wire *wire = arg;

    while (pause_between(wire))
        if (is_dead(wire))
            shut_down(wire);
    nats_ReleaseThreadMemory();
    return NULL;
}

/* ---- what nats.c calls ----------------------------------------------------------------------- */

/* nats.c's lock is held. The threads look at the state first, and so wait until it is set. */
static natsStatus on_attach(void **user_data, void *loop, natsConnection *nc, natsSock socket)
{
    struct nats_wire *wire = loop;

    *user_data = wire;
    wire->nc = nc;
    wire->fd = (int)socket;
    atomic_store(&wire->unwritten, false);
    atomic_store(&wire->urgent, false);
    pthread_mutex_lock(&wire->mutex);
    wire->mode = NATS_WIRE_DIRECT;
    bool pings = pthread_create(&wire->pinger, NULL, ping_on, wire) == 0;
    wire->running = pings && pthread_create(&wire->reader, NULL, read_on, wire) == 0;
    wire->state = wire->running ? NATS_WIRE_OPEN : NATS_WIRE_ENDED;
    pthread_mutex_unlock(&wire->mutex);
    if (pings && !wire->running)
        (void)pthread_join(wire->pinger, NULL);
    return wire->running ? NATS_OK : NATS_SYS_ERROR;
}

/* nats.c is about to close the socket: that is the only change it tells of. */
static natsStatus on_read(void *user_data, bool add)
{
    struct nats_wire *wire = user_data;

    (void)add;
    pthread_mutex_lock(&wire->mutex);
    wire->state = NATS_WIRE_ENDED;
    pthread_cond_broadcast(&wire->changed);
    pthread_mutex_unlock(&wire->mutex);
    wake_reader(wire);
    return NATS_OK;
}

static natsStatus on_write(void *user_data, bool add)
{
    struct nats_wire *wire = user_data;

    atomic_store(&wire->unwritten, add);
    if (add && atomic_load(&wire->senders) == 0)
        have_reader_write(wire);
    return NATS_OK;
}

static natsStatus on_detach(void *user_data)
{
    (void)user_data;
    return NATS_OK;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

natsStatus event_bus_nats_wire_set_options(struct nats_wire *wire, natsOptions *options)
{
    natsStatus s = natsOptions_SetEventLoop(options, wire, on_attach, on_read, on_write, on_detach);

    if (s == NATS_OK)
        s = natsOptions_SetSendAsap(options, true); /* has no flusher, and tells of each send */
    if (s == NATS_OK)
        s = natsOptions_SetPingInterval(options, 0);
    if (s == NATS_OK)
        s = natsOptions_SetAllowReconnect(options, false); /* would attach beside our threads */
    return s;
}

void event_bus_nats_wire_close(struct nats_wire *wire)
{
    if (!wire->running)
        return;
    shut_down(wire);
    (void)pthread_join(wire->reader, NULL);
    (void)pthread_join(wire->pinger, NULL);
    wire->running = false;
}

wb_err event_bus_nats_wire_init(struct nats_wire *wire, int64_t ping_ns)
{
    *wire = (struct nats_wire){.ping_ns = ping_ns < NATS_WIRE_PING_MAX_NS ? ping_ns
                                                                          : NATS_WIRE_PING_MAX_NS,
                               .state = NATS_WIRE_ENDED};
    wire->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wire->wake_fd < 0)
        return WB_IO;
    if (pthread_mutex_init(&wire->turn, NULL) != 0)
        goto close_fd;
    if (pthread_mutex_init(&wire->mutex, NULL) != 0)
        goto destroy_turn;
    if (wb_cond_init(&wire->changed) == 0)
        return WB_OK;
    pthread_mutex_destroy(&wire->mutex);
destroy_turn:
    pthread_mutex_destroy(&wire->turn);
close_fd:
    (void)close(wire->wake_fd);
    return WB_NOMEM;
}

void event_bus_nats_wire_fini(struct nats_wire *wire)
{
    pthread_cond_destroy(&wire->changed);
    pthread_mutex_destroy(&wire->mutex);
    pthread_mutex_destroy(&wire->turn);
    (void)close(wire->wake_fd);
}
