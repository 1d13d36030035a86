/*
 * cli.h - the command line: one table of commands yields parsing, help and `help --json`.
 *
 * Results go to cli->out and from there to standard output; talk goes to standard error. A command
 * returns a wb_err with cli->why filled in; the exit code follows from it, or from cli->exit_code
 * when the command itself went well.
 *
 * Errors are one line on standard error: `waybill COMMAND: WHY`, or with --json one object,
 * {"error": {"code": "NO_STREAM", "message": "..."}}, so that standard output holds results only.
 */
#ifndef SERVICE_CLI_H
#define SERVICE_CLI_H

#include <waybill/config.h>
#include <waybill/service.h>

#define CLI_GIVEN_MAX 160 /* options in one call; a message has at most 100 headers */

/* One option. Constant and static. */
struct cli_option {
    const char *name;     /* "header": --header */
    char letter;          /* 'H': -H; 0: none */
    const char *argument; /* "K:V"; NULL: a flag */
    const char *help;
    const char *key; /* of the configuration, which it sets; NULL: none */
};

struct cli;

/* One command. Constant and static. */
struct cli_command {
    const char *noun;
    const char *verb;  /* NULL: the noun stands alone */
    const char *usage; /* of its operands: "SUBJECT [BODY|-|@FILE]" */
    const char *help;
    const struct cli_option *options; /* ends with a row without name; NULL: none */
    int operands_min;
    int operands_max; /* -1: any number */
    bool configured;  /* the configuration is loaded before run() */
    wb_err (*run)(struct cli *cli);
};

struct cli_given {
    const struct cli_option *option;
    const char *value; /* NULL for a flag */
};

/* One call of the program. */
struct cli {
    const struct service_program *program;
    char title[80]; /* "outbox add", for messages; "" before it is known */
    bool json, quiet, verbose, color;
    int64_t timeout_ns;
    struct cli_given given[CLI_GIVEN_MAX];
    size_t given_count;
    const char **operands;
    int operand_count;
    struct config *config; /* NULL until it is loaded */
    struct wb_buf out;
    bool reader_gone; /* standard output was closed by its reader: `waybill sub ... | head -1` */
    int exit_code;    /* when the command itself went well */
    struct wb_why why;
};

/* ---- cli_table.c: what there is -------------------------------------------------------------- */

extern const struct cli_option service_cli_globals[]; /* ends with a row without name */
extern const struct cli_command service_cli_commands[];
extern const size_t service_cli_command_count;

/* ---- cli_parse.c: arguments to options and operands ------------------------------------------ */

/* Index of the first argument that is no global option; argc when there is none. WB_MISUSE. */
wb_err service_cli_find_noun(struct cli *cli, int argc, char **argv, int *ret_index);

/* Read all options and operands of a noun of the table; *ret_command is the row that was meant. */
wb_err service_cli_parse(struct cli *cli, const char *noun, int argc, char **argv,
                         const struct cli_command **ret_command);

/* Take the global options out of arguments that are somebody else's; *argc shrinks. */
wb_err service_cli_take_globals(struct cli *cli, int *argc, char **argv);

/* The nearest of names to a misspelt one; NULL when none is near. */
const char *service_cli_nearest(const char *typed, const char *const *names, size_t count);

/* Value of an option, the last one given; NULL: not given. A flag given has the value "". */
const char *service_cli_option(const struct cli *cli, const char *name);

/* The n-th value of an option that may be repeated; NULL: no more. */
const char *service_cli_option_at(const struct cli *cli, const char *name, size_t index);

/* Typed values; the fallback when the option is not given. WB_MISUSE. */
wb_err service_cli_number(struct cli *cli, const char *name, uint64_t fallback, uint64_t min,
                          uint64_t max, uint64_t *ret_value);
wb_err service_cli_duration(struct cli *cli, const char *name, int64_t fallback, int64_t *ret_ns);

/* ---- cli_setup.c: configuration, log, signals ------------------------------------------------ */

/* default < file < environment < flag. WB_MISUSE for a bad flag; else as config_load_*(). */
wb_err service_cli_load_config(struct cli *cli);

