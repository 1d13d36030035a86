/*
 * failover_bench.c - how soon a standby takes over from a publisher that was killed; and what one
 * that was stopped, fenced and woken again still does: nothing may come of it.
 *
 *   failover_bench [--kills N] [--trials N] [--seed N]
 *
 * Two publishers in processes of their own, a nats-server, and a writer that keeps them busy. Each
 * publisher signs what it sends, so that it can be told who stored a message. Exits 1 when a
 * message was stored by the one overtaken after its successor's first, stored twice, or out of
 * order.
 */
#include "bus_wrap.h"
#include "test_support.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/event_bus_nats.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

#define SIGNED      "waybench-signed-by"
#define PATIENCE_NS (30 * WB_SEC)
#define BACKLOG     3000 /* rows the writer is ahead at most */

static const char *const streams[] = {"FAIL"};
static const char *const subjects[] = {"fail.>"};

static int64_t now(void)
{
    return wb_mono_ns(wb_clock_system());
}

static void rest(int64_t ns)
{
    const struct timespec time = {.tv_sec = ns / WB_SEC, .tv_nsec = ns % WB_SEC};

    (void)nanosleep(&time, NULL);
}

static void must(bool good, const char *what, const struct wb_why *why)
{
    if (good)
        return;
    (void)fprintf(stderr, "failover: %s: %s\n", what, why != NULL ? why->text : "failed");
    exit(2);
}

/* ---- a bus that signs ------------------------------------------------------------------------ */

struct signing {
    struct bus_wrap wrap; /* first */
    const char *name;
};

static struct signing *signing_of(struct event_bus *base)
{
    return (struct signing *)base;
}

static wb_err signing_publish(struct event_bus *base, const struct message *msg,
                              const struct event_bus_publish_options *options,
                              event_bus_published done, void *ctx, struct wb_why *why)
{
    struct message_header headers[MESSAGE_HEADERS_MAX + 1];
    struct message copy = *msg;

    if (msg->header_count > 0)
        memcpy(headers, msg->headers, msg->header_count * sizeof(headers[0]));
    headers[copy.header_count++] =
        (struct message_header){wb_str(SIGNED), wb_str(signing_of(base)->name)};
    copy.headers = headers;
    return event_bus_publish_async(bus_wrap_inner(base), &copy, options, done, ctx, why);
}

static void on_change(void *ctx, bool connected)
{
    event_bus_notify(ctx, connected);
}

/* A publisher in this process, until it is killed or told to end. */
static int publish(const char *path, const char *url, const char *name)
{
    static const struct event_bus_ops ops = {BUS_WRAP_ALL, .kind = "signing",
                                             .publish_async = signing_publish};
    static struct signing bus;
    const struct event_bus_settings settings = {.clock = wb_clock_system()};
    const struct outbox_publisher_options options = {
        .path = path, .bus = &bus.wrap.base, .streams = streams, .stream_count = 1};
    struct outbox_publisher *publisher;
    struct wb_why why = {""};
    sigset_t term;
    int signal;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &term, NULL);
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    bus.name = name;
    must(event_bus_nats_create(&(struct event_bus_nats_options){.url = url}, true, &bus.wrap.inner,
                               &why) == WB_OK,
         "connect", &why);
    must(event_bus_init(&bus.wrap.base, &ops, &settings) == WB_OK, "bus", NULL);
    must(event_bus_listen(bus.wrap.inner, on_change, &bus.wrap.base) == WB_OK, "listen", NULL);
    must(outbox_publisher_start(&options, &publisher, &why) == WB_OK, "publisher", &why);
    (void)sigwait(&term, &signal);
    outbox_publisher_stop(publisher);
    event_bus_unlisten(bus.wrap.inner, on_change, &bus.wrap.base);
    event_bus_destroy(&bus.wrap.base);
    event_bus_destroy(bus.wrap.inner);
    return 0;
}

/* ---- what the stream holds ------------------------------------------------------------------- */

/* In stream order; read by an ordered subscription while it grows. */
struct history {
    pthread_mutex_t mutex;
    uint64_t count, doubled, inverted, stale;
    int64_t last_row;
    char last_by;           /* who stored the newest message */
    char overtaken;         /* messages of it are stale; 0: nobody is */
    int64_t first_other_ns; /* when the first message by another than `holder` came; 0: none yet */
    char holder;
};

