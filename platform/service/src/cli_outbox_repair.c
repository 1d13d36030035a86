/* cli_outbox_repair.c - give a stream again what it has lost, or say what that would be. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <waybill/event_bus_factory.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

#include "cli_outbox.h"

#define STREAMS_MAX 16
#define ROWS_SHOWN  1000
#define FLUSH_NS    (200 * WB_MS)

struct repair {
    struct cli *cli;
    struct db *db;
    struct event_bus *bus;
    struct outbox_status status;
    const char *names[STREAMS_MAX];
    const char *stream; /* NULL: all that were published to */

    /* of a plan */
    struct wb_buf rows;
    size_t row_count;

    int64_t newest; /* incident before the repair */
    uint64_t incidents, again, gone;
};

/* ---- a plan ---------------------------------------------------------------------------------- */

static bool plan_row(void *ctx, int64_t row_id, bool late)
{
    struct repair *repair = ctx;

    if (repair->row_count == ROWS_SHOWN)
        return false;
    if (repair->cli->json)
        wb_buf_printf(&repair->rows, "%s{\"row\":%" PRId64 ",\"late\":%s}",
                      repair->row_count > 0 ? "," : "", row_id, late ? "true" : "false");
    else
        wb_buf_printf(&repair->rows, " %" PRId64 "%s", row_id, late ? "*" : "");
    repair->row_count++;
    return true;
}

static void print_plan_json(struct repair *repair, const char *stream,
                            const struct outbox_publisher_plan *plan)
{
    struct wb_buf *out = &repair->cli->out;

    wb_buf_str(out, "{\"stream\":");
    wb_buf_json_str(out, wb_str(stream));
    wb_buf_printf(out,
                  ",\"needed\":%s,\"kind\":\"%s\",\"cursor_id\":%" PRId64 ",\"cursor_seq\":%" PRIu64
                  ",\"stream_first\":%" PRIu64 ",\"stream_last\":%" PRIu64,
                  plan->needed ? "true" : "false", plan->kind, plan->cursor_id, plan->cursor_seq,
                  plan->stream_first, plan->stream_last);
    wb_buf_printf(out,
                  ",\"first_seq\":%" PRIu64 ",\"last_seq\":%" PRIu64 ",\"rows\":%" PRIu64
                  ",\"late\":%" PRIu64 ",\"gone\":%" PRIu64 ",\"orphans\":%" PRIu64
                  ",\"truncated\":%s,\"list\":[%s]}\n",
                  plan->first_seq, plan->last_seq, plan->rows, plan->late, plan->gone,
                  plan->orphans, plan->rows > repair->row_count ? "true" : "false",
                  repair->rows.ptr != NULL ? repair->rows.ptr : "");
}

static void print_plan_text(struct repair *repair, const char *stream,
                            const struct outbox_publisher_plan *plan)
{
    struct wb_buf *out = &repair->cli->out;

    wb_buf_str(out, "stream ");
    wb_buf_printable(out, wb_str(stream));
    wb_buf_printf(out,
                  "  sequences %" PRIu64 " to %" PRIu64 "; published: rows up to %" PRId64
                  " at sequence %" PRIu64 "\n",
                  plan->stream_first, plan->stream_last, plan->cursor_id, plan->cursor_seq);
    if (!plan->needed) {
        wb_buf_str(out, "  nothing to repair\n");
        return;
    }
    wb_buf_printf(out, "  %s: sequences %" PRIu64 " to %" PRIu64 " are in doubt\n", plan->kind,
                  plan->first_seq, plan->last_seq);
    wb_buf_printf(out, "  would be sent again      %8" PRIu64 "  rows:%s%s\n", plan->rows,
                  repair->rows.ptr != NULL ? repair->rows.ptr : " none",
                  plan->rows > repair->row_count ? " ..." : "");
    wb_buf_printf(out, "  of them behind younger   %8" PRIu64 "  marked *\n", plan->late);
    wb_buf_printf(out, "  cannot come back         %8" PRIu64 "  at most: no longer kept\n",
                  plan->gone);
    wb_buf_printf(out, "  messages without a row   %8" PRIu64 "\n", plan->orphans);
}

