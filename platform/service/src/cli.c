/* cli.c - from argv to an exit code. */
#include "cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- which command --------------------------------------------------------------------------- */

static bool is_table_noun(const char *noun)
{
    for (size_t i = 0; i < service_cli_command_count; i++)
        if (strcmp(service_cli_commands[i].noun, noun) == 0)
            return true;
    return false;
}

static const struct service_command *program_command(const struct cli *cli, const char *name)
{
    for (size_t i = 0; i < cli->program->command_count; i++)
        if (strcmp(cli->program->commands[i].name, name) == 0)
            return &cli->program->commands[i];
    return NULL;
}

static wb_err fail_unknown_noun(struct cli *cli, const char *typed)
{
    const char *names[128];
    const size_t max = sizeof(names) / sizeof(names[0]);
    size_t count = 0;

    for (size_t i = 0; i < service_cli_command_count && count < max; i++)
        names[count++] = service_cli_commands[i].noun;
    for (size_t i = 0; i < cli->program->command_count && count < max; i++)
        names[count++] = cli->program->commands[i].name;
    for (size_t i = 0; i < cli->program->module_count && count < max; i++)
        names[count++] = cli->program->modules[i]->name;
    const char *nearest = service_cli_nearest(typed, names, count);
    if (nearest != NULL)
        return service_cli_usage(cli, "unknown command '%s'; did you mean '%s'?", typed, nearest);
    return service_cli_usage(cli, "unknown command '%s'", typed);
}

/* ---- running it ------------------------------------------------------------------------------ */

static wb_err run_table_command(struct cli *cli, const char *noun, int argc, char **argv)
{
    const struct cli_command *command = NULL;
    wb_err err = service_cli_parse(cli, noun, argc, argv, &command);

    if (err != WB_OK)
        return err;
    if (service_cli_option(cli, "help") != NULL)
        return service_cli_help_of(cli, noun, command != NULL ? command->verb : NULL);
    if (command->configured)
        err = service_cli_load_config(cli);
    if (err != WB_OK)
        return err;
    service_cli_setup_log(cli, command->run == service_cli_serve);
    return command->run(cli);
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return true;
    return false;
}

/* argv: the noun, then all other arguments, those that stood before it included. */
static wb_err run_noun(struct cli *cli, int argc, char **argv)
{
    const char *noun = argv[0];
    const struct service_command *own = program_command(cli, noun);
    const struct module *module = service_cli_module(cli, noun);

    (void)strncat(cli->title, noun, sizeof(cli->title) - 1);
    if (is_table_noun(noun))
        return run_table_command(cli, noun, argc, argv);
    if (own != NULL && asks_for_help(argc, argv))
        return service_cli_help_of(cli, noun, NULL);
    if (own != NULL) {
        cli->exit_code = own->run(argc, argv);
        return WB_OK;
    }
    if (module != NULL)
        return service_cli_run_module(cli, module, argc - 1, argv + 1);
    cli->title[0] = '\0';
    return fail_unknown_noun(cli, noun);
}

static wb_err dispatch(struct cli *cli, int argc, char **argv)
{
    int index;
    wb_err err = service_cli_find_noun(cli, argc, argv, &index);

    if (err != WB_OK)
        return err;
    if (index == argc && service_cli_option(cli, "version") != NULL)
        return service_cli_version(cli);
    if (index == argc)
        return service_cli_help(cli);
    /* Global options may stand before the noun; from here on they stand behind it. */
    char *noun = argv[index];
    memmove(argv + 2, argv + 1, (size_t)(index - 1) * sizeof(*argv));
    argv[1] = noun;
    return run_noun(cli, argc - 1, argv + 1);
}

static bool wants_color(void)
{
    const char *no = getenv("NO_COLOR");
    const char *force = getenv("FORCE_COLOR");
    const char *term = getenv("TERM");

    if (no != NULL && no[0] != '\0')
        return false;
    if (force != NULL && force[0] != '\0')
        return true;
    return isatty(STDOUT_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
}

int service_main(int argc, char **argv, const struct service_program *program)
{
    struct cli cli = {.program = program, .timeout_ns = 5 * WB_SEC, .color = wants_color()};
    char **arguments = calloc((size_t)argc + 1, sizeof(*arguments)); /* ours to rearrange */

    if (arguments == NULL)
        return service_cli_exit_code(WB_NOMEM);
    memcpy(arguments, argv, (size_t)argc * sizeof(*arguments));
    (void)signal(SIGPIPE, SIG_IGN);
    wb_err err = dispatch(&cli, argc, arguments);
    wb_err flushed = service_cli_flush(&cli);
    if (err == WB_OK)
        err = flushed;
    if (err != WB_OK && !cli.reader_gone)
        service_cli_print_error(&cli, err);

    config_destroy(cli.config);
    wb_buf_free(&cli.out);
    free(cli.operands);
    free(arguments);
    return err != WB_OK ? service_cli_exit_code(err) : cli.exit_code;
}