/* Lines of the platform on standard error: as configured for the service, warnings for others. */
void service_cli_setup_log(const struct cli *cli, bool service);

/* Block SIGINT and SIGTERM in this thread and all later ones; they make *ret_fd readable. */
wb_err service_cli_signals_open(struct cli *cli, int *ret_fd);
/* Let signals end the process again. */
void service_cli_signals_close(int fd);

/* ---- cli_output.c ---------------------------------------------------------------------------- */

/* Exit code of an error. */
int service_cli_exit_code(wb_err err);

/* The error of a name, "NO_STREAM"; WB_INTERNAL when there is none. */
wb_err service_cli_err_of_name(const char *name);

/* A usage error that names the help to read. Returns WB_MISUSE. */
wb_err service_cli_usage(struct cli *cli, const char *format, ...) WB_PRINTF(2, 3);

/* One line on standard error, control bytes escaped; nothing with --quiet. */
void service_cli_talk(const struct cli *cli, const char *format, ...) WB_PRINTF(2, 3);

void service_cli_print_error(const struct cli *cli, wb_err err);

/* cli->out to standard output. WB_CLOSED when its reader has gone; WB_IO. */
wb_err service_cli_flush(struct cli *cli);

/* ---- cli_help.c ------------------------------------------------------------------------------ */

void service_cli_help_overview(struct cli *cli);
/* Help of a noun, or of one of its verbs (verb may be NULL). WB_NOT_FOUND. */
wb_err service_cli_help_of(struct cli *cli, const char *noun, const char *verb);

/* ---- cli_module.c: commands of modules ------------------------------------------------------- */

const struct module *service_cli_module(const struct cli *cli, const char *name);
wb_err service_cli_run_module(struct cli *cli, const struct module *module, int argc, char **argv);

/* ---- the commands ---------------------------------------------------------------------------- */

wb_err service_cli_serve(struct cli *cli);
wb_err service_cli_match(struct cli *cli);
wb_err service_cli_pub(struct cli *cli);
wb_err service_cli_sub(struct cli *cli);
wb_err service_cli_outbox_add(struct cli *cli);
wb_err service_cli_outbox_cancel(struct cli *cli);
wb_err service_cli_outbox_status(struct cli *cli);
wb_err service_cli_outbox_ls(struct cli *cli);
wb_err service_cli_outbox_show(struct cli *cli);
wb_err service_cli_outbox_run(struct cli *cli);
wb_err service_cli_outbox_repair(struct cli *cli);
wb_err service_cli_outbox_incidents(struct cli *cli);
wb_err service_cli_outbox_orphans(struct cli *cli);
wb_err service_cli_inbox_ls(struct cli *cli);
wb_err service_cli_inbox_show(struct cli *cli);
wb_err service_cli_inbox_forget(struct cli *cli);
wb_err service_cli_outbox_verify(struct cli *cli);
wb_err service_cli_outbox_retry(struct cli *cli);
wb_err service_cli_dlq_ls(struct cli *cli);
wb_err service_cli_dlq_groups(struct cli *cli);
wb_err service_cli_dlq_show(struct cli *cli);
wb_err service_cli_dlq_retry(struct cli *cli);
wb_err service_cli_dlq_edit(struct cli *cli);
wb_err service_cli_dlq_discard(struct cli *cli);
wb_err service_cli_dlq_export(struct cli *cli);
wb_err service_cli_dlq_import(struct cli *cli);
wb_err service_cli_operator_log(struct cli *cli);
wb_err service_cli_outbox_fence(struct cli *cli);
wb_err service_cli_outbox_explain(struct cli *cli);
wb_err service_cli_outbox_purge(struct cli *cli);
wb_err service_cli_outbox_replay(struct cli *cli);
wb_err service_cli_doctor(struct cli *cli);
wb_err service_cli_config_show(struct cli *cli);
wb_err service_cli_version(struct cli *cli);
wb_err service_cli_help(struct cli *cli);

#endif /* SERVICE_CLI_H */
