/* The file: what is accepted, and the exact complaint about what is not. */
#include "test_support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <waybill/config.h>

static const struct config_key keys[] = {
    {"bus", CONFIG_CHOICE, "memory", "memory|nats|dual", 0, 0, NULL, false, "Which bus"},
    {"data", CONFIG_STRING, "./var", NULL, 0, 0, NULL, false, "Where files are"},
    {"verbose", CONFIG_BOOL, "false", NULL, 0, 0, NULL, false, "Say more"},
    {"nats.url", CONFIG_STRING, "nats://127.0.0.1:4222", NULL, 0, 0, "NATS_URL", false, "Server"},
    {"nats.timeout", CONFIG_DURATION, "5s", NULL, WB_SEC, 60 * WB_SEC, NULL, false, "Deadline"},
    {"nats.replicas", CONFIG_INT, "1", NULL, 1, 5, NULL, false, "Copies"},
    {"http.listen", CONFIG_STRING, "127.0.0.1:8480", NULL, 0, 0, NULL, false, "Address"},
    {"http.max_body", CONFIG_SIZE, "1MiB", NULL, 1024, 1 << 24, NULL, false, "Largest body"},
    {"webhooks.secret", CONFIG_STRING, NULL, NULL, 0, 0, NULL, true, "Shared secret"},
    {"webhooks.mode", CONFIG_CHOICE, NULL, "strict|lax", 0, 0, NULL, true, "A secret choice"},
    {"stream.*.subjects", CONFIG_STRING, NULL, NULL, 0, 0, NULL, false, "What it covers"},
    {"stream.*.duplicate_window", CONFIG_DURATION, "2m", NULL, 0, 0, NULL, false, "Window"},
};

static struct config *make(void)
{
    struct config *config = NULL;

    assert_ok(config_create(keys, sizeof(keys) / sizeof(keys[0]), &config));
    return config;
}

static wb_err load(struct config *config, const char *text, struct wb_why *why)
{
    return config_load_text(config, "w.conf", wb_str(text), why);
}

/* ---- what is refused ------------------------------------------------------------------------- */

struct bad {
    const char *text;
    const char *message; /* the text must start with it, or contain it after a leading '~' */
};

