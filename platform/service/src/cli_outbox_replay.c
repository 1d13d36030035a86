/* cli_outbox_replay.c - send published events once more. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/event_bus_factory.h>
#include <waybill/outbox.h>
#include <waybill/outbox_replay.h>

#include "cli_outbox.h"
#include "cli_print.h"

struct replay {
    struct cli *cli;
    struct outbox_replay_options options;
    struct filter *filter;
    struct wb_buf target; /* the selection in words, for the operator's log */
    struct outbox_replay *replay;
    struct outbox_replay_progress progress;
    bool dry_run, interrupted;
};

/* ---- what is meant --------------------------------------------------------------------------- */

/* "7" or "7-9". */
static wb_err read_ids(struct cli *cli, struct outbox_replay_selection *selection)
{
    const char *text = service_cli_option(cli, "id");
    uint64_t first = 0;
    uint64_t last = 0;

    if (text == NULL)
        return WB_OK;
    const char *dash = strchr(text, '-');
    struct wb_str from = dash != NULL ? wb_str_n(text, (size_t)(dash - text)) : wb_str(text);
    struct wb_str to = dash != NULL ? wb_str(dash + 1) : from;
    if (!wb_str_to_u64(from, &first) || !wb_str_to_u64(to, &last) || first == 0 || first > last ||
        last > INT64_MAX)
        return service_cli_usage(cli, "--id '%s': expected a row's number, or a range 7-9", text);
    selection->first_id = (int64_t)first;
    selection->last_id = (int64_t)last;
    return WB_OK;
}

/* A point in time, or how long ago it was. */
static wb_err read_time(struct cli *cli, const char *name, int64_t *ret_wall_ns)
{
    const char *text = service_cli_option(cli, name);
    int64_t ns = 0;

    if (text == NULL || wb_time_parse(wb_str(text), ret_wall_ns))
        return WB_OK;
    if (!wb_duration_parse(wb_str(text), &ns) || ns <= 0)
        return service_cli_usage(
            cli, "--%s '%s': expected a time such as 2026-01-31T10:00:00Z, or how long ago: 90m",
            name, text);
    *ret_wall_ns = wb_wall_ns(wb_clock_system()) - ns;
    return WB_OK;
}

/* "100/s" or "100". */
static wb_err read_rate(struct cli *cli, unsigned *ret_rate)
{
    const char *text = service_cli_option(cli, "rate");
    uint64_t rate = 0;

    if (text == NULL)
        return WB_OK;
    size_t len = strlen(text);
    if (len > 2 && strcmp(text + len - 2, "/s") == 0)
        len -= 2;
    if (!wb_str_to_u64(wb_str_n(text, len), &rate) || rate == 0 || rate > 1000000)
        return service_cli_usage(cli, "--rate '%s': expected rows a second, 1/s to 1000000/s",
                                 text);
    *ret_rate = (unsigned)rate;
    return WB_OK;
}

static wb_err read_filter(struct replay *self)
{
    const char *where = service_cli_option(self->cli, "where");

    if (where == NULL)
        return WB_OK;
    wb_err err = filter_parse(wb_str(where), outbox_replay_fields, outbox_replay_field_count,
                              &self->filter, &self->cli->why);
    self->options.selection.filter = self->filter;
    return err;
}

static struct wb_str option_str(const struct cli *cli, const char *name)
{
    const char *text = service_cli_option(cli, name);

    return text != NULL ? wb_str(text) : (struct wb_str){NULL, 0};
}

/* The options as they were given, for the log. Fails when none says which rows. */
static wb_err describe(struct replay *self)
{
    static const char *const names[] = {"id", "since", "until", "where", "key", "subject"};
    struct wb_buf *out = &self->target;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value = service_cli_option(self->cli, names[i]);
        if (value != NULL)
            wb_buf_printf(out, "%s--%s %s", out->len > 0 ? " " : "", names[i], value);
    }
    if (out->len == 0)
        return service_cli_usage(self->cli, "which events? say so with --id, --since, --until, "
                                            "--where, --key or --subject");
    if (self->options.to_subject.ptr != NULL)
        wb_buf_printf(out, " to %s", self->options.to_subject.ptr);
    if (out->failed)
        return wb_fail(&self->cli->why, WB_NOMEM, "outbox replay: out of memory");
    self->options.log_target = wb_str_n(out->ptr, out->len);
    return WB_OK;
}

