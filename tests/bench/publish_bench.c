/*
 * publish_bench.c - what the publisher of an outbox costs, beside a raw nats.c program that sends
 * the same messages with the same chain of sequences in the same run.
 *
 *   ./dev bench publish [drain|backlog|wal|ack|idle]...   default: all
 *   ./dev bench publish backlog --long                   up to 10 million rows
 */
#include "bench.h"
#include "bus_wrap.h"

#include <semaphore.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <waybill/db.h>
#include <waybill/event_bus_nats.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

#define LATENCIES   500
#define IDLE_NS     (20 * WB_SEC)
#define BACKLOG_NS  (1200 * WB_SEC)
#define DRAIN_BYTES (192 << 20) /* in each round, at most: a start is not what is measured */
#define DRAIN_MAX   50000

static const char *const stream = "OUT";

struct bench {
    struct event_bus *bus;
    struct test_nats server;
    char dir[256];
    bool longer;
    unsigned files;
};

struct store {
    struct db *db;
    char path[320];
};

/* ---- rows ------------------------------------------------------------------------------------ */

static void store_open(struct bench *bench, const char *dir, struct store *store)
{
    struct wb_why why = {""};

    (void)snprintf(store->path, sizeof(store->path), "%s/o%u.db", dir, bench->files++);
    must_ok(db_open(store->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &store->db, &why),
            "open", &why);
    struct outbox *outbox;
    must_ok(outbox_attach(db_handle(store->db), &outbox, &why), "attach", &why);
    outbox_detach(outbox);
}

static void store_close(struct store *store)
{
    db_close(store->db);
    (void)unlink(store->path);
}

/* By plain SQL, many at once: how they came in is not what is measured. */
static void rows_add(struct store *store, size_t count, size_t size)
{
    struct wb_why why = {""};
    char sql[400];

    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, key, created, payload)"
                   " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT %zu)"
                   " SELECT 'pub.a', 'k' || (i %% 1000), %lld, zeroblob(%zu) FROM n",
                   count, (long long)(wb_wall_ns(wb_clock_system()) / WB_MS), size);
    must_ok(db_exec(store->db, sql, &why), "rows", &why);
    must_ok(db_exec(store->db, "PRAGMA wal_checkpoint(TRUNCATE)", &why), "checkpoint", &why);
}

static void declare(struct bench *bench)
{
    static const char *const subject = "pub.>";
    const struct event_bus_stream_options options = {
        .name = stream, .subjects = &subject, .subject_count = 1, .max_bytes = 16ULL << 30};
    struct wb_why why = {""};

    must_ok(event_bus_declare_stream(bench->bus, &options, EVENT_BUS_CREATE, &why), "declare",
            &why);
}

/* A database that is new to a stream reads first what that holds; this is not to be measured. */
static void declare_anew(struct bench *bench)
{
    struct wb_why why = {""};

    must_ok(event_bus_delete_stream(bench->bus, stream, &why), "delete", &why);
    declare(bench);
}

static uint64_t stream_last(struct bench *bench)
{
    struct event_bus_stream_info info;
    struct wb_why why = {""};

    must_ok(event_bus_stream_info(bench->bus, stream, &info, &why), "stream info", &why);
    return info.last_seq;
}

static struct outbox_publisher *publisher_start(const char *path, struct event_bus *bus)
{
    const struct outbox_publisher_options options = {
        .path = path, .bus = bus, .streams = &stream, .stream_count = 1};
    struct outbox_publisher *publisher;
    struct wb_why why = {""};

    must_ok(outbox_publisher_start(&options, &publisher, &why), "publisher", &why);
    return publisher;
}

/* Nanoseconds it took; every row is stored once. */
static int64_t drain(struct bench *bench, struct store *store, size_t count)
{
    struct wb_why why = {""};

    declare_anew(bench);
    int64_t start = now();
    struct outbox_publisher *publisher = publisher_start(store->path, bench->bus);

    must_ok(outbox_publisher_flush(publisher, BACKLOG_NS, &why), "flush", &why);
    int64_t took = now() - start;
    must(stream_last(bench) == count, "drain: every row stored once", NULL);
    outbox_publisher_stop(publisher);
    return took;
}

/* ---- drain beside a raw publisher ------------------------------------------------------------ */

