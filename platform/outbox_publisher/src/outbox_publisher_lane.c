/* The state machine of one stream: one step at a time, and the thread that drives the steps. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

#define STANDBY_EVERY_NS (5 * WB_MS)   /* without a notice, and by hand */
#define STANDBY_IDLE_NS  (100 * WB_MS) /* with one: only for what it may miss */
#define STANDBY_SOON_NS  (200 * WB_US) /* after one: it comes a moment before the lock is free, */
#define STANDBY_LATER_NS                                                                           \
    (2 * WB_MS) /* a longer one when the dying holder has to wait for a CPU                        \
                 */
#define HALTED_EVERY_NS (5 * WB_SEC)
#define BACKOFF_MIN_NS  (50 * WB_MS)
#define BACKOFF_MAX_NS  (2 * WB_SEC)
#define OUTAGE_MAX_NS   (750 * WB_MS) /* what is back without a notice is used within a second */
#define STOP_AFTER_NS   WB_SEC

int64_t outbox_publisher_now_ns(const struct outbox_publisher_lane *lane)
{
    return wb_mono_ns(lane->clock);
}

int64_t outbox_publisher_wall_ms(const struct outbox_publisher_lane *lane)
{
    return (wb_mono_ns(lane->clock) + lane->wall_offset_ns) / WB_MS;
}

/* ---- the time of day ------------------------------------------------------------------------- */

/*
 * Rows are due by the wall clock, which others set forward and back. The lane has its own: that of
 * the system when it took the role, carried on by the monotonic clock. It follows what the system's
 * is corrected by bit by bit, but no step.
 */
#define WALL_STEP_NS WB_SEC

void outbox_publisher_wall_anchor(struct outbox_publisher_lane *lane)
{
    lane->wall_offset_ns = wb_wall_ns(lane->clock) - wb_mono_ns(lane->clock);
    lane->wall_stepped = false;
}

void outbox_publisher_wall_compare(struct outbox_publisher_lane *lane)
{
    int64_t ahead_ns = wb_wall_ns(lane->clock) - wb_mono_ns(lane->clock) - lane->wall_offset_ns;

    if (ahead_ns > -WALL_STEP_NS && ahead_ns < WALL_STEP_NS) {
        outbox_publisher_wall_anchor(lane);
        return;
    }
    if (!lane->wall_stepped)
        wb_log(WB_LOG_WARN, "outbox_publisher",
               "outbox=%s stream=%s the system's clock was set %s by %" PRId64
               " ms; due times go on by the clock as it was, until the publisher starts anew",
               lane->publisher->name, lane->stream, ahead_ns > 0 ? "forward" : "back",
               (ahead_ns > 0 ? ahead_ns : -ahead_ns) / WB_MS);
    lane->wall_stepped = true;
}

/* ---- going from state to state --------------------------------------------------------------- */

static void problem_set(struct outbox_publisher_lane *lane, const char *text)
{
    if (strcmp(lane->problem, text) == 0)
        return;
    (void)snprintf(lane->problem, sizeof(lane->problem), "%s", text);
    if (text[0] != '\0')
        wb_log(lane->state == OUTBOX_PUBLISHER_HALTED ? WB_LOG_ERROR : WB_LOG_WARN,
               "outbox_publisher", "outbox=%s stream=%s state=%s: %s", lane->publisher->name,
               lane->stream, outbox_publisher_state_name(lane->state), text);
}

void outbox_publisher_lane_go(struct outbox_publisher_lane *lane, outbox_publisher_state state,
                              const char *text)
{
    lane->state = state;
    if (state == OUTBOX_PUBLISHER_HALTED)
        lane->retry_mono_ns = outbox_publisher_now_ns(lane) + HALTED_EVERY_NS;
    if (text != NULL)
        problem_set(lane, text);
    else if (state == OUTBOX_PUBLISHER_DRAIN)
        problem_set(lane, "");
}

void outbox_publisher_lane_outage(struct outbox_publisher_lane *lane, const char *text)
{
    lane->retry_mono_ns = outbox_publisher_now_ns(lane) +
                          wb_backoff_ns(&lane->rng, lane->outages++, BACKOFF_MIN_NS, OUTAGE_MAX_NS);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_OUTAGE, text);
}

