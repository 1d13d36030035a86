#include "outbox_publisher_flight.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct slot {
    struct outbox_publisher_flight *flight; /* constant */
    struct outbox_publisher_sent sent;      /* the lane's, but until answered the answer's part */
    atomic_bool answered;
};

struct outbox_publisher_flight {
    struct slot *slots;                  /* constant; a ring of capacity */
    size_t capacity;                     /* constant */
    int fd;                              /* constant */
    char stream[EVENT_BUS_NAME_MAX + 1]; /* constant */

    size_t head, count, bytes; /* the lane's */

    atomic_size_t references; /* the lane and each answer to come */
    _Atomic(struct slot *)
        awaited;        /* whose answer the sleeping lane waits for; NULL: it is awake */
    atomic_bool failed; /* written under mutex */
    pthread_mutex_t mutex;
    struct wb_why why; /* of the first that failed; guarded by mutex */
};

wb_err outbox_publisher_flight_create(size_t capacity, const char *stream,
                                      struct outbox_publisher_flight **ret_flight,
                                      struct wb_why *why)
{
    struct outbox_publisher_flight *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "publisher of stream %s: out of memory", stream);
    self->slots = calloc(capacity, sizeof(*self->slots));
    if (self->slots == NULL) {
        free(self);
        return wb_fail(why, WB_NOMEM, "publisher of stream %s: out of memory", stream);
    }
    self->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->fd < 0) {
        int code = errno;
        free(self->slots);
        free(self);
        return wb_fail(why, WB_IO, "publisher of stream %s: eventfd: %s", stream, strerror(code));
    }
    for (size_t i = 0; i < capacity; i++)
        self->slots[i].flight = self;
    self->capacity = capacity;
    atomic_init(&self->references, 1);
    memcpy(self->stream, stream, strlen(stream) + 1);
    (void)pthread_mutex_init(&self->mutex, NULL);
    *ret_flight = self;
    return WB_OK;
}

static void flight_free(struct outbox_publisher_flight *self)
{
    (void)pthread_mutex_destroy(&self->mutex);
    (void)close(self->fd);
    free(self->slots);
    free(self);
}

static void reference_drop(struct outbox_publisher_flight *self)
{
    size_t before = atomic_fetch_sub(&self->references, 1);

    assert(before > 0);
    if (before == 1)
        flight_free(self);
}

void outbox_publisher_flight_release(struct outbox_publisher_flight *flight)
{
    if (flight != NULL)
        reference_drop(flight);
}

void outbox_publisher_flight_kick(struct outbox_publisher_flight *flight)
{
    const uint64_t one = 1;

    /* Fails only when the counter is full, and then the lane is awake. */
    if (write(flight->fd, &one, sizeof(one)) < 0)
        return;
}

/* true: it is the first since why was asked for. */
static bool failure_note(struct outbox_publisher_flight *self, wb_err err, const struct wb_why *why)
{
    pthread_mutex_lock(&self->mutex);
    bool first = !atomic_load(&self->failed);
    if (first && why != NULL)
        self->why = *why;
    else if (first)
        (void)wb_fail(&self->why, err, "%s", wb_err_text(err));
    atomic_store(&self->failed, true);
    pthread_mutex_unlock(&self->mutex);
    return first;
}

static void answered(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                     const struct wb_why *why)
{
    struct slot *slot = ctx;
    struct outbox_publisher_flight *self = slot->flight;
    bool alarm = false;

    slot->sent.err = err;
    if (err == WB_OK) {
        slot->sent.stream_right = strcmp(ack->stream, self->stream) == 0;
        slot->sent.sequence = ack->sequence;
        slot->sent.duplicate = ack->duplicate;
    } else {
        alarm = failure_note(self, err, why);
    }
    /* From here on the slot is the lane's, and may be in use anew. One of us sees the other: we
     * write answered (and failed), then read awaited; a lane that goes to sleep does it the other
     * way round. */
    atomic_store(&slot->answered, true);
    struct slot *awaited = atomic_load(&self->awaited);
    if (awaited != NULL && (awaited == slot || alarm) &&
        atomic_compare_exchange_strong(&self->awaited, &awaited, NULL))
        outbox_publisher_flight_kick(self);
    reference_drop(self);
}