static void bench_size(struct bench *bench, struct raw *raw, size_t size)
{
    char raw_name[64], same_name[64], our_name[64];
    struct rate raw_rate = {.name = raw_name}, same_rate = {.name = same_name};
    struct rate our_rate = {.name = our_name};
    size_t count = DRAIN_BYTES / size < DRAIN_MAX ? DRAIN_BYTES / size : DRAIN_MAX;

    (void)snprintf(raw_name, sizeof(raw_name), "raw nats.c, chained, %zu B", size);
    (void)snprintf(same_name, sizeof(same_name), "the same with the outbox's headers, %zu B", size);
    (void)snprintf(our_name, sizeof(our_name), "outbox drain, %zu B", size);
    for (size_t round = 0; round < ROUNDS; round++) {
        struct store store;
        raw->like_outbox = false;
        bench_raw_publish(raw, stream_last(bench), count, size, &raw_rate);
        raw->like_outbox = true;
        bench_raw_publish(raw, stream_last(bench), count, size, &same_rate);
        store_open(bench, bench->dir, &store);
        rows_add(&store, count, size);
        add_rate(&our_rate, count, drain(bench, &store, count));
        store_close(&store);
    }
    (void)print_rate(&raw_rate, NULL);
    (void)print_rate(&same_rate, &raw_rate);
    (void)print_rate(&our_rate, &raw_rate);
}

static void bench_drain(struct bench *bench)
{
    struct raw raw = {0};

    raw_connect(&raw, bench->server.url, false);
    bench_size(bench, &raw, 128);
    bench_size(bench, &raw, 1024);
    bench_size(bench, &raw, 16384);
    natsConnection_Destroy(raw.connection);
}

/* ---- the size of the backlog ----------------------------------------------------------------- */

static int64_t cpu_ns(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * WB_SEC +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * WB_US;
}

/* What the server, the disk and nats.c cost for as many messages is printed beside it. */
static void bench_backlog(struct bench *bench)
{
    size_t most = bench->longer ? 10000000 : 1000000;
    struct raw raw = {.like_outbox = true};

    raw_connect(&raw, bench->server.url, false);
    for (size_t count = 1000; count <= most; count *= 10) {
        struct rate raw_rate = {.name = ""};
        struct store store;
        store_open(bench, bench->dir, &store);
        rows_add(&store, count, 128);
        int64_t cpu = cpu_ns();
        int64_t took = drain(bench, &store, count);
        cpu = cpu_ns() - cpu;
        store_close(&store);
        int64_t raw_cpu = cpu_ns();
        bench_raw_publish(&raw, count, count, 128, &raw_rate);
        raw_cpu = cpu_ns() - raw_cpu;
        (void)printf("backlog of %8zu rows of 128 B: %5.1f us a row, %5.1f us of CPU, %7.0f /s; "
                     "raw nats.c with the same headers: %5.1f us, %5.1f us of CPU\n",
                     count, (double)took / 1e3 / (double)count, (double)cpu / 1e3 / (double)count,
                     (double)count * 1e9 / (double)took, 1e6 / raw_rate.per_second[0],
                     (double)raw_cpu / 1e3 / (double)count);
    }
    natsConnection_Destroy(raw.connection);
}

/* ---- the write-ahead log --------------------------------------------------------------------- */

static void bench_wal(struct bench *bench)
{
    static const size_t sizes[] = {128, 1024, 16384};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const size_t count = sizes[i] > 4096 ? 5000 : 50000;
        char wal[340];
        struct stat st = {.st_size = 0};
        struct store store;
        store_open(bench, bench->dir, &store);
        rows_add(&store, count, sizes[i]);
        (void)drain(bench, &store, count);
        (void)snprintf(wal, sizeof(wal), "%s-wal", store.path);
        (void)stat(wal, &st);
        (void)printf("write-ahead log of a drain, rows of %5zu B: %6.1f B a row\n", sizes[i],
                     (double)st.st_size / (double)count);
        store_close(&store);
    }
}

/* ---- commit to acknowledgement --------------------------------------------------------------- */

/* Stands between publisher and bus, and notes when an acknowledgement comes. */
struct watch {
    struct bus_wrap wrap; /* first */
    event_bus_published done;
    void *ctx;
    int64_t sent_ns, acked_ns;
    sem_t acked;
};

