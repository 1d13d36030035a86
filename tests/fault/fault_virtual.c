/* fault_virtual.c - see fault_virtual.h. */
#include "fault_virtual.h"

#include <stdbool.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include <waybill/base.h>

#define LOOK_NS  100 /* what a look at the clock costs */
#define START_NS (1000 * WB_SEC)
#define WALL_AHEAD_NS                                                                              \
    (1800000000 * WB_SEC) /* of the wall clock before the other: the year 2027                     \
                           */

static struct {
    bool on;
    int64_t now_ns;
    struct wb_rng rng;
} virtual;

int __real_clock_gettime(clockid_t id, struct timespec *ret_time);
int __real_nanosleep(const struct timespec *time, struct timespec *ret_left);
ssize_t __real_getrandom(void *out, size_t len, unsigned flags);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret_time);
int __wrap_nanosleep(const struct timespec *time, struct timespec *ret_left);
ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags);

void fault_virtual_begin(uint64_t seed)
{
    virtual.on = true;
    virtual.now_ns = START_NS;
    wb_rng_seed(&virtual.rng, seed);
}

void fault_virtual_end(void)
{
    virtual.on = false;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *ret_time)
{
    if (!virtual.on)
        return __real_clock_gettime(id, ret_time);
    virtual.now_ns += LOOK_NS;
    int64_t now = virtual.now_ns + (id == CLOCK_REALTIME ? WALL_AHEAD_NS : 0);
    *ret_time = (struct timespec){.tv_sec = now / WB_SEC, .tv_nsec = now % WB_SEC};
    return 0;
}

int __wrap_nanosleep(const struct timespec *time, struct timespec *ret_left)
{
    if (!virtual.on)
        return __real_nanosleep(time, ret_left);
    virtual.now_ns += time->tv_sec * WB_SEC + time->tv_nsec;
    return 0;
}

ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags)
{
    if (!virtual.on)
        return __real_getrandom(out, len, flags);
    for (size_t done = 0; done < len;) {
        uint64_t bits = wb_rng_next(&virtual.rng);
        size_t part = len - done < sizeof(bits) ? len - done : sizeof(bits);
        memcpy((char *)out + done, &bits, part);
        done += part;
    }
    return (ssize_t)len;
}
