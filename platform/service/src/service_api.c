/*
 * service_api.c - the bus over HTTP, for `waybill pub` and `waybill sub` against a running service.
 *
 * A subscription is polled: each poll hands out what waits and returns at once, so the HTTP thread
 * never waits. One that nobody polled for half a minute is ended.
 */
#include "service_impl.h"
#include "service_json.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#define MAX_SUBSCRIPTIONS 64
#define IDLE_NS           (30 * WB_SEC)
#define MAX_PATTERNS      64
#define MAX_POLL          100
#define PUBLISH_NS        (2 * WB_SEC) /* the HTTP thread waits for it */

struct polled {
    char id[WB_ID_TEXT]; /* "" while the place is free */
    struct event_bus_subscription *subscription;
    int64_t polled_mono_ns;
};

struct service_api {
    struct event_bus *bus;
    pthread_mutex_t mutex;
    struct polled polled[MAX_SUBSCRIPTIONS]; /* guarded by mutex */
};

wb_err service_api_create(struct event_bus *bus, struct service_api **ret_api)
{
    struct service_api *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return WB_NOMEM;
    self->bus = bus;
    pthread_mutex_init(&self->mutex, NULL);
    *ret_api = self;
    return WB_OK;
}

void service_api_destroy(struct service_api *self)
{
    if (self == NULL)
        return;
    for (size_t i = 0; i < MAX_SUBSCRIPTIONS; i++)
        if (self->polled[i].id[0] != '\0')
            event_bus_unsubscribe(self->polled[i].subscription);
    pthread_mutex_destroy(&self->mutex);
    free(self);
}

/* ---- answers --------------------------------------------------------------------------------- */

static int status_of(wb_err err)
{
    switch (err) {
    case WB_OK:
        return 200;
    case WB_INVALID:
        return 400;
    case WB_DENIED:
        return 403;
    case WB_NOT_FOUND:
    case WB_NO_STREAM:
        return 404;
    case WB_CONFLICT:
    case WB_EXISTS:
        return 409;
    case WB_TOO_BIG:
        return 413;
    default:
        return 503;
    }
}

static void respond_err(struct module_response *response, wb_err err, const struct wb_why *why)
{
    response->status = status_of(err);
    wb_buf_clear(&response->body);
    wb_buf_printf(&response->body, "{\"code\":\"%s\",\"error\":", wb_err_name(err));
    wb_buf_json_str(&response->body, wb_str(why->text[0] ? why->text : wb_err_text(err)));
    wb_buf_str(&response->body, "}\n");
}

/* Value of a query parameter, percent-decoded into out; false when absent, malformed or longer. */
static bool query_value(struct wb_str query, const char *name, char *out, size_t room)
{
    size_t name_len = strlen(name);

    for (size_t at = 0; at < query.len;) {
        const char *p = query.ptr + at;
        const char *end = memchr(p, '&', query.len - at);
        size_t len = end == NULL ? query.len - at : (size_t)(end - p);
        at += len + 1;
        if (len <= name_len || memcmp(p, name, name_len) != 0 || p[name_len] != '=')
            continue;
        size_t used = 0;
        for (size_t i = name_len + 1; i < len; i++, used++) {
            if (used + 1 >= room)
                return false;
            out[used] = p[i];
            if (p[i] == '%' &&
                (i + 2 >= len || !wb_hex_decode(wb_str_n(p + i + 1, 2), &out[used], 1)))
                return false;
            i += p[i] == '%' ? 2 : 0;
        }
        out[used] = '\0';
        return strlen(out) == used;
    }
    return false;
}

/* ---- publish --------------------------------------------------------------------------------- */

/* The event's headers travel as "waybill-header: Name: value", one for each. */
static wb_err collect_headers(const struct module_request *request, struct message *msg,
                              struct message_header *room, struct wb_why *why)
{
    for (size_t i = 0; i < request->header_count; i++) {
        size_t count = 0;
        if (!wb_str_case_eq(request->headers[i].name, wb_str("waybill-header")))
            continue;
        if (msg->header_count == MESSAGE_HEADERS_MAX)
            return wb_fail(why, WB_TOO_BIG, "more than %d headers", MESSAGE_HEADERS_MAX);
        /* A value holds no line end, so one line is parsed into the one place left for it. */
        wb_err err =
            message_headers_parse(request->headers[i].value, room + msg->header_count, &count, why);
        if (err != WB_OK)
            return err;
        msg->header_count += count;
    }
    msg->headers = room;
    return WB_OK;
}

void service_api_publish(struct service_api *self, const struct module_request *request,
                         struct module_response *response)
{
    struct message_header headers[2 * MESSAGE_HEADERS_MAX];
    struct event_bus_publish_options options = {.timeout_ns = PUBLISH_NS};
    struct event_bus_ack_info ack;
    struct wb_why why = {""};
    char subject[1024];
    wb_err err = WB_OK;

    if (!query_value(request->query, "subject", subject, sizeof(subject)))
        err = wb_fail(&why, WB_INVALID, "publish: no valid ?subject=... in the request");
    struct message msg = {.subject = wb_str(subject),
                          .payload = request->body,
                          .msg_id = module_request_header(request, "msg-id")};
    if (err == WB_OK)
        err = collect_headers(request, &msg, headers, &why);
    if (err == WB_OK)
        err = event_bus_publish(self->bus, &msg, &options, &ack, &why);
    if (err != WB_OK) {
        respond_err(response, err, &why);
        return;
    }
    wb_buf_printf(&response->body, "{\"stream\":\"%s\",\"sequence\":%llu,\"duplicate\":%s}\n",
                  ack.stream, (unsigned long long)ack.sequence, ack.duplicate ? "true" : "false");
}