static void on_message(void *ctx, struct event_bus_delivery *delivery)
{
    struct history *self = ctx;
    struct wb_str by = message_header(&delivery->message, SIGNED);
    uint64_t row = 0;

    (void)wb_str_to_u64(message_header(&delivery->message, "waybill-row"), &row);
    pthread_mutex_lock(&self->mutex);
    self->count++;
    /* One stream, no retries: rows follow one another without gap. */
    self->doubled += (int64_t)row <= self->last_row ? 1 : 0;
    self->inverted += (int64_t)row > self->last_row + 1 ? 1 : 0;
    self->last_row = (int64_t)row > self->last_row ? (int64_t)row : self->last_row;
    self->last_by = by.len > 0 ? by.ptr[0] : '?';
    if (self->holder != 0 && self->last_by != self->holder && self->first_other_ns == 0) {
        self->first_other_ns = now();
        self->overtaken = self->holder;
    }
    self->stale += self->overtaken != 0 && self->last_by == self->overtaken ? 1 : 0;
    pthread_mutex_unlock(&self->mutex);
}

/* From now on the first message of somebody else counts. */
static void history_watch(struct history *self, char holder)
{
    pthread_mutex_lock(&self->mutex);
    self->holder = holder;
    self->overtaken = 0;
    self->first_other_ns = 0;
    pthread_mutex_unlock(&self->mutex);
}

static int64_t history_wait_other(struct history *self)
{
    for (int64_t until = now() + PATIENCE_NS; now() < until; rest(50 * WB_US)) {
        pthread_mutex_lock(&self->mutex);
        int64_t at = self->first_other_ns;
        pthread_mutex_unlock(&self->mutex);
        if (at != 0)
            return at;
    }
    must(false, "nobody took over", NULL);
    return 0;
}

static uint64_t history_count(struct history *self)
{
    pthread_mutex_lock(&self->mutex);
    uint64_t count = self->count;
    pthread_mutex_unlock(&self->mutex);
    return count;
}

/* ---- the world ------------------------------------------------------------------------------- */

struct world {
    char dir[256], path[300];
    struct test_nats server;
    struct event_bus *bus;
    struct event_bus_subscription *subscription;
    struct db *db; /* looks at the cursor */
    struct sqlite3_stmt *holder;
    struct wb_rng rng;
    struct history history;
    pthread_t writer;
    atomic_bool writing, slow;
    atomic_uint_fast64_t written;
    pid_t pids[2];
    int active; /* index of the holder; its name is 'A' + active */
};

static void *write_rows(void *arg)
{
    struct world *w = arg;
    static const char payload[200] = "p";
    const struct outbox_event event = {.subject = wb_str("fail.x"),
                                       .payload = {payload, sizeof(payload)}};
    const struct db_options options = {.sync = DB_SYNC_NORMAL, .busy_timeout_ns = PATIENCE_NS};
    struct outbox *outbox;
    struct db *db;
    struct wb_why why = {""};

    must(db_open(w->path, &options, &db, &why) == WB_OK, "open", &why);
    must(outbox_attach(db_handle(db), &outbox, &why) == WB_OK, "attach", &why);
    while (atomic_load(&w->writing)) {
        int rows = atomic_load(&w->slow) ? 1 : 20;
        if (atomic_load(&w->written) > history_count(&w->history) + BACKLOG) {
            rest(WB_MS);
            continue;
        }
        must(db_begin(db, &why) == WB_OK, "begin", &why);
        for (int i = 0; i < rows; i++)
            must(outbox_enqueue(outbox, &event, NULL, &why) == WB_OK, "enqueue", &why);
        must(db_commit(db, &why) == WB_OK, "commit", &why);
        atomic_fetch_add(&w->written, (uint64_t)rows);
        outbox_wake(outbox);
        rest(atomic_load(&w->slow) ? WB_MS : 100 * WB_US);
    }
    outbox_detach(outbox);
    db_close(db);
    return NULL;
}

static void spawn(struct world *w, int index)
{
    char self[] = "/proc/self/exe", word[] = "publisher", name[2] = {(char)('A' + index), '\0'};
    char *const argv[] = {self, word, w->path, w->server.url, name, NULL};

    must(posix_spawn(&w->pids[index], self, NULL, NULL, argv, environ) == 0, "spawn", NULL);
}

static int64_t holder_now(struct world *w)
{
    int64_t holder = 0;

    if (sqlite3_step(w->holder) == SQLITE_ROW)
        holder = sqlite3_column_int64(w->holder, 0);
    (void)sqlite3_reset(w->holder);
    return holder;
}

