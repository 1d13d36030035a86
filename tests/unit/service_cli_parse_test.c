/* The table of commands, and how arguments are read by it. */
#include <stdio.h>

#include "test_support.h"

#include "cli.h"

static const struct service_program program = {.modules = NULL};

/* A call of one command; freed by end(). */
struct call {
    struct cli cli;
    const struct cli_command *command;
    wb_err err;
};

static void begin(struct call *call)
{
    *call = (struct call){.cli = {.program = &program, .timeout_ns = 5 * WB_SEC}};
}

static void end(struct call *call)
{
    free(call->cli.operands);
    wb_buf_free(&call->cli.out);
}

/* words: the arguments behind the noun, separated by one blank. */
static void parse(struct call *call, const char *noun, char *words)
{
    char *argv[32] = {words};
    int argc = 1;

    begin(call);
    (void)snprintf(call->cli.title, sizeof(call->cli.title), "%s", noun);
    for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    call->err = service_cli_parse(&call->cli, noun, argc, argv, &call->command);
}

static void expect_usage(const char *noun, const char *words, const char *text)
{
    struct call call;
    char copy[256];

    (void)snprintf(copy, sizeof(copy), "%s", words);
    parse(&call, noun, copy);
    assert_err(call.err, WB_MISUSE);
    if (strstr(call.cli.why.text, text) == NULL)
        fail_msg("'%s %s': '%s' lacks '%s'", noun, words, call.cli.why.text, text);
    assert_non_null(strstr(call.cli.why.text, "see: waybill help"));
    end(&call);
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct cli_option *find(const struct cli_option *rows, const char *name, char letter)
{
    for (; rows != NULL && rows->name != NULL; rows++)
        if (strcmp(rows->name, name) == 0 || (letter != 0 && rows->letter == letter))
            return rows;
    return NULL;
}

static void table_options_of_one_name_take_the_same_argument_everywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < service_cli_command_count; i++) {
        const struct cli_command *row = &service_cli_commands[i];
        for (const struct cli_option *o = row->options; o != NULL && o->name != NULL; o++) {
            if (find(service_cli_globals, o->name, o->letter) != NULL)
                fail_msg("%s: --%s hides a global option", row->noun, o->name);
            for (size_t j = 0; j < service_cli_command_count; j++) {
                const struct cli_option *twin =
                    find(service_cli_commands[j].options, o->name, o->letter);
                if (strcmp(service_cli_commands[j].noun, row->noun) != 0 || twin == NULL)
                    continue;
                assert_string_equal(twin->name, o->name);
                assert_int_equal(twin->letter, o->letter);
                assert_int_equal(twin->argument == NULL, o->argument == NULL);
            }
        }
    }
}

static void table_every_row_has_help_and_something_to_run(void **state)
{
    (void)state;
    for (size_t i = 0; i < service_cli_command_count; i++) {
        const struct cli_command *row = &service_cli_commands[i];
        assert_non_null(row->help);
        assert_non_null(row->usage);
        assert_non_null(row->run);
        assert_true(row->operands_max < 0 || row->operands_min <= row->operands_max);
    }
}

/* ---- parsing --------------------------------------------------------------------------------- */

static void parse_options_before_between_and_behind_operands_are_all_read(void **state)
{
    struct call call;
    char words[] = "--json a.b -H x:1 body --header=y:2 --id 7 -q";

    (void)state;
    parse(&call, "pub", words);
    assert_ok(call.err);
    assert_string_equal(call.command->noun, "pub");
    assert_int_equal(call.cli.operand_count, 2);
    assert_string_equal(call.cli.operands[0], "a.b");
    assert_string_equal(call.cli.operands[1], "body");
    assert_string_equal(service_cli_option_at(&call.cli, "header", 0), "x:1");
    assert_string_equal(service_cli_option_at(&call.cli, "header", 1), "y:2");
    assert_null(service_cli_option_at(&call.cli, "header", 2));
    assert_string_equal(service_cli_option(&call.cli, "id"), "7");
    assert_true(call.cli.json);
    assert_true(call.cli.quiet);
    assert_false(call.cli.verbose);
    end(&call);
}

