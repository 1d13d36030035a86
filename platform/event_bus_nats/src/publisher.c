#include "publisher.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "headers.h"
#include "nats_bus.h"

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* ---- slots and lanes; the mutex is held ------------------------------------------------------ */

static unsigned lane_of(struct wb_str subject)
{
    const char *dot = memchr(subject.ptr, '.', subject.len);
    size_t len = dot != NULL ? (size_t)(dot - subject.ptr) : subject.len;

    return (unsigned)(wb_hash(subject.ptr, len) % NATS_LANES);
}

static void lane_push(struct nats_publisher *p, struct nats_slot *slot)
{
    struct nats_lane *lane = &p->lanes[slot->lane];

    slot->next = NULL;
    slot->prev = lane->last;
    if (lane->last != NULL)
        lane->last->next = slot;
    else
        lane->first = slot;
    lane->last = slot;
}

static void lane_remove(struct nats_publisher *p, struct nats_slot *slot)
{
    struct nats_lane *lane = &p->lanes[slot->lane];

    if (slot->prev != NULL)
        slot->prev->next = slot->next;
    else
        lane->first = slot->next;
    if (slot->next != NULL)
        slot->next->prev = slot->prev;
    else
        lane->last = slot->prev;
}

static void slot_free(struct nats_publisher *p, struct nats_slot *slot)
{
    slot->state = NATS_SLOT_FREE;
    slot->serial = 0;
    slot->next = p->free;
    p->free = slot;
    p->free_count++;
    p->bytes -= slot->bytes;
    /* A publisher that waits for room is not woken for each message: that costs more than sending
     * it. What is in flight has deadlines, so there is room enough sooner or later. */
    if (p->waiting > 0 && p->free_count > p->window / 8)
        pthread_cond_broadcast(&p->room);
}

static void queue_finished(struct nats_publisher *p, struct nats_slot *slot)
{
    lane_remove(p, slot);
    slot->next = NULL;
    if (p->finished_last != NULL)
        p->finished_last->next = slot;
    else
        p->finished_first = slot;
    p->finished_last = slot;
}

/* Whatever heads its lane and is done may be handed out. */
static void advance_lane(struct nats_publisher *p, struct nats_lane *lane)
{
    while (lane->first != NULL && lane->first->state == NATS_SLOT_DONE)
        queue_finished(p, lane->first);
}

void event_bus_nats_slot_mark(struct nats_slot *slot, wb_err err, const char *format, ...)
{
    slot->err = err;
    slot->serial = 0; /* what is answered from now on is for nobody */
    slot->state = NATS_SLOT_DONE;
    if (err != WB_OK && format != NULL) {
        struct wb_why why;
        va_list args;
        va_start(args, format);
        (void)vsnprintf(why.text, sizeof(why.text), format, args);
        va_end(args);
        slot->why = wb_str_dup(wb_str(why.text)); /* without memory the code must do */
    }
    if (err != WB_OK && err != WB_CONFLICT)
        slot->ack = (struct event_bus_ack_info){0};
}

void event_bus_nats_slot_advance(struct nats_publisher *p, struct nats_slot *slot)
{
    advance_lane(p, &p->lanes[slot->lane]);
}

/* ---- handing out ----------------------------------------------------------------------------- */

static void complete(const struct nats_slot *slot)
{
    struct wb_why why = {""};

    if (slot->why != NULL)
        (void)snprintf(why.text, sizeof(why.text), "%s", slot->why);
    slot->done(slot->ctx, slot->err, &slot->ack, slot->err != WB_OK ? &why : NULL);
    free(slot->why);
}

void event_bus_nats_publisher_hand_out(struct nats_publisher *p)
{
    if (p->handing_out)
        return;
    p->handing_out = true;
    p->hander = pthread_self();
    while (p->finished_first != NULL) {
        struct nats_slot *slot = p->finished_first;
        p->finished_first = slot->next;
        if (p->finished_first == NULL)
            p->finished_last = NULL;
        struct nats_slot copy;
        /* Without the subject: it is long, and a completion does not need it. */
        memcpy(&copy, slot, offsetof(struct nats_slot, subject));
        slot->why = NULL;
        slot_free(p, slot);
        pthread_mutex_unlock(&p->mutex);
        complete(&copy);
        pthread_mutex_lock(&p->mutex);
    }
    p->handing_out = false;
    if (p->closed)
        pthread_cond_broadcast(&p->idle);
}

/* ---- publishing ------------------------------------------------------------------------------ */

static bool has_room(const struct nats_publisher *p, size_t bytes)
{
    /* A message larger than the window goes alone. */
    return p->free != NULL && (p->bytes == 0 || p->bytes + bytes <= p->window_bytes);
}

