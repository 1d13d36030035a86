/* Start, stop, step, flush, health: the lanes of one outbox as one thing. */
#include "waybill/outbox_publisher.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "outbox_publisher_private.h"

#include <waybill/subject.h>

#define WINDOW_DEFAULT       2000
#define WINDOW_BYTES_DEFAULT (2U << 20)
#define SET_ASIDE_DEFAULT    100000 /* some 12 MB of memory, more with keys of their own */
#define ACK_TIMEOUT_NS       (5 * WB_SEC)
#define ATTEMPTS_DEFAULT     10
#define AUDIT_WAIT_NS        (300 * WB_SEC)

const char *outbox_publisher_state_name(outbox_publisher_state state)
{
    static const char *const names[] = {
        [OUTBOX_PUBLISHER_STANDBY] = "standby",   [OUTBOX_PUBLISHER_CHECK] = "check",
        [OUTBOX_PUBLISHER_SETTLE] = "settle",     [OUTBOX_PUBLISHER_DRAIN] = "drain",
        [OUTBOX_PUBLISHER_OUTAGE] = "outage",     [OUTBOX_PUBLISHER_FENCED] = "fenced",
        [OUTBOX_PUBLISHER_STOPPING] = "stopping", [OUTBOX_PUBLISHER_HALTED] = "halted",
        [OUTBOX_PUBLISHER_REPAIR] = "repair",     [OUTBOX_PUBLISHER_RESTORE] = "restore",
    };

    return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

/* ---- start ----------------------------------------------------------------------------------- */

static wb_err options_check(const struct outbox_publisher_options *options, struct wb_why *why)
{
    if (options->stream_count < 1 || options->stream_count > OUTBOX_PUBLISHER_STREAMS_MAX)
        return wb_fail(why, WB_INVALID, "publisher of %s: %zu streams given, expected 1 to %d",
                       options->path, options->stream_count, OUTBOX_PUBLISHER_STREAMS_MAX);
    if (options->window > OUTBOX_PUBLISHER_WINDOW_MAX)
        return wb_fail(why, WB_INVALID, "publisher of %s: a window of %zu, expected at most %d",
                       options->path, options->window, OUTBOX_PUBLISHER_WINDOW_MAX);
    for (size_t i = 0; i < options->stream_count; i++) {
        wb_err err = subject_name_check(wb_str(options->streams[i]), "stream", why);
        if (err != WB_OK)
            return err;
        for (size_t j = 0; j < i; j++)
            if (strcmp(options->streams[i], options->streams[j]) == 0)
                return wb_fail(why, WB_INVALID, "publisher of %s: stream %s is given twice",
                               options->path, options->streams[i]);
    }
    return WB_OK;
}

static void metrics_open(struct outbox_publisher *self, struct observe *observe)
{
    self->published = observe_series(observe, OBSERVE_OUTBOX_PUBLISHED, self->name);
    self->settles = observe_series(observe, OBSERVE_OUTBOX_SETTLES, self->name);
    self->parked = observe_series(observe, OBSERVE_OUTBOX_PARKED, self->name);
    self->barriers = observe_series(observe, OBSERVE_OUTBOX_BARRIERS, self->name);
    self->state = observe_series(observe, OBSERVE_OUTBOX_STATE, self->name);
    self->repairs = observe_series(observe, OBSERVE_OUTBOX_REPAIRS, self->name);
    self->republished = observe_series(observe, OBSERVE_OUTBOX_REPUBLISHED, self->name);
    self->late = observe_series(observe, OBSERVE_OUTBOX_LATE, self->name);
    self->restores = observe_series(observe, OBSERVE_OUTBOX_RESTORES, self->name);
    self->orphans = observe_series(observe, OBSERVE_OUTBOX_ORPHANS, self->name);
    self->pending = observe_series(observe, OBSERVE_OUTBOX_PENDING, self->name);
    self->oldest = observe_series(observe, OBSERVE_OUTBOX_OLDEST, self->name);
    self->audit_gap = observe_series(observe, OBSERVE_OUTBOX_AUDIT_GAP, self->name);
    self->verified = observe_series(observe, OBSERVE_OUTBOX_VERIFIED, self->name);
    self->holes = observe_series(observe, OBSERVE_OUTBOX_HOLES, self->name);
}

static void bus_listener(void *ctx, bool connected)
{
    struct outbox_publisher *self = ctx;

    (void)connected; /* gone or back, what is known of the stream has to be looked at again */
    for (size_t i = 0; i < self->lane_count; i++) {
        atomic_store(&self->lanes[i]->bus_changed, true);
        outbox_publisher_lane_kick(self->lanes[i]);
    }
}

void outbox_publisher_free(struct outbox_publisher *self)
{
    for (size_t i = 0; i < self->lane_count; i++)
        outbox_publisher_lane_destroy(self->lanes[i]);
    outbox_wake_close(self->wake_page);
    (void)pthread_cond_destroy(&self->progress);
    (void)pthread_mutex_destroy(&self->mutex);
    free(self->name);
    free(self->path);
    free(self);
}

static wb_err sync_init(struct outbox_publisher *self)
{
    (void)pthread_mutex_init(&self->mutex, NULL);
    return wb_cond_init(&self->progress) == 0 ? WB_OK : WB_NOMEM;
}

static wb_err publisher_make(const struct outbox_publisher_options *options,
                             struct outbox_publisher **ret_self, struct wb_why *why)
{
    struct outbox_publisher *self = calloc(1, sizeof(*self));
    const char *slash = strrchr(options->path, '/');
    const char *file = slash != NULL ? slash + 1 : options->path;

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "publisher of %s: out of memory", options->path);
    if (sync_init(self) != WB_OK) {
        free(self);
        return wb_fail(why, WB_NOMEM, "publisher of %s: out of memory", options->path);
    }
    self->bus = options->bus;
    self->clock = options->clock != NULL ? options->clock : wb_clock_system();
    self->started_mono_ns = wb_mono_ns(self->clock);
    self->window = options->window > 0 ? options->window : WINDOW_DEFAULT;
    self->window_bytes = options->window_bytes > 0 ? options->window_bytes : WINDOW_BYTES_DEFAULT;
    self->audit_wait_ns = options->audit_wait_ns > 0 ? options->audit_wait_ns : AUDIT_WAIT_NS;
    self->ack_timeout_ns = options->ack_timeout_ns > 0 ? options->ack_timeout_ns : ACK_TIMEOUT_NS;
    self->max_set_aside = options->max_set_aside > 0 ? options->max_set_aside : SET_ASIDE_DEFAULT;
    self->max_attempts = options->max_attempts > 0 ? options->max_attempts : ATTEMPTS_DEFAULT;
    self->classes = options->classes;
    self->class_count = options->class_count;
    self->manual = options->manual;
    self->lost_max = OUTBOX_PUBLISHER_LOST_MAX;
    self->survey_ids = OUTBOX_PUBLISHER_SURVEY_IDS;
    self->path = wb_str_dup(wb_str(options->path));
    self->name = wb_str_dup(wb_str(options->name != NULL ? options->name : file));
    if (self->path == NULL || self->name == NULL) {
        outbox_publisher_free(self);
        return wb_fail(why, WB_NOMEM, "publisher of %s: out of memory", options->path);
    }
    metrics_open(self, options->observe);
    *ret_self = self;
    return WB_OK;
}

