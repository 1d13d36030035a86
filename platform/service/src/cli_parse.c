/* cli_parse.c - arguments to options and operands, by getopt_long built from the table. */
#include "cli.h"

#include <assert.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 64 /* of a noun and all its verbs, with the global ones */
#define LONG_BASE                                                                                  \
    256           /* getopt's value of a long option: its place in the list, above any letter      \
                   */
#define OPERAND 1 /* getopt's value of an operand, with '-' in front of the letters */

/* What getopt needs, and the rows it was made from. */
struct grammar {
    const struct cli_option *rows[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 1];
    char letters[2 * OPTIONS_MAX + 3];
    size_t count;
};

/* ---- building -------------------------------------------------------------------------------- */

static bool has_row(const struct grammar *grammar, const char *name)
{
    for (size_t i = 0; i < grammar->count; i++)
        if (strcmp(grammar->rows[i]->name, name) == 0)
            return true;
    return false;
}

/* Verbs of a noun share options; equal names take equal arguments. */
static void add_rows(struct grammar *grammar, const struct cli_option *rows)
{
    for (; rows != NULL && rows->name != NULL; rows++) {
        if (has_row(grammar, rows->name))
            continue;
        assert(grammar->count < OPTIONS_MAX);
        grammar->longs[grammar->count] = (struct option){
            .name = rows->name,
            .has_arg = rows->argument != NULL ? required_argument : no_argument,
            .val = LONG_BASE + (int)grammar->count,
        };
        grammar->rows[grammar->count++] = rows;
    }
}

/* mode: '+' stops at the first operand, '-' hands operands out in order; neither permutes argv. */
static void finish(struct grammar *grammar, char mode)
{
    size_t at = 0;

    grammar->letters[at++] = mode;
    grammar->letters[at++] = ':'; /* tell a missing argument from an unknown option */
    for (size_t i = 0; i < grammar->count; i++) {
        if (grammar->rows[i]->letter == 0)
            continue;
        grammar->letters[at++] = grammar->rows[i]->letter;
        if (grammar->rows[i]->argument != NULL)
            grammar->letters[at++] = ':';
    }
    grammar->letters[at] = '\0';
    opterr = 0;
    optind = 0; /* glibc: begin anew */
}

static const struct cli_option *row_of(const struct grammar *grammar, int value)
{
    if (value >= LONG_BASE)
        return grammar->rows[value - LONG_BASE];
    for (size_t i = 0; i < grammar->count; i++)
        if (grammar->rows[i]->letter == value)
            return grammar->rows[i];
    return NULL;
}

/* ---- errors ---------------------------------------------------------------------------------- */