/* A completion that publishes must not wait for the completions behind it. */
static bool may_wait(const struct nats_publisher *p)
{
    return !(p->handing_out && pthread_equal(p->hander, pthread_self()));
}

static wb_err reserve(struct nats_publisher *p, size_t bytes, int64_t deadline_ns,
                      struct nats_slot **ret_slot, struct wb_why *why)
{
    wb_err err = WB_OK;

    pthread_mutex_lock(&p->mutex);
    bool waiting = may_wait(p);
    p->waiting++;
    while (!p->closed && !has_room(p, bytes) && waiting)
        waiting = wb_cond_wait_until(&p->room, &p->mutex, deadline_ns);
    p->waiting--;
    if (p->closed) {
        err = wb_fail(why, WB_CLOSED, "publish: the bus is closed");
    } else if (!has_room(p, bytes)) {
        err = wb_fail(why, WB_FULL,
                      "publish: %u messages or %zu bytes are unanswered; publish slower, or raise "
                      "the publish window",
                      p->window, p->window_bytes);
    } else {
        struct nats_slot *slot = p->free;
        p->free = slot->next;
        p->free_count--;
        p->bytes += bytes;
        slot->state = NATS_SLOT_RESERVED;
        slot->bytes = bytes;
        *ret_slot = slot;
    }
    pthread_mutex_unlock(&p->mutex);
    return err;
}

/* What a send needs apart from the slot, which may be completed and used anew while it runs. */
struct sending {
    uint64_t serial;
    char subject[SUBJECT_MAX + 1];
    char reply[128];
};

/* Enter it into its lane before it is sent: the answer may come before the send returns. */
static void enter(struct nats_publisher *p, struct nats_slot *slot, struct wb_str subject,
                  struct sending *sending)
{
    memcpy(sending->subject, subject.ptr, subject.len);
    sending->subject[subject.len] = '\0';
    memcpy(slot->subject, sending->subject, subject.len + 1);
    slot->lane = lane_of(subject);
    slot->ack = (struct event_bus_ack_info){0};
    slot->why = NULL;
    pthread_mutex_lock(&p->mutex);
    sending->serial = slot->serial = ++p->serial;
    event_bus_nats_slot_reply(p, slot, 'p', sending->reply, sizeof(sending->reply));
    slot->state = NATS_SLOT_SENT;
    lane_push(p, slot);
    bool earlier = slot->deadline_ns < p->due_ns;
    if (earlier)
        p->due_ns = slot->deadline_ns;
    pthread_mutex_unlock(&p->mutex);
    if (earlier)
        event_bus_nats_link_wake(&p->bus->pub);
}

/*
 * Undo enter. false: it was completed meanwhile, so its completion has told or will tell. What it
 * held up is handed out by the link's thread: the caller may hold locks that completions take.
 */
static bool withdraw(struct nats_publisher *p, struct nats_slot *slot, uint64_t serial)
{
    pthread_mutex_lock(&p->mutex);
    bool ours = slot->serial == serial && slot->state == NATS_SLOT_SENT;
    if (ours) {
        struct nats_lane *lane = &p->lanes[slot->lane];
        lane_remove(p, slot);
        slot_free(p, slot);
        advance_lane(p, lane);
    }
    pthread_mutex_unlock(&p->mutex);
    event_bus_nats_link_wake(&p->bus->pub);
    return ours;
}

static void give_back(struct nats_publisher *p, struct nats_slot *slot)
{
    pthread_mutex_lock(&p->mutex);
    slot_free(p, slot);
    pthread_mutex_unlock(&p->mutex);
}

void event_bus_nats_slot_reply(const struct nats_publisher *p, const struct nats_slot *slot,
                               char phase, char *out, size_t size)
{
    (void)snprintf(out, size, "%s.%c.%zu.%" PRIu64, p->bus->pub.inbox, phase,
                   (size_t)(slot - p->slots), slot->serial);
}

static natsStatus send_message(struct nats_publisher *p, natsConnection *nc,
                               const struct sending *sending, const struct message *msg,
                               const struct event_bus_publish_options *options)
{
    natsMsg *out = NULL;
    natsStatus s = natsMsg_Create(&out, sending->subject, sending->reply, msg->payload.ptr,
                                  (int)msg->payload.len);

    if (s == NATS_OK)
        s = event_bus_nats_headers_add(out, msg, options, p->joined);
    if (s == NATS_OK)
        s = natsConnection_PublishMsg(nc, out);
    event_bus_nats_trash_add(&p->trash, out);
    return s;
}

