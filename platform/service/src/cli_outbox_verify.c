/* cli_outbox_verify.c - does the server hold what an outbox has published? */
#include <inttypes.h>
#include <string.h>

#include <waybill/event_bus_factory.h>
#include <waybill/outbox.h>
#include <waybill/outbox_verify.h>

#include "cli_outbox.h"

struct verify {
    struct cli *cli;
    struct db *db;
    struct event_bus *bus;
    const char *stream; /* NULL: all that were published to */
    uint64_t from_seq;
    bool bad; /* something is missing or doubled */
};

/* ---- the report ------------------------------------------------------------------------------ */

static void json_list(struct wb_buf *out, const char *name, const struct outbox_verify_list *list)
{
    wb_buf_printf(out, ",\"%s\":{\"truncated\":%s,\"list\":[", name,
                  list->truncated ? "true" : "false");
    for (size_t i = 0; i < list->count; i++)
        wb_buf_printf(out, "%s%" PRId64, i > 0 ? "," : "", list->ids[i]);
    wb_buf_str(out, "]}");
}

static void print_json(struct wb_buf *out, const struct outbox_verify_report *r)
{
    wb_buf_str(out, "{\"stream\":");
    wb_buf_json_str(out, wb_str(r->stream));
    wb_buf_printf(out,
                  ",\"first_seq\":%" PRIu64 ",\"last_seq\":%" PRIu64 ",\"last_id\":%" PRId64
                  ",\"made_anew\":%s,\"rolled_back\":%s,\"messages\":%" PRIu64 ",\"rows\":%" PRIu64
                  ",\"found\":%" PRIu64 ",\"missing\":%" PRIu64 ",\"doubled\":%" PRIu64,
                  r->first_seq, r->last_seq, r->last_id, r->made_anew ? "true" : "false",
                  r->rolled_back ? "true" : "false", r->messages, r->rows, r->found, r->missing,
                  r->doubled);
    wb_buf_printf(out,
                  ",\"gone\":%" PRIu64 ",\"beyond\":%" PRIu64 ",\"purged\":%" PRIu64
                  ",\"orphans\":%" PRIu64 ",\"foreign\":%" PRIu64 ",\"out_of_order\":%" PRIu64,
                  r->gone, r->beyond, r->purged, r->orphans, r->foreign, r->out_of_order);
    json_list(out, "missing_rows", &r->missing_ids);
    json_list(out, "doubled_rows", &r->doubled_ids);
    json_list(out, "orphan_sequences", &r->orphan_seqs);
    wb_buf_str(out, "}\n");
}

static void text_line(struct wb_buf *out, const char *name, uint64_t count, const char *what,
                      const struct outbox_verify_list *list)
{
    if (count == 0 && list == NULL)
        return;
    wb_buf_printf(out, "  %-12s %8" PRIu64 "  %s", name, count, what);
    for (size_t i = 0; list != NULL && i < list->count; i++)
        wb_buf_printf(out, "%s%" PRId64, i > 0 ? " " : ": ", list->ids[i]);
    wb_buf_str(out, list != NULL && list->truncated ? " ...\n" : "\n");
}

static void print_text(struct wb_buf *out, const struct outbox_verify_report *r)
{
    wb_buf_str(out, "stream ");
    wb_buf_printable(out, wb_str(r->stream));
    wb_buf_printf(out, "  sequences %" PRIu64 " to %" PRIu64 "  rows up to %" PRId64 "\n",
                  r->first_seq, r->last_seq, r->last_id);
    if (r->made_anew)
        wb_buf_str(out, "  the stream was made anew since it was published to\n");
    if (r->rolled_back)
        wb_buf_str(out, "  the stream ends before what was published: the server has lost data\n");
    wb_buf_printf(out, "  %-12s %8" PRIu64 "  of %" PRIu64 " rows\n", "found", r->found, r->rows);
    text_line(out, "missing", r->missing, "rows", &r->missing_ids);
    text_line(out, "doubled", r->doubled, "rows", &r->doubled_ids);
    text_line(out, "gone", r->gone, "rows below the first sequence, by the stream's limits", NULL);
    text_line(out, "orphans", r->orphans, "messages of rows that were undone, at sequences",
              r->orphans > 0 ? &r->orphan_seqs : NULL);
    text_line(out, "foreign", r->foreign, "messages of others", NULL);
    text_line(out, "late", r->out_of_order, "messages or more behind a younger row of their key",
              NULL);
    text_line(out, "beyond", r->beyond, "messages published and not yet marked", NULL);
    text_line(out, "purged", r->purged, "messages of rows that are kept no longer", NULL);
}

