/*
 * cli_outbox_run.c - publish the rows of an outbox: once, or until a signal.
 *
 * The streams are those of the configuration, those that were published to before, those that rows
 * name, and those that cover the subjects of rows that wait. When rows for a further stream turn
 * up, the publisher starts anew with that stream among its own.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include <waybill/event_bus_factory.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>
#include <waybill/subject.h>

#include "cli_outbox.h"
#include "service_classes.h"

#define STREAMS_MAX 16
#define SCAN_PAGE   1000
#define SCAN_PAGES  10
#define LOOKUPS_MAX 64 /* subjects looked up in one scan; each may ask the server */
#define FLUSH_NS    WB_SEC
#define TICK_MS     1000

struct run {
    struct cli *cli;
    struct db *db;
    struct service_classes *classes;
    struct event_bus *bus;
    struct db_checkpointer *checkpointer;
    struct outbox_publisher *publisher; /* NULL: not started */
    struct {
        char name[EVENT_BUS_NAME_MAX + 1];
        char subjects[1024]; /* patterns it covers, separated by blanks; "": unknown */
    } streams[STREAMS_MAX];
    size_t stream_count;
    size_t publisher_streams; /* how many of them it has */
    size_t lookups;
    bool declared;
    bool too_many;         /* rows for more than STREAMS_MAX streams */
    int64_t last_id;       /* of the page being scanned */
    uint64_t published;    /* by publishers that were stopped */
    struct wb_why missing; /* why a subject has no stream; "" */
    struct wb_why told;    /* why it waits, as last said */
};

/* ---- streams --------------------------------------------------------------------------------- */

static void add_stream(struct run *run, struct wb_str name)
{
    for (size_t i = 0; i < run->stream_count; i++)
        if (wb_str_eq(wb_str(run->streams[i].name), name))
            return;
    if (name.len > EVENT_BUS_NAME_MAX)
        return; /* the publisher refuses the row, and says so there */
    run->too_many = run->too_many || run->stream_count == STREAMS_MAX;
    if (run->stream_count < STREAMS_MAX)
        (void)snprintf(run->streams[run->stream_count++].name, EVENT_BUS_NAME_MAX + 1, "%.*s",
                       (int)name.len, name.ptr);
}

static bool list_covers(const char *patterns, struct wb_str subject)
{
    for (const char *at = patterns; *at != '\0';) {
        size_t len = strcspn(at, " ");
        if (len > 0 && subject_matches(wb_str_n(at, len), subject))
            return true;
        at += len + (at[len] != '\0');
    }
    return false;
}

/* Is the subject's stream among ours already? Saves asking the bus for each row. */
static bool is_covered(const struct run *run, struct wb_str subject)
{
    for (size_t i = 0; i < run->stream_count; i++)
        if (list_covers(run->streams[i].subjects, subject))
            return true;
    return false;
}

/* What our streams cover, as the bus has it; one that is not there (yet) covers nothing. */
static void learn_subjects(struct run *run)
{
    for (size_t i = 0; i < run->stream_count; i++) {
        struct event_bus_stream_info info;
        if (event_bus_stream_info(run->bus, run->streams[i].name, &info, NULL) == WB_OK)
            (void)snprintf(run->streams[i].subjects, sizeof(run->streams[i].subjects), "%s",
                           info.subjects);
    }
}

static bool visit_row(void *ctx, const struct outbox_row *row)
{
    struct run *run = ctx;
    char stream[EVENT_BUS_NAME_MAX + 1];

    run->last_id = row->id;
    if (row->stream.len > 0) {
        add_stream(run, row->stream);
    } else if (subject_check(row->subject, NULL) == WB_OK && !is_covered(run, row->subject)) {
        if (event_bus_stream_for(run->bus, row->subject, stream, &run->missing) == WB_OK) {
            add_stream(run, wb_str(stream));
            learn_subjects(run);
            run->missing.text[0] = '\0';
        }
        run->lookups++;
    }
    return run->lookups < LOOKUPS_MAX;
}

/* Find the streams of rows that wait. */
static wb_err scan(struct run *run)
{
    static const outbox_state states[] = {OUTBOX_PENDING, OUTBOX_RETRY};
    wb_err err = WB_OK;

    learn_subjects(run);
    run->lookups = 0;
    run->missing.text[0] = '\0';
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        struct outbox_filter filter = {.limit = SCAN_PAGE, .by_state = true, .state = states[i]};
        run->last_id = 0;
        for (int page = 0; err == WB_OK && page < SCAN_PAGES; page++) {
            filter.after_id = run->last_id;
            err = outbox_list(db_handle(run->db), &filter, visit_row, run, &run->cli->why);
            if (run->last_id == filter.after_id || run->lookups >= LOOKUPS_MAX)
                break;
        }
    }
    return err;
}