static struct slot *slot_at(const struct outbox_publisher_flight *flight, size_t i)
{
    return &flight->slots[(flight->head + i) % flight->capacity];
}

wb_err outbox_publisher_flight_send(struct outbox_publisher_flight *flight, struct event_bus *bus,
                                    const struct message *msg,
                                    const struct event_bus_publish_options *options,
                                    const struct outbox_publisher_sent *sent, struct wb_why *why)
{
    assert(flight->count < flight->capacity);

    struct slot *slot = slot_at(flight, flight->count);
    slot->sent = *sent;
    atomic_store_explicit(&slot->answered, false, memory_order_relaxed);
    atomic_fetch_add(&flight->references, 1);
    wb_err err = event_bus_publish_async(bus, msg, options, answered, slot, why);
    if (err != WB_OK) {
        reference_drop(flight);
        return err;
    }
    flight->count++;
    flight->bytes += sent->bytes;
    return WB_OK;
}

bool outbox_publisher_flight_take(struct outbox_publisher_flight *flight,
                                  struct outbox_publisher_sent *ret_sent)
{
    if (flight->count == 0 || !atomic_load(&slot_at(flight, 0)->answered))
        return false;
    *ret_sent = slot_at(flight, 0)->sent;
    flight->head = (flight->head + 1) % flight->capacity;
    flight->count--;
    flight->bytes -= ret_sent->bytes;
    return true;
}

size_t outbox_publisher_flight_count(const struct outbox_publisher_flight *flight)
{
    return flight->count;
}

size_t outbox_publisher_flight_bytes(const struct outbox_publisher_flight *flight)
{
    return flight->bytes;
}

int64_t outbox_publisher_flight_oldest(const struct outbox_publisher_flight *flight)
{
    for (size_t i = 0; i < flight->count; i++) {
        const struct slot *slot = slot_at(flight, i);
        if (!slot->sent.exception)
            return slot->sent.row_id;
    }
    return 0;
}

bool outbox_publisher_flight_younger(const struct outbox_publisher_flight *flight, int64_t row_id,
                                     uint64_t key_hash)
{
    for (size_t i = 0; key_hash != 0 && i < flight->count; i++) {
        const struct slot *slot = slot_at(flight, i);
        if (slot->sent.key_hash == key_hash && slot->sent.row_id > row_id)
            return true;
    }
    return false;
}

void outbox_publisher_flight_why(struct outbox_publisher_flight *flight, struct wb_why *ret_why)
{
    pthread_mutex_lock(&flight->mutex);
    if (ret_why != NULL)
        *ret_why = flight->why;
    flight->why.text[0] = '\0';
    atomic_store(&flight->failed, false);
    pthread_mutex_unlock(&flight->mutex);
}

int outbox_publisher_flight_fd(const struct outbox_publisher_flight *flight)
{
    return flight->fd;
}

/* Waits for the youngest of them that is not answered: answers of one stream come in order, mostly.
 * After a failure each answer counts, since it may be the one before it. */
bool outbox_publisher_flight_sleep(struct outbox_publisher_flight *flight, size_t answers)
{
    if (flight->count == 0)
        return true;
    for (size_t i = answers < flight->count ? answers : flight->count; i-- > 0;) {
        struct slot *slot = slot_at(flight, i);
        if (i > 0 && atomic_load(&flight->failed))
            continue;
        atomic_store(&flight->awaited, slot);
        if (!atomic_load(&slot->answered) && (i == 0 || !atomic_load(&flight->failed)))
            return true;
    }
    atomic_store(&flight->awaited, NULL);
    return false;
}

void outbox_publisher_flight_awake(struct outbox_publisher_flight *flight)
{
    uint64_t count;

    atomic_store(&flight->awaited, NULL);
    /* Nothing to read is fine: it was not the eventfd that woke us. */
    if (read(flight->fd, &count, sizeof(count)) < 0)
        return;
}
