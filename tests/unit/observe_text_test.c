/*
 * The text for Prometheus, format 0.0.4, against a small strict reader of it: every line is a
 * HELP, its TYPE or a sample of that metric; names and escapes are legal; histograms add up.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include <waybill/observe.h>

#include "test_support.h"

/* ---- the reader ------------------------------------------------------------------------------ */

struct reader {
    const char *at;
    char metric[128]; /* of the last HELP */
    char type[16];    /* of the last TYPE; "": none since the HELP */
    char seen[OBSERVE_METRIC_COUNT][128];
    size_t seen_count;
    size_t samples;
    /* of the histogram that is being read */
    double last_le;
    double last_bucket;
};

/* Take the text if it comes next. */
static bool take(struct reader *reader, const char *text)
{
    size_t len = strlen(text);

    if (strncmp(reader->at, text, len) != 0)
        return false;
    reader->at += len;
    return true;
}

static void need(struct reader *reader, const char *text)
{
    if (!take(reader, text))
        fail_msg("expected '%s' at '%.60s'", text, reader->at);
}

/* [a-zA-Z_:][a-zA-Z0-9_:]* */
static void need_name(struct reader *reader, char out[128])
{
    size_t len = 0;

    while (isalnum((unsigned char)reader->at[len]) || reader->at[len] == '_')
        len++;
    assert_in_range(len, 1, 127);
    assert_false(isdigit((unsigned char)reader->at[0]));
    memcpy(out, reader->at, len);
    out[len] = '\0';
    reader->at += len;
}

/* "..." with \\, \" and \n as the only escapes, and no raw line end. */
static void need_quoted(struct reader *reader, char out[256])
{
    size_t len = 0;

    need(reader, "\"");
    while (*reader->at != '"') {
        char c = *reader->at++;
        assert_true(c != '\0' && c != '\n' && len < 255);
        if (c == '\\') {
            c = *reader->at++;
            assert_non_null(strchr("\\\"n", c));
            c = c == 'n' ? '\n' : c;
        }
        out[len++] = c;
    }
    out[len] = '\0';
    reader->at++;
}

static double need_number(struct reader *reader)
{
    char *end;

    errno = 0;
    double number = strtod(reader->at, &end);
    assert_true(end != reader->at && errno == 0);
    reader->at = end;
    return number;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text);
    return len >= strlen(end) && strcmp(text + len - strlen(end), end) == 0;
}

static void read_help(struct reader *reader)
{
    char name[128];

    need_name(reader, name);
    for (size_t i = 0; i < reader->seen_count; i++)
        assert_string_not_equal(reader->seen[i], name); /* HELP once for each metric */
    assert_in_range(reader->seen_count, 0, OBSERVE_METRIC_COUNT - 1);
    memcpy(reader->seen[reader->seen_count++], name, sizeof(name));
    memcpy(reader->metric, name, sizeof(name));
    need(reader, " ");
    assert_true(*reader->at != '\n'); /* says something */
    while (*reader->at != '\n') {
        assert_true(*reader->at != '\0' && *reader->at != '\\'); /* nothing to escape */
        reader->at++;
    }
    need(reader, "\n# TYPE ");
    need(reader, name);
    need(reader, " ");
    need_name(reader, name);
    assert_true(strcmp(name, "counter") == 0 || strcmp(name, "gauge") == 0 ||
                strcmp(name, "histogram") == 0);
    memcpy(reader->type, name, sizeof(reader->type));
    need(reader, "\n");
    assert_int_equal(strcmp(reader->type, "counter") == 0, ends_with(reader->metric, "_total"));
    reader->last_le = -1;
    reader->last_bucket = 0;
}

static void check_histogram_sample(struct reader *reader, const char *suffix, const char *le,
                                   double value)
{
    if (strcmp(suffix, "_bucket") == 0) {
        double bound = strcmp(le, "+Inf") == 0 ? 1e99 : strtod(le, NULL);
        assert_true(bound > reader->last_le);
        assert_true(value >= reader->last_bucket); /* cumulative */
        reader->last_le = bound;
        reader->last_bucket = value;
        return;
    }
    assert_true(reader->last_le > 1e98); /* all buckets came first, +Inf among them */
    assert_string_equal(le, "");
    if (strcmp(suffix, "_count") == 0)
        assert_true(value == reader->last_bucket);
    else
        assert_string_equal(suffix, "_sum");
}

static void read_sample(struct reader *reader, const char *label, const char *label_value,
                        double *ret_value)
{
    char name[128];
    char key[128];
    char text[256];
    char le[256] = "";
    bool is_wanted = label == NULL;

    need_name(reader, name);
    size_t metric_len = strlen(reader->metric);
    assert_memory_equal(name, reader->metric, metric_len); /* samples follow their HELP and TYPE */
    if (take(reader, "{")) {
        do {
            need_name(reader, key);
            need(reader, "=");
            need_quoted(reader, text);
            if (strcmp(key, "le") == 0)
                memcpy(le, text, sizeof(le));
            else if (label != NULL && strcmp(key, label) == 0 && strcmp(text, label_value) == 0)
                is_wanted = true;
        } while (take(reader, ","));
        need(reader, "}");
    }
    need(reader, " ");
    double value = need_number(reader);
    need(reader, "\n");
    reader->samples++;
    if (strcmp(reader->type, "histogram") == 0)
        check_histogram_sample(reader, name + metric_len, le, value);
    else
        assert_string_equal(name, reader->metric);
    if (is_wanted && ret_value != NULL)
        *ret_value = value;
}