const char *service_cli_nearest(const char *typed, const char *const *names, size_t count)
{
    struct wb_str text = wb_str(typed);
    unsigned best = text.len < 6 ? 3 : 4; /* more slips than that make it another word */
    const char *nearest = NULL;

    for (size_t i = 0; i < count; i++) {
        unsigned distance = wb_str_distance(text, wb_str(names[i]));
        if (distance < best && distance < text.len) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

static wb_err fail_unknown_long(struct cli *cli, const struct grammar *grammar, const char *typed)
{
    const char *names[OPTIONS_MAX];
    char name[64];
    size_t len = strcspn(typed + 2, "=");

    if (len >= sizeof(name))
        len = sizeof(name) - 1;
    memcpy(name, typed + 2, len);
    name[len] = '\0';
    for (size_t i = 0; i < grammar->count; i++)
        names[i] = grammar->rows[i]->name;
    const char *nearest = service_cli_nearest(name, names, grammar->count);
    if (nearest != NULL)
        return service_cli_usage(cli, "unknown option '--%s'; did you mean '--%s'?", name, nearest);
    return service_cli_usage(cli, "unknown option '--%s'", name);
}

static wb_err fail_option(struct cli *cli, const struct grammar *grammar, char **argv, int got)
{
    const struct cli_option *row = optopt != 0 ? row_of(grammar, optopt) : NULL;

    if (got == ':' && row != NULL)
        return service_cli_usage(cli, "option '--%s' takes a value: --%s %s", row->name, row->name,
                                 row->argument);
    if (row != NULL)
        return service_cli_usage(cli, "option '--%s' takes no value", row->name);
    if (optopt != 0)
        return service_cli_usage(cli, "unknown option '-%c'", optopt);
    return fail_unknown_long(cli, grammar, argv[optind - 1]);
}

/* ---- taking ---------------------------------------------------------------------------------- */

static wb_err give(struct cli *cli, const struct cli_option *row, const char *value)
{
    if (cli->given_count == CLI_GIVEN_MAX)
        return service_cli_usage(cli, "more than %d options", CLI_GIVEN_MAX);
    cli->given[cli->given_count++] = (struct cli_given){row, value};
    return WB_OK;
}

/* The options that are fields of struct cli. */
static wb_err take_fields(struct cli *cli)
{
    cli->json = service_cli_option(cli, "json") != NULL;
    cli->quiet = service_cli_option(cli, "quiet") != NULL;
    cli->verbose = service_cli_option(cli, "verbose") != NULL;
    if (service_cli_option(cli, "no-color") != NULL)
        cli->color = false;
    return service_cli_duration(cli, "timeout", cli->timeout_ns, &cli->timeout_ns);
}

wb_err service_cli_find_noun(struct cli *cli, int argc, char **argv, int *ret_index)
{
    struct grammar grammar = {.count = 0};
    int got;

    add_rows(&grammar, service_cli_globals);
    finish(&grammar, '+');
    while ((got = getopt_long(argc, argv, grammar.letters, grammar.longs, NULL)) != -1) {
        if (got == '?' || got == ':')
            return fail_option(cli, &grammar, argv, got);
        wb_err err = give(cli, row_of(&grammar, got), optarg != NULL ? optarg : "");
        if (err != WB_OK)
            return err;
    }
    *ret_index = optind;
    return take_fields(cli);
}

static wb_err read_all(struct cli *cli, const struct grammar *grammar, int argc, char **argv)
{
    wb_err err = WB_OK;
    int got;

    cli->given_count = 0;
    cli->operands = calloc((size_t)argc + 1, sizeof(*cli->operands));
    if (cli->operands == NULL)
        return WB_NOMEM;
    while (err == WB_OK &&
           (got = getopt_long(argc, argv, grammar->letters, grammar->longs, NULL)) != -1) {
        if (got == '?' || got == ':')
            err = fail_option(cli, grammar, argv, got);
        else if (got == OPERAND)
            cli->operands[cli->operand_count++] = optarg;
        else
            err = give(cli, row_of(grammar, got), optarg != NULL ? optarg : "");
    }
    while (err == WB_OK && optind < argc) /* behind "--" */
        cli->operands[cli->operand_count++] = argv[optind++];
    return err == WB_OK ? take_fields(cli) : err;
}

/* ---- choosing the row ------------------------------------------------------------------------ */

static wb_err fail_unknown_verb(struct cli *cli, const char *noun, const char *typed)
{
    const char *verbs[OPTIONS_MAX];
    size_t count = 0;
    char all[256] = "";

    for (size_t i = 0; i < service_cli_command_count && count < OPTIONS_MAX; i++) {
        const struct cli_command *row = &service_cli_commands[i];
        if (strcmp(row->noun, noun) != 0)
            continue;
        verbs[count++] = row->verb;
        (void)strncat(all, count > 1 ? ", " : "", sizeof(all) - strlen(all) - 1);
        (void)strncat(all, row->verb, sizeof(all) - strlen(all) - 1);
    }
    if (typed == NULL)
        return service_cli_usage(cli, "expected one of: %s", all);
    const char *nearest = service_cli_nearest(typed, verbs, count);
    if (nearest != NULL)
        return service_cli_usage(cli, "unknown command '%s'; did you mean '%s'?", typed, nearest);
    return service_cli_usage(cli, "unknown command '%s'; expected one of: %s", typed, all);
}

static const struct cli_command *find_row(const char *noun, const char *verb)
{
    for (size_t i = 0; i < service_cli_command_count; i++) {
        const struct cli_command *row = &service_cli_commands[i];
        if (strcmp(row->noun, noun) == 0 &&
            (row->verb == NULL || (verb != NULL && strcmp(row->verb, verb) == 0)))
            return row;
    }
    return NULL;
}

static bool in_rows(const struct cli_option *rows, const struct cli_option *option)
{
    for (; rows != NULL && rows->name != NULL; rows++)
        if (strcmp(rows->name, option->name) == 0)
            return true;
    return false;
}

/* Options of another verb were understood so far; here they are foreign. */
static wb_err check_options(struct cli *cli, const struct cli_command *row)
{
    for (size_t i = 0; i < cli->given_count; i++)
        if (!in_rows(service_cli_globals, cli->given[i].option) &&
            !in_rows(row->options, cli->given[i].option))
            return service_cli_usage(cli, "'%s' has no option '--%s'", cli->title,
                                     cli->given[i].option->name);
    return WB_OK;
}

static wb_err check_operands(struct cli *cli, const struct cli_command *row)
{
    if (cli->operand_count < row->operands_min)
        return service_cli_usage(cli, "expected %s, got %d argument%s", row->usage,
                                 cli->operand_count, cli->operand_count == 1 ? "" : "s");
    if (row->operands_max >= 0 && cli->operand_count > row->operands_max)
        return service_cli_usage(cli, "'%s' is one argument too many; expected %s",
                                 cli->operands[row->operands_max],
                                 row->usage[0] != '\0' ? row->usage : "none");
    return WB_OK;
}

wb_err service_cli_parse(struct cli *cli, const char *noun, int argc, char **argv,
                         const struct cli_command **ret_command)
{
    struct grammar grammar = {.count = 0};

    add_rows(&grammar, service_cli_globals);
    for (size_t i = 0; i < service_cli_command_count; i++)
        if (strcmp(service_cli_commands[i].noun, noun) == 0)
            add_rows(&grammar, service_cli_commands[i].options);
    finish(&grammar, '-');
    wb_err err = read_all(cli, &grammar, argc, argv);
    if (err != WB_OK)
        return err;

    const char *verb = cli->operand_count > 0 ? cli->operands[0] : NULL;
    const struct cli_command *row = find_row(noun, verb);
    bool help = service_cli_option(cli, "help") != NULL;
    if (row == NULL && help && verb == NULL)
        return WB_OK; /* help of the noun */
    if (row == NULL)
        return fail_unknown_verb(cli, noun, verb);
    if (row->verb != NULL) {
        (void)strncat(cli->title, " ", sizeof(cli->title) - strlen(cli->title) - 1);
        (void)strncat(cli->title, row->verb, sizeof(cli->title) - strlen(cli->title) - 1);
        cli->operand_count--;
        memmove(cli->operands, cli->operands + 1,
                (size_t)cli->operand_count * sizeof(*cli->operands));
    }
    *ret_command = row;
    if (help)
        return WB_OK;
    err = check_options(cli, row);
    return err == WB_OK ? check_operands(cli, row) : err;
}

/* ---- arguments that are somebody else's ------------------------------------------------------ */

static const struct cli_option *global_of(const char *argument, const char **ret_value)
{
    for (const struct cli_option *row = service_cli_globals; row->name != NULL; row++) {
        size_t len = strlen(row->name);
        *ret_value = NULL;
        if (argument[0] == '-' && row->letter != 0 && argument[1] == row->letter &&
            argument[2] == '\0')
            return row;
        if (strncmp(argument, "--", 2) != 0 || strncmp(argument + 2, row->name, len) != 0)
            continue;
        if (argument[2 + len] == '=' && row->argument != NULL)
            *ret_value = argument + 2 + len + 1;
        if (argument[2 + len] == '\0' || *ret_value != NULL)
            return row;
    }
    return NULL;
}

wb_err service_cli_take_globals(struct cli *cli, int *argc, char **argv)
{
    int kept = 0;
    bool ended = false; /* by "--" */
    wb_err err = WB_OK;

    for (int i = 0; err == WB_OK && i < *argc; i++) {
        const char *value;
        const struct cli_option *row = ended ? NULL : global_of(argv[i], &value);
        ended = ended || strcmp(argv[i], "--") == 0;
        if (row == NULL) {
            argv[kept++] = argv[i];
            continue;
        }
        if (row->argument != NULL && value == NULL) {
            if (i + 1 == *argc)
                return service_cli_usage(cli, "option '--%s' takes a value: --%s %s", row->name,
                                         row->name, row->argument);
            value = argv[++i];
        }
        err = give(cli, row, value != NULL ? value : "");
    }
    *argc = kept;
    return err == WB_OK ? take_fields(cli) : err;
}

/* ---- reading them ---------------------------------------------------------------------------- */

const char *service_cli_option(const struct cli *cli, const char *name)
{
    for (size_t i = cli->given_count; i-- > 0;)
        if (strcmp(cli->given[i].option->name, name) == 0)
            return cli->given[i].value;
    return NULL;
}

const char *service_cli_option_at(const struct cli *cli, const char *name, size_t index)
{
    for (size_t i = 0; i < cli->given_count; i++)
        if (strcmp(cli->given[i].option->name, name) == 0 && index-- == 0)
            return cli->given[i].value;
    return NULL;
}

wb_err service_cli_number(struct cli *cli, const char *name, uint64_t fallback, uint64_t min,
                          uint64_t max, uint64_t *ret_value)
{
    const char *text = service_cli_option(cli, name);
    uint64_t value = fallback;

    if (text != NULL && (!wb_str_to_u64(wb_str(text), &value) || value < min || value > max))
        return service_cli_usage(cli, "--%s '%s': expected a whole number from %llu to %llu", name,
                                 text, (unsigned long long)min, (unsigned long long)max);
    *ret_value = value;
    return WB_OK;
}

wb_err service_cli_duration(struct cli *cli, const char *name, int64_t fallback, int64_t *ret_ns)
{
    const char *text = service_cli_option(cli, name);
    int64_t value = fallback;

    if (text != NULL && (!wb_duration_parse(wb_str(text), &value) || value <= 0))
        return service_cli_usage(cli,
                                 "--%s '%s': expected a time with its unit, such as 500ms, 5s "
                                 "or 1m30s",
                                 name, text);
    *ret_ns = value;
    return WB_OK;
}
