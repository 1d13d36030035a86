#include <waybill/event_bus_nats.h>

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "nats_bus.h"

#define WINDOW_DEFAULT       4096
#define WINDOW_BYTES_DEFAULT (8U << 20)
#define BATCH_DEFAULT        256
#define WORKERS_DEFAULT      2
#define CONNECT_TIMEOUT_NS   (2 * WB_SEC)
#define PING_INTERVAL_NS     WB_SEC

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* ---- connected or not ------------------------------------------------------------------------ */

/* Listeners hear every change, one at a time and the last one last. */
static void tell(struct nats_bus *bus)
{
    pthread_mutex_lock(&bus->mutex);
    while (!bus->telling && bus->connected != (bus->pub_up && bus->sub_up)) {
        bus->connected = !bus->connected;
        bus->since_mono_ns = now_ns();
        bus->connections += bus->connected;
        bool connected = bus->connected;
        bus->telling = true;
        pthread_mutex_unlock(&bus->mutex);
        event_bus_notify(&bus->base, connected);
        pthread_mutex_lock(&bus->mutex);
        bus->telling = false;
    }
    pthread_mutex_unlock(&bus->mutex);
}

static size_t max_payload_of(struct nats_link *link)
{
    natsConnection *nc = event_bus_nats_link_acquire(link);
    int64_t size = nc != NULL ? natsConnection_GetMaxPayload(nc) : 0;

    if (nc != NULL)
        event_bus_nats_link_release(link, NATS_OK);
    return size > 0 ? (size_t)size : 0;
}

static void pub_up(void *ctx)
{
    struct nats_bus *bus = ctx;
    size_t max_payload = max_payload_of(&bus->pub);

    pthread_mutex_lock(&bus->mutex);
    bus->pub_up = true;
    bus->max_payload = max_payload;
    pthread_mutex_unlock(&bus->mutex);
    tell(bus);
}

static void pub_down(void *ctx)
{
    struct nats_bus *bus = ctx;

    pthread_mutex_lock(&bus->mutex);
    bus->pub_up = false;
    pthread_mutex_unlock(&bus->mutex);
    event_bus_nats_publisher_lost(&bus->publisher);
    tell(bus);
}

/* What kind of server it is: version, and what an acknowledgement of it is worth. */
static void note_server(struct nats_bus *bus)
{
    char url[256] = "";
    char version[32];
    natsConnection *nc = event_bus_nats_link_acquire(&bus->sub);

    if (nc == NULL)
        return;
    natsStatus s = natsConnection_GetConnectedUrl(nc, url, sizeof(url));
    event_bus_nats_link_release(&bus->sub, NATS_OK);
    if (s != NATS_OK)
        return;
    bool known = event_bus_nats_server_version(url, version, sizeof(version));
    const char *at = strrchr(url, '@');
    const char *scheme = strstr(url, "://");
    at = at != NULL ? at + 1 : scheme != NULL ? scheme + 3 : url;

    pthread_mutex_lock(&bus->mutex);
    (void)snprintf(bus->server, sizeof(bus->server), "nats-server%s%.31s at %.80s",
                   known ? " " : "", known ? version : "", at);
    /* 2.9 cannot sync before it acknowledges; later ones can and do not tell whether they do. */
    bus->durability = known && strncmp(version, "2.9.", 4) == 0 ? EVENT_BUS_DURABLE_PROCESS
                                                                : EVENT_BUS_DURABLE_UNKNOWN;
    pthread_mutex_unlock(&bus->mutex);
}

static wb_err check_jetstream(struct nats_bus *bus, struct wb_why *why)
{
    json_t *answer = NULL;
    wb_err err = event_bus_nats_api_request(bus, "JetStream", "$JS.API.INFO", NULL, &answer, why);

    if (err == WB_OK)
        json_decref(answer);
    return err;
}

static void sub_up(void *ctx)
{
    struct nats_bus *bus = ctx;
    struct wb_why why = {""};

    note_server(bus);
    wb_err err = check_jetstream(bus, &why);
    pthread_mutex_lock(&bus->mutex);
    (void)snprintf(bus->trouble, sizeof(bus->trouble), "%.*s", (int)sizeof(bus->trouble) - 1,
                   err == WB_NO_JETSTREAM ? why.text : "");
    bus->sub_up = true;
    pthread_mutex_unlock(&bus->mutex);
    event_bus_nats_engine_up(&bus->engine, max_payload_of(&bus->sub));
    tell(bus);
}

static void sub_down(void *ctx)
{
    struct nats_bus *bus = ctx;

    pthread_mutex_lock(&bus->mutex);
    bus->sub_up = false;
    pthread_mutex_unlock(&bus->mutex);
    event_bus_nats_engine_down(&bus->engine);
    tell(bus);
}

static int64_t pub_tick(void *ctx, int64_t now)
{
    struct nats_bus *bus = ctx;

    return event_bus_nats_publisher_tick(&bus->publisher, now);
}

static int64_t sub_tick(void *ctx, int64_t now)
{
    struct nats_bus *bus = ctx;

    return event_bus_nats_engine_tick(&bus->engine, now);
}

