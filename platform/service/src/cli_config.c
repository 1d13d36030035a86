/* cli_config.c - `config show` and `version`. */
#include "cli.h"

#include <string.h>

#include <event2/event.h>
#include <jansson.h>
#include <sqlite3.h>

/* What stands before an @ of a URL becomes three stars, in each part of a list. */
static void add_redacted(struct wb_buf *out, const char *value)
{
    const char *at;

    while ((at = strchr(value, '@')) != NULL) {
        const char *start = at;
        while (start > value && start[-1] != '/' && start[-1] != ',')
            start--;
        if (start == value || start[-1] != '/')
            break; /* no URL */
        wb_buf_add(out, value, (size_t)(start - value));
        wb_buf_str(out, "***");
        value = at;
        while (*value != ',' && *value != '\0')
            wb_buf_add(out, value++, 1);
    }
    wb_buf_str(out, value);
}

static void print_entry(struct cli *cli, const struct config_entry *entry, bool first)
{
    struct wb_buf value = {0};
    bool origin = service_cli_option(cli, "origin") != NULL;

    if (entry->value != NULL)
        add_redacted(&value, entry->value);
    if (cli->json) {
        wb_buf_str(&cli->out, first ? "{\"name\":" : ",{\"name\":");
        wb_buf_json_str(&cli->out, wb_str(entry->name));
        wb_buf_str(&cli->out, ",\"value\":");
        if (entry->value != NULL)
            wb_buf_json_str(&cli->out, wb_str_n(value.ptr, value.len));
        else
            wb_buf_str(&cli->out, "null");
        wb_buf_str(&cli->out, ",\"origin\":");
        wb_buf_json_str(&cli->out, wb_str(entry->origin));
        wb_buf_str(&cli->out, "}");
    } else {
        wb_buf_printf(&cli->out, "%s = ", entry->name);
        if (entry->value != NULL)
            wb_buf_json_str(&cli->out, wb_str_n(value.ptr, value.len));
        else
            wb_buf_str(&cli->out, "(unset)");
        if (origin)
            wb_buf_printf(&cli->out, "  # %s", entry->origin);
        wb_buf_str(&cli->out, "\n");
    }
    wb_buf_free(&value);
}

wb_err service_cli_config_show(struct cli *cli)
{
    struct config_entry entry;
    bool first = true;

    if (cli->json)
        wb_buf_str(&cli->out, "{\"settings\":[");
    for (size_t i = 0; config_entry(cli->config, i, &entry); i++) {
        if (strchr(entry.name, '*') != NULL)
            continue; /* stands for settings of any name; those given follow */
        print_entry(cli, &entry, first);
        first = false;
    }
    if (cli->json)
        wb_buf_str(&cli->out, "]}\n");
    return WB_OK;
}

wb_err service_cli_version(struct cli *cli)
{
    wb_buf_printf(&cli->out,
                  cli->json ? "{\"waybill\":\"%s\",\"sqlite\":\"%s\",\"libevent\":\"%s\","
                              "\"jansson\":\"%s\"}\n"
                            : "waybill %s\nsqlite %s\nlibevent %s\njansson %s\n",
                  WAYBILL_VERSION, sqlite3_libversion(), event_get_version(),
                  jansson_version_str());
    return WB_OK;
}
