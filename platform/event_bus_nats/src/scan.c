/*
 * scan.c - a range of a stream without its payloads.
 *
 * A few messages are asked for one by one, all requests at once. More come through a consumer that
 * lives as long as the call and delivers headers only. It is pulled without acks: as fast as being
 * pushed, and what is on its way stays bounded however slow the visitor is.
 *
 * When there is any doubt whether something was left out - a gap in the consumer's numbering, a
 * status, silence, an end before the end - a new consumer goes on behind the last message visited.
 * The server counts what is left when it makes one, so that nothing else needs to be believed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "nats_bus.h"
#include "trash.h"

enum {
    FEW = 64,                   /* messages that are not worth a consumer */
    BATCH = 4096,               /* in one request for more; two may be open */
    ROOM = 2 * BATCH + 2 * FEW, /* what can arrive before it is looked at, statuses included */
    GATHER = 128,               /* messages worth to be woken for */
    NEW_CONSUMERS = 3           /* one after another, without a message in between */
};

#define ANSWER_NS             (4 * WB_SEC)
#define SILENCE_NS            (2 * WB_SEC)
#define LOOK_NS               (100 * WB_MS) /* how often to look whether the connection is there */
#define GATHER_NS             WB_MS         /* the longest a message waits for others */
#define EXPIRES_NS            (60 * WB_SEC)
#define INACTIVE_THRESHOLD_NS (10 * WB_SEC) /* ends a consumer that we could not delete */

struct scan {
    struct nats_bus *bus;
    const char *stream;
    uint64_t next; /* to be read next */
    uint64_t to;
    event_bus_scan_visit visit;
    void *ctx;
    bool stopped; /* by the visitor */
    struct wb_why *why;
    char what[EVENT_BUS_NAME_MAX + 32]; /* for messages */

    struct nats_tap tap;
    natsMsg **taken; /* ROOM; taken[taken_at..taken_count) are ours and not looked at */
    size_t taken_at, taken_count;
    size_t expected;       /* messages that may come now */
    pthread_mutex_t mutex; /* guards the rest of this part */
    pthread_cond_t filled;
    natsMsg **arrived; /* ROOM */
    size_t arrived_count;
    size_t wake_at; /* how many are worth to be woken for */

    struct nats_trash trash;               /* messages that were shown */
    char consumer[EVENT_BUS_NAME_MAX + 1]; /* "": none */
    uint64_t consumer_seq;                 /* of the last message of it */
    uint64_t serial;                       /* of the last request; odd and even take turns */
    uint64_t old_serial;                   /* the last one that was not for this consumer */
    uint64_t credit[2];                    /* messages that may still come for a request */
};

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* ---- what arrives ---------------------------------------------------------------------------- */

/* On the tap's thread. What finds no room was not asked for, or leaves a gap that is noticed. */
static void arrive(void *owner, natsMsg *msg)
{
    struct scan *scan = owner;

    pthread_mutex_lock(&scan->mutex);
    bool room = scan->arrived_count < ROOM;
    if (room) {
        scan->arrived[scan->arrived_count++] = msg;
        if (scan->arrived_count == scan->wake_at)
            pthread_cond_signal(&scan->filled);
    }
    pthread_mutex_unlock(&scan->mutex);
    if (!room)
        natsMsg_Destroy(msg);
}

/* Exchange the empty array for the one that fills. Being woken for each message costs more than the
 * message: as long as they flow they are let gather for a moment. */
static void refill(struct scan *scan, int64_t now_ns, int64_t until_ns)
{
    int64_t gather_ns = now_ns + GATHER_NS < until_ns ? now_ns + GATHER_NS : until_ns;
    size_t many = scan->expected < GATHER ? scan->expected : GATHER;

    pthread_mutex_lock(&scan->mutex);
    scan->wake_at = many;
    while (scan->arrived_count < many && wb_cond_wait_until(&scan->filled, &scan->mutex, gather_ns))
        continue;
    scan->wake_at = 1;
    while (scan->arrived_count == 0 && wb_cond_wait_until(&scan->filled, &scan->mutex, until_ns))
        continue;
    natsMsg **arrived = scan->arrived;
    scan->arrived = scan->taken;
    scan->taken = arrived;
    scan->taken_count = scan->arrived_count;
    scan->taken_at = 0;
    scan->arrived_count = 0;
    pthread_mutex_unlock(&scan->mutex);
}