static wb_err not_connected(struct nats_publisher *p, struct wb_str subject, struct wb_why *why)
{
    char problem[sizeof(p->bus->pub.problem)];

    pthread_mutex_lock(&p->mutex);
    bool closed = p->closed;
    pthread_mutex_unlock(&p->mutex);
    if (closed)
        return wb_fail(why, WB_CLOSED, "publish: the bus is closed");
    event_bus_nats_link_problem(&p->bus->pub, problem, sizeof(problem));
    return wb_fail(why, WB_UNREACHABLE, "publish '%.*s': not connected to %s: %s", (int)subject.len,
                   subject.ptr, p->bus->urls, problem);
}

/*
 * A message whose deadline has passed gives its place in the window back, and yet waits in nats.c's
 * buffer while the peer takes nothing. That must not grow either.
 */
static bool is_clogged(const struct nats_publisher *p, natsConnection *nc)
{
    int buffered = natsConnection_Buffered(nc);

    return buffered > 0 && (size_t)buffered > p->window_bytes;
}

static wb_err clogged(struct nats_publisher *p, struct wb_str subject, struct wb_why *why)
{
    return wb_fail(why, WB_FULL,
                   "publish '%.*s': more than %zu bytes wait for %s to take them; publish slower, "
                   "or raise the publish window",
                   (int)subject.len, subject.ptr, p->window_bytes, p->bus->urls);
}

static wb_err not_sent(struct nats_publisher *p, struct wb_str subject, natsStatus status,
                       struct wb_why *why)
{
    return wb_fail(why, event_bus_nats_link_err(status), "publish '%.*s' to %s: %s",
                   (int)subject.len, subject.ptr, p->bus->urls, natsStatus_GetText(status));
}

wb_err event_bus_nats_publish(struct event_bus *self, const struct message *msg,
                              const struct event_bus_publish_options *options,
                              event_bus_published done, void *ctx, struct wb_why *why)
{
    struct nats_publisher *p = &nats_bus_of(self)->publisher;
    int64_t deadline_ns = now_ns() + options->timeout_ns;
    struct nats_slot *slot = NULL;
    struct sending sending;

    if (!event_bus_nats_link_is_up(&p->bus->pub))
        return not_connected(p, msg->subject, why);
    wb_err err = reserve(p, message_header_bytes(msg) + msg->payload.len, deadline_ns, &slot, why);
    if (err != WB_OK)
        return err;
    assert(slot != NULL);
    natsConnection *nc = event_bus_nats_link_acquire_to_send(&p->bus->pub);
    if (nc == NULL) {
        give_back(p, slot);
        return not_connected(p, msg->subject, why);
    }
    if (is_clogged(p, nc)) {
        event_bus_nats_link_release_sent(&p->bus->pub, NATS_OK);
        give_back(p, slot);
        return clogged(p, msg->subject, why);
    }
    slot->done = done;
    slot->ctx = ctx;
    slot->deadline_ns = deadline_ns;
    slot->expect_last_seq = options->expect_last_seq;
    slot->last_seq = options->last_seq;
    enter(p, slot, msg->subject, &sending);
    natsStatus status = send_message(p, nc, &sending, msg, options);
    event_bus_nats_link_release_sent(&p->bus->pub, status);
    if (status == NATS_OK || !withdraw(p, slot, sending.serial))
        return WB_OK;
    return not_sent(p, msg->subject, status, why);
}

/* ---- deadlines, lost connections, the end ---------------------------------------------------- */

static void expire(struct nats_publisher *p, struct nats_slot *slot)
{
    switch (slot->state) {
    case NATS_SLOT_LOOKUP:
        event_bus_nats_slot_mark(slot, WB_UNREACHABLE,
                                 "publish '%s': nobody at %s took it (503), and whether a stream "
                                 "covers it was not answered in time",
                                 slot->subject, p->bus->urls);
        break;
    case NATS_SLOT_READBACK:
        event_bus_nats_slot_mark(slot, WB_UNKNOWN,
                                 "publish '%s': its id is known, and the stream's last sequence "
                                 "could not be read in time; read what is stored",
                                 slot->subject);
        break;
    default:
        event_bus_nats_slot_mark(slot, WB_TIMEOUT,
                                 "publish '%s': no acknowledgement from %s by the deadline; it "
                                 "may be stored: publish again under the same id",
                                 slot->subject, p->bus->urls);
        break;
    }
}

/* Returns the earliest deadline that is left. */
static int64_t expire_lane(struct nats_publisher *p, struct nats_lane *lane, int64_t now)
{
    int64_t due = INT64_MAX;
    struct nats_slot *next;

    for (struct nats_slot *slot = lane->first; slot != NULL; slot = next) {
        next = slot->next;
        if (slot->deadline_ns > now) {
            due = slot->deadline_ns < due ? slot->deadline_ns : due;
            continue;
        }
        /* What is answered and waits for older ones can wait no longer. */
        if (slot->state != NATS_SLOT_DONE)
            expire(p, slot);
        queue_finished(p, slot);
    }
    advance_lane(p, lane);
    return due;
}

