/* cli_outbox_incident.c - outbox incidents, outbox orphans: what went wrong and was mended. */
#include <inttypes.h>

#include <waybill/outbox.h>

#include "cli_outbox.h"
#include "cli_print.h"

void service_cli_incident_json(struct wb_buf *out, const struct outbox_incident *incident)
{
    wb_buf_printf(out, "{\"id\":%" PRId64, incident->id);
    service_cli_json_time(out, "at", incident->at_wall_ns);
    service_cli_json_text(out, "stream", incident->stream);
    service_cli_json_text(out, "kind", incident->kind);
    wb_buf_printf(out,
                  ",\"first_seq\":%" PRIu64 ",\"last_seq\":%" PRIu64 ",\"rows\":%" PRIu64
                  ",\"gone\":%" PRIu64,
                  incident->first_seq, incident->last_seq, incident->rows, incident->gone);
    service_cli_json_text(out, "detail", incident->detail);
    wb_buf_str(out, "}");
}

static bool print_incident(void *ctx, const struct outbox_incident *incident)
{
    struct cli *cli = ctx;
    struct wb_buf *out = &cli->out;
    char age[24];

    if (cli->json) {
        service_cli_incident_json(out, incident);
        wb_buf_str(out, "\n");
        return service_cli_flush(cli) == WB_OK;
    }
    service_cli_outbox_age(incident->at_wall_ns, age);
    wb_buf_printf(out, "%6" PRId64 "  %8s  ", incident->id, age);
    wb_buf_printable(out, incident->stream);
    wb_buf_str(out, "  ");
    wb_buf_printable(out, incident->kind);
    wb_buf_printf(out, "  %" PRIu64 "-%" PRIu64 "  rows %" PRIu64 "  gone %" PRIu64 "  ",
                  incident->first_seq, incident->last_seq, incident->rows, incident->gone);
    wb_buf_printable(out, incident->detail);
    wb_buf_str(out, "\n");
    return service_cli_flush(cli) == WB_OK;
}

static bool print_orphan(void *ctx, const struct outbox_orphan *orphan)
{
    struct cli *cli = ctx;
    struct wb_buf *out = &cli->out;
    char age[24];

    if (cli->json) {
        wb_buf_printf(out, "{\"sequence\":%" PRIu64 ",\"row\":%" PRId64, orphan->sequence,
                      orphan->row_id);
        service_cli_json_text(out, "stream", orphan->stream);
        service_cli_json_text(out, "source", orphan->source);
        service_cli_json_text(out, "msg_id", orphan->msg_id);
        service_cli_json_text(out, "subject", orphan->subject);
        service_cli_json_time(out, "stored", orphan->stored_wall_ns);
        service_cli_json_time(out, "noticed", orphan->noticed_wall_ns);
        wb_buf_str(out, "}\n");
        return service_cli_flush(cli) == WB_OK;
    }
    service_cli_outbox_age(orphan->stored_wall_ns, age);
    wb_buf_printable(out, orphan->stream);
    wb_buf_printf(out, "  %8" PRIu64 "  %8s  row %" PRId64 "  ", orphan->sequence, age,
                  orphan->row_id);
    wb_buf_printable(out, orphan->msg_id);
    wb_buf_str(out, "  ");
    wb_buf_printable(out, orphan->subject);
    wb_buf_str(out, "\n");
    return service_cli_flush(cli) == WB_OK;
}

static wb_err open_and_limit(struct cli *cli, struct db **ret_db, uint64_t *ret_limit)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    wb_err err = service_cli_number(cli, "limit", 100, 1, 1000000, ret_limit);

    return err == WB_OK ? service_cli_outbox_open(cli, &options, ret_db) : err;
}

wb_err service_cli_outbox_incidents(struct cli *cli)
{
    struct db *db = NULL;
    uint64_t limit = 0, after = 0;
    wb_err err = service_cli_number(cli, "after", 0, 0, INT64_MAX, &after);

    if (err == WB_OK)
        err = open_and_limit(cli, &db, &limit);
    if (err != WB_OK)
        return err;
    if (!cli->json)
        wb_buf_str(&cli->out, "    ID       AGE  STREAM  KIND  SEQUENCES  ROWS  GONE  DETAIL\n");
    err = outbox_incidents(db_handle(db), (int64_t)after, (size_t)limit, print_incident, cli,
                           &cli->why);
    if (err != WB_OK)
        wb_buf_clear(&cli->out);
    db_close(db);
    return err;
}

wb_err service_cli_outbox_orphans(struct cli *cli)
{
    struct db *db = NULL;
    uint64_t limit = 0;
    wb_err err = open_and_limit(cli, &db, &limit);

    if (err != WB_OK)
        return err;
    if (!cli->json)
        wb_buf_str(&cli->out, "STREAM  SEQUENCE  AGE  ROW  MSG_ID  SUBJECT\n");
    err = outbox_orphans(db_handle(db), (size_t)limit, print_orphan, cli, &cli->why);
    if (err != WB_OK)
        wb_buf_clear(&cli->out);
    db_close(db);
    return err;
}