static event_bus_provision provision_mode(const struct config *config)
{
    const char *mode = config_str(config, "stream_provision");

    return strcmp(mode, "verify") == 0  ? EVENT_BUS_VERIFY
           : strcmp(mode, "apply") == 0 ? EVENT_BUS_APPLY
                                        : EVENT_BUS_CREATE;
}

static wb_err declare(struct run *run)
{
    struct wb_str name;
    wb_err err = event_bus_factory_declare(run->cli->config, run->bus,
                                           provision_mode(run->cli->config), &run->cli->why);

    run->declared = err == WB_OK;
    for (size_t i = 0; config_section(run->cli->config, "stream.*", i, &name); i++)
        add_stream(run, name);
    return err;
}

/* ---- the publisher --------------------------------------------------------------------------- */

static void stop_publisher(struct run *run)
{
    struct outbox_publisher_health health;

    if (run->publisher == NULL)
        return;
    outbox_publisher_health(run->publisher, &health);
    run->published += health.published;
    outbox_publisher_stop(run->publisher);
    run->publisher = NULL;
}

/* Start it, or start it anew when there are further streams. */
static wb_err keep_publisher(struct run *run)
{
    const char *names[STREAMS_MAX];
    struct outbox_publisher_options options = {.path = db_path(run->db),
                                               .bus = run->bus,
                                               .streams = names,
                                               .stream_count = run->stream_count};

    if (run->stream_count == 0 ||
        (run->publisher != NULL && run->publisher_streams == run->stream_count))
        return WB_OK;
    for (size_t i = 0; i < run->stream_count; i++)
        names[i] = run->streams[i].name;
    options.classes = service_classes_list(run->classes, &options.class_count);
    stop_publisher(run);
    run->publisher_streams = run->stream_count;
    return outbox_publisher_start(&options, &run->publisher, &run->cli->why);
}

/* ---- once ------------------------------------------------------------------------------------ */

static wb_err fail_stuck(struct run *run, const struct outbox_publisher_health *health)
{
    struct event_bus_health bus;
    struct wb_why *why = &run->cli->why;

    event_bus_health(run->bus, &bus);
    if (!bus.connected)
        return wb_fail(why, WB_UNREACHABLE,
                       "the bus went away: %s; what is pending stays in the outbox, run it again",
                       bus.problem);
    if (health->state == OUTBOX_PUBLISHER_STANDBY)
        return wb_fail(why, WB_BUSY,
                       "another process publishes this outbox; let it, or stop it first");
    if (health->state == OUTBOX_PUBLISHER_HALTED)
        return wb_fail(why, WB_CONFLICT, "%s", health->problem);
    return wb_fail(why, WB_TIMEOUT, "nothing was published for %lld ms%s%s",
                   (long long)(run->cli->timeout_ns / WB_MS), health->problem[0] ? ": " : "",
                   health->problem);
}

/*
 * Until all is published or set aside; gives up after --timeout without progress, which reading
 * back is, too: a stream that is new to the outbox is read before any is written to.
 */
static wb_err flush(struct run *run)
{
    const struct wb_clock *clock = wb_clock_system();
    struct outbox_publisher_health health;
    int64_t quiet_since = wb_mono_ns(clock);
    uint64_t seen = 0;

    while (outbox_publisher_flush(run->publisher, FLUSH_NS, NULL) != WB_OK) {
        outbox_publisher_health(run->publisher, &health);
        uint64_t progress = health.published + health.scanned;
        if (progress > seen)
            quiet_since = wb_mono_ns(clock);
        seen = progress;
        if (health.state == OUTBOX_PUBLISHER_HALTED ||
            wb_mono_ns(clock) - quiet_since >= run->cli->timeout_ns)
            return fail_stuck(run, &health);
    }
    return WB_OK;
}

static wb_err print_summary(struct run *run)
{
    struct outbox_status status;
    struct wb_buf *out = &run->cli->out;
    wb_err err = outbox_status(db_handle(run->db), &status, &run->cli->why);

    if (err != WB_OK)
        return err;
    wb_buf_printf(out,
                  run->cli->json ? "{\"published\":%" PRIu64 ",\"retry\":%" PRIu64
                                   ",\"parked\":%" PRIu64 ",\"pending\":%" PRIu64 "}\n"
                                 : "published %" PRIu64 "  retry %" PRIu64 "  parked %" PRIu64
                                   "  pending %" PRIu64 "\n",
                  run->published, status.retry, status.parked, status.pending);
    uint64_t left = status.retry + status.parked + status.pending;
    if (left > 0)
        run->cli->exit_code = 8;
    if (left > 0 && run->missing.text[0] != '\0')
        service_cli_talk(run->cli, "waybill outbox run: %s", run->missing.text);
    else if (left > 0)
        service_cli_talk(
            run->cli, "waybill outbox run: rows were left; `waybill outbox ls --state retry` (or "
                      "parked, pending) says why");
    return WB_OK;
}

