#include "stream_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

#define RETENTION "limits" /* the other kinds forget the ids of what was consumed */
#define STORAGE   "file"

/* ---- what is declared ------------------------------------------------------------------------ */

/* A number of the declaration, under the server's name. 0 of ours is the server's -1: no limit. */
struct number {
    const char *name;
    json_int_t value;
};

#define NUMBERS 6

static void numbers_of(const struct event_bus_stream_options *o, struct number out[NUMBERS])
{
    out[0] = (struct number){"max_age", o->max_age_ns};
    out[1] = (struct number){"duplicate_window", o->duplicate_window_ns};
    out[2] = (struct number){"max_bytes", (json_int_t)o->max_bytes};
    out[3] = (struct number){"max_msgs", (json_int_t)o->max_messages};
    out[4] = (struct number){"max_msg_size", (json_int_t)o->max_message_size};
    out[5] = (struct number){"num_replicas", (json_int_t)o->replicas};
}

static const char *discard_of(const struct event_bus_stream_options *o)
{
    return o->discard_old ? "old" : "new";
}

static void set(json_t *config, const char *key, json_t *value)
{
    (void)json_object_set_new(config, key, value); /* out of memory shows when it is written */
}

void event_bus_nats_stream_merge(const struct event_bus_stream_options *o, json_t *config)
{
    struct number numbers[NUMBERS];
    json_t *subjects = json_array();

    numbers_of(o, numbers);
    for (size_t i = 0; i < NUMBERS; i++)
        set(config, numbers[i].name, json_integer(numbers[i].value > 0 ? numbers[i].value : -1));
    set(config, "discard", json_string(discard_of(o)));
    for (size_t i = 0; i < o->subject_count; i++)
        (void)json_array_append_new(subjects, json_string(o->subjects[i]));
    set(config, "subjects", subjects);
}

json_t *event_bus_nats_stream_config(const struct event_bus_stream_options *o)
{
    json_t *config = json_object();

    event_bus_nats_stream_merge(o, config);
    set(config, "name", json_string(o->name));
    set(config, "retention", json_string(RETENTION));
    set(config, "storage", json_string(STORAGE));
    set(config, "max_consumers", json_integer(-1));
    set(config, "max_msgs_per_subject", json_integer(-1));
    return config;
}

/* ---- comparing ------------------------------------------------------------------------------- */

struct diff {
    char *out;
    size_t size;
    size_t len;
};

static void differ(struct diff *diff, const char *name, const char *found, const char *declared)
{
    if (diff->len + 1 >= diff->size)
        return;
    int n = snprintf(diff->out + diff->len, diff->size - diff->len, "%s%s: %s, declared %s",
                     diff->len > 0 ? "; " : "", name, found, declared);
    if (n > 0)
        diff->len += (size_t)n;
}

static void compare_number(struct diff *diff, json_t *config, const struct number *number)
{
    json_int_t found = json_integer_value(json_object_get(config, number->name));
    char found_text[32];
    char declared_text[32];

    if ((found > 0 ? found : 0) == number->value)
        return;
    (void)snprintf(found_text, sizeof(found_text), "%lld", (long long)found);
    (void)snprintf(declared_text, sizeof(declared_text), "%lld", (long long)number->value);
    differ(diff, number->name, found_text, declared_text);
}

static void compare_text(struct diff *diff, json_t *config, const char *name, const char *declared)
{
    const char *found = event_bus_nats_json_str(config, name);

    if (strcmp(found, declared) != 0)
        differ(diff, name, found, declared);
}

static bool has_subject(json_t *subjects, const char *wanted)
{
    size_t i;
    json_t *subject;

    json_array_foreach(subjects, i, subject)
    {
        if (json_is_string(subject) && strcmp(json_string_value(subject), wanted) == 0)
            return true;
    }
    return false;
}

/* Their order does not matter. */
static void compare_subjects(struct diff *diff, const struct event_bus_stream_options *o,
                             json_t *config)
{
    json_t *subjects = json_object_get(config, "subjects");
    bool same = json_array_size(subjects) == o->subject_count;

    for (size_t i = 0; same && i < o->subject_count; i++)
        same = has_subject(subjects, o->subjects[i]);
    if (same)
        return;
    char *found = json_dumps(subjects, JSON_COMPACT | JSON_ENCODE_ANY);
    struct wb_buf declared = {0};
    for (size_t i = 0; i < o->subject_count; i++)
        wb_buf_printf(&declared, "%s\"%s\"", i > 0 ? "," : "[", o->subjects[i]);
    wb_buf_str(&declared, "]");
    differ(diff, "subjects", found != NULL ? found : "none",
           declared.ptr != NULL ? declared.ptr : "");
    free(found);
    wb_buf_free(&declared);
}

void event_bus_nats_stream_diff(const struct event_bus_stream_options *o, json_t *config, char *out,
                                size_t size)
{
    struct diff diff = {.out = out, .size = size};
    struct number numbers[NUMBERS];

    out[0] = '\0';
    compare_subjects(&diff, o, config);
    compare_text(&diff, config, "retention", RETENTION);
    compare_text(&diff, config, "storage", STORAGE);
    compare_text(&diff, config, "discard", discard_of(o));
    numbers_of(o, numbers);
    for (size_t i = 0; i < NUMBERS; i++)
        compare_number(&diff, config, &numbers[i]);
}

bool event_bus_nats_stream_can_change(json_t *config)
{
    return strcmp(event_bus_nats_json_str(config, "retention"), RETENTION) == 0 &&
           strcmp(event_bus_nats_json_str(config, "storage"), STORAGE) == 0;
}