/* The next message, to be destroyed; NULL: none for so long, or the connection is gone. */
static natsMsg *take(struct scan *scan, int64_t wait_ns)
{
    int64_t until_ns = 0;

    while (scan->taken_at == scan->taken_count) {
        int64_t now = now_ns();
        until_ns = until_ns == 0 ? now + wait_ns : until_ns;
        if (now >= until_ns || !event_bus_nats_tap_is_open(&scan->tap))
            return NULL;
        refill(scan, now, until_ns < now + LOOK_NS ? until_ns : now + LOOK_NS);
    }
    return scan->taken[scan->taken_at++];
}

static wb_err fail_lost(struct scan *scan)
{
    return wb_fail(scan->why, WB_UNREACHABLE, "%s: the connection to %s was lost", scan->what,
                   scan->bus->urls);
}

static void show(struct scan *scan, struct event_bus_delivery *view)
{
    view->deliveries = 0;
    view->message.payload = (struct wb_bytes){NULL, 0};
    scan->next = view->sequence + 1;
    scan->stopped = !scan->visit(scan->ctx, view);
}

/* ---- a few ----------------------------------------------------------------------------------- */

static wb_err ask(struct scan *scan, const char *subject, size_t index)
{
    char reply[sizeof(scan->tap.inbox) + 24];
    char body[48];

    (void)snprintf(reply, sizeof(reply), "%s.%zu", scan->tap.inbox, index);
    (void)snprintf(body, sizeof(body), "{\"seq\":%" PRIu64 "}", scan->next + index);
    wb_err err = event_bus_nats_link_send(&scan->bus->sub, subject, reply,
                                          (struct wb_bytes){body, strlen(body)});
    return err == WB_OK ? WB_OK : fail_lost(scan);
}

/* Put the answers in order; those who do not come stay NULL. */
static void gather(struct scan *scan, natsMsg *answers[FEW], size_t count)
{
    natsMsg *msg;

    for (scan->expected = count; scan->expected > 0 && (msg = take(scan, ANSWER_NS)) != NULL;) {
        const char *suffix = natsMsg_GetSubject(msg) + strlen(scan->tap.inbox) + 1;
        uint64_t index;
        if (wb_str_to_u64(wb_str(suffix), &index) && index < count && answers[index] == NULL) {
            answers[index] = msg;
            scan->expected--;
        } else {
            natsMsg_Destroy(msg);
        }
    }
}

static wb_err show_answer(struct scan *scan, const char *subject, natsMsg *msg)
{
    json_t *answer = NULL;

    if (msg == NULL && !event_bus_nats_tap_is_open(&scan->tap))
        return fail_lost(scan);
    if (msg == NULL)
        return event_bus_nats_api_explain(scan->bus, scan->what, subject, NATS_TIMEOUT, scan->why);
    wb_err err = event_bus_nats_api_answer(scan->bus, scan->what, subject, msg, &answer, scan->why);
    if (err == WB_NOT_FOUND) {
        scan->next++;
        return WB_OK;
    }
    if (err != WB_OK)
        return err;
    struct nats_delivery *delivery = event_bus_nats_delivery_from_json(scan->stream, answer);
    json_decref(answer);
    if (delivery == NULL)
        return wb_fail(scan->why, WB_INTERNAL,
                       "%s: message %" PRIu64 " at %s cannot be read: out of memory, or the "
                       "answer is not of the known form",
                       scan->what, scan->next, scan->bus->urls);
    show(scan, &delivery->impl.view);
    event_bus_release(&delivery->impl.view);
    return WB_OK;
}

