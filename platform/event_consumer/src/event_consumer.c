/* Life of a consumer: its options, its connection, its thread. */
#include "event_consumer_internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MAX_FAILURES = 10, GROUP = 64, LONGEST_WAIT_MS = 1000 };
static const int64_t BACKOFF_MIN_NS = 50 * WB_MS;
static const int64_t BACKOFF_MAX_NS = 10 * WB_SEC;

/* ---- health ---------------------------------------------------------------------------------- */

void event_consumer_problem(struct event_consumer *consumer, const char *text)
{
    pthread_mutex_lock(&consumer->mutex);
    char *problem = consumer->health.problem;
    size_t len = text != NULL ? strlen(text) : 0;
    if (len >= sizeof(consumer->health.problem))
        len = sizeof(consumer->health.problem) - 1;
    if (len > 0)
        memcpy(problem, text, len);
    problem[len] = '\0';
    pthread_mutex_unlock(&consumer->mutex);
}

void event_consumer_count(struct event_consumer *consumer, uint64_t *count, uint64_t more,
                          struct observe_series *series)
{
    if (more == 0)
        return;
    pthread_mutex_lock(&consumer->mutex);
    *count += more;
    pthread_mutex_unlock(&consumer->mutex);
    observe_add(series, (int64_t)more);
}

void event_consumer_health(struct event_consumer *consumer,
                           struct event_consumer_health *ret_health)
{
    assert(consumer != NULL);
    assert(ret_health != NULL);
    pthread_mutex_lock(&consumer->mutex);
    *ret_health = consumer->health;
    pthread_mutex_unlock(&consumer->mutex);
    pthread_mutex_lock(&consumer->positions.mutex);
    ret_health->went_back = consumer->positions.went_back;
    pthread_mutex_unlock(&consumer->positions.mutex);
}

/* ---- one step -------------------------------------------------------------------------------- */

static int64_t now_ns(const struct event_consumer *consumer)
{
    return wb_mono_ns(consumer->options.clock);
}

int64_t event_consumer_backoff(struct event_consumer *consumer, unsigned attempts)
{
    const struct event_consumer_options *o = &consumer->options;

    return now_ns(consumer) +
           wb_backoff_ns(&consumer->rng, attempts, o->backoff_min_ns, o->backoff_max_ns);
}

static void back_off(struct event_consumer *consumer)
{
    consumer->retry_mono_ns = event_consumer_backoff(consumer, consumer->attempts);
    consumer->attempts++;
}

static uint64_t position(void *ctx, const char *stream, int64_t created_wall_ns)
{
    struct event_consumer *consumer = ctx;

    return event_consumer_positions_ask(&consumer->positions, stream, created_wall_ns);
}

static wb_err subscribe(struct event_consumer *consumer, struct wb_why *why)
{
    const struct event_bus_subscription_options options = {
        .patterns = consumer->options.patterns,
        .pattern_count = consumer->options.pattern_count,
        .start = EVENT_BUS_START_POSITION,
        .position = position,
        .ack_none = true,
        .wait_for_stream = true,
        .ctx = consumer,
    };

    return event_bus_subscribe(consumer->options.bus, &options, &consumer->subscription, why);
}

/* Has the subscription, made now if need be. Only the first try, within start, may refuse. */
static bool subscribed(struct event_consumer *consumer)
{
    struct wb_why why;

    if (consumer->subscription != NULL)
        return true;
    wb_err err = subscribe(consumer, &why);
    if (err != WB_OK) {
        event_consumer_problem(consumer, why.text);
        consumer->ended = err == WB_CLOSED;
        back_off(consumer);
        return false;
    }
    consumer->attempts = 0;
    event_consumer_problem(consumer, NULL);
    return true;
}

static bool fetch(struct event_consumer *consumer)
{
    wb_err err = event_bus_fetch(consumer->subscription, consumer->options.group, 0,
                                 consumer->queue, &consumer->queued);

    if (err == WB_CLOSED) {
        consumer->ended = true;
        event_consumer_problem(consumer, "the bus was closed: no further events will come");
    }
    return consumer->queued > 0;
}

void event_consumer_release(struct event_consumer *consumer, size_t count)
{
    size_t left = consumer->queued - count;

    assert(count <= consumer->queued);
    for (size_t i = 0; i < count; i++)
        event_bus_release(consumer->queue[i]);
    for (size_t i = 0; i < left; i++)
        consumer->queue[i] = consumer->queue[count + i];
    consumer->queued = left;
}

/* Try the events there are. false: none waits, a backoff is running, or the bus is closed. */
static bool events_step(struct event_consumer *consumer)
{
    if (consumer->ended || now_ns(consumer) < consumer->retry_mono_ns || !subscribed(consumer))
        return false;
    if (consumer->queued == 0 && !fetch(consumer))
        return false;
    if (event_consumer_apply(consumer) == CONSUMER_AGAIN) {
        back_off(consumer);
        return true;
    }
    consumer->attempts = 0;
    event_consumer_problem(consumer, NULL);
    return true;
}

