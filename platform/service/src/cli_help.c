/* cli_help.c - help, made from the table. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const char examples[] =
    "  waybill demo                                       the whole story in 15 s\n"
    "  waybill serve                                      run the service\n"
    "  waybill sub 'auth.>'                               watch events\n"
    "  waybill pub auth.user.created '{\"user\":\"usr_1\"}'   publish one\n"
    "  waybill doctor                                     what is wrong, and how to mend it\n";

static const char exit_codes[] =
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 unreachable or timed out, 5 denied,\n"
    "6 conflict, 7 invalid, 8 partly done, 130 interrupted.\n";

/* ---- text ------------------------------------------------------------------------------------ */

static void text_options(struct wb_buf *out, const struct cli_option *rows)
{
    for (; rows != NULL && rows->name != NULL; rows++) {
        char left[48];
        char letter[5] = "    ";
        if (rows->letter != 0)
            (void)snprintf(letter, sizeof(letter), "-%c, ", rows->letter);
        (void)snprintf(left, sizeof(left), "%s--%s%s%s", letter, rows->name,
                       rows->argument != NULL ? " " : "",
                       rows->argument != NULL ? rows->argument : "");
        wb_buf_printf(out, "  %-26s %s\n", left, rows->help);
    }
}

static void text_usage(struct wb_buf *out, const char *noun, const char *verb, const char *usage)
{
    wb_buf_printf(out, "waybill %s%s%s%s%s", noun, verb != NULL ? " " : "",
                  verb != NULL ? verb : "", usage[0] != '\0' ? " " : "", usage);
}

static void text_command(struct wb_buf *out, const struct cli_command *row)
{
    wb_buf_str(out, "usage: ");
    text_usage(out, row->noun, row->verb, row->usage);
    wb_buf_printf(out, " [options]\n\n%s.\n\n", row->help);
    if (row->options != NULL) {
        wb_buf_str(out, "options:\n");
        text_options(out, row->options);
        wb_buf_str(out, "\n");
    }
    wb_buf_str(out, "everywhere:\n");
    text_options(out, service_cli_globals);
    wb_buf_printf(out, "\n%s", exit_codes);
}

static void text_line(struct wb_buf *out, const char *noun, const char *verb, const char *help)
{
    char left[48];

    (void)snprintf(left, sizeof(left), "%s%s%s", noun, verb != NULL ? " " : "",
                   verb != NULL ? verb : "");
    wb_buf_printf(out, "  %-18s %s\n", left, help);
}

