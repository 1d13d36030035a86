/* cli_operator.c - operator log: what was done by hand. */
#include <inttypes.h>

#include <waybill/operator_log.h>

#include "cli_outbox.h"
#include "cli_print.h"

static bool print_entry(void *ctx, const struct operator_log_entry *entry)
{
    struct cli *cli = ctx;
    struct wb_buf *out = &cli->out;
    char age[24];

    if (cli->json) {
        wb_buf_printf(out, "{\"id\":%" PRId64, entry->id);
        service_cli_json_time(out, "at", entry->at_wall_ns);
        service_cli_json_text(out, "who", entry->who);
        service_cli_json_text(out, "command", entry->command);
        service_cli_json_text(out, "target", entry->target);
        service_cli_json_text(out, "reason", entry->reason);
        service_cli_json_text(out, "detail", entry->detail);
        wb_buf_str(out, "}\n");
        return service_cli_flush(cli) == WB_OK;
    }
    service_cli_outbox_age(entry->at_wall_ns, age);
    wb_buf_printf(out, "%6" PRId64 "  %8s  ", entry->id, age);
    wb_buf_printable(out, entry->who);
    wb_buf_str(out, "  ");
    wb_buf_printable(out, entry->command);
    wb_buf_str(out, "  ");
    wb_buf_printable(out, entry->target);
    if (entry->reason.len > 0) {
        wb_buf_str(out, "  because: ");
        wb_buf_printable(out, entry->reason);
    }
    wb_buf_str(out, "\n");
    return service_cli_flush(cli) == WB_OK;
}

static wb_err read_query(struct cli *cli, struct operator_log_query *query,
                         struct filter **ret_filter)
{
    const char *where = service_cli_option(cli, "where");
    uint64_t before = 0;
    uint64_t limit = 0;
    wb_err err = service_cli_number(cli, "before", 0, 1, INT64_MAX, &before);

    if (err == WB_OK)
        err = service_cli_number(cli, "limit", 100, 1, OPERATOR_LOG_ROWS_MAX, &limit);
    if (err == WB_OK && where != NULL)
        err = filter_parse(wb_str(where), operator_log_fields, operator_log_field_count, ret_filter,
                           &cli->why);
    query->filter = *ret_filter;
    query->before_id = (int64_t)before;
    query->limit = (size_t)limit;
    query->now_wall_ns = wb_wall_ns(wb_clock_system());
    return err;
}

wb_err service_cli_operator_log(struct cli *cli)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    struct operator_log_query query;
    struct filter *filter = NULL;
    struct db *db = NULL;
    wb_err err = read_query(cli, &query, &filter);

    if (err == WB_OK)
        err = service_cli_outbox_open(cli, &options, &db);
    if (err == WB_OK) {
        if (!cli->json)
            wb_buf_str(&cli->out, "    ID       AGE  WHO  COMMAND  TARGET\n");
        err = operator_log_list(db_handle(db), &query, print_entry, cli, &cli->why);
    }
    if (err != WB_OK)
        wb_buf_clear(&cli->out);
    db_close(db);
    filter_destroy(filter);
    return err;
}