#define LONG65 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const struct bad bad_files[] = {
    /* keys */
    {"bsu = \"nats\"", "w.conf:1: unknown key \"bsu\"; did you mean \"bus\"?"},
    {"\n\n[nats]\nurll = \"x\"", "w.conf:4: unknown key \"urll\" in [nats]; did you mean \"url\"?"},
    {"[nats]\nlisten = \"x\"",
     "w.conf:2: unknown key \"listen\" in [nats]; it belongs under [http]"},
    {"[nats]\nbus = \"nats\"", "w.conf:2: unknown key \"bus\" in [nats]; it belongs at the top"},
    {"subjects = \"x\"", "w.conf:1: unknown key \"subjects\"; it belongs under [stream.*]"},
    {"frobnicate = 1", "w.conf:1: unknown key \"frobnicate\"; 'waybill config show' lists"},
    {"[stream.A]\nsubject = \"a\"",
     "w.conf:2: unknown key \"subject\" in [stream.A]; did you mean \"subjects\"?"},
    {"bus = \"nats\"\nbus = \"dual\"", "w.conf:2: bus is set already in line 1; keep one of them"},
    {"[nats]\nurl = \"a\"\nurl = \"a\"", "w.conf:3: nats.url is set already in line 2"},
    {"[stream.A]\nsubjects=\"a\"\nsubjects=\"b\"",
     "w.conf:3: stream.A.subjects is set already in line 2"},
    {"nats.url = \"x\"", "w.conf:1: a key has no dot; write it under a line [nats]"},
    {"\"bus\" = \"nats\"", "w.conf:1: expected 'key = value', [section] or a comment with '#'"},
    {"= \"nats\"", "w.conf:1: expected 'key = value'"},
    {"b\xc3\xbcs = \"nats\"", "w.conf:1: expected '=' after 'b'"},
    {"bus", "w.conf:1: expected '=' after 'bus'"},
    {"bus: \"nats\"", "w.conf:1: expected '=' after 'bus'"},
    {"bus nats", "w.conf:1: expected '=' after 'bus'"},
    {"Bus = \"nats\"", "w.conf:1: unknown key \"Bus\"; did you mean \"bus\"?"},
    {LONG65 " = 1",
     "w.conf:1: expected 'key = value', [section] or a comment with '#'; a key is 1 to 64"},
    {"; a comment of INI", "w.conf:1: expected 'key = value'"},
    {"export bus=\"nats\"", "w.conf:1: expected '=' after 'export'"},
    /* sections */
    {"[natz]", "w.conf:1: unknown section [natz]; did you mean [nats]?"},
    {"[postgres]", "w.conf:1: unknown section [postgres]; 'waybill config show' lists"},
    {"[stream]", "w.conf:1: [stream] needs a name: [stream.NAME]"},
    {"[nats.cluster]", "w.conf:1: unknown section [nats.cluster]"},
    {"[stream.A.B]", "w.conf:1: unknown section [stream.A.B]"},
    {"[nats]\n[http]\n[nats]", "w.conf:3: [nats] is there already; put its keys together"},
    {"[stream.A]\n[stream.A]", "w.conf:2: [stream.A] is there already"},
    {"[nats", "w.conf:1: a section is written [name] or [name.NAME]"},
    {"[]", "w.conf:1: a section is written"},
    {"[.nats]", "w.conf:1: a section is written"},
    {"[stream.]", "w.conf:1: a section is written"},
    {"[stream..A]", "w.conf:1: a section is written"},
    {"[stream.*]", "w.conf:1: a section is written"},
    {"[stream.a b]", "w.conf:1: a section is written"},
    {"[ nats ]", "w.conf:1: a section is written"},
    {"[[nats]]", "w.conf:1: a section is written"},
    {"[stream.\"A\"]", "w.conf:1: a section is written"},
    {"[stream." LONG65 "]", "w.conf:1: a section is written"},
    {"[nats] url = \"x\"", "w.conf:1: only a comment may follow [nats] on its line"},
    {"[nats] ; x", "w.conf:1: only a comment may follow [nats]"},
    /* values as they are written */
    {"bus = nats", "w.conf:1: put text in quotes: bus = \"nats\""},
    {"data = ./var", "w.conf:1: put text in quotes: data = \"./var\""},
    {"verbose = yes", "w.conf:1: put text in quotes: verbose = \"yes\""},
    {"verbose = True", "w.conf:1: put text in quotes"},
    {"bus =", "w.conf:1: 'bus' has no value; an empty text is \"\""},
    {"bus = # nats", "w.conf:1: 'bus' has no value"},
    {"bus = \"nats", "w.conf:1: the string has no closing '\"' on its line"},
    {"bus = \"nats\\\"", "w.conf:1: the string has no closing '\"'"},
    {"bus = \"nats\\", "w.conf:1: the string has no closing '\"'"},
    {"data = \"a\nb\"", "w.conf:1: the string has no closing '\"'"},
    {"bus = 'nats'", "w.conf:1: strings stand in double quotes: \"...\""},
    {"data = \"\"\"a\"\"\"", "w.conf:1: strings over several lines are not supported"},
    {"data = \"\\q\"", "w.conf:1: unknown escape in a string; known are \\\" \\\\ \\n \\t \\uXXXX"},
    {"data = \"C:\\Windows\"", "w.conf:1: unknown escape"},
    {"data = \"\\u12\"", "w.conf:1: \\u needs four hex digits"},
    {"data = \"\\u12g4\"", "w.conf:1: \\u needs four hex digits"},
    {"data = \"\\u0000\"", "w.conf:1: \\u0000 is not allowed"},
    {"data = \"\\ud800\"", "w.conf:1: \\ud800 is half of a surrogate pair"},
    {"bus = \"nats\" \"dual\"", "w.conf:1: only a comment with '#' may follow the value of 'bus'"},
    {"bus = \"nats\"; x", "w.conf:1: only a comment with '#' may follow"},
    {"bus = \"nats\"x", "w.conf:1: only a comment with '#' may follow"},
    {"data = [\"a\"]", "w.conf:1: lists and tables are not supported"},
    {"data = {a = 1}", "w.conf:1: lists and tables are not supported"},
    /* numbers */
    {"[nats]\nreplicas = 03", "w.conf:2: '03': an integer has no leading zero"},
    {"[nats]\nreplicas = 3.0", "w.conf:2: '3.0' is no integer"},
    {"[nats]\nreplicas = 0x3", "w.conf:2: '0x3' is no integer"},
    {"[nats]\nreplicas = 1_0", "w.conf:2: '1_0' is no integer"},
    {"[nats]\nreplicas = -", "w.conf:2: '-' is no integer"},
    {"[nats]\ntimeout = 5s",
     "w.conf:2: '5s' is no integer; put a value such as a duration or size in quotes"},
    {"[nats]\nreplicas = 0", "w.conf:2: nats.replicas: expected an integer from 1 to 5, got \"0\""},
    {"[nats]\nreplicas = 6", "w.conf:2: nats.replicas: expected an integer from 1 to 5, got \"6\""},
    {"[nats]\nreplicas = -1",
     "w.conf:2: nats.replicas: expected an integer from 1 to 5, got \"-1\""},
    {"[nats]\nreplicas = 18446744073709551617",
     "w.conf:2: nats.replicas: expected an integer from 1 to 5"},
    {"[nats]\nreplicas = \"3\"", "w.conf:2: nats.replicas: expected an integer, without quotes"},
    {"[nats]\nreplicas = true", "w.conf:2: nats.replicas: expected an integer, without quotes"},
    /* types, units, bounds */
    {"verbose = \"true\"", "w.conf:1: verbose: expected true or false, without quotes"},
    {"verbose = 1", "w.conf:1: verbose: expected true or false, without quotes"},
    {"data = 7", "w.conf:1: data: expected a text in quotes"},
    {"data = true", "w.conf:1: data: expected a text in quotes"},
    {"bus = true", "w.conf:1: bus: expected a text in quotes"},
    {"bus = \"natz\"",
     "w.conf:1: bus: expected one of memory, nats, dual, got \"natz\"; did you mean \"nats\"?"},
    {"bus = \"kafka\"", "w.conf:1: bus: expected one of memory, nats, dual, got \"kafka\""},
    {"bus = \"\"", "w.conf:1: bus: expected one of memory, nats, dual, got \"\""},
    {"bus = \"memory|nats\"", "w.conf:1: bus: expected one of memory, nats, dual, got"},
    {"[nats]\ntimeout = 5",
     "w.conf:2: nats.timeout: expected a duration with its unit in quotes, such as \"30s\""},
    {"[nats]\ntimeout = \"5\"", "w.conf:2: nats.timeout: expected a duration with its unit (ms, s, "
                                "m, h), such as \"1m30s\", from 1s to 1m, got \"5\""},
    {"[nats]\ntimeout = \"5 s\"", "w.conf:2: nats.timeout: expected a duration"},
    {"[nats]\ntimeout = \"5sec\"", "w.conf:2: nats.timeout: expected a duration"},
    {"[nats]\ntimeout = \"-5s\"", "w.conf:2: nats.timeout: expected a duration"},
    {"[nats]\ntimeout = \"10ms\"", "~from 1s to 1m, got \"10ms\""},
    {"[nats]\ntimeout = \"2m\"", "~from 1s to 1m, got \"2m\""},
    {"[http]\nmax_body = \"1XB\"", "w.conf:2: http.max_body: expected a size, such as \"64KiB\" or "
                                   "\"2MB\", from 1KiB to 16MiB, got \"1XB\""},
    {"[http]\nmax_body = 12", "~from 1KiB to 16MiB, got \"12\""},
    {"[http]\nmax_body = \"1GiB\"", "~from 1KiB to 16MiB, got \"1GiB\""},
    {"[http]\nmax_body = true", "w.conf:2: http.max_body: expected a size"},
    {"[stream.A]\nduplicate_window = \"soon\"",
     "w.conf:2: stream.A.duplicate_window: expected a duration"},
    {"[webhooks]\nmode = \"hunter2\"",
     "w.conf:2: webhooks.mode: expected one of strict, lax, got ***"},
    /* bytes */
    {"bus = \"nats\"\r\rdata = \"x\"", "w.conf:1: a carriage return inside the line"},
    {"# \x01", "w.conf:1: control character 0x01; in a string write \\u0001"},
    {"data = \"\x1b[31m\"", "w.conf:1: control character 0x1b; in a string write \\u001b"},
    {"data = \"\x7f\"", "w.conf:1: control character 0x7f"},
    {"\ndata = \"\xff\"", "w.conf:2: not valid UTF-8; save the file as UTF-8"},
    {"# \xc0\xaf", "w.conf:1: not valid UTF-8"},
    {"\xef\xbb\xbf"
     "bus = \"nats\"",
     "w.conf:1: a byte order mark; save the file as UTF-8 without one"},
    {"\xff\xfe"
     "b",
     "w.conf:1: not valid UTF-8"},
};