static wb_err read_few(struct scan *scan)
{
    natsMsg *answers[FEW] = {NULL};
    size_t count = (size_t)(scan->to - scan->next + 1);
    char subject[EVENT_BUS_NAME_MAX + 64];
    wb_err err = WB_OK;

    (void)snprintf(subject, sizeof(subject), "$JS.API.STREAM.MSG.GET.%s", scan->stream);
    for (size_t i = 0; err == WB_OK && i < count; i++)
        err = ask(scan, subject, i);
    if (err == WB_OK)
        gather(scan, answers, count);
    for (size_t i = 0; i < count; i++) {
        if (err == WB_OK && !scan->stopped)
            err = show_answer(scan, subject, answers[i]);
        natsMsg_Destroy(answers[i]);
    }
    return err;
}

/* ---- many: the consumer ---------------------------------------------------------------------- */

/* Without waiting: the server sends no more, and if this is lost it ends the consumer by itself. */
static void drop_consumer(struct scan *scan)
{
    char subject[2 * EVENT_BUS_NAME_MAX + 64];
    char reply[sizeof(scan->bus->sub.inbox) + 8];

    if (scan->consumer[0] == '\0')
        return;
    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.DELETE.%s.%s", scan->stream,
                   scan->consumer);
    (void)snprintf(reply, sizeof(reply), "%s.x", scan->bus->sub.inbox); /* nobody reads it */
    (void)event_bus_nats_link_send(&scan->bus->sub, subject, reply, (struct wb_bytes){NULL, 0});
    scan->consumer[0] = '\0';
}

static json_t *consumer_config(const struct scan *scan)
{
    return json_pack("{s:s, s:{s:s, s:s, s:s, s:I, s:s, s:b, s:b, s:i, s:I, s:i}}", "stream_name",
                     scan->stream, "config", "name", scan->consumer, "ack_policy", "none",
                     "deliver_policy", "by_start_sequence", "opt_start_seq", (json_int_t)scan->next,
                     "replay_policy", "instant", "headers_only", 1, "mem_storage", 1,
                     "num_replicas", 1, "inactive_threshold", (json_int_t)INACTIVE_THRESHOLD_NS,
                     "max_deliver", -1);
}

/* A consumer from `next` on. *ret_left: the messages it has to deliver. */
static wb_err make_consumer(struct scan *scan, uint64_t *ret_left)
{
    uint8_t id[WB_ID_SIZE];
    char text[WB_ID_TEXT];
    char subject[2 * EVENT_BUS_NAME_MAX + 64];
    json_t *answer = NULL;

    drop_consumer(scan);
    wb_random_fill(id, sizeof(id));
    wb_hex_encode(id, sizeof(id), text);
    (void)snprintf(scan->consumer, sizeof(scan->consumer), "wb-scan-%s", text);
    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.CREATE.%s.%s", scan->stream,
                   scan->consumer);
    scan->consumer_seq = 0;
    scan->old_serial = scan->serial;
    scan->credit[0] = scan->credit[1] = 0;
    wb_err err = event_bus_nats_api_request(scan->bus, scan->what, subject, consumer_config(scan),
                                            &answer, scan->why);
    if (err != WB_OK)
        return err;
    *ret_left = event_bus_nats_json_u64(answer, "num_pending");
    json_decref(answer);
    return WB_OK;
}

