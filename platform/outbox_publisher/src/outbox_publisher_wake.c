/*
 * Sleeping until there is something to do.
 *
 * Fastest is the datagram that outbox_wake() sends after COMMIT to those who said that they sleep.
 * Writers that know nothing of us are noticed by the write-ahead log they write to; that notice
 * comes before their commit can be seen, so an empty look is repeated a little later. And once a
 * second the lane looks by itself.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "outbox_publisher_private.h"

#define SLEEP_MAX_NS  WB_SEC
#define BIND_AGAIN_NS WB_SEC

static const int64_t recheck_ns[] = {50 * WB_US, 500 * WB_US, 5 * WB_MS};
enum { RECHECKS = sizeof(recheck_ns) / sizeof(recheck_ns[0]) };

/* ---- the write-ahead log --------------------------------------------------------------------- */

/* Also when it was replaced: the same file gives the same descriptor, a new file a new one. */
static void watch_arm(struct outbox_publisher_lane *lane)
{
    struct wb_buf path = {0};

    if (lane->watch_fd < 0)
        return;
    wb_buf_printf(&path, "%s-wal", lane->publisher->path);
    int wd = path.failed ? -1
                         : inotify_add_watch(lane->watch_fd, path.ptr,
                                             IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF);
    wb_buf_free(&path);
    if (wd != lane->watch_wd && lane->watch_wd >= 0)
        (void)inotify_rm_watch(lane->watch_fd, lane->watch_wd); /* fails if the file is gone */
    lane->watch_wd = wd;
}

void outbox_publisher_watch_open(struct outbox_publisher_lane *lane)
{
    /* Without it (a limit of the system) the lane looks once a second. */
    lane->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    watch_arm(lane);
}

void outbox_publisher_watch_close(struct outbox_publisher_lane *lane)
{
    if (lane->watch_fd >= 0)
        (void)close(lane->watch_fd);
    if (lane->wake_fd >= 0)
        (void)close(lane->wake_fd);
    lane->watch_fd = lane->wake_fd = -1;
}

static void watch_read(struct outbox_publisher_lane *lane)
{
    _Alignas(struct inotify_event) char events[4096];
    bool replaced = false;
    ssize_t n;

    while ((n = read(lane->watch_fd, events, sizeof(events))) > 0) {
        for (char *at = events; at < events + n;) {
            const struct inotify_event *event = (const void *)at;
            replaced = replaced || (event->mask & ~(uint32_t)IN_MODIFY) != 0;
            at += sizeof(*event) + event->len;
        }
    }
    if (replaced)
        watch_arm(lane);
}

/* ---- the datagram socket --------------------------------------------------------------------- */

static int socket_bind(const char *path, unsigned slot)
{
    struct sockaddr_un address;
    socklen_t length;

    if (outbox_wake_address(path, slot, &address, &length, NULL) != WB_OK)
        return -1;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, length) != 0) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

/* A slot of one's own, the first that is free: other lanes, and other processes, have theirs. */
static void slot_take(struct outbox_publisher_lane *lane)
{
    int64_t now = outbox_publisher_now_ns(lane);

    if (lane->wake_fd >= 0 || now < lane->wake_retry_mono_ns)
        return;
    lane->wake_retry_mono_ns = now + BIND_AGAIN_NS;
    for (unsigned slot = 0; lane->wake_fd < 0 && slot < OUTBOX_WAKE_SLOTS; slot++) {
        lane->wake_fd = socket_bind(lane->publisher->path, slot);
        lane->wake_slot = slot;
    }
}

static void datagrams_read(int fd)
{
    char byte[16];

    while (recv(fd, byte, sizeof(byte), MSG_DONTWAIT) >= 0)
        continue;
}

/* true: writers were told just now that we sleep, and the table is to be looked at once more. */
static bool announce(struct outbox_publisher_lane *lane)
{
    if (lane->publisher->wake_page == NULL || lane->announced || !lane->dry)
        return false;
    slot_take(lane);
    if (lane->wake_fd < 0)
        return false;
    outbox_wake_sleeping(lane->publisher->wake_page, lane->wake_slot);
    lane->announced = true;
    lane->dry = false;
    return true;
}