static void parse_verb_is_found_behind_options(void **state)
{
    struct call call;
    char words[] = "--db x.db show 12";

    (void)state;
    parse(&call, "outbox", words);
    assert_ok(call.err);
    assert_string_equal(call.command->verb, "show");
    assert_string_equal(call.cli.title, "outbox show");
    assert_int_equal(call.cli.operand_count, 1);
    assert_string_equal(call.cli.operands[0], "12");
    end(&call);
}

static void parse_double_dash_ends_options(void **state)
{
    struct call call;
    char words[] = "-q -- a.b --json";

    (void)state;
    parse(&call, "pub", words);
    assert_ok(call.err);
    assert_false(call.cli.json);
    assert_int_equal(call.cli.operand_count, 2);
    assert_string_equal(call.cli.operands[1], "--json");
    end(&call);
}

static void parse_single_dash_is_an_operand(void **state)
{
    struct call call;
    char words[] = "a.b -";

    (void)state;
    parse(&call, "pub", words);
    assert_ok(call.err);
    assert_string_equal(call.cli.operands[1], "-");
    end(&call);
}

static void parse_last_of_repeated_options_wins(void **state)
{
    struct call call;
    char words[] = "a.b --timeout 1s --timeout 250ms";

    (void)state;
    parse(&call, "pub", words);
    assert_ok(call.err);
    assert_true(call.cli.timeout_ns == 250 * WB_MS);
    end(&call);
}

static void parse_mistakes_are_told_with_the_nearest_word(void **state)
{
    (void)state;
    expect_usage("pub", "a.b --conut 3", "'--conut'; did you mean '--count'?");
    expect_usage("pub", "a.b --xyzzy", "unknown option '--xyzzy'");
    expect_usage("pub", "a.b -Z", "unknown option '-Z'");
    expect_usage("pub", "a.b --id", "'--id' takes a value: --id ID");
    expect_usage("pub", "a.b -H", "'--header' takes a value: --header K:V");
    expect_usage("pub", "a.b --json=yes", "'--json' takes no value");
    expect_usage("pub", "", "expected SUBJECT [BODY|-|@FILE], got 0 arguments");
    expect_usage("pub", "a b c", "'c' is one argument too many");
    expect_usage("pub", "a.b --timeout 5", "--timeout '5': expected a time with its unit");
    expect_usage("outbox", "", "expected one of: add, status, ls, show, run");
    expect_usage("outbox", "stauts", "'stauts'; did you mean 'status'?");
    expect_usage("outbox", "ls --once", "'outbox ls' has no option '--once'");
    expect_usage("doctor", "x", "'x' is one argument too many; expected none");
}

static void parse_too_many_options_are_refused(void **state)
{
    struct call call;
    char *argv[2 * CLI_GIVEN_MAX + 5];
    char flag[] = "-H";
    char value[] = "a:1";
    char subject[] = "a.b";
    int argc = 0;

    (void)state;
    argv[argc++] = subject;
    argv[argc++] = subject;
    for (int i = 0; i <= CLI_GIVEN_MAX; i++) {
        argv[argc++] = flag;
        argv[argc++] = value;
    }
    argv[argc] = NULL;
    begin(&call);
    assert_err(service_cli_parse(&call.cli, "pub", argc, argv, &call.command), WB_MISUSE);
    assert_non_null(strstr(call.cli.why.text, "more than"));
    end(&call);
}

static void parse_help_of_a_noun_needs_no_verb(void **state)
{
    struct call call;
    char words[] = "--help";

    (void)state;
    parse(&call, "outbox", words);
    assert_ok(call.err);
    assert_null(call.command);
    assert_non_null(service_cli_option(&call.cli, "help"));
    end(&call);
}