static void expect_message(const struct bad *bad, const char *got)
{
    bool anywhere = bad->message[0] == '~';
    const char *found = strstr(got, bad->message + (anywhere ? 1 : 0));

    if (found == NULL || (!anywhere && found != got))
        fail_msg("file <<%s>>\n  says     %s\n  expected %s", bad->text, got, bad->message);
}

static void bad_file_is_refused_with_its_message_and_changes_nothing(void **state)
{
    (void)state;
    assert_true(sizeof(bad_files) / sizeof(bad_files[0]) >= 60);
    for (size_t i = 0; i < sizeof(bad_files) / sizeof(bad_files[0]); i++) {
        struct config *config = make();
        struct wb_why why = {""};
        struct wb_str name;
        assert_ok(load(config, "data = \"before\"\n[stream.OLD]\n", &why));
        if (load(config, bad_files[i].text, &why) != WB_INVALID)
            fail_msg("accepted: <<%s>>", bad_files[i].text);
        expect_message(&bad_files[i], why.text);
        assert_string_equal(config_str(config, "data"), "before");
        assert_string_equal(config_str(config, "bus"), "memory");
        assert_true(config_section(config, "stream.*", 0, &name));
        assert_false(config_section(config, "stream.*", 1, &name));
        config_destroy(config);
    }
}