/* Read all; the value of the sample with that label. */
static size_t read_all(const char *text, const char *label, const char *label_value,
                       double *ret_value)
{
    static struct reader reader;

    reader = (struct reader){.at = text};
    while (*reader.at != '\0') {
        if (take(&reader, "# HELP "))
            read_help(&reader);
        else
            read_sample(&reader, label, label_value, ret_value);
    }
    return reader.samples;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static struct observe *observe;
static struct wb_buf text;

static int setup(void **state)
{
    (void)state;
    return observe_create(&observe) == WB_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    wb_buf_free(&text);
    observe_destroy(observe);
    return 0;
}

static void render_of_nothing_is_nothing(void **state)
{
    (void)state;
    observe_render(observe, &text);
    assert_int_equal(text.len, 0);
}

static void render_of_every_metric_is_well_formed(void **state)
{
    (void)state;
    for (int i = 0; i < OBSERVE_METRIC_COUNT; i++) {
        (void)observe_series(observe, (observe_metric)i, "one");
        (void)observe_series(observe, (observe_metric)i, "two");
    }
    observe_render(observe, &text);
    assert_false(text.failed);
    assert_in_range(read_all(text.ptr, NULL, NULL, NULL), OBSERVE_METRIC_COUNT, 10000);
}

static void render_shows_labels_and_numbers_as_specified(void **state)
{
    (void)state;
    observe_add(observe_series(observe, OBSERVE_BUS_RECONNECTS, NULL), 3);
    observe_set(observe_series(observe, OBSERVE_OUTBOX_PENDING, "main"), -4);
    observe_set_ns(observe_series(observe, OBSERVE_OUTBOX_OLDEST, "main"), 1500 * WB_MS);
    observe_set_ns(observe_series(observe, OBSERVE_OUTBOX_OLDEST, "late"), -1);
    observe_render(observe, &text);
    assert_string_equal(
        text.ptr,
        "# HELP waybill_bus_reconnects_total Connections made anew\n"
        "# TYPE waybill_bus_reconnects_total counter\n"
        "waybill_bus_reconnects_total 3\n"
        "# HELP waybill_outbox_pending_rows Rows beyond the cursor, as the publisher sees them\n"
        "# TYPE waybill_outbox_pending_rows gauge\n"
        "waybill_outbox_pending_rows{outbox=\"main\"} -4\n"
        "# HELP waybill_outbox_oldest_pending_seconds Age of the oldest due row not yet published\n"
        "# TYPE waybill_outbox_oldest_pending_seconds gauge\n"
        "waybill_outbox_oldest_pending_seconds{outbox=\"main\"} 1.500000000\n"
        "waybill_outbox_oldest_pending_seconds{outbox=\"late\"} -0.000000001\n");
}

static void label_value_with_quotes_and_line_ends_is_escaped(void **state)
{
    static const char odd[] = "a\"b\\c\nd} 9\n# HELP x é";
    double value = 0;

    (void)state;
    observe_add(observe_series(observe, OBSERVE_BUS_PUBLISHED, odd), 42);
    observe_add(observe_series(observe, OBSERVE_BUS_PUBLISHED, ""), 1);
    observe_render(observe, &text);
    assert_int_equal(read_all(text.ptr, "result", odd, &value), 2);
    assert_true(value == 42);
    assert_non_null(strstr(text.ptr, "{result=\"a\\\"b\\\\c\\nd} 9\\n# HELP x é\"} 42\n"));
}

static void histogram_buckets_hold_times_up_to_their_bound(void **state)
{
    struct observe_series *series = observe_series(observe, OBSERVE_BUS_PUBLISH_SECONDS, NULL);

    (void)state;
    observe_time(series, -5); /* a clock that stepped back */
    observe_time(series, 10 * WB_US);
    observe_time(series, 10 * WB_US + 1);
    observe_time(series, 3 * WB_MS);
    observe_time(series, 10 * WB_SEC);
    observe_time(series, 10 * WB_SEC + 1);
    assert_int_equal(observe_value(series), 6);
    observe_render(observe, &text);
    (void)read_all(text.ptr, NULL, NULL, NULL);
    static const char *const lines[] = {
        "_bucket{le=\"0.00001\"} 2\n", "_bucket{le=\"0.000025\"} 3\n", "_bucket{le=\"0.0025\"} 3\n",
        "_bucket{le=\"0.005\"} 4\n",   "_bucket{le=\"5\"} 4\n",        "_bucket{le=\"10\"} 5\n",
        "_bucket{le=\"+Inf\"} 6\n",    "_sum 20.003020002\n",          "_count 6\n"};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (strstr(text.ptr, lines[i]) == NULL)
            fail_msg("'%s' is not in\n%s", lines[i], text.ptr);
}

int main(void)
{
#define WITH_OBSERVE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_OBSERVE(render_of_nothing_is_nothing),
        WITH_OBSERVE(render_of_every_metric_is_well_formed),
        WITH_OBSERVE(render_shows_labels_and_numbers_as_specified),
        WITH_OBSERVE(label_value_with_quotes_and_line_ends_is_escaped),
        WITH_OBSERVE(histogram_buckets_hold_times_up_to_their_bound),
    };
    return cmocka_run_group_tests_name("observe_text", tests, NULL, NULL);
}
