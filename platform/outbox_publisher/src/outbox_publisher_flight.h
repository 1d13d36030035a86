/*
 * outbox_publisher_flight.h - what was sent and not yet looked at, in the order of sending.
 *
 * Completions arrive on threads of the bus, possibly after the lane is gone: the flight lives until
 * the lane has let go of it and the last answer has come. One lane sends and takes.
 */
#ifndef OUTBOX_PUBLISHER_FLIGHT_H
#define OUTBOX_PUBLISHER_FLIGHT_H

#include <waybill/event_bus.h>

struct outbox_publisher_flight;

/* One message that was sent. The lane fills in the first part, the answer the second. */
struct outbox_publisher_sent {
    int64_t row_id;
    uint64_t key_hash; /* 0: no key */
    uint64_t expected; /* the sequence it must get */
    size_t bytes;
    bool exception; /* not from the straight path */
    bool resent;    /* the stream held it once, and lost it */
    bool late;      /* and it lands behind younger rows */
    uint8_t msg_id[WB_ID_SIZE];

    wb_err err;
    bool stream_right;
    bool duplicate;
    uint64_t sequence;
};

/** stream is borrowed as long as the lane holds the flight. WB_NOMEM, WB_IO. */
wb_err outbox_publisher_flight_create(size_t capacity, const char *stream,
                                      struct outbox_publisher_flight **ret_flight,
                                      struct wb_why *why);
/** The lane lets go; answers that come later fall on the floor. NULL does nothing. */
void outbox_publisher_flight_release(struct outbox_publisher_flight *flight);

/** Publish; on WB_OK an answer will come. There must be room. See event_bus_publish_async(). */
wb_err outbox_publisher_flight_send(struct outbox_publisher_flight *flight, struct event_bus *bus,
                                    const struct message *msg,
                                    const struct event_bus_publish_options *options,
                                    const struct outbox_publisher_sent *sent, struct wb_why *why);

/** The oldest one, once it is answered; false: it is not, or there is none. */
bool outbox_publisher_flight_take(struct outbox_publisher_flight *flight,
                                  struct outbox_publisher_sent *ret_sent);

/** Messages sent and not taken, and their bytes. */
size_t outbox_publisher_flight_count(const struct outbox_publisher_flight *flight);
size_t outbox_publisher_flight_bytes(const struct outbox_publisher_flight *flight);

/** Row of the oldest message of the straight path that is not taken; 0: none. */
int64_t outbox_publisher_flight_oldest(const struct outbox_publisher_flight *flight);

/** Is a row of the key on its way that is younger than this one? */
bool outbox_publisher_flight_younger(const struct outbox_publisher_flight *flight, int64_t row_id,
                                     uint64_t key_hash);

/** Why the first failure since the last call of this failed; "" when nothing did. NULL: forget it.
 */
void outbox_publisher_flight_why(struct outbox_publisher_flight *flight, struct wb_why *ret_why);

/** The eventfd a sleeping lane waits on. */
int outbox_publisher_flight_fd(const struct outbox_publisher_flight *flight);

/** Wake the lane, from any thread. */
void outbox_publisher_flight_kick(struct outbox_publisher_flight *flight);

/**
 * From now on the fd wakes once the oldest `answers` (1 or more; all, if they are fewer) have come,
 * and when the first comes that failed; from then on until flight_why() at every one that can be
 * taken. false: they are there already, do not sleep.
 */
bool outbox_publisher_flight_sleep(struct outbox_publisher_flight *flight, size_t answers);
void outbox_publisher_flight_awake(struct outbox_publisher_flight *flight);

#endif /* OUTBOX_PUBLISHER_FLIGHT_H */