void outbox_publisher_lane_ours(struct outbox_publisher_lane *lane, const char *text)
{
    int64_t wait_ns = WB_MS + wb_backoff_ns(&lane->rng, lane->database_failures++, BACKOFF_MIN_NS,
                                            BACKOFF_MAX_NS);

    lane->database_retry_mono_ns = outbox_publisher_now_ns(lane) + wait_ns;
    problem_set(lane, text);
}

/* ---- states ---------------------------------------------------------------------------------- */

enum { STANDBY_SOON_TRIES = 10, STANDBY_LATER_TRIES = 100 };

static int64_t standby_pause_ns(struct outbox_publisher_lane *lane)
{
    if (lane->standby_soon > 0) {
        lane->standby_soon--;
        return lane->standby_soon >= STANDBY_LATER_TRIES ? STANDBY_SOON_NS : STANDBY_LATER_NS;
    }
    return lane->threaded && db_role_fd(lane->role) >= 0 ? STANDBY_IDLE_NS : STANDBY_EVERY_NS;
}

void outbox_publisher_standby_notice(struct outbox_publisher_lane *lane)
{
    lane->standby_soon = STANDBY_SOON_TRIES + STANDBY_LATER_TRIES;
    lane->retry_mono_ns = 0;
}

static bool standby(struct outbox_publisher_lane *lane)
{
    struct wb_why why;
    int64_t now = outbox_publisher_now_ns(lane), suspect = 0;

    if (now < lane->retry_mono_ns)
        return false;
    lane->retry_mono_ns = now + standby_pause_ns(lane);
    wb_err err = db_role_try(lane->role, &why);
    if (err == WB_BUSY) {
        outbox_publisher_looked(lane); /* that is the holder's to do */
        return false;
    }
    if (err == WB_OK)
        err = outbox_publisher_store_take(lane->store, lane->stream, outbox_publisher_wall_ms(lane),
                                          &lane->cursor, &suspect, &why);
    if (err != WB_OK) {
        db_role_release(lane->role);
        problem_set(lane, why.text);
        lane->retry_mono_ns = now + wb_backoff_ns(&lane->rng, lane->database_failures++,
                                                  BACKOFF_MIN_NS, BACKOFF_MAX_NS);
        return false;
    }
    lane->database_failures = 0;
    outbox_publisher_wall_anchor(lane);
    lane->alive_mono_ns = now;
    lane->taken_wall_ms = outbox_publisher_wall_ms(lane);
    lane->batch_limit = outbox_publisher_batch_limit(lane->cursor.starts);
    outbox_publisher_suspected(lane, suspect);
    if (lane->cursor.holder > 1 && lane->grace_ns == 0)
        lane->grace_ns = OUTBOX_PUBLISHER_TAKEOVER_GRACE_NS;
    wb_log(WB_LOG_INFO, "outbox_publisher", "outbox=%s stream=%s holder=%" PRId64 " publishes",
           lane->publisher->name, lane->stream, lane->cursor.holder);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
    return true;
}

static bool wait_then_check(struct outbox_publisher_lane *lane)
{
    bool changed = atomic_exchange(&lane->bus_changed, false);

    if (!changed && outbox_publisher_now_ns(lane) < lane->retry_mono_ns)
        return false;
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
    return true;
}

/* Overtaken: what is in flight is the other one's to settle. */
static bool fenced(struct outbox_publisher_lane *lane)
{
    bool did = outbox_publisher_collect(lane);

    if (outbox_publisher_flight_count(lane->flight) > 0)
        return did;
    db_role_release(lane->role);
    lane->tables_stale = true;
    lane->retry_mono_ns = outbox_publisher_now_ns(lane) + STANDBY_EVERY_NS;
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_STANDBY, NULL);
    return true;
}

static bool database_waits(struct outbox_publisher_lane *lane)
{
    if (outbox_publisher_now_ns(lane) < lane->database_retry_mono_ns)
        return true;
    lane->database_retry_mono_ns = 0;
    return false;
}