static wb_err plan_stream(struct repair *repair, const char *stream)
{
    const struct outbox_publisher_options options = {.path = db_path(repair->db),
                                                     .bus = repair->bus,
                                                     .streams = repair->names,
                                                     .stream_count = repair->status.stream_count};
    struct outbox_publisher_plan plan;
    struct cli *cli = repair->cli;

    wb_buf_clear(&repair->rows);
    repair->row_count = 0;
    wb_err err = outbox_publisher_plan(&options, stream, plan_row, repair, &plan, &cli->why);
    if (err != WB_OK)
        return err;
    repair->gone += plan.gone;
    if (cli->json)
        print_plan_json(repair, stream, &plan);
    else
        print_plan_text(repair, stream, &plan);
    return service_cli_flush(cli);
}

static wb_err plan_all(struct repair *repair)
{
    wb_err err = WB_OK;

    if (repair->stream != NULL)
        return plan_stream(repair, repair->stream);
    for (size_t i = 0; err == WB_OK && i < repair->status.stream_count; i++)
        err = plan_stream(repair, repair->names[i]);
    return err;
}

/* ---- a repair -------------------------------------------------------------------------------- */

static bool newest_visit(void *ctx, const struct outbox_incident *incident)
{
    ((struct repair *)ctx)->newest = incident->id;
    return true;
}

static wb_err stuck(struct repair *repair, const struct outbox_publisher_health *health)
{
    struct wb_why *why = &repair->cli->why;

    if (health->state == OUTBOX_PUBLISHER_STANDBY)
        return wb_fail(
            why, WB_BUSY,
            "another process publishes this outbox, and repairs what it notices; stop it "
            "to compare the whole stream, or look with --plan");
    if (health->state == OUTBOX_PUBLISHER_HALTED)
        return wb_fail(why, WB_CONFLICT, "%s", health->problem);
    return wb_fail(why, WB_TIMEOUT, "nothing moved for %lld ms%s%s",
                   (long long)(repair->cli->timeout_ns / WB_MS), health->problem[0] ? ": " : "",
                   health->problem);
}

/* Until it is repaired and drained; gives up after --timeout without progress. */
static wb_err wait_until_done(struct repair *repair, struct outbox_publisher *publisher)
{
    const struct wb_clock *clock = wb_clock_system();
    struct outbox_publisher_health health;
    int64_t quiet_since = wb_mono_ns(clock);
    uint64_t seen = 0;

    while (outbox_publisher_flush(publisher, FLUSH_NS, NULL) != WB_OK) {
        outbox_publisher_health(publisher, &health);
        uint64_t progress = health.published + health.scanned;
        if (progress > seen)
            quiet_since = wb_mono_ns(clock);
        seen = progress;
        if (health.state == OUTBOX_PUBLISHER_STANDBY || health.state == OUTBOX_PUBLISHER_HALTED ||
            wb_mono_ns(clock) - quiet_since >= repair->cli->timeout_ns)
            return stuck(repair, &health);
    }
    return WB_OK;
}

static bool incident_visit(void *ctx, const struct outbox_incident *incident)
{
    struct repair *repair = ctx;
    struct wb_buf *out = &repair->cli->out;

    if (repair->cli->json) {
        wb_buf_str(out, repair->incidents > 0 ? "," : "");
        service_cli_incident_json(out, incident);
    } else {
        wb_buf_str(out, "stream ");
        wb_buf_printable(out, incident->stream);
        wb_buf_str(out, "  ");
        wb_buf_printable(out, incident->kind);
        wb_buf_printf(out, ": %" PRIu64 " rows, %" PRIu64 " cannot come back\n", incident->rows,
                      incident->gone);
    }
    repair->incidents++;
    repair->again += incident->rows;
    repair->gone += incident->gone;
    return true;
}

