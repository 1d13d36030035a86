/* streams.c - streams: declared, looked at, listed, removed; and single messages read back. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api.h"
#include "nats_bus.h"
#include "stream_config.h"

#define PAGES_MAX 256

/* ---- lists ----------------------------------------------------------------------------------- */

/* Gather the pages of a listing. */
static wb_err list(struct nats_bus *bus, const char *subject, json_t *query, json_t **ret_items,
                   struct wb_why *why)
{
    json_t *items = json_array();
    wb_err err = WB_OK;
    uint64_t total = 1;

    for (int page = 0; err == WB_OK && page < PAGES_MAX && json_array_size(items) < total; page++) {
        json_t *body = json_copy(query);
        json_t *answer = NULL;
        (void)json_object_set_new(body, "offset", json_integer((json_int_t)json_array_size(items)));
        err = event_bus_nats_api_request(bus, "list streams", subject, body, &answer, why);
        if (err != WB_OK)
            break;
        json_t *more = json_object_get(answer, "streams");
        total = event_bus_nats_json_u64(answer, "total");
        if (json_array_size(more) == 0)
            total = 0; /* the list has shrunk meanwhile */
        else if (json_array_extend(items, more) != 0)
            err = wb_fail(why, WB_NOMEM, "list streams: out of memory");
        json_decref(answer);
    }
    json_decref(query);
    if (err != WB_OK) {
        json_decref(items);
        return err;
    }
    *ret_items = items;
    return WB_OK;
}

wb_err event_bus_nats_stream_names(struct nats_bus *bus, const char *subject, json_t **ret_names,
                                   struct wb_why *why)
{
    json_t *query = json_object();

    if (subject != NULL)
        (void)json_object_set_new(query, "subject", json_string(subject));
    return list(bus, "$JS.API.STREAM.NAMES", query, ret_names, why);
}

wb_err event_bus_nats_stream_list(struct nats_bus *bus, json_t **ret_streams, struct wb_why *why)
{
    return list(bus, "$JS.API.STREAM.LIST", json_object(), ret_streams, why);
}

/* ---- one stream ------------------------------------------------------------------------------ */

static wb_err stream_request(struct nats_bus *bus, const char *verb, const char *stream,
                             json_t *body, json_t **ret_answer, struct wb_why *why)
{
    char subject[EVENT_BUS_NAME_MAX + 64];
    char what[EVENT_BUS_NAME_MAX + 64];

    (void)snprintf(subject, sizeof(subject), "$JS.API.STREAM.%s.%s", verb, stream);
    (void)snprintf(what, sizeof(what), "stream '%s' (%s)", stream, verb);
    return event_bus_nats_api_request(bus, what, subject, body, ret_answer, why);
}

static void join_subjects(json_t *subjects, char *out, size_t size)
{
    size_t len = 0;
    size_t i;
    json_t *subject;

    out[0] = '\0';
    json_array_foreach(subjects, i, subject)
    {
        int n = snprintf(out + len, size - len, "%s%s", len > 0 ? " " : "",
                         json_is_string(subject) ? json_string_value(subject) : "");
        if (n < 0 || (size_t)n >= size - len) {
            out[len] = '\0'; /* whole patterns only */
            return;
        }
        len += (size_t)n;
    }
}

wb_err event_bus_nats_stream_info(struct event_bus *self, const char *stream,
                                  struct event_bus_stream_info *ret_info, struct wb_why *why)
{
    json_t *answer = NULL;
    wb_err err = stream_request(nats_bus_of(self), "INFO", stream, NULL, &answer, why);

    if (err != WB_OK)
        return err;
    *ret_info = (struct event_bus_stream_info){
        .created_wall_ns = event_bus_nats_time_parse(event_bus_nats_json_str(answer, "created")),
        .first_seq = event_bus_nats_json_u64(answer, "state.first_seq"),
        .last_seq = event_bus_nats_json_u64(answer, "state.last_seq"),
        .messages = event_bus_nats_json_u64(answer, "state.messages"),
        .bytes = event_bus_nats_json_u64(answer, "state.bytes"),
        .duplicate_window_ns = (int64_t)event_bus_nats_json_u64(answer, "config.duplicate_window")};
    (void)snprintf(ret_info->name, sizeof(ret_info->name), "%s", stream);
    join_subjects(event_bus_nats_json_at(answer, "config.subjects"), ret_info->subjects,
                  sizeof(ret_info->subjects));
    json_decref(answer);
    return WB_OK;
}

wb_err event_bus_nats_stream_for(struct event_bus *self, struct wb_str subject,
                                 char ret_stream[EVENT_BUS_NAME_MAX + 1], struct wb_why *why)
{
    struct nats_bus *bus = nats_bus_of(self);
    char text[SUBJECT_MAX + 1];
    json_t *names = NULL;

    (void)snprintf(text, sizeof(text), "%.*s", (int)subject.len, subject.ptr);
    wb_err err = event_bus_nats_stream_names(bus, text, &names, why);
    if (err != WB_OK)
        return err;
    const char *name = json_string_value(json_array_get(names, 0));
    if (name == NULL || strlen(name) > EVENT_BUS_NAME_MAX)
        err = wb_fail(why, WB_NO_STREAM,
                      "no stream at %s covers '%s'; declare one whose subjects match", bus->urls,
                      text);
    else
        (void)snprintf(ret_stream, EVENT_BUS_NAME_MAX + 1, "%s", name);
    json_decref(names);
    return err;
}