static void world_open(struct world *w, uint64_t seed)
{
    static struct outbox *outbox;
    struct wb_why why = {""};

    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    wb_rng_seed(&w->rng, seed);
    (void)pthread_mutex_init(&w->history.mutex, NULL);
    test_dir_make(w->dir);
    (void)snprintf(w->path, sizeof(w->path), "%s/m.db", w->dir);
    test_nats_start(&w->server, NULL);
    must(event_bus_nats_create(&(struct event_bus_nats_options){.url = w->server.url}, true,
                               &w->bus, &why) == WB_OK,
         "connect", &why);
    must(event_bus_declare_stream(
             w->bus,
             &(struct event_bus_stream_options){.name = streams[0],
                                                .subjects = subjects,
                                                .subject_count = 1,
                                                .max_bytes = UINT64_C(1) << 34,
                                                .duplicate_window_ns = 100 * WB_MS},
             EVENT_BUS_CREATE, &why) == WB_OK,
         "declare", &why);
    const struct event_bus_subscription_options options = {.patterns = subjects,
                                                           .pattern_count = 1,
                                                           .start = EVENT_BUS_START_ALL,
                                                           .ack_none = true,
                                                           .handler = on_message,
                                                           .ctx = &w->history};
    must(event_bus_subscribe(w->bus, &options, &w->subscription, &why) == WB_OK, "subscribe", &why);
    must(db_open(w->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &w->db, &why) == WB_OK,
         "open", &why);
    must(outbox_attach(db_handle(w->db), &outbox, &why) == WB_OK, "attach", &why);
    outbox_detach(outbox);
    must(db_prepare(w->db, "SELECT holder FROM outbox_cursor", &w->holder, &why) == WB_OK,
         "prepare", &why);
    atomic_store(&w->writing, true);
    must(pthread_create(&w->writer, NULL, write_rows, w) == 0, "thread", NULL);
    spawn(w, 0);
    history_watch(&w->history, '?');
    (void)history_wait_other(&w->history);
    spawn(w, 1);
    rest(100 * WB_MS);
}

static void end_process(struct world *w, int index, int signal)
{
    (void)kill(w->pids[index], signal);
    (void)waitpid(w->pids[index], NULL, 0);
}

/* Everything written must arrive; true when nothing was wrong. */
static bool world_close(struct world *w)
{
    atomic_store(&w->writing, false);
    (void)pthread_join(w->writer, NULL);
    for (int64_t until = now() + PATIENCE_NS;
         now() < until && history_count(&w->history) < atomic_load(&w->written);)
        rest(10 * WB_MS);
    uint64_t lost = atomic_load(&w->written) - history_count(&w->history);
    (void)printf("%llu rows written: %lld missing, %llu doubled, %llu gaps, %llu stale\n",
                 (unsigned long long)atomic_load(&w->written), (long long)lost,
                 (unsigned long long)w->history.doubled, (unsigned long long)w->history.inverted,
                 (unsigned long long)w->history.stale);
    end_process(w, 0, SIGTERM);
    end_process(w, 1, SIGTERM);
    event_bus_unsubscribe(w->subscription);
    event_bus_destroy(w->bus);
    (void)sqlite3_finalize(w->holder);
    db_close(w->db);
    test_nats_stop(&w->server);
    test_dir_remove(w->dir);
    return lost == 0 && w->history.doubled == 0 && w->history.inverted == 0 &&
           w->history.stale == 0;
}

/* ---- kill -9 --------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print_times(const char *what, double *ms, size_t count)
{
    qsort(ms, count, sizeof(*ms), compare);
    (void)printf("%-34s p50 %7.2f ms   p99 %7.2f ms   max %7.2f ms   (%zu kills)\n", what,
                 ms[count / 2], ms[count * 99 / 100], ms[count - 1], count);
}

static void kill_trials(struct world *w, size_t count)
{
    double *role_ms = calloc(count, sizeof(*role_ms)), *first_ms = calloc(count, sizeof(*first_ms));
    double *death_ms = calloc(count, sizeof(*death_ms)), *late_ms = calloc(count, sizeof(*late_ms));

    must(role_ms != NULL && first_ms != NULL && death_ms != NULL && late_ms != NULL, "memory",
         NULL);
    atomic_store(&w->slow, true);
    for (size_t i = 0; i < count; i++) {
        rest((int64_t)(20 + wb_rng_below(&w->rng, 60)) * WB_MS);
        int64_t holder = holder_now(w);
        history_watch(&w->history, (char)('A' + w->active));
        int64_t killed_ns = now();
        (void)kill(w->pids[w->active], SIGKILL);
        bool dead = false, taken = false;
        while ((!dead || !taken) && now() - killed_ns < PATIENCE_NS) {
            if (!taken && (taken = holder_now(w) != holder))
                role_ms[i] = (double)(now() - killed_ns) / 1e6;
            if (!dead && (dead = waitpid(w->pids[w->active], NULL, WNOHANG) > 0))
                death_ms[i] = (double)(now() - killed_ns) / 1e6;
            rest(20 * WB_US);
        }
        late_ms[i] = role_ms[i] - death_ms[i]; /* its lock goes a moment before the rest of it */
        first_ms[i] = (double)(history_wait_other(&w->history) - killed_ns) / 1e6;
        spawn(w, w->active);
        w->active = 1 - w->active;
        rest(60 * WB_MS); /* until it stands by */
    }
    print_times("kill -9 to the end of the process", death_ms, count);
    print_times("kill -9 to a new holder", role_ms, count);
    print_times("kill -9 to its first message", first_ms, count);
    print_times("end of the process to a new holder", late_ms, count);
    free(late_ms);
    free(death_ms);
    free(role_ms);
    free(first_ms);
    atomic_store(&w->slow, false);
}