static void watch_acked(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                        const struct wb_why *why)
{
    struct watch *watch = ctx;
    int64_t at = now();

    watch->done(watch->ctx, err, ack, why);
    watch->acked_ns = at;
    (void)sem_post(&watch->acked);
}

static wb_err watch_publish(struct event_bus *base, const struct message *msg,
                            const struct event_bus_publish_options *options,
                            event_bus_published done, void *ctx, struct wb_why *why)
{
    struct watch *watch = (struct watch *)base;

    watch->done = done; /* one at a time */
    watch->sent_ns = now();
    watch->ctx = ctx;
    return event_bus_publish_async(watch->wrap.inner, msg, options, watch_acked, watch, why);
}

static void watch_init(struct watch *watch, struct event_bus *inner)
{
    static const struct event_bus_ops ops = {BUS_WRAP_ALL, .kind = "watch",
                                             .publish_async = watch_publish};

    watch->wrap.inner = inner;
    (void)sem_init(&watch->acked, 0, 0);
    must_ok(event_bus_init(&watch->wrap.base, &ops, &(struct event_bus_settings){.workers = 1}),
            "watch", NULL);
}

/* Microseconds from the return of COMMIT to the acknowledgement, and until it was sent. */
static double ack_once(struct store *store, struct outbox *outbox, struct watch *watch,
                       double *ret_sent)
{
    static const char payload[256];
    const struct outbox_event event = {.subject = wb_str("pub.a"),
                                       .payload = {payload, sizeof(payload)}};
    struct wb_why why = {""};

    must_ok(db_begin(store->db, &why), "begin", &why);
    must_ok(outbox_enqueue(outbox, &event, NULL, &why), "enqueue", &why);
    must_ok(db_commit(store->db, &why), "commit", &why);
    int64_t committed = now();
    outbox_wake(outbox);
    while (sem_wait(&watch->acked) != 0)
        continue;
    *ret_sent = (double)(watch->sent_ns - committed) / 1e3;
    return (double)(watch->acked_ns - committed) / 1e3;
}

static double sync_us(const char *dir)
{
    static double us[200];
    char path[300];

    (void)snprintf(path, sizeof(path), "%s/sync", dir);
    FILE *file = fopen(path, "we");
    must(file != NULL, "open a file to sync", NULL);
    for (size_t i = 0; i < 200; i++) {
        char block[4096] = {(char)i};
        (void)fwrite(block, sizeof(block), 1, file);
        (void)fflush(file);
        int64_t start = now();
        (void)fdatasync(fileno(file));
        us[i] = (double)(now() - start) / 1e3;
    }
    (void)fclose(file);
    (void)unlink(path);
    return quantile(us, 200, 0.5);
}

static void bench_ack_in(struct bench *bench, const char *dir, useconds_t pause_us)
{
    static double us[LATENCIES], sent[LATENCIES];
    struct watch watch = {.wrap.inner = NULL};
    struct wb_why why = {""};
    struct outbox *outbox;
    struct store store;

    watch_init(&watch, bench->bus);
    store_open(bench, dir, &store);
    must_ok(outbox_attach(db_handle(store.db), &outbox, &why), "attach", &why);
    struct outbox_publisher *publisher = publisher_start(store.path, &watch.wrap.base);
    for (size_t i = 0; i < LATENCIES; i++) {
        us[i] = ack_once(&store, outbox, &watch, &sent[i]);
        usleep(pause_us);
    }
    outbox_publisher_stop(publisher);
    event_bus_destroy(&watch.wrap.base);
    outbox_detach(outbox);
    store_close(&store);
    (void)printf("commit to acknowledgement, %u ms between: p50 %6.0f us  p99 %6.0f us; of these "
                 "until sent: p50 %4.0f us; files in %s, where an fdatasync takes %.0f us\n",
                 pause_us / 1000, quantile(us, LATENCIES, 0.5), quantile(us, LATENCIES, 0.99),
                 quantile(sent, LATENCIES, 0.5), dir, sync_us(dir));
}

struct raw_answer {
    sem_t came;
    int64_t at_ns;
};