static void pub_message(void *ctx, void *owner, natsMsg *msg)
{
    struct nats_bus *bus = ctx;

    (void)owner;
    event_bus_nats_publisher_answer(&bus->publisher, msg);
}

static void sub_message(void *ctx, void *owner, natsMsg *msg)
{
    struct nats_bus *bus = ctx;

    event_bus_nats_engine_message(&bus->engine, owner, msg);
}

/* ---- what the server tells outside of any call ----------------------------------------------- */

bool event_bus_nats_denied_subject(const char *text, char out[256])
{
    const char *begin = strstr(text, "ublish to \"");

    if (begin == NULL)
        return false;
    begin += strlen("ublish to \"");
    size_t len = strcspn(begin, "\"");
    if (len == 0 || len > 255)
        return false;
    memcpy(out, begin, len);
    out[len] = '\0';
    return true;
}

void event_bus_nats_trouble(struct nats_bus *bus, const char *text)
{
    char subject[256];

    observe_add(bus->async_errors, 1);
    wb_log(WB_LOG_WARN, "event_bus_nats", "%s says: %s", bus->urls, text);
    bool denied = event_bus_nats_denied_subject(text, subject);
    pthread_mutex_lock(&bus->mutex);
    (void)snprintf(bus->trouble, sizeof(bus->trouble), "%s", text);
    if (denied)
        (void)snprintf(bus->denied_subject, sizeof(bus->denied_subject), "%s", subject);
    pthread_mutex_unlock(&bus->mutex);
    if (denied)
        event_bus_nats_publisher_denied(&bus->publisher, subject);
}

static void trouble(void *ctx, const char *text)
{
    event_bus_nats_trouble(ctx, text);
}

static const struct nats_link_events pub_events = {
    .up = pub_up, .down = pub_down, .tick = pub_tick, .message = pub_message, .trouble = trouble};

static const struct nats_link_events sub_events = {
    .up = sub_up, .down = sub_down, .tick = sub_tick, .message = sub_message, .trouble = trouble};

/* ---- health ---------------------------------------------------------------------------------- */