static bool state_step(struct outbox_publisher_lane *lane)
{
    switch (lane->state) {
    case OUTBOX_PUBLISHER_STANDBY:
        return standby(lane);
    case OUTBOX_PUBLISHER_CHECK:
        return !database_waits(lane) && outbox_publisher_check(lane);
    case OUTBOX_PUBLISHER_SETTLE:
        return !database_waits(lane) && outbox_publisher_settle(lane);
    case OUTBOX_PUBLISHER_REPAIR:
    case OUTBOX_PUBLISHER_RESTORE:
        return !database_waits(lane) && outbox_publisher_repair(lane);
    case OUTBOX_PUBLISHER_DRAIN:
        return outbox_publisher_drain(lane);
    case OUTBOX_PUBLISHER_OUTAGE:
    case OUTBOX_PUBLISHER_HALTED:
        return wait_then_check(lane);
    case OUTBOX_PUBLISHER_FENCED:
        return fenced(lane);
    case OUTBOX_PUBLISHER_STOPPING:
        break;
    }
    return false;
}

/* ---- telling others -------------------------------------------------------------------------- */

static void report(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher *publisher = lane->publisher;
    struct outbox_publisher_report *out = &publisher->reports[lane->index];
    bool settled = lane->state == OUTBOX_PUBLISHER_DRAIN && lane->exceptions.lost == 0 &&
                   !lane->lost_left && !outbox_publisher_exceptions_wait(lane);
    int64_t done_id = settled ? outbox_publisher_done_id(lane) : -1;

    pthread_mutex_lock(&publisher->mutex);
    if (out->state != lane->state) {
        out->state = lane->state;
        outbox_publisher_metrics(publisher);
    }
    if (strcmp(out->problem, lane->problem) != 0)
        memcpy(out->problem, lane->problem, sizeof(out->problem));
    out->published = lane->published;
    out->settles = lane->settles;
    out->repairs = lane->repairs;
    out->restores = lane->restores;
    out->scanned = lane->scanned;
    out->in_flight = outbox_publisher_flight_count(lane->flight);
    outbox_publisher_audit_report(lane, out);
    if (out->done_id != done_id)
        pthread_cond_broadcast(&publisher->progress);
    out->done_id = done_id;
    pthread_mutex_unlock(&publisher->mutex);
}

void outbox_publisher_lane_measured(struct outbox_publisher_lane *lane, int64_t pending,
                                    int64_t oldest_ns)
{
    struct outbox_publisher *publisher = lane->publisher;

    pthread_mutex_lock(&publisher->mutex);
    publisher->reports[lane->index].pending = pending;
    publisher->reports[lane->index].oldest_ns = oldest_ns;
    outbox_publisher_metrics(publisher);
    pthread_mutex_unlock(&publisher->mutex);
}