static wb_err lanes_make(struct outbox_publisher *self,
                         const struct outbox_publisher_options *options, struct wb_why *why)
{
    for (size_t i = 0; i < options->stream_count; i++) {
        struct outbox_publisher_lane *lane = NULL;
        wb_err err =
            outbox_publisher_lane_create(self, i, options->streams[i], options->seed, &lane, why);
        if (err != WB_OK)
            return err;
        assert(lane != NULL);
        self->lanes[i] = lane;
        atomic_store(&lane->repair_wanted, options->repair != NULL &&
                                               (strcmp(options->repair, "*") == 0 ||
                                                strcmp(options->repair, options->streams[i]) == 0));
        self->reports[i].done_id = -1;
        self->lane_count = i + 1;
    }
    return WB_OK;
}

static void lanes_stop(struct outbox_publisher *self, bool abandon)
{
    for (size_t i = 0; i < self->lane_count; i++) {
        atomic_store(&self->lanes[i]->abandoned, abandon);
        atomic_store(&self->lanes[i]->stop, true);
        outbox_publisher_lane_kick(self->lanes[i]);
    }
    for (size_t i = 0; i < self->lane_count; i++) {
        if (self->lanes[i]->threaded)
            (void)pthread_join(self->lanes[i]->thread, NULL);
        else if (!abandon)
            outbox_publisher_lane_finish(self->lanes[i]);
    }
}