static void health(struct event_bus *self, struct event_bus_health *ret_health)
{
    struct nats_bus *bus = nats_bus_of(self);
    char pub_problem[200];
    char sub_problem[200];

    event_bus_nats_link_problem(&bus->pub, pub_problem, sizeof(pub_problem));
    event_bus_nats_link_problem(&bus->sub, sub_problem, sizeof(sub_problem));
    pthread_mutex_lock(&bus->mutex);
    *ret_health = (struct event_bus_health){.connected = bus->pub_up && bus->sub_up,
                                            .since_mono_ns = bus->since_mono_ns,
                                            .connections = bus->connections,
                                            .durability = bus->durability,
                                            .max_payload = bus->max_payload};
    (void)snprintf(ret_health->server, sizeof(ret_health->server), "%s", bus->server);
    (void)snprintf(ret_health->problem, sizeof(ret_health->problem), "%s",
                   bus->closed              ? "closed"
                   : pub_problem[0] != '\0' ? pub_problem
                   : sub_problem[0] != '\0' ? sub_problem
                                            : bus->trouble);
    pthread_mutex_unlock(&bus->mutex);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static void close_bus(struct event_bus *self)
{
    struct nats_bus *bus = nats_bus_of(self);

    pthread_mutex_lock(&bus->mutex);
    bus->closed = true;
    pthread_mutex_unlock(&bus->mutex);
    event_bus_nats_publisher_close(&bus->publisher);
    event_bus_nats_link_stop(&bus->pub);
    event_bus_nats_publisher_drain(&bus->publisher);
    event_bus_nats_link_stop(&bus->sub);
}

static void free_parts(struct nats_bus *bus)
{
    event_bus_nats_engine_free(&bus->engine);
    event_bus_nats_publisher_free(&bus->publisher);
    pthread_mutex_destroy(&bus->mutex);
    free(bus->urls);
}

static void destroy(struct event_bus *self)
{
    struct nats_bus *bus = nats_bus_of(self);

    event_bus_nats_link_free(&bus->sub);
    event_bus_nats_link_free(&bus->pub);
    free_parts(bus);
    event_bus_fini(self);
    free(bus);
}

static const struct event_bus_ops ops = {.kind = "nats",
                                         .publish_async = event_bus_nats_publish,
                                         .declare_stream = event_bus_nats_declare_stream,
                                         .stream_info = event_bus_nats_stream_info,
                                         .stream_for = event_bus_nats_stream_for,
                                         .delete_stream = event_bus_nats_delete_stream,
                                         .get = event_bus_nats_get,
                                         .scan = event_bus_nats_scan,
                                         .start = event_bus_nats_start,
                                         .stop = event_bus_nats_stop,
                                         .resume = event_bus_nats_resume,
                                         .streams = event_bus_nats_streams,
                                         .settle = event_bus_nats_settle,
                                         .delete_durable = event_bus_nats_delete_durable,
                                         .health = health,
                                         .close = close_bus,
                                         .destroy = destroy};

static wb_err make_parts(struct nats_bus *bus, const struct event_bus_nats_options *o)
{
    bus->urls = event_bus_nats_redact(o->url != NULL ? o->url : "nats://127.0.0.1:4222");
    if (bus->urls == NULL)
        return WB_NOMEM;
    if (pthread_mutex_init(&bus->mutex, NULL) != 0)
        goto free_urls;
    if (event_bus_nats_publisher_init(
            &bus->publisher, bus, o->publish_window > 0 ? o->publish_window : WINDOW_DEFAULT,
            o->publish_window_bytes > 0 ? o->publish_window_bytes : WINDOW_BYTES_DEFAULT) != WB_OK)
        goto destroy_mutex;
    if (event_bus_nats_engine_init(&bus->engine, bus,
                                   o->pull_batch > 0 ? o->pull_batch : BATCH_DEFAULT) != WB_OK)
        goto free_publisher;
    return WB_OK;

free_publisher:
    event_bus_nats_publisher_free(&bus->publisher);
destroy_mutex:
    pthread_mutex_destroy(&bus->mutex);
free_urls:
    free(bus->urls);
    return WB_NOMEM;
}

static wb_err start_links(struct nats_bus *bus, const struct event_bus_nats_options *o,
                          struct wb_why *why)
{
    int64_t ping_ns = o->ping_interval_ns > 0 ? o->ping_interval_ns : PING_INTERVAL_NS;
    natsOptions *pub = NULL;
    natsOptions *sub = NULL;

    wb_err err = event_bus_nats_connection_options(o, "publisher", &pub, why);
    if (err != WB_OK)
        return err;
    err = event_bus_nats_connection_options(o, "consumer", &sub, why);
    if (err != WB_OK) {
        natsOptions_Destroy(pub);
        return err;
    }
    err = event_bus_nats_link_start(&bus->pub, &pub_events, bus, pub, ping_ns);
    if (err != WB_OK) {
        natsOptions_Destroy(sub);
        return wb_fail(why, err, "NATS bus: no thread or memory for a connection");
    }
    err = event_bus_nats_link_start(&bus->sub, &sub_events, bus, sub, ping_ns);
    if (err != WB_OK) {
        event_bus_nats_link_stop(&bus->pub);
        event_bus_nats_link_free(&bus->pub);
        return wb_fail(why, err, "NATS bus: no thread or memory for a connection");
    }
    return WB_OK;
}

static wb_err wait_for_server(struct nats_bus *bus, const struct event_bus_nats_options *o,
                              bool wait_connected, struct wb_why *why)
{
    int64_t until =
        now_ns() + (o->connect_timeout_ns > 0 ? o->connect_timeout_ns : CONNECT_TIMEOUT_NS);
    char problem[200];

    wb_err err = event_bus_nats_link_wait(&bus->pub, until, !wait_connected);
    if (err == WB_OK)
        err = event_bus_nats_link_wait(&bus->sub, until, !wait_connected);
    if (!wait_connected)
        return WB_OK;
    if (err == WB_OK)
        return check_jetstream(bus, why);
    event_bus_nats_link_problem(&bus->pub, problem, sizeof(problem));
    return wb_fail(why, err, "NATS server at %s: %s", bus->urls, problem);
}

static wb_err make_bus(const struct event_bus_nats_options *o, struct nats_bus **ret_bus,
                       struct wb_why *why)
{
    struct event_bus_settings settings = {.observe = o->observe,
                                          .workers = o->workers > 0 ? o->workers : WORKERS_DEFAULT};
    struct nats_bus *bus = calloc(1, sizeof(*bus));

    if (bus == NULL || make_parts(bus, o) != WB_OK) {
        free(bus);
        return wb_fail(why, WB_NOMEM, "NATS bus: out of memory");
    }
    bus->durability = EVENT_BUS_DURABLE_UNKNOWN;
    bus->since_mono_ns = now_ns();
    bus->async_errors = observe_series(o->observe, OBSERVE_BUS_ASYNC_ERRORS, NULL);
    wb_err err = event_bus_init(&bus->base, &ops, &settings);
    if (err != WB_OK) {
        free_parts(bus);
        free(bus);
        return wb_fail(why, err, "NATS bus: no memory or threads for %u workers", settings.workers);
    }
    err = start_links(bus, o, why);
    if (err != WB_OK) {
        free_parts(bus);
        event_bus_fini(&bus->base);
        free(bus);
        return err;
    }
    *ret_bus = bus;
    return WB_OK;
}

wb_err event_bus_nats_create(const struct event_bus_nats_options *options, bool wait_connected,
                             struct event_bus **ret_bus, struct wb_why *why)
{
    static const struct event_bus_nats_options defaults;
    struct nats_bus *bus = NULL;

    if (options == NULL)
        options = &defaults;
    wb_err err = event_bus_nats_options_check(options, why);
    if (err == WB_OK)
        err = make_bus(options, &bus, why);
    if (err != WB_OK)
        return err;
    assert(bus != NULL);
    err = wait_for_server(bus, options, wait_connected, why);
    if (err != WB_OK) {
        event_bus_destroy(&bus->base);
        return err;
    }
    *ret_bus = &bus->base;
    return WB_OK;
}
