/* cli_module.c - `waybill <module> <command>`, on the module's own database. */
#include "cli.h"

#include <string.h>
#include <unistd.h>

#include "service_impl.h"

const struct module *service_cli_module(const struct cli *cli, const char *name)
{
    for (size_t i = 0; i < cli->program->module_count; i++)
        if (strcmp(cli->program->modules[i]->name, name) == 0)
            return cli->program->modules[i];
    return NULL;
}

static wb_err fail_unknown(struct cli *cli, const struct module *module, const char *typed)
{
    const char *names[64];
    size_t count = 0;

    for (size_t i = 0; i < module->command_count && count < 64; i++)
        names[count++] = module->commands[i].name;
    if (count == 0)
        return service_cli_usage(cli, "the module '%s' has no commands", module->name);
    if (typed == NULL)
        return service_cli_usage(cli, "expected a command, such as '%s'", names[0]);
    const char *nearest = service_cli_nearest(typed, names, count);
    if (nearest != NULL)
        return service_cli_usage(cli, "unknown command '%s'; did you mean '%s'?", typed, nearest);
    return service_cli_usage(cli, "unknown command '%s'", typed);
}

static const struct module_command *find(const struct module *module, const char *name)
{
    for (size_t i = 0; i < module->command_count; i++)
        if (strcmp(module->commands[i].name, name) == 0)
            return &module->commands[i];
    return NULL;
}

static wb_err run(struct cli *cli, const struct module *module,
                  const struct module_command *command, int argc, char **argv)
{
    struct service_classes *classes = NULL;
    struct service_scope *scope;
    char path[512];
    wb_err err = service_cli_load_config(cli);

    if (err == WB_OK)
        err = service_db_path(cli->config, module, path, &cli->why);
    if (err != WB_OK)
        return err;
    service_cli_setup_log(cli, false);
    if (access(path, F_OK) != 0)
        return wb_fail(&cli->why, WB_NOT_FOUND,
                       "the module '%s' has no database at %s; name the service's data directory "
                       "with --data, or start the service once",
                       module->name, path);
    err = service_classes_read(cli->config, &classes, &cli->why);
    if (err != WB_OK)
        return err;
    err = service_scope_open(cli->config, module, classes, &scope, &cli->why);
    if (err == WB_OK) {
        err = command->run(service_scope_of(scope), argc, (const char *const *)argv, cli->json,
                           &cli->out, &cli->why);
        service_scope_close(scope);
    }
    service_classes_free(classes);
    return err;
}

/* argv: what stands behind the module's name. */
wb_err service_cli_run_module(struct cli *cli, const struct module *module, int argc, char **argv)
{
    cli->given_count = 0;
    wb_err err = service_cli_take_globals(cli, &argc, argv);
    if (err != WB_OK)
        return err;
    const char *name = argc > 0 ? argv[0] : NULL;
    if (service_cli_option(cli, "help") != NULL)
        return service_cli_help_of(cli, module->name, name);
    const struct module_command *command = name == NULL ? NULL : find(module, name);
    if (command == NULL)
        return fail_unknown(cli, module, name);
    (void)strncat(cli->title, " ", sizeof(cli->title) - strlen(cli->title) - 1);
    (void)strncat(cli->title, name, sizeof(cli->title) - strlen(cli->title) - 1);
    return run(cli, module, command, argc - 1, argv + 1);
}