int64_t event_bus_nats_publisher_tick(struct nats_publisher *p, int64_t now)
{
    int64_t due = INT64_MAX;

    pthread_mutex_lock(&p->mutex);
    if (now >= p->due_ns) {
        for (size_t i = 0; i < NATS_LANES; i++) {
            int64_t lane_due = expire_lane(p, &p->lanes[i], now);
            due = lane_due < due ? lane_due : due;
        }
        p->due_ns = due;
    }
    event_bus_nats_publisher_hand_out(p);
    due = p->due_ns;
    pthread_mutex_unlock(&p->mutex);
    return due;
}

static void lose(struct nats_publisher *p, struct nats_slot *slot)
{
    if (slot->state == NATS_SLOT_LOOKUP)
        event_bus_nats_slot_mark(slot, WB_UNREACHABLE,
                                 "publish '%s': nobody at %s took it (503), then the connection "
                                 "was lost",
                                 slot->subject, p->bus->urls);
    else if (slot->state != NATS_SLOT_DONE)
        event_bus_nats_slot_mark(slot, WB_UNKNOWN,
                                 "publish '%s': the connection to %s was lost before the "
                                 "acknowledgement; it may be stored: publish again under the "
                                 "same id, or read what is stored",
                                 slot->subject, p->bus->urls);
}

void event_bus_nats_publisher_lost(struct nats_publisher *p)
{
    pthread_mutex_lock(&p->mutex);
    for (size_t i = 0; i < NATS_LANES; i++) {
        for (struct nats_slot *slot = p->lanes[i].first; slot != NULL; slot = slot->next)
            lose(p, slot);
        advance_lane(p, &p->lanes[i]);
    }
    p->due_ns = INT64_MAX;
    event_bus_nats_publisher_hand_out(p);
    pthread_mutex_unlock(&p->mutex);
}

void event_bus_nats_publisher_denied(struct nats_publisher *p, const char *subject)
{
    pthread_mutex_lock(&p->mutex);
    for (size_t i = 0; i < NATS_LANES; i++) {
        for (struct nats_slot *slot = p->lanes[i].first; slot != NULL; slot = slot->next)
            if (slot->state == NATS_SLOT_SENT && strcmp(slot->subject, subject) == 0)
                event_bus_nats_slot_mark(slot, WB_DENIED,
                                         "publish '%s': the user at %s may not publish there; "
                                         "grant it or use another user",
                                         slot->subject, p->bus->urls);
        advance_lane(p, &p->lanes[i]);
    }
    event_bus_nats_publisher_hand_out(p);
    pthread_mutex_unlock(&p->mutex);
}

wb_err event_bus_nats_publisher_init(struct nats_publisher *p, struct nats_bus *bus,
                                     uint32_t window, size_t window_bytes)
{
    *p = (struct nats_publisher){.bus = bus,
                                 .window = window,
                                 .window_bytes = window_bytes,
                                 .joined = event_bus_nats_headers_joined(),
                                 .due_ns = INT64_MAX};
    p->slots = calloc(window, sizeof(*p->slots));
    if (p->slots == NULL)
        return WB_NOMEM;
    p->free_count = window;
    for (uint32_t i = window; i > 0; i--) {
        p->slots[i - 1].next = p->free;
        p->free = &p->slots[i - 1];
    }
    if (event_bus_nats_trash_init(&p->trash) != 0)
        goto free_slots;
    if (pthread_mutex_init(&p->mutex, NULL) != 0)
        goto free_trash;
    if (wb_cond_init(&p->room) != 0)
        goto destroy_mutex;
    if (wb_cond_init(&p->idle) != 0)
        goto destroy_room;
    return WB_OK;

destroy_room:
    pthread_cond_destroy(&p->room);
destroy_mutex:
    pthread_mutex_destroy(&p->mutex);
free_trash:
    event_bus_nats_trash_free(&p->trash);
free_slots:
    free(p->slots);
    return WB_NOMEM;
}

void event_bus_nats_publisher_close(struct nats_publisher *p)
{
    pthread_mutex_lock(&p->mutex);
    p->closed = true;
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->mutex);
}

void event_bus_nats_publisher_drain(struct nats_publisher *p)
{
    event_bus_nats_publisher_lost(p);
    pthread_mutex_lock(&p->mutex);
    while (p->handing_out || p->finished_first != NULL)
        pthread_cond_wait(&p->idle, &p->mutex);
    pthread_mutex_unlock(&p->mutex);
}

void event_bus_nats_publisher_free(struct nats_publisher *p)
{
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->room);
    pthread_mutex_destroy(&p->mutex);
    event_bus_nats_trash_free(&p->trash);
    free(p->slots);
}