/* Keep requests open for all that may come, two at most. */
static void pull(struct scan *scan)
{
    uint64_t credit = scan->credit[0] + scan->credit[1];
    uint64_t wanted = scan->to - scan->next + 1;
    char subject[2 * EVENT_BUS_NAME_MAX + 64];
    char reply[sizeof(scan->tap.inbox) + 24];
    char body[80];

    while (credit < wanted && scan->credit[(scan->serial + 1) % 2] == 0) {
        uint64_t batch = wanted - credit < BATCH ? wanted - credit : BATCH;
        scan->serial++;
        (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.MSG.NEXT.%s.%s", scan->stream,
                       scan->consumer);
        (void)snprintf(reply, sizeof(reply), "%s.%" PRIu64, scan->tap.inbox, scan->serial);
        (void)snprintf(body, sizeof(body), "{\"batch\":%" PRIu64 ",\"expires\":%lld}", batch,
                       (long long)EXPIRES_NS);
        if (event_bus_nats_link_send(&scan->bus->sub, subject, reply,
                                     (struct wb_bytes){body, strlen(body)}) != WB_OK)
            return; /* the connection is gone: that shows in a moment */
        scan->credit[scan->serial % 2] = batch;
        credit += batch;
    }
}

/* A message has used up one of the older request's, as long as it has any. */
static void use_credit(struct scan *scan)
{
    uint64_t *older = &scan->credit[(scan->serial + 1) % 2];
    uint64_t *newer = &scan->credit[scan->serial % 2];

    if (*older > 0)
        --*older;
    else if (*newer > 0)
        --*newer;
}

enum verdict { GOES_ON, DOUBTFUL, DONE };

/* A status ends a request, or tells that the consumer has ended. */
static enum verdict take_status(const struct scan *scan, const natsMsg *msg)
{
    const char *suffix = natsMsg_GetSubject(msg) + strlen(scan->tap.inbox) + 1;
    uint64_t serial;

    return wb_str_to_u64(wb_str(suffix), &serial) && serial > scan->old_serial ? DOUBTFUL : GOES_ON;
}

/* Is it what must come next of the consumer? Not DONE: show it. */
static enum verdict take_place(struct scan *scan, const struct nats_ack_subject *ack)
{
    use_credit(scan);
    if (ack->consumer_seq != scan->consumer_seq + 1 || ack->stream_seq < scan->next)
        return DOUBTFUL;
    scan->consumer_seq = ack->consumer_seq;
    if (ack->stream_seq <= scan->to)
        return GOES_ON;
    scan->next = scan->to + 1;
    return DONE;
}

/* Owns msg. */
static enum verdict take_in(struct scan *scan, natsMsg *msg)
{
    struct nats_ack_subject ack;
    enum verdict verdict = GOES_ON;
    bool message = event_bus_nats_ack_subject_parse(natsMsg_GetReply(msg), &ack);
    bool ours = message && wb_str_eq(ack.consumer, wb_str(scan->consumer));

    if (ours)
        verdict = take_place(scan, &ack);
    else if (!message)
        verdict = take_status(scan, msg);
    if (!ours || verdict != GOES_ON) { /* of an older consumer: passed over */
        natsMsg_Destroy(msg);
        return verdict;
    }
    struct nats_delivery *delivery = event_bus_nats_delivery_create(msg, &ack);
    if (delivery == NULL)
        return DOUBTFUL; /* out of memory: another consumer brings it again */
    show(scan, &delivery->impl.view);
    delivery->msg = NULL;
    event_bus_nats_trash_add(&scan->trash, msg);
    event_bus_release(&delivery->impl.view);
    if (scan->stopped || scan->next > scan->to)
        return DONE;
    return ack.pending > 0 ? GOES_ON : DOUBTFUL;
}

static wb_err read_consumer(struct scan *scan)
{
    enum verdict verdict = GOES_ON;

    while (verdict == GOES_ON) {
        pull(scan);
        scan->expected =
            scan->to - scan->next < GATHER ? (size_t)(scan->to - scan->next) + 1 : GATHER;
        natsMsg *msg = take(scan, SILENCE_NS);
        if (msg == NULL && !event_bus_nats_tap_is_open(&scan->tap))
            return fail_lost(scan);
        verdict = msg != NULL ? take_in(scan, msg) : DOUBTFUL;
    }
    return WB_OK;
}