static void raw_answered(natsConnection *connection, natsSubscription *subscription, natsMsg *msg,
                         void *ctx)
{
    struct raw_answer *answer = ctx;

    (void)connection;
    (void)subscription;
    answer->at_ns = now();
    natsMsg_Destroy(msg);
    (void)sem_post(&answer->came);
}

/* The floor: one message at a time by nats.c itself, with neither a database nor a wake-up. */
static void bench_ack_raw(struct bench *bench, useconds_t pause_us)
{
    static double us[LATENCIES];
    struct raw raw = {0};
    struct raw_answer answer;
    natsSubscription *acks;
    char wildcard[80];

    (void)sem_init(&answer.came, 0, 0);
    raw_connect(&raw, bench->server.url, true);
    (void)snprintf(wildcard, sizeof(wildcard), "%s.*", raw.inbox);
    raw_check(natsConnection_Subscribe(&acks, raw.connection, wildcard, raw_answered, &answer),
              "subscribe");
    raw_check(natsConnection_FlushTimeout(raw.connection, 2000), "flush");
    uint64_t last = stream_last(bench);
    for (size_t i = 0; i < LATENCIES; i++) {
        int64_t start = now();
        raw_publish_one(&raw, i, last + i, 256);
        while (sem_wait(&answer.came) != 0)
            continue;
        us[i] = (double)(answer.at_ns - start) / 1e3;
        usleep(pause_us);
    }
    natsSubscription_Destroy(acks);
    natsConnection_Destroy(raw.connection);
    (void)printf("raw nats.c, one at a time, %u ms between: p50 %6.0f us  p99 %6.0f us\n",
                 pause_us / 1000, quantile(us, LATENCIES, 0.5), quantile(us, LATENCIES, 0.99));
}

/* Some in a row, and some so far apart that the publisher has marked its rows and gone to sleep. */
static void bench_ack(struct bench *bench)
{
    static const useconds_t pauses_us[] = {1000, 8000};

    for (size_t i = 0; i < sizeof(pauses_us) / sizeof(pauses_us[0]); i++) {
        char memory[] = "/dev/shm/waybill-bench-XXXXXX";
        bench_ack_raw(bench, pauses_us[i]);
        bench_ack_in(bench, bench->dir, pauses_us[i]);
        if (mkdtemp(memory) == NULL)
            return;
        bench_ack_in(bench, memory, pauses_us[i]);
        test_dir_remove(memory);
    }
}

/* ---- nothing to do --------------------------------------------------------------------------- */

static void bench_idle(struct bench *bench)
{
    struct store store;

    store_open(bench, bench->dir, &store);
    rows_add(&store, 1000, 128);
    struct outbox_publisher *publisher = publisher_start(store.path, bench->bus);
    usleep(2000000);
    int64_t cpu = cpu_ns();
    usleep(IDLE_NS / 1000);
    cpu = cpu_ns() - cpu;
    (void)printf("an idle publisher with its connection: %.2f %% of a core\n",
                 100 * (double)cpu / (double)IDLE_NS);
    outbox_publisher_stop(publisher);
    store_close(&store);
}

/* ---- the run --------------------------------------------------------------------------------- */

static const struct part {
    const char *name;
    void (*run)(struct bench *bench);
} parts[] = {{"drain", bench_drain},
             {"backlog", bench_backlog},
             {"wal", bench_wal},
             {"ack", bench_ack},
             {"idle", bench_idle}};

static bool wanted(const struct part *part, int argc, char **argv)
{
    bool any = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], part->name) == 0)
            return true;
        any = any || argv[i][0] != '-';
    }
    return !any;
}

int main(int argc, char **argv)
{
    struct bench bench = {.files = 0};
    struct wb_why why = {""};

    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_WARN);
    for (int i = 1; i < argc; i++)
        bench.longer = bench.longer || strcmp(argv[i], "--long") == 0;
    test_dir_make(bench.dir);
    test_nats_start(&bench.server, NULL);
    const struct event_bus_nats_options options = {.url = bench.server.url};
    must_ok(event_bus_nats_create(&options, true, &bench.bus, &why), "connect", &why);
    declare(&bench);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (wanted(&parts[i], argc, argv))
            parts[i].run(&bench);
    event_bus_destroy(bench.bus);
    test_nats_stop(&bench.server);
    test_dir_remove(bench.dir);
    return 0;
}