/* In turns, so that neither waits for the end of the other. */
static bool step(struct event_consumer *consumer)
{
    bool worked = event_consumer_letters_step(consumer);

    return events_step(consumer) || worked;
}

bool event_consumer_step(struct event_consumer *consumer)
{
    assert(consumer != NULL);
    assert(consumer->options.manual);
    return step(consumer);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Until an event comes, the backoff is over, or stop is asked for. */
static void wait_for_work(struct event_consumer *consumer)
{
    int64_t left_ns = consumer->retry_mono_ns - now_ns(consumer);
    struct pollfd fds[2] = {{.fd = consumer->wake, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    int64_t letters_ms = event_consumer_letters_wait_ns(consumer) / WB_MS + 1;
    int timeout_ms = letters_ms < LONGEST_WAIT_MS ? (int)letters_ms : LONGEST_WAIT_MS;

    if (!consumer->ended && left_ns > 0 && left_ns < timeout_ms * WB_MS)
        timeout_ms = (int)(left_ns / WB_MS) + 1;
    else if (!consumer->ended && left_ns <= 0 && consumer->subscription != NULL)
        fds[1].fd = event_bus_fd(consumer->subscription);
    poll(fds, 2, timeout_ms);
}

static wb_err setup(struct event_consumer *consumer, struct wb_why *why)
{
    const struct event_consumer_options *o = &consumer->options;
    const struct db_options options = {.sync = o->sync};
    wb_err err = db_open(o->path, &options, &consumer->db, why);

    if (err == WB_OK)
        err = inbox_attach(db_handle(consumer->db), o->name, &consumer->inbox, why);
    if (err == WB_OK)
        inbox_letters_limit(consumer->inbox, o->max_letters, o->max_letter_bytes);
    if (err == WB_OK)
        err = event_consumer_positions_open(&consumer->positions, o->bus, o->path, o->name, why);
    if (err == WB_OK)
        err = event_consumer_start_count(consumer, why);
    if (err == WB_OK && o->open != NULL)
        err = o->open(o->ctx, consumer->db, &consumer->scope, why);
    if (err != WB_OK)
        return err;
    consumer->scope_open = true;
    event_consumer_guard(consumer);
    err = subscribe(consumer, why);
    /* A bus that is away now is one of the things a consumer lives with. */
    if (err != WB_OK && wb_err_class(err) == WB_RETRY) {
        event_consumer_problem(consumer, why != NULL ? why->text : wb_err_text(err));
        back_off(consumer);
        err = WB_OK;
    }
    return err;
}

static void teardown(struct event_consumer *consumer)
{
    const struct event_consumer_options *o = &consumer->options;

    event_consumer_release(consumer, consumer->queued);
    event_bus_unsubscribe(consumer->subscription);
    if (consumer->scope_open && o->close != NULL)
        o->close(o->ctx, consumer->scope);
    event_consumer_start_end(consumer);
    event_consumer_positions_close(&consumer->positions);
    inbox_detach(consumer->inbox);
    db_close(consumer->db);
}

static void report_start(struct event_consumer *consumer, wb_err err, const struct wb_why *why)
{
    pthread_mutex_lock(&consumer->mutex);
    consumer->start_done = true;
    consumer->start_err = err;
    consumer->start_why = *why;
    pthread_cond_signal(&consumer->started);
    pthread_mutex_unlock(&consumer->mutex);
}

static void *run(void *ctx)
{
    struct event_consumer *consumer = ctx;
    struct wb_why why = {""};
    wb_err err = setup(consumer, &why);

    report_start(consumer, err, &why);
    while (err == WB_OK && !atomic_load(&consumer->stopping))
        if (!step(consumer))
            wait_for_work(consumer);
    teardown(consumer);
    return NULL;
}

/* ---- start and stop -------------------------------------------------------------------------- */

/* One block for all pattern texts, one for the pointers to them. */
static bool patterns_copy(struct event_consumer *consumer, const char *const *patterns,
                          size_t count)
{
    size_t size = 1;

    for (size_t i = 0; i < count; i++)
        size += strlen(patterns[i]) + 1;
    const char **copies = calloc(count + 1, sizeof(*copies));
    char *text = malloc(size);
    consumer->options.patterns = copies;
    consumer->patterns_text = text;
    if (copies == NULL || text == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(patterns[i]) + 1;
        memcpy(text, patterns[i], len);
        copies[i] = text;
        text += len;
    }
    return true;
}

static void defaults_set(struct event_consumer_options *o)
{
    if (o->max_failures == 0)
        o->max_failures = MAX_FAILURES;
    if (o->backoff_min_ns <= 0)
        o->backoff_min_ns = BACKOFF_MIN_NS;
    if (o->backoff_max_ns <= 0)
        o->backoff_max_ns = BACKOFF_MAX_NS;
    if (o->group == 0)
        o->group = GROUP;
    if (o->group > CONSUMER_GROUP_MAX)
        o->group = CONSUMER_GROUP_MAX;
    if (o->clock == NULL)
        o->clock = wb_clock_system();
}

static void rng_seed(struct event_consumer *consumer)
{
    uint64_t seed = wb_hash(consumer->options.name, strlen(consumer->options.name));

    /* In manual mode the same inputs give the same history. */
    if (!consumer->options.manual)
        wb_random_fill(&seed, sizeof(seed));
    wb_rng_seed(&consumer->rng, seed);
}

static void consumer_free(struct event_consumer *consumer)
{
    /* The copies are ours, although the options name them as constant. */
    union {
        const void *constant;
        void *ours;
    } copies[] = {{consumer->options.name}, {consumer->options.path}, {consumer->options.patterns}};

    for (size_t i = 0; i < sizeof(copies) / sizeof(copies[0]); i++)
        free(copies[i].ours);
    free(consumer->patterns_text);
    free(consumer->cautions);
    if (consumer->wake >= 0)
        close(consumer->wake);
    pthread_cond_destroy(&consumer->started);
    pthread_mutex_destroy(&consumer->positions.mutex);
    pthread_mutex_destroy(&consumer->mutex);
    free(consumer);
}

/* NULL when out of memory or descriptors. */
static struct event_consumer *consumer_create(const struct event_consumer_options *options)
{
    struct event_consumer *consumer = calloc(1, sizeof(*consumer));

    if (consumer == NULL)
        return NULL;
    pthread_mutex_init(&consumer->mutex, NULL);
    pthread_mutex_init(&consumer->positions.mutex, NULL);
    pthread_cond_init(&consumer->started, NULL);
    consumer->options = *options;
    defaults_set(&consumer->options);
    consumer->group = consumer->options.group;
    consumer->options.name = wb_str_dup(wb_str(options->name));
    consumer->options.path = wb_str_dup(wb_str(options->path));
    bool copied = patterns_copy(consumer, options->patterns, options->pattern_count);
    consumer->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!copied || consumer->options.name == NULL || consumer->options.path == NULL ||
        consumer->wake < 0) {
        consumer_free(consumer);
        return NULL;
    }
    rng_seed(consumer);
    consumer->handled_series =
        observe_series(options->observe, OBSERVE_CONSUMER_HANDLED, consumer->options.name);
    consumer->duplicates_series =
        observe_series(options->observe, OBSERVE_CONSUMER_SKIPPED, consumer->options.name);
    consumer->failed_series =
        observe_series(options->observe, OBSERVE_CONSUMER_FAILED, consumer->options.name);
    consumer->parked_series =
        observe_series(options->observe, OBSERVE_CONSUMER_PARKED, consumer->options.name);
    return consumer;
}

/* On the caller's thread in manual mode; otherwise the thread reports how it went. */
static wb_err launch(struct event_consumer *consumer, struct wb_why *why)
{
    if (consumer->options.manual) {
        wb_err err = setup(consumer, why);
        if (err != WB_OK)
            teardown(consumer);
        return err;
    }
    if (pthread_create(&consumer->thread, NULL, run, consumer) != 0)
        return wb_fail(why, WB_NOMEM, "cannot start the thread of consumer %s; free memory",
                       consumer->options.name);
    pthread_mutex_lock(&consumer->mutex);
    while (!consumer->start_done)
        pthread_cond_wait(&consumer->started, &consumer->mutex);
    wb_err err = consumer->start_err;
    if (why != NULL && err != WB_OK)
        *why = consumer->start_why;
    pthread_mutex_unlock(&consumer->mutex);
    if (err != WB_OK)
        pthread_join(consumer->thread, NULL);
    return err;
}

wb_err event_consumer_start(const struct event_consumer_options *options,
                            struct event_consumer **ret_consumer, struct wb_why *why)
{
    assert(options != NULL);
    assert(options->name != NULL);
    assert(options->path != NULL);
    assert(options->bus != NULL);
    assert(options->handler != NULL);
    assert(ret_consumer != NULL);

    struct event_consumer *consumer = consumer_create(options);
    if (consumer == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory or descriptors starting consumer %s",
                       options->name);
    wb_err err = launch(consumer, why);
    if (err != WB_OK) {
        consumer_free(consumer);
        return err;
    }
    *ret_consumer = consumer;
    return WB_OK;
}

void event_consumer_stop(struct event_consumer *consumer)
{
    if (consumer == NULL)
        return;
    if (consumer->options.manual) {
        teardown(consumer);
    } else {
        const uint64_t one = 1;
        atomic_store(&consumer->stopping, true);
        /* It cannot fail: the counter is far from its limit. */
        while (write(consumer->wake, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
        pthread_join(consumer->thread, NULL);
    }
    consumer_free(consumer);
}