static void advise(struct verify *verify, const struct outbox_verify_report *r)
{
    struct cli *cli = verify->cli;
    const char *db = service_cli_option(cli, "db");

    if (r->missing > 0)
        service_cli_talk(cli,
                         "waybill outbox verify: stream %s lacks %" PRIu64
                         " events; next: waybill outbox repair --db %s --plan",
                         r->stream, r->missing, db);
    if (r->doubled > 0)
        service_cli_talk(cli,
                         "waybill outbox verify: stream %s holds %" PRIu64
                         " events more than once; an inbox handles each once, other readers must "
                         "compare " MESSAGE_HEADER_SOURCE " and " MESSAGE_HEADER_ROW
                         "; next: waybill outbox explain --db %s ID",
                         r->stream, r->doubled, db);
    if (r->orphans > 0)
        service_cli_talk(cli,
                         "waybill outbox verify: stream %s holds %" PRIu64
                         " events whose rows were undone, as by a restored backup: tell those who "
                         "have acted on them",
                         r->stream, r->orphans);
}

/* ---- comparing ------------------------------------------------------------------------------- */

static wb_err verify_stream(struct verify *verify, const char *stream)
{
    const struct outbox_verify_options options = {.stream = stream, .from_seq = verify->from_seq};
    struct outbox_verify_report report;
    struct cli *cli = verify->cli;
    wb_err err = outbox_verify(verify->db, verify->bus, &options, &report, &cli->why);

    if (err != WB_OK)
        return err;
    if (cli->json)
        print_json(&cli->out, &report);
    else
        print_text(&cli->out, &report);
    err = service_cli_flush(cli);
    advise(verify, &report);
    verify->bad = verify->bad || report.missing > 0 || report.doubled > 0;
    outbox_verify_report_free(&report);
    return err;
}

static wb_err verify_all(struct verify *verify)
{
    struct outbox_status status;
    struct cli *cli = verify->cli;
    wb_err err = outbox_status(db_handle(verify->db), &status, &cli->why);

    if (err == WB_OK && status.stream_count == 0)
        err =
            wb_fail(&cli->why, WB_NOT_FOUND,
                    "the outbox in %s has published nothing yet; publish with: waybill outbox run",
                    db_path(verify->db));
    for (size_t i = 0; err == WB_OK && i < status.stream_count; i++)
        err = verify_stream(verify, status.streams[i].stream);
    return err;
}

/* ---- the command ----------------------------------------------------------------------------- */

static wb_err read_options(struct verify *verify)
{
    struct cli *cli = verify->cli;
    wb_err err = service_cli_number(cli, "from-seq", 0, 1, UINT64_MAX, &verify->from_seq);

    verify->stream = service_cli_option(cli, "stream");
    if (err == WB_OK && service_cli_option(cli, "from-seq") != NULL && verify->stream == NULL)
        err = service_cli_usage(cli, "--from-seq is a sequence of which stream? name it with "
                                     "--stream NAME");
    if (err == WB_OK && strcmp(config_str(cli->config, "bus"), "memory") == 0)
        err = service_cli_usage(cli, "compare with what? name a NATS server with -s URL or by "
                                     "NATS_URL and --bus nats; the memory bus of this process "
                                     "holds nothing");
    return err;
}

wb_err service_cli_outbox_verify(struct cli *cli)
{
    const struct db_options options = {.must_exist = true, .sync = DB_SYNC_NORMAL};
    struct verify verify = {.cli = cli};
    wb_err err = read_options(&verify);

    if (err == WB_OK)
        err = service_cli_outbox_open(cli, &options, &verify.db);
    if (err == WB_OK)
        err = event_bus_factory_create(cli->config, NULL, true, &verify.bus, &cli->why);
    if (err == WB_OK)
        err = verify.stream != NULL ? verify_stream(&verify, verify.stream) : verify_all(&verify);
    event_bus_destroy(verify.bus);
    db_close(verify.db);
    if (err == WB_OK && verify.bad)
        cli->exit_code = 1;
    return err;
}