static wb_err read_many(struct scan *scan)
{
    int in_vain = 0;

    while (!scan->stopped && scan->next <= scan->to) {
        uint64_t before = scan->next, left = 0;
        wb_err err = make_consumer(scan, &left);
        if (err != WB_OK)
            return err;
        if (left == 0) {
            scan->next = scan->to + 1;
            return WB_OK;
        }
        err = read_consumer(scan);
        if (err != WB_OK)
            return err;
        in_vain = scan->next > before ? 0 : in_vain + 1;
        if (in_vain == NEW_CONSUMERS)
            return wb_fail(scan->why, WB_TIMEOUT,
                           "%s: %s has %" PRIu64 " messages from sequence %" PRIu64
                           " on, but delivers none to a new consumer",
                           scan->what, scan->bus->urls, left, scan->next);
    }
    return WB_OK;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static struct scan *scan_new(struct nats_bus *bus)
{
    struct scan *scan = calloc(1, sizeof(*scan));

    if (scan == NULL)
        return NULL;
    scan->taken = calloc(ROOM, sizeof(natsMsg *));
    scan->arrived = calloc(ROOM, sizeof(natsMsg *));
    if (scan->taken == NULL || scan->arrived == NULL)
        goto free_arrays;
    if (pthread_mutex_init(&scan->mutex, NULL) != 0)
        goto free_arrays;
    if (wb_cond_init(&scan->filled) != 0)
        goto destroy_mutex;
    if (event_bus_nats_trash_init(&scan->trash) != 0)
        goto destroy_filled;
    scan->bus = bus;
    pthread_mutex_lock(&bus->engine.mutex);
    (void)snprintf(scan->tap.inbox, sizeof(scan->tap.inbox), "%s_%" PRIu64, bus->sub.inbox,
                   ++bus->engine.ids);
    pthread_mutex_unlock(&bus->engine.mutex);
    scan->tap.link = &bus->sub;
    scan->tap.owner = scan;
    scan->tap.message = arrive;
    return scan;

destroy_filled:
    pthread_cond_destroy(&scan->filled);
destroy_mutex:
    pthread_mutex_destroy(&scan->mutex);
free_arrays:
    free(scan->arrived);
    free(scan->taken);
    free(scan);
    return NULL;
}

static void scan_free(struct scan *scan)
{
    drop_consumer(scan);
    event_bus_nats_tap_close(&scan->tap);
    while (scan->taken_at < scan->taken_count)
        natsMsg_Destroy(scan->taken[scan->taken_at++]);
    for (size_t i = 0; i < scan->arrived_count; i++)
        natsMsg_Destroy(scan->arrived[i]);
    event_bus_nats_trash_free(&scan->trash);
    pthread_cond_destroy(&scan->filled);
    pthread_mutex_destroy(&scan->mutex);
    free(scan->arrived);
    free(scan->taken);
    free(scan);
}

wb_err event_bus_nats_scan(struct event_bus *self, const char *stream, uint64_t from, uint64_t to,
                           event_bus_scan_visit visit, void *ctx, uint64_t *ret_next,
                           struct wb_why *why)
{
    struct nats_bus *bus = nats_bus_of(self);
    struct scan *scan = scan_new(bus);

    if (scan == NULL)
        return wb_fail(why, WB_NOMEM, "scan of stream '%s': out of memory", stream);
    (void)snprintf(scan->what, sizeof(scan->what), "scan of stream '%s'", stream);
    scan->stream = stream;
    scan->next = from;
    scan->to = to;
    scan->visit = visit;
    scan->ctx = ctx;
    scan->why = why;
    wb_err err = event_bus_nats_tap_open(&scan->tap);
    if (err != WB_OK)
        (void)wb_fail(why, err, "%s: not connected to %s", scan->what, bus->urls);
    else
        err = to - from < FEW ? read_few(scan) : read_many(scan);
    *ret_next = scan->next;
    scan_free(scan);
    return err;
}