static void error_in_the_last_line_undoes_all_lines_before(void **state)
{
    struct config *config = make();
    struct config_entry entry;
    struct wb_str name;

    (void)state;
    assert_err(
        load(config, "bus = \"nats\"\n[stream.A]\nsubjects = \"a\"\n[nats]\nreplicas = 9\n", NULL),
        WB_INVALID);
    assert_string_equal(config_str(config, "bus"), "memory");
    assert_false(config_section(config, "stream.*", 0, &name));
    for (size_t i = 0; config_entry(config, i, &entry); i++)
        assert_string_equal(entry.origin, "default");
    config_destroy(config);
}

static void nul_byte_is_refused_with_its_line(void **state)
{
    static const char text[] = "bus = \"nats\"\ndata = \"a\0b\"\n";
    struct config *config = make();
    struct wb_why why = {""};

    (void)state;
    assert_err(config_load_text(config, "w.conf", wb_str_n(text, sizeof(text) - 1), &why),
               WB_INVALID);
    assert_non_null(strstr(why.text, "w.conf:2: a NUL byte"));
    config_destroy(config);
}

static void control_bytes_of_a_value_are_escaped_in_the_message(void **state)
{
    struct config *config = make();
    struct wb_why why = {""};

    (void)state;
    assert_err(load(config, "bus = \"\\u001b[31m\\n\"", &why), WB_INVALID);
    assert_null(strchr(why.text, 0x1b));
    assert_null(strchr(why.text, '\n'));
    config_destroy(config);
}

static void parser_survives_every_prefix_of_a_good_file(void **state)
{
    static const char good[] = "bus = \"nats\" # c\n[nats]\nurl = \"\\u00e9\\\\\"\nreplicas = 3\n"
                               "[stream.A]\nsubjects = \"a.>\"\n";
    struct config *config = make();

    (void)state;
    for (size_t len = 0; len < sizeof(good); len++) {
        char *exact = malloc(len + 1); /* its end is guarded by AddressSanitizer */
        assert_non_null(exact);
        memcpy(exact, good, len);
        exact = realloc(exact, len > 0 ? len : 1);
        assert_non_null(exact);
        wb_err err = config_load_text(config, "w.conf", wb_str_n(exact, len), NULL);
        assert_true(err == WB_OK || err == WB_INVALID);
        free(exact);
    }
    assert_string_equal(config_str(config, "stream.A.subjects"), "a.>");
    config_destroy(config);
}

/* ---- what is accepted ------------------------------------------------------------------------ */

