#include "link.h"

#include <stdio.h>
#include <string.h>

#define BACKOFF_MIN_NS (50 * WB_MS)
#define BACKOFF_MAX_NS (2 * WB_SEC)
#define FAREWELL_MS    500 /* for what was sent to arrive before the connection is closed */

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* ---- using the connection -------------------------------------------------------------------- */

natsConnection *event_bus_nats_link_acquire(struct nats_link *link)
{
    pthread_mutex_lock(&link->mutex);
    natsConnection *nc = link->lost ? NULL : link->nc;
    link->users += nc != NULL;
    pthread_mutex_unlock(&link->mutex);
    return nc;
}

/* After a write that failed half way nobody knows where the next frame begins. */
static bool broke_the_connection(natsStatus status)
{
    return status == NATS_IO_ERROR || status == NATS_TIMEOUT || status == NATS_SSL_ERROR ||
           status == NATS_NO_MEMORY;
}

void event_bus_nats_link_release(struct nats_link *link, natsStatus status)
{
    pthread_mutex_lock(&link->mutex);
    link->lost |= broke_the_connection(status);
    if (--link->users == 0 && link->lost)
        pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

natsConnection *event_bus_nats_link_acquire_to_send(struct nats_link *link)
{
    natsConnection *nc = event_bus_nats_link_acquire(link);

    if (nc != NULL)
        event_bus_nats_wire_sending(&link->wire);
    return nc;
}

void event_bus_nats_link_release_sent(struct nats_link *link, natsStatus status)
{
    event_bus_nats_wire_sent(&link->wire); /* while users keeps nc */
    event_bus_nats_link_release(link, status);
}

wb_err event_bus_nats_link_err(natsStatus status)
{
    switch (status) {
    case NATS_OK:
        return WB_OK;
    case NATS_CONNECTION_CLOSED:
    case NATS_CONNECTION_DISCONNECTED:
    case NATS_NO_SERVER:
        return WB_UNREACHABLE;
    case NATS_INVALID_ARG:
    case NATS_INVALID_SUBJECT:
        return WB_INVALID;
    case NATS_MAX_PAYLOAD:
        return WB_TOO_BIG;
    case NATS_NO_SERVER_SUPPORT:
        return WB_UNSUPPORTED;
    case NATS_NO_MEMORY:
        return WB_NOMEM;
    case NATS_IO_ERROR:
    case NATS_TIMEOUT:
    case NATS_SSL_ERROR:
        return WB_UNKNOWN;
    default:
        return WB_INTERNAL;
    }
}

wb_err event_bus_nats_link_send(struct nats_link *link, const char *subject, const char *reply,
                                struct wb_bytes data)
{
    natsConnection *nc = event_bus_nats_link_acquire_to_send(link);

    if (nc == NULL)
        return WB_UNREACHABLE;
    natsStatus status =
        reply != NULL ? natsConnection_PublishRequest(nc, subject, reply, data.ptr, (int)data.len)
                      : natsConnection_Publish(nc, subject, data.ptr, (int)data.len);
    event_bus_nats_link_release_sent(link, status);
    return event_bus_nats_link_err(status);
}

void event_bus_nats_link_wake(struct nats_link *link)
{
    pthread_mutex_lock(&link->mutex);
    link->woken = true;
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

bool event_bus_nats_link_is_up(struct nats_link *link)
{
    pthread_mutex_lock(&link->mutex);
    bool up = link->nc != NULL && !link->lost;
    pthread_mutex_unlock(&link->mutex);
    return up;
}

wb_err event_bus_nats_link_wait(struct nats_link *link, int64_t mono_ns, bool any_outcome)
{
    bool waiting = true;

    pthread_mutex_lock(&link->mutex);
    while (waiting && link->refusal == WB_UNREACHABLE && !(any_outcome && link->attempts > 0))
        waiting = wb_cond_wait_until(&link->changed, &link->mutex, mono_ns);
    wb_err err = link->refusal;
    pthread_mutex_unlock(&link->mutex);
    return err;
}

void event_bus_nats_link_problem(struct nats_link *link, char *out, size_t size)
{
    pthread_mutex_lock(&link->mutex);
    (void)snprintf(out, size, "%s", link->problem);
    pthread_mutex_unlock(&link->mutex);
}

/* ---- callbacks of nats.c --------------------------------------------------------------------- */

static void on_closed(natsConnection *nc, void *closure)
{
    struct nats_link *link = closure;

    (void)nc;
    pthread_mutex_lock(&link->mutex);
    link->closed = true;
    link->lost = true;
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

static void on_complete(void *closure)
{
    struct nats_link *link = closure;

    pthread_mutex_lock(&link->mutex);
    link->delivered = true;
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

static void on_message(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    struct nats_link *link = closure;

    (void)nc;
    (void)sub;
    link->events->message(link->ctx, NULL, msg);
}

static void on_tap_message(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    const struct nats_tap *tap = closure;

    (void)nc;
    (void)sub;
    if (tap->message != NULL)
        tap->message(tap->owner, msg);
    else
        tap->link->events->message(tap->link->ctx, tap->owner, msg);
}

static void on_tap_complete(void *closure)
{
    struct nats_tap *tap = closure;
    struct nats_link *link = tap->link;

    pthread_mutex_lock(&link->mutex);
    tap->done = true;
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

static void on_error(natsConnection *nc, natsSubscription *sub, natsStatus status, void *closure)
{
    struct nats_link *link = closure;
    const char *text = nats_GetLastError(NULL);

    (void)nc;
    (void)sub;
    link->events->trouble(link->ctx,
                          text != NULL && *text != '\0' ? text : natsStatus_GetText(status));
}

/* ---- taps ------------------------------------------------------------------------------------ */

/* Listen to <inbox>.> until complete is called; not at all when the connection is closed already.
 */
static natsStatus listen_to(natsSubscription **ret_sub, natsConnection *nc, const char *inbox,
                            natsMsgHandler message, natsOnCompleteCB complete, void *ctx)
{
    char subject[128];

    (void)snprintf(subject, sizeof(subject), "%s.>", inbox);
    natsStatus s = natsConnection_Subscribe(ret_sub, nc, subject, message, ctx);
    if (s != NATS_OK)
        return s;
    /* What may come is bounded by what we ask for, so nothing is to be dropped here. */
    s = natsSubscription_SetPendingLimits(*ret_sub, -1, -1);
    if (s == NATS_OK)
        s = natsSubscription_SetOnCompleteCB(*ret_sub, complete, ctx);
    if (s == NATS_OK)
        return NATS_OK;
    /* It is closed, though nats.c says only that of the subscription. Nothing calls back. */
    natsSubscription_Destroy(*ret_sub);
    *ret_sub = NULL;
    return NATS_CONNECTION_CLOSED;
}

wb_err event_bus_nats_tap_open(struct nats_tap *tap)
{
    struct nats_link *link = tap->link;
    natsConnection *nc = event_bus_nats_link_acquire(link);
    natsStatus s = NATS_OK;

    if (nc == NULL)
        return WB_UNREACHABLE;
    pthread_mutex_lock(&link->mutex);
    uint64_t epoch = link->epoch;
    pthread_mutex_unlock(&link->mutex);
    if (tap->sub == NULL || tap->epoch != epoch) {
        event_bus_nats_tap_close(tap);
        tap->epoch = epoch;
        s = listen_to(&tap->sub, nc, tap->inbox, on_tap_message, on_tap_complete, tap);
    }
    event_bus_nats_link_release(link, s);
    return event_bus_nats_link_err(s);
}

bool event_bus_nats_tap_is_open(const struct nats_tap *tap)
{
    struct nats_link *link = tap->link;

    pthread_mutex_lock(&link->mutex);
    bool open = tap->sub != NULL && link->nc != NULL && !link->lost && link->epoch == tap->epoch;
    pthread_mutex_unlock(&link->mutex);
    return open;
}

void event_bus_nats_tap_close(struct nats_tap *tap)
{
    struct nats_link *link = tap->link;

    if (tap->sub == NULL)
        return;
    /* Fails when the connection is closed, which ends the subscription as well. */
    (void)natsSubscription_DrainTimeout(tap->sub, link->flush_timeout_ms);
    pthread_mutex_lock(&link->mutex);
    while (!tap->done)
        pthread_cond_wait(&link->changed, &link->mutex);
    tap->done = false;
    pthread_mutex_unlock(&link->mutex);
    natsSubscription_Destroy(tap->sub);
    tap->sub = NULL;
}

/* ---- connecting ------------------------------------------------------------------------------ */

static wb_err refusal_of(natsStatus status)
{
    switch (status) {
    case NATS_CONNECTION_AUTH_FAILED:
    case NATS_NOT_PERMITTED:
        return WB_DENIED;
    default:
        return WB_UNREACHABLE;
    }
}

static const char *advice(natsStatus status)
{
    switch (status) {
    case NATS_CONNECTION_AUTH_FAILED:
        return "check user and password, token, creds or nkey";
    case NATS_NOT_PERMITTED:
        return "the user must be allowed to subscribe to _INBOX.>";
    case NATS_SSL_ERROR:
    case NATS_SECURE_CONNECTION_REQUIRED:
    case NATS_SECURE_CONNECTION_WANTED:
        return "check the TLS settings and certificates of both sides";
    case NATS_NO_SERVER:
        return "is nats-server running there?";
    default:
        return "is the server well?";
    }
}

static void note_failure(struct nats_link *link, natsStatus status)
{
    pthread_mutex_lock(&link->mutex);
    link->attempts++;
    link->refusal = refusal_of(status);
    (void)snprintf(link->problem, sizeof(link->problem), "cannot connect: %s; %s",
                   natsStatus_GetText(status), advice(status));
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

/* Wait until nothing calls back any more: only then may anything be destroyed. nc is closed. */
static void tear_down(struct nats_link *link, natsConnection *nc, natsSubscription *sub)
{
    pthread_mutex_lock(&link->mutex);
    while (!link->closed || (sub != NULL && !link->delivered))
        pthread_cond_wait(&link->changed, &link->mutex);
    pthread_mutex_unlock(&link->mutex);
    natsSubscription_Destroy(sub);
    natsConnection_Destroy(nc);
}

static natsStatus connect_now(struct nats_link *link, natsConnection **ret_nc,
                              natsSubscription **ret_sub)
{
    natsConnection *nc = NULL;
    natsSubscription *sub = NULL;

    pthread_mutex_lock(&link->mutex);
    link->closed = link->delivered = link->lost = false;
    pthread_mutex_unlock(&link->mutex);
    natsStatus s = natsConnection_Connect(&nc, link->options);
    if (s != NATS_OK)
        return s;
    s = listen_to(&sub, nc, link->inbox, on_message, on_complete, link);
    if (s == NATS_OK)
        s = natsConnection_FlushTimeout(nc, link->flush_timeout_ms);
    if (s != NATS_OK) {
        event_bus_nats_wire_close(&link->wire);
        tear_down(link, nc, sub);
        return s;
    }
    *ret_nc = nc;
    *ret_sub = sub;
    return NATS_OK;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static bool is_stopping(struct nats_link *link)
{
    pthread_mutex_lock(&link->mutex);
    bool stopping = link->stopping;
    pthread_mutex_unlock(&link->mutex);
    return stopping;
}

static void pause_until(struct nats_link *link, int64_t mono_ns)
{
    bool waiting = true;

    pthread_mutex_lock(&link->mutex);
    while (waiting && !link->stopping)
        waiting = wb_cond_wait_until(&link->changed, &link->mutex, mono_ns);
    pthread_mutex_unlock(&link->mutex);
}

static void publish_connection(struct nats_link *link, natsConnection *nc)
{
    pthread_mutex_lock(&link->mutex);
    link->nc = nc;
    link->epoch++;
    pthread_mutex_unlock(&link->mutex);
    link->events->up(link->ctx);
    /* Whoever waits for the link finds the work of up() done. */
    pthread_mutex_lock(&link->mutex);
    link->attempts++;
    link->refusal = WB_OK;
    link->problem[0] = '\0';
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

/* Closing ends the calls that still wait for an answer. */
static void withdraw_connection(struct nats_link *link, natsConnection *nc)
{
    pthread_mutex_lock(&link->mutex);
    bool leaving = link->stopping;
    link->nc = NULL;
    link->refusal = WB_UNREACHABLE;
    (void)snprintf(link->problem, sizeof(link->problem), "the connection was lost");
    pthread_mutex_unlock(&link->mutex);
    link->events->down(link->ctx);
    if (leaving)
        (void)natsConnection_FlushTimeout(nc, FAREWELL_MS);
    event_bus_nats_wire_close(&link->wire);
    pthread_mutex_lock(&link->mutex);
    while (link->users > 0)
        pthread_cond_wait(&link->changed, &link->mutex);
    pthread_mutex_unlock(&link->mutex);
    link->events->down(link->ctx);
}

/* Tick until the connection is lost or the link is to stop. */
static void stay(struct nats_link *link)
{
    int64_t due = 0;

    pthread_mutex_lock(&link->mutex);
    while (!link->lost && !link->stopping) {
        if (link->woken || now_ns() >= due) {
            link->woken = false;
            pthread_mutex_unlock(&link->mutex);
            due = link->events->tick(link->ctx, now_ns());
            pthread_mutex_lock(&link->mutex);
        } else {
            (void)wb_cond_wait_until(&link->changed, &link->mutex, due);
        }
    }
    link->lost = true; /* no new use begins */
    pthread_mutex_unlock(&link->mutex);
}

static void *run(void *arg)
{
    struct nats_link *link = arg;
    struct wb_rng rng;
    uint64_t seed;
    unsigned failures = 0;

    wb_random_fill(&seed, sizeof(seed));
    wb_rng_seed(&rng, seed);
    while (!is_stopping(link)) {
        natsConnection *nc = NULL;
        natsSubscription *sub = NULL;
        natsStatus s = connect_now(link, &nc, &sub);
        if (s == NATS_OK) {
            failures = 0;
            publish_connection(link, nc);
            stay(link);
            withdraw_connection(link, nc);
            tear_down(link, nc, sub);
        } else {
            note_failure(link, s);
        }
        pause_until(link, now_ns() + BACKOFF_MIN_NS +
                              wb_backoff_ns(&rng, failures++, BACKOFF_MIN_NS, BACKOFF_MAX_NS));
    }
    nats_ReleaseThreadMemory();
    return NULL;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static natsStatus set_callbacks(struct nats_link *link)
{
    natsStatus s = natsOptions_SetClosedCB(link->options, on_closed, link);

    if (s == NATS_OK)
        s = natsOptions_SetErrorHandler(link->options, on_error, link);
    if (s == NATS_OK)
        s = event_bus_nats_wire_set_options(&link->wire, link->options);
    return s;
}

wb_err event_bus_nats_link_start(struct nats_link *link, const struct nats_link_events *events,
                                 void *ctx, natsOptions *options, int64_t ping_ns)
{
    uint8_t id[WB_ID_SIZE];
    char text[WB_ID_TEXT];

    wb_random_fill(id, sizeof(id));
    wb_hex_encode(id, sizeof(id), text);
    *link = (struct nats_link){.events = events,
                               .ctx = ctx,
                               .options = options,
                               .flush_timeout_ms = 2000,
                               .refusal = WB_UNREACHABLE,
                               .problem = "not connected yet"};
    (void)snprintf(link->inbox, sizeof(link->inbox), "_INBOX.%s", text);
    wb_err err = event_bus_nats_wire_init(&link->wire, ping_ns);
    if (err != WB_OK)
        goto free_options;
    err = WB_NOMEM;
    if (set_callbacks(link) != NATS_OK || pthread_mutex_init(&link->mutex, NULL) != 0)
        goto end_wire;
    if (wb_cond_init(&link->changed) != 0)
        goto destroy_mutex;
    if (pthread_create(&link->thread, NULL, run, link) != 0)
        goto destroy_changed;
    link->running = true;
    return WB_OK;

destroy_changed:
    pthread_cond_destroy(&link->changed);
destroy_mutex:
    pthread_mutex_destroy(&link->mutex);
end_wire:
    event_bus_nats_wire_fini(&link->wire);
free_options:
    natsOptions_Destroy(options);
    return err;
}

void event_bus_nats_link_stop(struct nats_link *link)
{
    pthread_mutex_lock(&link->mutex);
    bool running = link->running;
    link->running = false;
    link->stopping = true;
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
    if (running)
        (void)pthread_join(link->thread, NULL);
}

void event_bus_nats_link_free(struct nats_link *link)
{
    natsOptions_Destroy(link->options);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->mutex);
    event_bus_nats_wire_fini(&link->wire);
}
