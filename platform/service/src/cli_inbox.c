/* cli_inbox.c - what the consumers of a database have handled: ls, show, forget. */
#include <inttypes.h>
#include <string.h>

#include <waybill/inbox.h>
#include <waybill/operator_log.h>

#include "cli_outbox.h"
#include "cli_print.h"

static wb_err open_inbox(struct cli *cli, bool read_only, struct db **ret_db)
{
    const struct db_options options = {.must_exist = true, .read_only = read_only};
    const char *path = service_cli_option(cli, "db");

    if (path == NULL)
        return service_cli_usage(cli, "which inbox? name its database with --db FILE");
    return db_open(path, &options, ret_db, &cli->why);
}

/* ---- ls -------------------------------------------------------------------------------------- */

static void print_status_json(struct wb_buf *out, const struct inbox_status *status)
{
    wb_buf_str(out, "{\"consumer\":");
    wb_buf_json_str(out, status->consumer);
    wb_buf_printf(out,
                  ",\"handled\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"foreign\":%" PRIu64
                  ",\"failing\":%" PRIu64 ",\"parked\":%" PRIu64 ",\"retry\":%" PRIu64
                  ",\"starts\":%" PRIu64 ",\"crashes\":%" PRIu64,
                  status->handled, status->pages, status->foreign, status->failing, status->parked,
                  status->retry, status->starts, status->crashes);
    service_cli_json_text(out, "suspect", status->suspect);
    service_cli_json_text(out, "accused", status->accused);
    wb_buf_str(out, ",\"streams\":[");
    for (size_t i = 0; i < status->stream_count; i++) {
        const struct inbox_stream_status *stream = &status->streams[i];
        wb_buf_str(out, i > 0 ? ",{\"stream\":" : "{\"stream\":");
        wb_buf_json_str(out, stream->stream);
        wb_buf_printf(out, ",\"sequence\":%" PRIu64 ",\"anchors\":%" PRIu64 ",\"starts\":%" PRIu64,
                      stream->sequence, stream->anchors, stream->starts);
        service_cli_json_time(out, "created", stream->stream_created_wall_ns);
        wb_buf_str(out, "}");
    }
    wb_buf_str(out, "]}\n");
}

static void print_status_text(struct wb_buf *out, const struct inbox_status *status)
{
    wb_buf_printable(out, status->consumer);
    wb_buf_printf(out, "\n  handled  %8" PRIu64 " in %" PRIu64 " pages, %" PRIu64 " foreign\n",
                  status->handled, status->pages, status->foreign);
    if (status->failing + status->parked + status->retry > 0)
        wb_buf_printf(out,
                      "  failing  %8" PRIu64 "\n  dead     %8" PRIu64 " parked, %" PRIu64
                      " to be handled again\n",
                      status->failing, status->parked, status->retry);
    for (size_t i = 0; i < status->stream_count; i++) {
        wb_buf_str(out, "  stream   ");
        wb_buf_printable(out, status->streams[i].stream);
        wb_buf_printf(out, "  at sequence %" PRIu64, status->streams[i].sequence);
        if (status->streams[i].starts > 1)
            wb_buf_printf(out, "  not moved over %" PRIu64 " starts", status->streams[i].starts);
        wb_buf_str(out, "\n");
    }
    if (status->suspect.len > 0) {
        wb_buf_str(out, "  suspect  ");
        wb_buf_printable(out, status->suspect);
        wb_buf_str(out, "\n");
    }
    if (status->accused.len > 0) {
        wb_buf_str(out, "  accused  ");
        wb_buf_printable(out, status->accused);
        wb_buf_printf(out, "  ended %" PRIu64 " processes\n", status->crashes);
    }
}

static bool print_status(void *ctx, const struct inbox_status *status)
{
    struct cli *cli = ctx;

    if (cli->json)
        print_status_json(&cli->out, status);
    else
        print_status_text(&cli->out, status);
    return service_cli_flush(cli) == WB_OK;
}

wb_err service_cli_inbox_ls(struct cli *cli)
{
    struct db *db = NULL;
    wb_err err = open_inbox(cli, true, &db);

    if (err != WB_OK)
        return err;
    err = inbox_list(db_handle(db), print_status, cli, &cli->why);
    db_close(db);
    return err;
}

/* ---- show ------------------------------------------------------------------------------------ */

static const char *verdict(const struct inbox_event_status *status)
{
    if (status->letter > 0)
        return status->letter_retry ? "dead letter, to be handled again" : "dead letter";
    if (status->handled)
        return "handled";
    return status->failures > 0 ? "failing" : "not handled";
}