static void example_file_is_read(void **state)
{
    static const char text[] = "# the whole of it\r\n"
                               "bus = \"nats\"\r\n"
                               "data = \"a \\\"b\\\" \\\\ \\n\\t\\u00e9 # ; =\" # not text\n"
                               "verbose=true\n"
                               "\n"
                               "  [nats]   # the bus\n"
                               "\turl\t=\t\"nats://h:4222\"\t\n"
                               "timeout = \"1m\"\n"
                               "replicas = +3\n"
                               "[http]\n"
                               "max_body = 2048#bytes\n"
                               "[stream.ORDERS]\n"
                               "subjects = \"orders.>\"\n"
                               "duplicate_window = \"30s\"\n"
                               "[stream.A-b_1]\n"
                               "subjects = \"\"";
    struct config *config = make();
    struct wb_why why = {""};
    struct wb_str name;

    (void)state;
    if (load(config, text, &why) != WB_OK)
        fail_msg("%s", why.text);
    assert_string_equal(config_str(config, "bus"), "nats");
    assert_string_equal(config_str(config, "data"), "a \"b\" \\ \n\t\xc3\xa9 # ; =");
    assert_true(config_bool(config, "verbose"));
    assert_string_equal(config_str(config, "nats.url"), "nats://h:4222");
    assert_int_equal(config_duration(config, "nats.timeout"), 60 * WB_SEC);
    assert_int_equal(config_int(config, "nats.replicas"), 3);
    assert_int_equal(config_size(config, "http.max_body"), 2048);
    assert_string_equal(config_str(config, "stream.ORDERS.subjects"), "orders.>");
    assert_int_equal(config_duration(config, "stream.ORDERS.duplicate_window"), 30 * WB_SEC);
    assert_int_equal(config_duration(config, "stream.A-b_1.duplicate_window"), 120 * WB_SEC);
    assert_string_equal(config_str(config, "stream.A-b_1.subjects"), "");
    assert_true(config_section(config, "stream.*", 1, &name));
    assert_true(wb_str_eq(name, wb_str("A-b_1")));
    assert_false(config_section(config, "stream.*", 2, &name));
    config_destroy(config);
}

static void empty_file_leaves_the_defaults(void **state)
{
    static const char *const texts[] = {"", "\n", "\r\n \t\n", "# only a comment", "#"};
    struct config *config = make();

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_ok(load(config, texts[i], NULL));
    assert_string_equal(config_str(config, "bus"), "memory");
    assert_null(config_str(config, "webhooks.secret"));
    assert_int_equal(config_size(config, "http.max_body"), 1 << 20);
    config_destroy(config);
}

static void section_without_keys_is_still_a_section(void **state)
{
    struct config *config = make();
    struct wb_str name;

    (void)state;
    assert_ok(load(config, "[stream.Z]\n[stream.A]\n", NULL));
    assert_true(config_section(config, "stream.*", 0, &name));
    assert_true(wb_str_eq(name, wb_str("Z")));
    assert_true(config_section(config, "stream.*", 1, &name));
    assert_true(wb_str_eq(name, wb_str("A")));
    assert_null(config_str(config, "stream.A.subjects"));
    config_destroy(config);
}

static void second_load_wins_over_the_first(void **state)
{
    struct config *config = make();

    (void)state;
    assert_ok(load(config, "bus = \"nats\"\ndata = \"one\"\n", NULL));
    assert_ok(load(config, "bus = \"dual\"\n", NULL));
    assert_string_equal(config_str(config, "bus"), "dual");
    assert_string_equal(config_str(config, "data"), "one");
    config_destroy(config);
}