static void number_outside_its_range_is_refused_with_the_range(void **state)
{
    static const char *const bad[] = {"0", "101", "-1", "1x", "", "99999999999999999999"};
    uint64_t value = 42;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct call call;
        static const struct cli_option option = {"count", 0, "N", "", NULL};
        begin(&call);
        call.cli.given[call.cli.given_count++] = (struct cli_given){&option, bad[i]};
        assert_err(service_cli_number(&call.cli, "count", 1, 1, 100, &value), WB_MISUSE);
        assert_non_null(strstr(call.cli.why.text, "from 1 to 100"));
        assert_int_equal(value, 42);
        end(&call);
    }
}

/* ---- what belongs to others ------------------------------------------------------------------ */

static void noun_is_found_behind_global_options(void **state)
{
    char *argv[] = {(char[]){"waybill"}, (char[]){"--bus"}, (char[]){"memory"},
                    (char[]){"-v"},      (char[]){"pub"},   (char[]){"--count"}};
    struct call call;
    int index = 0;

    (void)state;
    begin(&call);
    assert_ok(service_cli_find_noun(&call.cli, 6, argv, &index));
    assert_int_equal(index, 4);
    assert_true(call.cli.verbose);
    end(&call);
}

static void globals_are_taken_out_of_a_modules_arguments(void **state)
{
    char *argv[] = {(char[]){"verify"}, (char[]){"--json"},     (char[]){"--anchor"},
                    (char[]){"3:ab"},   (char[]){"--data=dir"}, (char[]){"-s"},
                    (char[]){"url"},    (char[]){"--jsonx"},    (char[]){"--"},
                    (char[]){"--quiet"}};
    struct call call;
    int argc = 10;

    (void)state;
    begin(&call);
    assert_ok(service_cli_take_globals(&call.cli, &argc, argv));
    assert_int_equal(argc, 6);
    assert_string_equal(argv[0], "verify");
    assert_string_equal(argv[1], "--anchor");
    assert_string_equal(argv[2], "3:ab");
    assert_string_equal(argv[3], "--jsonx");
    assert_string_equal(argv[5], "--quiet");
    assert_true(call.cli.json);
    assert_false(call.cli.quiet);
    assert_string_equal(service_cli_option(&call.cli, "data"), "dir");
    assert_string_equal(service_cli_option(&call.cli, "server"), "url");
    end(&call);
}

static void globals_without_their_value_are_refused(void **state)
{
    char *argv[] = {(char[]){"verify"}, (char[]){"--data"}};
    struct call call;
    int argc = 2;

    (void)state;
    begin(&call);
    assert_err(service_cli_take_globals(&call.cli, &argc, argv), WB_MISUSE);
    end(&call);
}

static void nearest_is_silent_about_words_far_away(void **state)
{
    static const char *const names[] = {"pub", "sub", "match", "outbox"};

    (void)state;
    assert_string_equal(service_cli_nearest("mtach", names, 4), "match");
    assert_string_equal(service_cli_nearest("outbx", names, 4), "outbox");
    assert_null(service_cli_nearest("frobnicate", names, 4));
    assert_null(service_cli_nearest("x", names, 4));
    assert_null(service_cli_nearest("", names, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_options_of_one_name_take_the_same_argument_everywhere),
        cmocka_unit_test(table_every_row_has_help_and_something_to_run),
        cmocka_unit_test(parse_options_before_between_and_behind_operands_are_all_read),
        cmocka_unit_test(parse_verb_is_found_behind_options),
        cmocka_unit_test(parse_double_dash_ends_options),
        cmocka_unit_test(parse_single_dash_is_an_operand),
        cmocka_unit_test(parse_last_of_repeated_options_wins),
        cmocka_unit_test(parse_mistakes_are_told_with_the_nearest_word),
        cmocka_unit_test(parse_too_many_options_are_refused),
        cmocka_unit_test(parse_help_of_a_noun_needs_no_verb),
        cmocka_unit_test(number_outside_its_range_is_refused_with_the_range),
        cmocka_unit_test(noun_is_found_behind_global_options),
        cmocka_unit_test(globals_are_taken_out_of_a_modules_arguments),
        cmocka_unit_test(globals_without_their_value_are_refused),
        cmocka_unit_test(nearest_is_silent_about_words_far_away),
    };
    return cmocka_run_group_tests_name("service_cli_parse", tests, NULL, NULL);
}