static wb_err read_options(struct replay *self)
{
    struct cli *cli = self->cli;
    struct outbox_replay_options *options = &self->options;
    wb_err err = WB_OK;

    options->path = service_cli_option(cli, "db");
    if (options->path == NULL)
        return service_cli_usage(cli, "which outbox? name its database with --db FILE");
    options->archive_path = service_cli_option(cli, "archive");
    options->selection.key = option_str(cli, "key");
    options->selection.pattern = option_str(cli, "subject");
    options->to_subject = option_str(cli, "to-subject");
    options->log_reason = option_str(cli, "reason");
    options->full_sync = strcmp(config_str(cli->config, "db.sync"), "normal") != 0;
    options->plan_only = self->dry_run;
    err = read_ids(cli, &options->selection);
    if (err == WB_OK)
        err = read_time(cli, "since", &options->selection.since_wall_ns);
    if (err == WB_OK)
        err = read_time(cli, "until", &options->selection.until_wall_ns);
    if (err == WB_OK)
        err = read_rate(cli, &options->rate);
    if (err == WB_OK)
        err = describe(self);
    if (err == WB_OK)
        err = read_filter(self);
    if (err == WB_OK && !self->dry_run && service_cli_option(cli, "yes") == NULL)
        err = service_cli_usage(cli, "this sends events again: say --yes, or see with --dry-run "
                                     "what it would be");
    return err;
}

/* ---- a dry run ------------------------------------------------------------------------------- */

/* The longest duplicate window of the streams the outbox was published to; 0: nobody was asked. */
static wb_err find_window(struct cli *cli, int64_t *ret_window_ns)
{
    const struct db_options how = {.must_exist = true, .read_only = true};
    struct event_bus_stream_info info;
    struct outbox_status status;
    struct event_bus *bus = NULL;
    struct db *db = NULL;

    *ret_window_ns = 0;
    if (strcmp(config_str(cli->config, "bus"), "nats") != 0)
        return WB_OK;
    wb_err err = service_cli_outbox_open(cli, &how, &db);
    if (err == WB_OK)
        err = outbox_status(db_handle(db), &status, &cli->why);
    db_close(db);
    if (err == WB_OK)
        err = event_bus_factory_create(cli->config, NULL, true, &bus, &cli->why);
    for (size_t i = 0; err == WB_OK && i < status.stream_count; i++)
        if (event_bus_stream_info(bus, status.streams[i].stream, &info, NULL) == WB_OK &&
            info.duplicate_window_ns > *ret_window_ns)
            *ret_window_ns = info.duplicate_window_ns;
    event_bus_destroy(bus);
    return err;
}

static void print_plan_json(struct wb_buf *out, const struct outbox_replay_plan *plan,
                            int64_t window_ns)
{
    wb_buf_printf(out,
                  "{\"dry_run\":true,\"rows\":%" PRIu64 ",\"bytes\":%" PRIu64
                  ",\"archived\":%" PRIu64 ",\"first_id\":%" PRId64 ",\"last_id\":%" PRId64,
                  plan->rows, plan->bytes, plan->archived, plan->first_id, plan->last_id);
    service_cli_json_time(out, "first", plan->first_wall_ns);
    service_cli_json_time(out, "last", plan->last_wall_ns);
    wb_buf_printf(out, ",\"seconds\":%.3f", (double)plan->took_ns / 1e9);
    if (window_ns > 0)
        wb_buf_printf(out,
                      ",\"duplicate_window_seconds\":%.3f,\"in_duplicate_window\":%" PRIu64 "}\n",
                      (double)window_ns / 1e9, plan->in_window);
    else
        wb_buf_str(out, ",\"duplicate_window_seconds\":null,\"in_duplicate_window\":null}\n");
}