static void long_value_of_a_hundred_thousand_bytes_is_kept_whole(void **state)
{
    struct config *config = make();
    struct wb_buf text = {0};

    (void)state;
    wb_buf_str(&text, "data = \"");
    for (int i = 0; i < 100000; i++)
        wb_buf_str(&text, i % 97 == 0 ? ";" : "x");
    wb_buf_str(&text, "\"\n");
    assert_ok(config_load_text(config, "w.conf", wb_str_n(text.ptr, text.len), NULL));
    assert_int_equal(strlen(config_str(config, "data")), 100000);
    wb_buf_free(&text);
    config_destroy(config);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void write_file(const char *path, const char *text, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void file_on_disk_is_loaded_and_named_as_origin(void **state)
{
    struct config *config = make();
    struct config_entry entry;
    char dir[256], path[300], origin[320];

    (void)state;
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/w.conf", dir);
    (void)snprintf(origin, sizeof(origin), "file %s:2", path);
    write_file(path, "\nbus = \"dual\"\n", 14, 0600);
    assert_ok(config_load_file(config, path, NULL));
    assert_true(config_entry(config, 0, &entry));
    assert_string_equal(entry.value, "dual");
    assert_string_equal(entry.origin, origin);
    test_dir_remove(dir);
    config_destroy(config);
}

static void file_that_cannot_be_read_says_why(void **state)
{
    struct config *config = make();
    struct wb_why why = {""};
    char dir[256], path[300];
    wb_err err;

    (void)state;
    test_dir_make(dir);
    assert_err(config_load_file(config, dir, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "is a directory; name a file"));

    (void)snprintf(path, sizeof(path), "%s/absent.conf", dir);
    assert_err(config_load_file(config, path, &why), WB_NOT_FOUND);
    assert_non_null(strstr(why.text, "absent.conf: there is no such file"));

    write_file(path, "bus = \"nats\"\n", 13, 0);
    assert_int_equal(chmod(dir, 0755), 0);
    bool root = geteuid() == 0; /* root reads everything, so look with the eyes of nobody */
    if (root)
        assert_int_equal(seteuid(65534), 0);
    err = config_load_file(config, path, &why);
    if (root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(err, WB_DENIED);
    assert_non_null(strstr(why.text, "may not be read by this user"));
    assert_string_equal(config_str(config, "bus"), "memory");
    test_dir_remove(dir);
    config_destroy(config);
}

static void file_of_one_mebibyte_is_read_and_one_byte_more_is_refused(void **state)
{
    struct config *config = make();
    struct wb_why why = {""};
    char dir[256], path[300];
    char *text = malloc(CONFIG_FILE_MAX + 1);

    (void)state;
    assert_non_null(text);
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/w.conf", dir);
    memset(text, '\n', CONFIG_FILE_MAX + 1);
    write_file(path, text, CONFIG_FILE_MAX, 0600);
    assert_ok(config_load_file(config, path, &why));
    write_file(path, text, CONFIG_FILE_MAX + 1, 0600);
    assert_err(config_load_file(config, path, &why), WB_TOO_BIG);
    assert_non_null(strstr(why.text, "w.conf: a configuration has at most 1048576 bytes"));
    free(text);
    test_dir_remove(dir);
    config_destroy(config);
}

static void dash_reads_standard_input(void **state)
{
    struct config *config = make();
    struct wb_why why = {""};
    int saved = dup(STDIN_FILENO), pipes[2];

    (void)state;
    assert_true(saved >= 0);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(write(pipes[1], "bus = 5\n", 8), 8);
    assert_int_equal(close(pipes[1]), 0);
    assert_true(dup2(pipes[0], STDIN_FILENO) >= 0);
    assert_int_equal(close(pipes[0]), 0);
    wb_err err = config_load_file(config, "-", &why);
    assert_true(dup2(saved, STDIN_FILENO) >= 0);
    assert_int_equal(close(saved), 0);
    assert_int_equal(err, WB_INVALID);
    assert_non_null(strstr(why.text, "standard input:1: bus: expected a text in quotes"));
    config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_file_is_refused_with_its_message_and_changes_nothing),
        cmocka_unit_test(error_in_the_last_line_undoes_all_lines_before),
        cmocka_unit_test(nul_byte_is_refused_with_its_line),
        cmocka_unit_test(control_bytes_of_a_value_are_escaped_in_the_message),
        cmocka_unit_test(parser_survives_every_prefix_of_a_good_file),
        cmocka_unit_test(example_file_is_read),
        cmocka_unit_test(empty_file_leaves_the_defaults),
        cmocka_unit_test(section_without_keys_is_still_a_section),
        cmocka_unit_test(second_load_wins_over_the_first),
        cmocka_unit_test(long_value_of_a_hundred_thousand_bytes_is_kept_whole),
        cmocka_unit_test(file_on_disk_is_loaded_and_named_as_origin),
        cmocka_unit_test(file_that_cannot_be_read_says_why),
        cmocka_unit_test(file_of_one_mebibyte_is_read_and_one_byte_more_is_refused),
        cmocka_unit_test(dash_reads_standard_input),
    };
    return cmocka_run_group_tests_name("config_file", tests, NULL, NULL);
}
