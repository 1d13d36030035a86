/* cli_match.c - does a pattern match? */
#include "cli.h"

#include <string.h>

#include <waybill/subject.h>

static wb_err check(struct cli *cli)
{
    const char *dialect = service_cli_option(cli, "dialect");

    if (dialect != NULL && strcmp(dialect, "zenoh") == 0)
        return wb_fail(&cli->why, WB_UNSUPPORTED,
                       "--dialect zenoh: key expressions are not in this build yet; write the "
                       "pattern as NATS does: * for one token, > for the rest");
    if (dialect != NULL && strcmp(dialect, "nats") != 0)
        return service_cli_usage(cli, "--dialect '%s': expected nats or zenoh", dialect);
    wb_err err = subject_pattern_check(wb_str(cli->operands[0]), &cli->why);
    for (int i = 1; err == WB_OK && i < cli->operand_count; i++)
        err = subject_check(wb_str(cli->operands[i]), &cli->why);
    return err;
}

static void print_one(struct cli *cli, struct wb_str subject, bool matched, bool first)
{
    if (cli->json) {
        wb_buf_printf(&cli->out, "%s{\"subject\":", first ? "" : ",");
        wb_buf_json_str(&cli->out, subject);
        wb_buf_printf(&cli->out, ",\"match\":%s}", matched ? "true" : "false");
    } else {
        wb_buf_str(&cli->out, matched ? "match     " : "no match  ");
        wb_buf_printable(&cli->out, subject);
        wb_buf_str(&cli->out, "\n");
    }
}

wb_err service_cli_match(struct cli *cli)
{
    wb_err err = check(cli);
    if (err != WB_OK)
        return err;

    struct wb_str pattern = wb_str(cli->operands[0]);
    bool all = true;
    if (cli->json) {
        wb_buf_str(&cli->out, "{\"dialect\":\"nats\",\"pattern\":");
        wb_buf_json_str(&cli->out, pattern);
        wb_buf_str(&cli->out, ",\"results\":[");
    }
    for (int i = 1; i < cli->operand_count; i++) {
        struct wb_str subject = wb_str(cli->operands[i]);
        bool matched = subject_matches(pattern, subject);
        all = all && matched;
        print_one(cli, subject, matched, i == 1);
    }
    if (cli->json)
        wb_buf_printf(&cli->out, "],\"all\":%s}\n", all ? "true" : "false");
    cli->exit_code = all ? 0 : 1;
    return WB_OK;
}