static void print_plan_text(struct wb_buf *out, const struct outbox_replay_plan *plan,
                            int64_t window_ns)
{
    wb_buf_printf(out, "would send %" PRIu64 " rows  %" PRIu64 " B", plan->rows, plan->bytes);
    if (plan->archived > 0)
        wb_buf_printf(out, "  %" PRIu64 " of them archived", plan->archived);
    wb_buf_printf(out, "  in %.1fs\n", (double)plan->took_ns / 1e9);
    if (plan->rows > 0) {
        wb_buf_printf(out, "rows     %" PRId64 " to %" PRId64 "\n", plan->first_id, plan->last_id);
        service_cli_text_time(out, "from", plan->first_wall_ns);
        service_cli_text_time(out, "to", plan->last_wall_ns);
    }
    if (window_ns > 0)
        wb_buf_printf(out,
                      "window   %.0fs: under their own ids %" PRIu64 " would be dropped as "
                      "duplicates; replays have new ones, so none is\n",
                      (double)window_ns / 1e9, plan->in_window);
    else
        wb_buf_str(out, "window   not asked for: name a server with -s URL\n");
}

static wb_err plan(struct replay *self)
{
    struct outbox_replay_plan plan;
    int64_t window_ns = 0;
    wb_err err = find_window(self->cli, &window_ns);

    if (err == WB_OK)
        err = outbox_replay_plan(self->replay, window_ns, &plan, &self->cli->why);
    if (err != WB_OK)
        return err;
    if (self->cli->json)
        print_plan_json(&self->cli->out, &plan, window_ns);
    else
        print_plan_text(&self->cli->out, &plan, window_ns);
    return WB_OK;
}

/* ---- for good -------------------------------------------------------------------------------- */

static wb_err send_all(struct replay *self, int signals)
{
    struct pollfd ready = {.fd = signals, .events = POLLIN};
    wb_err err = WB_OK;

    while (!self->progress.done && !self->interrupted) {
        err = outbox_replay_step(self->replay, &self->progress, &self->cli->why);
        if (err != WB_OK)
            break;
        int wait_ms = (int)((self->progress.wait_ns + WB_MS - 1) / WB_MS);
        self->interrupted = !self->progress.done && poll(&ready, 1, wait_ms) > 0;
    }
    return err;
}

static void print_sent(struct replay *self)
{
    const struct outbox_replay_progress *progress = &self->progress;
    struct wb_buf *out = &self->cli->out;

    if (self->cli->json)
        wb_buf_printf(out,
                      "{\"dry_run\":false,\"rows\":%" PRIu64 ",\"bytes\":%" PRIu64
                      ",\"last_id\":%" PRId64 ",\"done\":%s}\n",
                      progress->rows, progress->bytes, progress->last_id,
                      progress->done ? "true" : "false");
    else
        wb_buf_printf(out, "sent %" PRIu64 " rows  %" PRIu64 " B  up to row %" PRId64 "\n",
                      progress->rows, progress->bytes, progress->last_id);
    if (!progress->done) {
        self->cli->exit_code = 8;
        service_cli_talk(self->cli,
                         "interrupted: what was meant behind row %" PRId64 " is not sent",
                         progress->last_id);
    }
}

static wb_err send_until_done(struct replay *self)
{
    int signals = -1;
    wb_err err = service_cli_signals_open(self->cli, &signals);

    if (err != WB_OK)
        return err;
    err = send_all(self, signals);
    service_cli_signals_close(signals);
    if (err == WB_OK && self->progress.rows == 0)
        return wb_fail(&self->cli->why, WB_NOT_FOUND,
                       "no published event is meant by %s; see 'outbox ls', and --archive FILE for "
                       "those that have gone",
                       self->target.ptr);
    if (err != WB_OK && self->progress.rows > 0)
        service_cli_talk(self->cli, "%" PRIu64 " rows were sent, up to row %" PRId64,
                         self->progress.rows, self->progress.last_id);
    if (err == WB_OK)
        print_sent(self);
    return err;
}

wb_err service_cli_outbox_replay(struct cli *cli)
{
    struct replay self = {.cli = cli, .dry_run = service_cli_option(cli, "dry-run") != NULL};
    wb_err err = read_options(&self);

    if (err == WB_OK)
        err = outbox_replay_open(&self.options, &self.replay, &cli->why);
    if (err == WB_OK)
        err = self.dry_run ? plan(&self) : send_until_done(&self);
    outbox_replay_close(self.replay);
    filter_destroy(self.filter);
    wb_buf_free(&self.target);
    return err;
}