static wb_err print_summary(struct repair *repair)
{
    struct cli *cli = repair->cli;

    if (cli->json)
        wb_buf_str(&cli->out, "{\"incidents\":[");
    wb_err err = outbox_incidents(db_handle(repair->db), repair->newest, STREAMS_MAX,
                                  incident_visit, repair, &cli->why);
    if (err != WB_OK)
        return err;
    if (cli->json)
        wb_buf_printf(&cli->out, "],\"rows\":%" PRIu64 ",\"gone\":%" PRIu64 "}\n", repair->again,
                      repair->gone);
    else if (repair->incidents == 0)
        wb_buf_str(&cli->out, "nothing to repair\n");
    return WB_OK;
}

static wb_err repair_all(struct repair *repair)
{
    const struct outbox_publisher_options options = {
        .path = db_path(repair->db),
        .bus = repair->bus,
        .streams = repair->names,
        .stream_count = repair->status.stream_count,
        .repair = repair->stream != NULL ? repair->stream : "*"};
    struct cli *cli = repair->cli;
    struct outbox_publisher *publisher = NULL;
    wb_err err =
        outbox_incidents(db_handle(repair->db), 0, SIZE_MAX / 2, newest_visit, repair, &cli->why);

    if (err == WB_OK)
        err = event_bus_factory_declare(cli->config, repair->bus, EVENT_BUS_CREATE, &cli->why);
    if (err == WB_OK)
        err = outbox_publisher_start(&options, &publisher, &cli->why);
    if (err == WB_OK)
        err = wait_until_done(repair, publisher);
    outbox_publisher_stop(publisher);
    return err == WB_OK ? print_summary(repair) : err;
}

/* ---- the command ----------------------------------------------------------------------------- */

static wb_err streams_read(struct repair *repair)
{
    struct cli *cli = repair->cli;
    wb_err err = outbox_status(db_handle(repair->db), &repair->status, &cli->why);
    bool known = repair->stream == NULL;

    for (size_t i = 0; err == WB_OK && i < repair->status.stream_count; i++) {
        repair->names[i] = repair->status.streams[i].stream;
        known = known || strcmp(repair->names[i], repair->stream) == 0;
    }
    if (err == WB_OK && repair->status.stream_count == 0)
        err =
            wb_fail(&cli->why, WB_NOT_FOUND,
                    "the outbox in %s has published nothing yet; publish with: waybill outbox run",
                    db_path(repair->db));
    if (err == WB_OK && !known)
        err = wb_fail(&cli->why, WB_NOT_FOUND,
                      "the outbox in %s has published nothing to stream %s; `waybill outbox "
                      "status` shows the streams",
                      db_path(repair->db), repair->stream);
    return err;
}

wb_err service_cli_outbox_repair(struct cli *cli)
{
    const struct db_options options = {.must_exist = true, .sync = DB_SYNC_NORMAL};
    struct repair repair = {.cli = cli, .stream = service_cli_option(cli, "stream")};
    wb_err err = WB_OK;

    if (strcmp(config_str(cli->config, "bus"), "memory") == 0)
        err = service_cli_usage(cli, "compare with what? name a NATS server with -s URL or by "
                                     "NATS_URL and --bus nats; the memory bus of this process "
                                     "holds nothing");
    if (err == WB_OK)
        err = service_cli_outbox_open(cli, &options, &repair.db);
    if (err == WB_OK)
        err = streams_read(&repair);
    if (err == WB_OK)
        err = event_bus_factory_create(cli->config, NULL, true, &repair.bus, &cli->why);
    if (err == WB_OK)
        err = service_cli_option(cli, "plan") != NULL ? plan_all(&repair) : repair_all(&repair);
    event_bus_destroy(repair.bus);
    db_close(repair.db);
    wb_buf_free(&repair.rows);
    if (err == WB_OK && repair.gone > 0)
        cli->exit_code = 8;
    return err;
}