static void announce_end(struct outbox_publisher_lane *lane)
{
    if (lane->announced)
        outbox_wake_awake(lane->publisher->wake_page, lane->wake_slot);
    lane->announced = false;
}

void outbox_publisher_lane_kick(struct outbox_publisher_lane *lane)
{
    atomic_store(&lane->kicked, true);
    outbox_publisher_flight_kick(lane->flight);
}

/* ---- sleeping -------------------------------------------------------------------------------- */

enum { AT_FLIGHT, AT_WATCH, AT_SOCKET, AT_ROLE, AT_COUNT };

static int64_t sleep_length(struct outbox_publisher_lane *lane, int64_t wait_ns)
{
    if (lane->rechecks > 0 && lane->rechecks <= RECHECKS) {
        int64_t recheck = recheck_ns[lane->rechecks - 1];
        wait_ns = recheck < wait_ns ? recheck : wait_ns;
        lane->rechecks++;
    }
    if (wait_ns > SLEEP_MAX_NS)
        wait_ns = SLEEP_MAX_NS;
    return wait_ns > 0 ? wait_ns : 0;
}

/* Who woke us? A lane woken by answers alone need not read the table. */
static void woken(struct outbox_publisher_lane *lane, const struct pollfd fds[AT_COUNT], int ready)
{
    bool kicked = atomic_exchange(&lane->kicked, false);

    if ((fds[AT_WATCH].revents & POLLIN) != 0) {
        watch_read(lane);
        lane->rechecks = 1;
    }
    if ((fds[AT_SOCKET].revents & POLLIN) != 0) {
        datagrams_read(fds[AT_SOCKET].fd);
        kicked = true;
        lane->exceptions_look = lane->exceptions.count > 0; /* it may be a person's doing */
    }
    if ((fds[AT_ROLE].revents & POLLIN) != 0)
        outbox_publisher_standby_notice(lane);
    if (ready == 0 && lane->rechecks == 0)
        watch_arm(lane); /* the log may have been replaced without a notice */
    if (kicked || (fds[AT_WATCH].revents & POLLIN) != 0)
        announce_end(lane);
    if (ready == 0 || kicked || (fds[AT_WATCH].revents & POLLIN) != 0)
        lane->dry = false;
    if (ready == 0 && lane->rechecks > RECHECKS)
        lane->rechecks = 0;
}

void outbox_publisher_sleep(struct outbox_publisher_lane *lane, int64_t wait_ns)
{
    bool draining = lane->state == OUTBOX_PUBLISHER_DRAIN;
    bool standby = lane->state == OUTBOX_PUBLISHER_STANDBY;

    if (atomic_load(&lane->stop) && lane->state != OUTBOX_PUBLISHER_STOPPING)
        return;
    if (draining && announce(lane))
        return;
    size_t answers = outbox_publisher_answers_wanted(lane);
    /* At the first re-check the watch is left out: a busy log would wake us without end. And with a
     * full window new rows are no news. */
    bool watch = draining && lane->rechecks != 1 && answers == 1;
    struct pollfd fds[AT_COUNT] = {
        [AT_FLIGHT] = {.fd = outbox_publisher_flight_fd(lane->flight), .events = POLLIN},
        [AT_WATCH] = {.fd = watch ? lane->watch_fd : -1, .events = POLLIN},
        [AT_SOCKET] = {.fd = draining ? lane->wake_fd : -1, .events = POLLIN},
        [AT_ROLE] = {.fd = standby ? db_role_fd(lane->role) : -1, .events = POLLIN},
    };
    int64_t length = sleep_length(lane, wait_ns);
    const struct timespec timeout = {.tv_sec = length / WB_SEC, .tv_nsec = length % WB_SEC};

    if (!outbox_publisher_flight_sleep(lane->flight, answers))
        return;
    int ready = ppoll(fds, AT_COUNT, &timeout, NULL);
    outbox_publisher_flight_awake(lane->flight);
    woken(lane, fds, ready > 0 ? ready : 0);
}