wb_err event_bus_nats_delete_stream(struct event_bus *self, const char *stream, struct wb_why *why)
{
    struct nats_bus *bus = nats_bus_of(self);
    json_t *answer = NULL;
    wb_err err = stream_request(bus, "DELETE", stream, NULL, &answer, why);

    if (err == WB_OK)
        json_decref(answer);
    event_bus_nats_engine_refresh(&bus->engine);
    return err;
}

/* ---- declare --------------------------------------------------------------------------------- */

static wb_err create_stream(struct nats_bus *bus, const struct event_bus_stream_options *options,
                            struct wb_why *why)
{
    json_t *answer = NULL;
    char drift[256];
    struct wb_why said = {""};

    wb_err err = stream_request(bus, "CREATE", options->name, event_bus_nats_stream_config(options),
                                &answer, &said);
    if (err == WB_FULL)
        return wb_fail(why, WB_FULL,
                       "%s; stream '%s' reserves max_bytes = %" PRIu64
                       ": declare less, or raise max_file_store of the server",
                       said.text, options->name, options->max_bytes);
    if (err != WB_OK) {
        (void)wb_fail(why, err, "%s", said.text);
        return err;
    }
    /* Servers take what they do not know or cannot do without a word, so the echo counts. */
    event_bus_nats_stream_diff(options, json_object_get(answer, "config"), drift, sizeof(drift));
    json_decref(answer);
    if (drift[0] != '\0')
        return wb_fail(why, WB_UNSUPPORTED,
                       "stream '%s': created, but the server at %s made something else of it: %s",
                       options->name, bus->urls, drift);
    return WB_OK;
}

static wb_err update_stream(struct nats_bus *bus, const struct event_bus_stream_options *options,
                            json_t *config, struct wb_why *why)
{
    json_t *answer = NULL;

    event_bus_nats_stream_merge(options, config);
    wb_err err = stream_request(bus, "UPDATE", options->name, json_incref(config), &answer, why);
    if (err == WB_OK)
        json_decref(answer);
    /* What cannot be changed is told as a plain error of configuration. */
    return err == WB_INVALID ? WB_CONFLICT : err;
}

static wb_err compare_stream(struct nats_bus *bus, const struct event_bus_stream_options *options,
                             event_bus_provision mode, json_t *config, struct wb_why *why)
{
    char drift[256];

    event_bus_nats_stream_diff(options, config, drift, sizeof(drift));
    if (drift[0] == '\0')
        return WB_OK;
    if (mode == EVENT_BUS_APPLY && event_bus_nats_stream_can_change(config))
        return update_stream(bus, options, config, why);
    return wb_fail(why, WB_CONFLICT, "stream '%s' at %s differs from its declaration: %s; %s",
                   options->name, bus->urls, drift,
                   mode == EVENT_BUS_APPLY
                       ? "this cannot be changed: delete the stream or change the declaration"
                       : "apply the declaration, or change it");
}

wb_err event_bus_nats_declare_stream(struct event_bus *self,
                                     const struct event_bus_stream_options *options,
                                     event_bus_provision mode, struct wb_why *why)
{
    struct nats_bus *bus = nats_bus_of(self);
    json_t *answer = NULL;

    wb_err err = stream_request(bus, "INFO", options->name, NULL, &answer, why);
    if (err == WB_OK) {
        err = compare_stream(bus, options, mode, json_object_get(answer, "config"), why);
        json_decref(answer);
    } else if (err == WB_NO_STREAM && mode != EVENT_BUS_VERIFY) {
        err = create_stream(bus, options, why);
    }
    event_bus_nats_engine_refresh(&bus->engine);
    return err;
}

/* ---- read back ------------------------------------------------------------------------------- */

wb_err event_bus_nats_get(struct event_bus *self, const char *stream, uint64_t sequence,
                          struct event_bus_delivery_impl **ret_delivery, struct wb_why *why)
{
    struct nats_bus *bus = nats_bus_of(self);
    json_t *answer = NULL;

    if (sequence > INT64_MAX)
        return wb_fail(why, WB_NOT_FOUND, "stream '%s' has no message %" PRIu64, stream, sequence);
    wb_err err = stream_request(bus, "MSG.GET", stream,
                                json_pack("{s:I}", "seq", (json_int_t)sequence), &answer, why);
    if (err != WB_OK)
        return err;
    struct nats_delivery *delivery = event_bus_nats_delivery_from_json(stream, answer);
    json_decref(answer);
    if (delivery == NULL)
        return wb_fail(why, WB_INTERNAL,
                       "message %" PRIu64 " of stream '%s' at %s cannot be read: out of memory, or "
                       "the answer is not of the known form",
                       sequence, stream, bus->urls);
    *ret_delivery = &delivery->impl;
    return WB_OK;
}