static void print_event_json(struct cli *cli, const struct inbox_event_status *status)
{
    struct wb_buf *out = &cli->out;

    wb_buf_str(out, "{\"consumer\":");
    wb_buf_json_str(out, wb_str(cli->operands[0]));
    service_cli_json_text(out, "event", wb_str(cli->operands[1]));
    wb_buf_printf(out, ",\"handled\":%s,\"failures\":%u,\"dead_letter\":",
                  status->handled ? "true" : "false", status->failures);
    if (status->letter > 0)
        wb_buf_printf(out, "%" PRId64, status->letter);
    else
        wb_buf_str(out, "null");
    wb_buf_printf(out, ",\"retry\":%s,\"suspect\":%s,\"crashes\":%u",
                  status->letter_retry ? "true" : "false", status->suspect ? "true" : "false",
                  status->crashes);
    service_cli_json_text(out, "reason", wb_str(status->reason));
    wb_buf_str(out, "}\n");
}

static void print_event_text(struct cli *cli, const struct inbox_event_status *status)
{
    struct wb_buf *out = &cli->out;

    service_cli_text_field(out, "consumer", wb_str(cli->operands[0]));
    service_cli_text_field(out, "event", wb_str(cli->operands[1]));
    service_cli_text_field(out, "state", wb_str(verdict(status)));
    if (status->letter > 0)
        wb_buf_printf(out, "%-8s %" PRId64 "\n", "letter", status->letter);
    if (status->failures > 0)
        wb_buf_printf(out, "%-8s %u\n", "failures", status->failures);
    service_cli_text_field(out, "reason", wb_str(status->reason));
    if (status->suspect)
        service_cli_text_field(out, "suspect", wb_str("noted before it is handled"));
    if (status->crashes > 0)
        wb_buf_printf(out, "%-8s ended %u processes, one after another\n", "accused",
                      status->crashes);
}

wb_err service_cli_inbox_show(struct cli *cli)
{
    struct inbox_event_status status;
    struct db *db = NULL;
    wb_err err = open_inbox(cli, true, &db);

    if (err != WB_OK)
        return err;
    err = inbox_handled(db_handle(db), cli->operands[0], wb_str(cli->operands[1]), &status,
                        &cli->why);
    db_close(db);
    if (err != WB_OK)
        return err;
    if (cli->json)
        print_event_json(cli, &status);
    else
        print_event_text(cli, &status);
    return WB_OK;
}

/* ---- forget ---------------------------------------------------------------------------------- */

static wb_err forget(struct cli *cli, struct db *db)
{
    struct wb_buf target = {0};
    wb_err err = db_begin(db, &cli->why);

    if (err != WB_OK)
        return err;
    wb_buf_printf(&target, "%s %s", cli->operands[0], cli->operands[1]);
    const struct operator_log_entry entry = {.command = wb_str("inbox forget"),
                                             .target = wb_str(target.ptr),
                                             .reason = wb_str(service_cli_option(cli, "reason"))};
    err = inbox_forget(db_handle(db), cli->operands[0], wb_str(cli->operands[1]), &cli->why);
    if (err == WB_OK)
        err = operator_log_add(db_handle(db), &entry, &cli->why);
    if (err == WB_OK)
        err = db_commit(db, &cli->why);
    db_rollback(db);
    wb_buf_free(&target);
    return err;
}

wb_err service_cli_inbox_forget(struct cli *cli)
{
    struct db *db = NULL;

    if (service_cli_option(cli, "yes") == NULL)
        return service_cli_usage(
            cli,
            "%s would handle the event once more when it is delivered again; say --yes if "
            "that is meant",
            cli->operands[0]);
    wb_err err = open_inbox(cli, false, &db);
    if (err != WB_OK)
        return err;
    err = forget(cli, db);
    db_close(db);
    if (err != WB_OK)
        return err;
    if (cli->json) {
        wb_buf_str(&cli->out, "{\"consumer\":");
        wb_buf_json_str(&cli->out, wb_str(cli->operands[0]));
        service_cli_json_text(&cli->out, "forgotten", wb_str(cli->operands[1]));
        wb_buf_str(&cli->out, "}\n");
        return WB_OK;
    }
    wb_buf_str(&cli->out, "forgotten  ");
    wb_buf_printable(&cli->out, wb_str(cli->operands[1]));
    wb_buf_str(&cli->out, "\n");
    service_cli_talk(cli, "it is handled once more when its stream delivers it again");
    return WB_OK;
}