static wb_err lanes_start(struct outbox_publisher *self, struct wb_why *why)
{
    for (size_t i = 0; i < self->lane_count; i++) {
        struct outbox_publisher_lane *lane = self->lanes[i];
        lane->threaded = true; /* before the thread can read it */
        int rc = pthread_create(&lane->thread, NULL, outbox_publisher_lane_main, lane);
        if (rc != 0) {
            lane->threaded = false;
            return wb_fail(why, WB_NOMEM, "publisher of %s: start a thread: %s", self->path,
                           strerror(rc));
        }
    }
    return WB_OK;
}

wb_err outbox_publisher_make(const struct outbox_publisher_options *options,
                             struct outbox_publisher **ret_publisher, struct wb_why *why)
{
    struct outbox_publisher *self = NULL;
    wb_err err = options_check(options, why);

    if (err == WB_OK)
        err = publisher_make(options, &self, why);
    if (err != WB_OK)
        return err;
    assert(self != NULL);
    err = lanes_make(self, options, why);
    if (err != WB_OK) {
        outbox_publisher_free(self);
        return err;
    }
    *ret_publisher = self;
    return WB_OK;
}

wb_err outbox_publisher_start(const struct outbox_publisher_options *options,
                              struct outbox_publisher **ret_publisher, struct wb_why *why)
{
    assert(options != NULL);
    assert(options->path != NULL);
    assert(options->bus != NULL);
    assert(ret_publisher != NULL);

    struct outbox_publisher *self = NULL;
    wb_err err = outbox_publisher_make(options, &self, why);
    if (err != WB_OK)
        return err;
    assert(self != NULL);
    err = event_bus_listen(self->bus, bus_listener, self);
    if (err != WB_OK) {
        outbox_publisher_free(self);
        return err;
    }
    if (!self->manual) {
        /* Without it (a full disk) the lanes notice a row by the log it is written to. */
        (void)outbox_wake_open(self->path, &self->wake_page, NULL);
        err = lanes_start(self, why);
    }
    if (err != WB_OK) {
        outbox_publisher_stop(self);
        return err;
    }
    *ret_publisher = self;
    return WB_OK;
}

/* ---- end ------------------------------------------------------------------------------------- */

static void end(struct outbox_publisher *publisher, bool abandon)
{
    if (publisher == NULL)
        return;
    event_bus_unlisten(publisher->bus, bus_listener, publisher);
    lanes_stop(publisher, abandon);
    outbox_publisher_free(publisher);
}

void outbox_publisher_stop(struct outbox_publisher *publisher)
{
    end(publisher, false);
}

void outbox_publisher_abandon(struct outbox_publisher *publisher)
{
    end(publisher, true);
}

/* ---- by hand --------------------------------------------------------------------------------- */

bool outbox_publisher_step(struct outbox_publisher *publisher)
{
    bool did = false;

    assert(publisher->manual);
    for (size_t i = 0; i < publisher->lane_count; i++) {
        publisher->lanes[i]->dry = false;
        did = outbox_publisher_lane_step(publisher->lanes[i]) || did;
    }
    return did;
}

/* ---- flush ----------------------------------------------------------------------------------- */

/* The newest row that was committed, by a connection of its own: the lanes' belong to their
 * threads. */
static wb_err newest_row(struct outbox_publisher *self, int64_t *ret_id, struct wb_why *why)
{
    struct outbox_publisher_store *store;
    int64_t created_ms;
    wb_err err = outbox_publisher_store_open(self->path, &store, why);

    if (err != WB_OK)
        return err;
    err = outbox_publisher_store_measure(store, 0, ret_id, &created_ms, why);
    outbox_publisher_store_close(store);
    return err;
}

/* Called under the mutex: the first lane that is not that far; lane_count: none. */
static size_t lane_behind(const struct outbox_publisher *self, int64_t id)
{
    size_t i = 0;

    while (i < self->lane_count && self->reports[i].done_id >= id)
        i++;
    return i;
}

static void wait_for_progress(struct outbox_publisher *self, int64_t id, int64_t deadline_ns)
{
    bool waiting = true;

    for (size_t i = 0; i < self->lane_count; i++)
        outbox_publisher_lane_kick(self->lanes[i]);
    pthread_mutex_lock(&self->mutex);
    while (waiting && lane_behind(self, id) < self->lane_count)
        waiting = wb_cond_wait_until(&self->progress, &self->mutex, deadline_ns);
    pthread_mutex_unlock(&self->mutex);
}