bool outbox_publisher_lane_step(struct outbox_publisher_lane *lane)
{
    bool did = state_step(lane);

    report(lane);
    return did;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static int64_t wait_ns(const struct outbox_publisher_lane *lane)
{
    int64_t now = outbox_publisher_now_ns(lane);

    switch (lane->state) {
    case OUTBOX_PUBLISHER_DRAIN:
        return outbox_publisher_drain_wait_ns(lane);
    case OUTBOX_PUBLISHER_STANDBY:
    case OUTBOX_PUBLISHER_OUTAGE:
    case OUTBOX_PUBLISHER_HALTED:
        return lane->retry_mono_ns - now;
    case OUTBOX_PUBLISHER_CHECK:
    case OUTBOX_PUBLISHER_SETTLE:
    case OUTBOX_PUBLISHER_REPAIR:
    case OUTBOX_PUBLISHER_RESTORE:
        return lane->database_retry_mono_ns - now;
    case OUTBOX_PUBLISHER_FENCED:
    case OUTBOX_PUBLISHER_STOPPING:
        break;
    }
    return WB_SEC;
}

void *outbox_publisher_lane_main(void *arg)
{
    struct outbox_publisher_lane *lane = arg;

    while (!atomic_load(&lane->stop)) {
        if (!outbox_publisher_lane_step(lane))
            outbox_publisher_sleep(lane, wait_ns(lane));
    }
    if (!atomic_load(&lane->abandoned))
        outbox_publisher_lane_finish(lane);
    return NULL;
}

void outbox_publisher_lane_finish(struct outbox_publisher_lane *lane)
{
    int64_t deadline = outbox_publisher_now_ns(lane) + STOP_AFTER_NS;
    bool draining = lane->state == OUTBOX_PUBLISHER_DRAIN;
    struct wb_why why;

    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_STOPPING, NULL);
    report(lane);
    (void)outbox_publisher_collect(lane);
    while (lane->threaded && outbox_publisher_flight_count(lane->flight) > 0 &&
           outbox_publisher_now_ns(lane) < deadline) {
        outbox_publisher_sleep(lane, deadline - outbox_publisher_now_ns(lane));
        (void)outbox_publisher_collect(lane);
    }
    bool mark = lane->unmarked_mono_ns != 0 || lane->cursor.starts > 0;
    if (draining && mark && outbox_publisher_mark(lane, &why) != WB_OK)
        wb_log(WB_LOG_WARN, "outbox_publisher",
               "outbox=%s stream=%s the last mark failed, the next start settles it: %s",
               lane->publisher->name, lane->stream, why.text);
    db_role_release(lane->role);
}

/* ---- life ------------------------------------------------------------------------------------ */

static wb_err role_open(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct wb_buf path = {0};
    wb_err err = WB_NOMEM;

    outbox_publisher_role_path(&path, lane->publisher->path, lane->stream);
    if (!path.failed)
        err = db_role_open(path.ptr, &lane->role, why);
    wb_buf_free(&path);
    return err;
}

static wb_err lane_setup(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    const struct outbox_publisher *publisher = lane->publisher;
    wb_err err = outbox_publisher_store_open(publisher->path, &lane->store, why);

    if (err == WB_OK)
        err = db_barrier_create(publisher->path, &lane->barrier, why);
    if (err == WB_OK)
        err = role_open(lane, why);
    if (err == WB_OK)
        err = outbox_publisher_flight_create(publisher->window, lane->stream, &lane->flight, why);
    if (err == WB_OK)
        err = outbox_publisher_batch_init(&lane->batch);
    if (err == WB_OK && !publisher->manual)
        outbox_publisher_watch_open(lane);
    return err;
}

wb_err outbox_publisher_lane_create(struct outbox_publisher *publisher, size_t index,
                                    const char *stream, uint64_t seed,
                                    struct outbox_publisher_lane **ret_lane, struct wb_why *why)
{
    struct outbox_publisher_lane *lane = calloc(1, sizeof(*lane));

    if (lane == NULL)
        return wb_fail(why, WB_NOMEM, "publisher of stream %s: out of memory", stream);
    lane->publisher = publisher;
    lane->index = index;
    (void)snprintf(lane->stream, sizeof(lane->stream), "%s", stream);
    lane->clock = publisher->clock;
    lane->watch_fd = lane->watch_wd = lane->wake_fd = -1;
    outbox_publisher_wall_anchor(lane);
    wb_rng_seed(&lane->rng, seed + index);
    wb_err err = lane_setup(lane, why);
    if (err != WB_OK) {
        outbox_publisher_lane_destroy(lane);
        return err;
    }
    *ret_lane = lane;
    return WB_OK;
}

void outbox_publisher_lane_destroy(struct outbox_publisher_lane *lane)
{
    if (lane == NULL)
        return;
    outbox_publisher_watch_close(lane);
    outbox_publisher_flight_release(lane->flight);
    outbox_publisher_batch_free(&lane->batch);
    outbox_publisher_survey_free(lane->survey);
    outbox_publisher_exceptions_free(&lane->exceptions);
    outbox_publisher_schedule_free(&lane->schedule);
    free(lane->sources.list);
    db_role_close(lane->role);
    db_barrier_destroy(lane->barrier);
    outbox_publisher_audit_free(lane);
    outbox_publisher_store_close(lane->store);
    free(lane);
}