/* ---- SIGSTOP, fence, SIGCONT ----------------------------------------------------------------- */

/* Its threads run on for a moment after the signal: until the last one has stopped. */
static void stop(pid_t pid)
{
    int status = 0;

    (void)kill(pid, SIGSTOP);
    must(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "stop a publisher", NULL);
}

/* Stopped inside a transaction it would hold up every writer: no time for a fence. */
static void stop_outside_of_transactions(struct world *w, pid_t pid, unsigned *ret_again)
{
    const struct db_options options = {.sync = DB_SYNC_NORMAL, .busy_timeout_ns = 100 * WB_MS};
    struct db *db;
    struct wb_why why = {""};

    must(db_open(w->path, &options, &db, &why) == WB_OK, "open", &why);
    for (;;) {
        stop(pid);
        wb_err err = db_begin(db, &why);
        db_rollback(db);
        if (err == WB_OK)
            break;
        must(err == WB_BUSY, "begin", &why);
        ++*ret_again;
        (void)kill(pid, SIGCONT);
        rest((int64_t)wb_rng_below(&w->rng, 3 * WB_MS));
    }
    db_close(db);
}

/* The fence raises it, and so does the successor. */
static void wait_holder(struct world *w, int64_t holder)
{
    for (int64_t until = now() + PATIENCE_NS; holder_now(w) < holder; rest(50 * WB_US))
        must(now() < until, "nobody took the role", NULL);
}

static void fence_trials(struct world *w, size_t count)
{
    unsigned again = 0;

    for (size_t i = 0; i < count; i++) {
        pid_t old = w->pids[w->active];
        struct wb_why why = {""};
        rest((int64_t)wb_rng_below(&w->rng, 40 * WB_MS));
        stop_outside_of_transactions(w, old, &again);
        history_watch(&w->history, (char)('A' + w->active));
        int64_t holder = holder_now(w);
        must(outbox_publisher_fence(w->path, streams[0], &why) == WB_OK, "fence", &why);
        wait_holder(w, holder + 2); /* else the old one could be the next one, too */
        /* It wakes before its successor has stored anything, at that moment, or later. */
        if (wb_rng_below(&w->rng, 4) == 0)
            rest((int64_t)wb_rng_below(&w->rng, 20 * WB_MS));
        else
            (void)history_wait_other(&w->history);
        if (wb_rng_below(&w->rng, 2) == 0)
            rest((int64_t)wb_rng_below(&w->rng, 10 * WB_MS));
        (void)kill(old, SIGCONT);
        (void)history_wait_other(&w->history);
        rest(30 * WB_MS); /* until it has noticed, and stands by */
        w->active = 1 - w->active;
        if (count >= 100 && (i + 1) % 100 == 0) {
            (void)printf("%zu trials, %llu stale so far\n", i + 1,
                         (unsigned long long)w->history.stale);
            (void)fflush(stdout);
        }
    }
    (void)printf("%zu publishers stopped, fenced and woken (%u more stopped inside a "
                 "transaction and let go)\n",
                 count, again);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"kills", required_argument, NULL, 'k'},
                                            {"trials", required_argument, NULL, 't'},
                                            {"seed", required_argument, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    uint64_t kills = 200, trials = 100, seed = 1;
    static struct world w;
    int option;

    if (argc == 5 && strcmp(argv[1], "publisher") == 0)
        return publish(argv[2], argv[3], argv[4]);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t *value = option == 'k' ? &kills : option == 't' ? &trials : &seed;
        if (option == '?' || !wb_str_to_u64(wb_str(optarg), value))
            return 2;
    }
    world_open(&w, seed);
    if (kills > 0)
        kill_trials(&w, (size_t)kills);
    if (trials > 0)
        fence_trials(&w, (size_t)trials);
    return world_close(&w) ? 0 : 1;
}