/* ---- subscribe ------------------------------------------------------------------------------- */

static wb_err read_options(json_t *root, const char **patterns,
                           struct event_bus_subscription_options *options, struct wb_why *why)
{
    json_t *list = json_object_get(root, "patterns");
    const char *start = json_string_value(json_object_get(root, "start"));
    json_t *item;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > MAX_PATTERNS)
        return wb_fail(why, WB_INVALID, "subscribe: \"patterns\" must be a list of 1 to %d strings",
                       MAX_PATTERNS);
    json_array_foreach(list, i, item)
    {
        patterns[i] = json_string_value(item);
        if (patterns[i] == NULL)
            return wb_fail(why, WB_INVALID, "subscribe: pattern %zu is no string", i + 1);
    }
    if (start != NULL && strcmp(start, "new") != 0 && strcmp(start, "all") != 0)
        return wb_fail(why, WB_INVALID, "subscribe: \"start\" must be \"new\" or \"all\"");
    options->patterns = patterns;
    options->pattern_count = json_array_size(list);
    options->start =
        start != NULL && strcmp(start, "all") == 0 ? EVENT_BUS_START_ALL : EVENT_BUS_START_NEW;
    return WB_OK;
}

static wb_err subscribe(struct service_api *self, json_t *root, const char **ret_id,
                        struct wb_why *why)
{
    const char *patterns[MAX_PATTERNS];
    struct event_bus_subscription_options options = {.ack_none = true, .max_ack_pending = MAX_POLL};
    struct polled *place = NULL;
    uint8_t id[WB_ID_SIZE];
    wb_err err = read_options(root, patterns, &options, why);

    if (err != WB_OK)
        return err;
    for (size_t i = 0; i < MAX_SUBSCRIPTIONS && place == NULL; i++)
        if (self->polled[i].id[0] == '\0')
            place = &self->polled[i];
    if (place == NULL)
        return wb_fail(why, WB_FULL, "%d subscriptions are open; end one, or wait half a minute",
                       MAX_SUBSCRIPTIONS);
    err = event_bus_subscribe(self->bus, &options, &place->subscription, why);
    if (err != WB_OK)
        return err;
    wb_random_fill(id, sizeof(id));
    wb_hex_encode(id, sizeof(id), place->id);
    place->polled_mono_ns = wb_mono_ns(wb_clock_system());
    *ret_id = place->id;
    return WB_OK;
}

void service_api_subscribe(struct service_api *self, const struct module_request *request,
                           struct module_response *response)
{
    json_error_t error;
    struct wb_why why = {""};
    const char *id = NULL;
    json_t *root = json_loadb(request->body.ptr, request->body.len, JSON_REJECT_DUPLICATES, &error);
    wb_err err = WB_OK;

    if (root == NULL)
        err = wb_fail(&why, WB_INVALID, "subscribe: the body is not JSON: %s at byte %d",
                      error.text, error.position);
    pthread_mutex_lock(&self->mutex);
    if (err == WB_OK)
        err = subscribe(self, root, &id, &why);
    if (err == WB_OK)
        wb_buf_printf(&response->body, "{\"id\":\"%s\"}\n", id);
    pthread_mutex_unlock(&self->mutex);
    if (err != WB_OK)
        respond_err(response, err, &why);
    json_decref(root);
}

/* ---- poll ------------------------------------------------------------------------------------ */

static void poll_into(struct polled *polled, size_t max, struct wb_buf *out)
{
    struct event_bus_delivery *deliveries[MAX_POLL];
    size_t count = 0;

    polled->polled_mono_ns = wb_mono_ns(wb_clock_system());
    if (event_bus_fetch(polled->subscription, max, 0, deliveries, &count) != WB_OK)
        return;
    for (size_t i = 0; i < count; i++) {
        service_delivery_json(deliveries[i], out);
        wb_buf_str(out, "\n");
        event_bus_release(deliveries[i]);
    }
}

void service_api_next(struct service_api *self, const struct module_request *request,
                      struct module_response *response)
{
    char id[WB_ID_TEXT];
    char max_text[8];
    uint64_t max = MAX_POLL;
    bool found = false;

    if (query_value(request->query, "max", max_text, sizeof(max_text)) &&
        (!wb_str_to_u64(wb_str(max_text), &max) || max == 0 || max > MAX_POLL))
        max = MAX_POLL;
    pthread_mutex_lock(&self->mutex);
    for (size_t i = 0; query_value(request->query, "id", id, sizeof(id)) && i < MAX_SUBSCRIPTIONS;
         i++)
        if (id[0] != '\0' && strcmp(self->polled[i].id, id) == 0) {
            poll_into(&self->polled[i], (size_t)max, &response->body);
            found = true;
        }
    pthread_mutex_unlock(&self->mutex);
    response->content_type = "application/x-ndjson";
    if (!found)
        module_respond_error(response, 404, "no such subscription",
                             "it ends half a minute after the last poll; subscribe again");
}

void service_api_reap(struct service_api *self)
{
    int64_t now = wb_mono_ns(wb_clock_system());

    pthread_mutex_lock(&self->mutex);
    for (size_t i = 0; i < MAX_SUBSCRIPTIONS; i++)
        if (self->polled[i].id[0] != '\0' && now - self->polled[i].polled_mono_ns > IDLE_NS) {
            event_bus_unsubscribe(self->polled[i].subscription);
            self->polled[i].id[0] = '\0';
        }
    pthread_mutex_unlock(&self->mutex);
}