void service_cli_help_overview(struct cli *cli)
{
    struct wb_buf *out = &cli->out;

    wb_buf_str(out, "waybill moves events between modules, and never loses or doubles one.\n\n");
    wb_buf_str(out, "usage: waybill COMMAND [options]\n\n");
    for (size_t i = 0; i < service_cli_command_count; i++)
        text_line(out, service_cli_commands[i].noun, service_cli_commands[i].verb,
                  service_cli_commands[i].help);
    for (size_t i = 0; i < cli->program->command_count; i++)
        text_line(out, cli->program->commands[i].name, NULL, cli->program->commands[i].help);
    for (size_t i = 0; i < cli->program->module_count; i++)
        for (size_t j = 0; j < cli->program->modules[i]->command_count; j++)
            text_line(out, cli->program->modules[i]->name,
                      cli->program->modules[i]->commands[j].name,
                      cli->program->modules[i]->commands[j].help);
    wb_buf_printf(out, "\nexamples:\n%s\nmore: waybill help COMMAND\n", examples);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void json_member(struct wb_buf *out, const char *name, const char *value)
{
    wb_buf_printf(out, ",\"%s\":", name);
    if (value != NULL)
        wb_buf_json_str(out, wb_str(value));
    else
        wb_buf_str(out, "null");
}

static void json_options(struct wb_buf *out, const struct cli_option *rows)
{
    wb_buf_str(out, ",\"options\":[");
    for (bool first = true; rows != NULL && rows->name != NULL; rows++, first = false) {
        char letter[2] = {rows->letter, '\0'};
        wb_buf_str(out, first ? "{\"name\":" : ",{\"name\":");
        wb_buf_json_str(out, wb_str(rows->name));
        json_member(out, "letter", rows->letter != 0 ? letter : NULL);
        json_member(out, "argument", rows->argument);
        json_member(out, "help", rows->help);
        json_member(out, "setting", rows->key);
        wb_buf_str(out, "}");
    }
    wb_buf_str(out, "]");
}

static void json_command(struct wb_buf *out, const char *noun, const char *verb, const char *usage,
                         const char *help, const struct cli_option *options)
{
    if (out->len > 0 && out->ptr[out->len - 1] == '}')
        wb_buf_str(out, ",");
    wb_buf_str(out, "{\"command\":");
    wb_buf_json_str(out, wb_str(noun));
    json_member(out, "verb", verb);
    json_member(out, "usage", usage);
    json_member(out, "help", help);
    json_options(out, options);
    wb_buf_str(out, "}");
}

static void json_row(struct wb_buf *out, const struct cli_command *row)
{
    json_command(out, row->noun, row->verb, row->usage, row->help, row->options);
}

static void json_all(struct cli *cli)
{
    struct wb_buf *out = &cli->out;

    wb_buf_str(out, "{\"program\":\"waybill\"");
    json_options(out, service_cli_globals);
    wb_buf_str(out, ",\"commands\":[");
    for (size_t i = 0; i < service_cli_command_count; i++)
        json_row(out, &service_cli_commands[i]);
    for (size_t i = 0; i < cli->program->command_count; i++) {
        const struct service_command *command = &cli->program->commands[i];
        json_command(out, command->name, NULL, command->usage, command->help, NULL);
    }
    for (size_t i = 0; i < cli->program->module_count; i++) {
        const struct module *module = cli->program->modules[i];
        for (size_t j = 0; j < module->command_count; j++)
            json_command(out, module->name, module->commands[j].name, module->commands[j].usage,
                         module->commands[j].help, NULL);
    }
    wb_buf_str(out, "]}\n");
}

/* ---- one command ----------------------------------------------------------------------------- */

/* Commands of the program and of modules have a usage line and a sentence. */
static bool help_of_others(struct cli *cli, const char *noun, const char *verb)
{
    const struct module *module = service_cli_module(cli, noun);
    size_t before = cli->out.len;

    for (size_t i = 0; i < cli->program->command_count; i++) {
        const struct service_command *command = &cli->program->commands[i];
        if (strcmp(command->name, noun) != 0)
            continue;
        wb_buf_str(&cli->out, "usage: ");
        text_usage(&cli->out, noun, NULL, command->usage);
        wb_buf_printf(&cli->out, "\n\n%s\n", command->help);
    }
    for (size_t i = 0; module != NULL && i < module->command_count; i++) {
        const struct module_command *command = &module->commands[i];
        if (verb != NULL && strcmp(command->name, verb) != 0)
            continue;
        wb_buf_str(&cli->out, "usage: ");
        text_usage(&cli->out, noun, command->name, command->usage);
        wb_buf_printf(&cli->out, "\n\n%s\n", command->help);
    }
    return cli->out.len > before;
}

wb_err service_cli_help_of(struct cli *cli, const char *noun, const char *verb)
{
    const struct cli_command *only = NULL;
    size_t rows = 0;

    for (size_t i = 0; i < service_cli_command_count; i++) {
        const struct cli_command *row = &service_cli_commands[i];
        if (strcmp(row->noun, noun) != 0 ||
            (verb != NULL && (row->verb == NULL || strcmp(row->verb, verb) != 0)))
            continue;
        only = row;
        rows++;
    }
    if (rows == 0)
        return help_of_others(cli, noun, verb)
                   ? WB_OK
                   : wb_fail(&cli->why, WB_NOT_FOUND,
                             "there is no command '%s%s%s'; see: waybill help", noun,
                             verb != NULL ? " " : "", verb != NULL ? verb : "");
    if (cli->json) {
        wb_buf_str(&cli->out, "{\"commands\":[");
        for (size_t i = 0; i < service_cli_command_count; i++)
            if (strcmp(service_cli_commands[i].noun, noun) == 0 &&
                (rows > 1 || &service_cli_commands[i] == only))
                json_row(&cli->out, &service_cli_commands[i]);
        wb_buf_str(&cli->out, "]}\n");
        return WB_OK;
    }
    if (rows == 1) {
        text_command(&cli->out, only);
        return WB_OK;
    }
    wb_buf_printf(&cli->out, "usage: waybill %s COMMAND [options]\n\n", noun);
    for (size_t i = 0; i < service_cli_command_count; i++)
        if (strcmp(service_cli_commands[i].noun, noun) == 0)
            text_line(&cli->out, noun, service_cli_commands[i].verb, service_cli_commands[i].help);
    wb_buf_printf(&cli->out, "\nmore: waybill help %s COMMAND\n", noun);
    return WB_OK;
}

wb_err service_cli_help(struct cli *cli)
{
    if (cli->operand_count > 0)
        return service_cli_help_of(cli, cli->operands[0],
                                   cli->operand_count > 1 ? cli->operands[1] : NULL);
    if (cli->json)
        json_all(cli);
    else
        service_cli_help_overview(cli);
    return WB_OK;
}