wb_err outbox_publisher_flush(struct outbox_publisher *publisher, int64_t timeout_ns,
                              struct wb_why *why)
{
    int64_t id = 0;
    wb_err err = newest_row(publisher, &id, why);

    if (err != WB_OK)
        return err;
    if (publisher->manual)
        while (outbox_publisher_step(publisher))
            continue;
    else
        wait_for_progress(publisher, id, wb_mono_ns(wb_clock_system()) + timeout_ns);

    pthread_mutex_lock(&publisher->mutex);
    size_t behind = lane_behind(publisher, id);
    if (behind < publisher->lane_count)
        err = wb_fail(why, WB_TIMEOUT,
                      "flush the outbox %s up to row %lld: stream %s is in state %s%s%s",
                      publisher->name, (long long)id, publisher->lanes[behind]->stream,
                      outbox_publisher_state_name(publisher->reports[behind].state),
                      publisher->reports[behind].problem[0] != '\0' ? ": " : "",
                      publisher->reports[behind].problem);
    pthread_mutex_unlock(&publisher->mutex);
    return err;
}

/* ---- health ---------------------------------------------------------------------------------- */

/* The higher, the more a person should care. */
static int badness(outbox_publisher_state state)
{
    static const int order[] = {
        [OUTBOX_PUBLISHER_DRAIN] = 0,    [OUTBOX_PUBLISHER_STANDBY] = 1,
        [OUTBOX_PUBLISHER_CHECK] = 2,    [OUTBOX_PUBLISHER_SETTLE] = 3,
        [OUTBOX_PUBLISHER_STOPPING] = 4, [OUTBOX_PUBLISHER_FENCED] = 5,
        [OUTBOX_PUBLISHER_OUTAGE] = 6,   [OUTBOX_PUBLISHER_REPAIR] = 7,
        [OUTBOX_PUBLISHER_RESTORE] = 8,  [OUTBOX_PUBLISHER_HALTED] = 9,
    };

    return order[state];
}

void outbox_publisher_metrics(struct outbox_publisher *publisher)
{
    const struct outbox_publisher_report *reports = publisher->reports;
    outbox_publisher_state state = reports[0].state;
    int64_t pending = 0, oldest_ns = 0, audit_gap = 0, verified_ms = reports[0].verified_ms;

    for (size_t i = 0; i < publisher->lane_count; i++) {
        state = badness(reports[i].state) > badness(state) ? reports[i].state : state;
        pending = reports[i].pending > pending ? reports[i].pending : pending;
        oldest_ns = reports[i].oldest_ns > oldest_ns ? reports[i].oldest_ns : oldest_ns;
        audit_gap = reports[i].audit_gap > audit_gap ? reports[i].audit_gap : audit_gap;
        verified_ms = reports[i].verified_ms < verified_ms ? reports[i].verified_ms : verified_ms;
    }
    observe_set(publisher->state, state);
    observe_set(publisher->pending, pending);
    observe_set_ns(publisher->oldest, oldest_ns);
    observe_set(publisher->audit_gap, audit_gap);
    observe_set_ns(publisher->verified, verified_ms * WB_MS);
}

void outbox_publisher_health(struct outbox_publisher *publisher,
                             struct outbox_publisher_health *ret_health)
{
    struct outbox_publisher_health health = {.state = OUTBOX_PUBLISHER_DRAIN};

    pthread_mutex_lock(&publisher->mutex);
    for (size_t i = 0; i < publisher->lane_count; i++) {
        const struct outbox_publisher_report *report = &publisher->reports[i];
        bool worse = badness(report->state) > badness(health.state);
        health.published += report->published;
        health.settles += report->settles;
        health.repairs += report->repairs;
        health.restores += report->restores;
        health.scanned += report->scanned;
        health.in_flight += report->in_flight;
        health.holes += report->holes;
        health.audit_gap =
            report->audit_gap > health.audit_gap ? report->audit_gap : health.audit_gap;
        if (i == 0 || report->verified_ms * WB_MS < health.verified_wall_ns)
            health.verified_wall_ns = report->verified_ms * WB_MS;
        if (report->problem[0] != '\0' && (worse || health.problem[0] == '\0'))
            memcpy(health.problem, report->problem, sizeof(health.problem));
        if (worse)
            health.state = report->state;
    }
    pthread_mutex_unlock(&publisher->mutex);
    *ret_health = health;
}