static wb_err run_once(struct run *run)
{
    wb_err err = declare(run);

    if (err != WB_OK)
        return err;
    do {
        err = scan(run);
        if (err == WB_OK && run->too_many)
            err = wb_fail(&run->cli->why, WB_TOO_BIG,
                          "the rows belong to more than %d streams; use one outbox for each module",
                          STREAMS_MAX);
        if (err == WB_OK && run->publisher_streams == run->stream_count)
            break; /* nothing new was found */
        if (err == WB_OK)
            err = keep_publisher(run);
        if (err == WB_OK)
            err = flush(run);
    } while (err == WB_OK);
    stop_publisher(run);
    if (err == WB_OK && run->stream_count == 0 && run->missing.text[0] != '\0') {
        run->cli->why = run->missing;
        return WB_NO_STREAM;
    }
    wb_err printed = print_summary(run);
    return err != WB_OK ? err : printed;
}

/* ---- until a signal -------------------------------------------------------------------------- */

/* Once a second: declare what could not be declared, look for rows of further streams. */
static wb_err tick(struct run *run)
{
    struct outbox_status status;
    wb_err err = run->declared ? WB_OK : declare(run);

    if (err == WB_OK)
        err = outbox_status(db_handle(run->db), &status, &run->cli->why);
    if (err == WB_OK && (run->stream_count == 0 || status.retry > 0))
        err = scan(run);
    return err == WB_OK ? keep_publisher(run) : err;
}

/* What may work later is told once, and tried again. */
static void tell(struct run *run)
{
    if (strcmp(run->told.text, run->cli->why.text) != 0)
        service_cli_talk(run->cli, "waybill outbox run: waiting: %s", run->cli->why.text);
    run->told = run->cli->why;
}

static wb_err run_until_signal(struct run *run, int signals)
{
    struct pollfd ready = {.fd = signals, .events = POLLIN};
    wb_err err;

    service_cli_talk(run->cli, "publishing %s (Ctrl-C to stop)", db_path(run->db));
    do {
        err = tick(run);
        if (err != WB_OK && wb_err_class(err) == WB_RETRY) {
            tell(run);
            err = WB_OK;
        }
    } while (err == WB_OK && poll(&ready, 1, TICK_MS) <= 0);
    stop_publisher(run);
    return err;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* The memory bus of this process forgets when it ends: only for those who say they want it. */
static wb_err refuse_forgetting(struct cli *cli)
{
    struct config_entry entry;

    for (size_t i = 0; config_entry(cli->config, i, &entry); i++)
        if (strcmp(entry.name, "bus") == 0 && strcmp(entry.origin, "default") == 0)
            return service_cli_usage(cli, "where to? name a NATS server with -s URL or by NATS_URL "
                                          "and --bus nats; the memory bus of this process would "
                                          "forget every event");
    return WB_OK;
}

static wb_err open_all(struct run *run, bool once)
{
    const struct db_options options = {.must_exist = true, .sync = DB_SYNC_NORMAL};
    struct outbox_status status;
    struct wb_why *why = &run->cli->why;
    wb_err err = service_classes_read(run->cli->config, &run->classes, why);

    if (err == WB_OK)
        err = service_cli_outbox_open(run->cli, &options, &run->db);
    if (err == WB_OK)
        err = outbox_status(db_handle(run->db), &status, why); /* WB_NOT_FOUND: no outbox */
    for (size_t i = 0; err == WB_OK && i < status.stream_count; i++)
        add_stream(run, wb_str(status.streams[i].stream));
    if (err == WB_OK)
        err = db_checkpointer_start(db_path(run->db), NULL, &run->checkpointer, why);
    if (err == WB_OK)
        err = event_bus_factory_create(run->cli->config, NULL, once, &run->bus, why);
    return err;
}

static void close_all(struct run *run)
{
    stop_publisher(run);
    event_bus_destroy(run->bus);
    db_checkpointer_stop(run->checkpointer);
    db_close(run->db);
    service_classes_free(run->classes);
}

wb_err service_cli_outbox_run(struct cli *cli)
{
    struct run run = {.cli = cli};
    bool once = service_cli_option(cli, "once") != NULL;
    int signals = -1;
    wb_err err = refuse_forgetting(cli);

    if (err == WB_OK && !once)
        err = service_cli_signals_open(cli, &signals);
    if (err == WB_OK)
        err = open_all(&run, once);
    if (err == WB_OK)
        err = once ? run_once(&run) : run_until_signal(&run, signals);
    if (signals >= 0)
        service_cli_signals_close(signals);
    close_all(&run);
    return err;
}
