/* cond.c - condition variables whose time-outs no step of the wall clock moves. */
#include <waybill/base.h>

#include <time.h>

int wb_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;

    if (pthread_condattr_init(&attributes) != 0)
        return -1;
    int err = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (err == 0)
        err = pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
    return err;
}

bool wb_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t mono_ns)
{
    struct timespec at = {.tv_sec = (time_t)(mono_ns / WB_SEC),
                          .tv_nsec = (long)(mono_ns % WB_SEC)};

    return pthread_cond_timedwait(cond, mutex, &at) == 0;
}
