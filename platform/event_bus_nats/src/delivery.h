/*
 * delivery.h - messages as the dispatcher wants them, made from what the server sends.
 *
 * A delivery owns its natsMsg, into which its views point, and destroys it exactly once. It needs
 * neither its source nor the bus to be destroyed.
 */
#ifndef EVENT_BUS_NATS_DELIVERY_H
#define EVENT_BUS_NATS_DELIVERY_H

#include <jansson.h>
#include <nats/nats.h>

#include <waybill/event_bus_impl.h>

struct nats_feed;

struct nats_delivery {
    struct event_bus_delivery_impl impl; /* first */
    struct nats_feed
        *feed;         /* where it came from; lives as long as the source. NULL: read by get() */
    natsMsg *msg;      /* owned; NULL for one read by get() */
    const char *reply; /* where it is settled; NULL: read by get() */
    struct message_header headers[];
};

/*
 * What the reply subject of a delivered message tells:
 *     $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>
 * and, since 2.10, with <domain>.<account hash> before the stream and a token behind all.
 */
struct nats_ack_subject {
    struct wb_str stream; /* views into the subject */
    struct wb_str consumer;
    uint64_t deliveries;
    uint64_t stream_seq;
    uint64_t consumer_seq;
    uint64_t stored_ns;
    uint64_t pending; /* messages that the consumer still has to deliver */
};

/** false: it is none. */
bool event_bus_nats_ack_subject_parse(const char *reply, struct nats_ack_subject *ret_ack);

/** Takes msg over, also on failure. NULL when out of memory. */
struct nats_delivery *event_bus_nats_delivery_create(natsMsg *msg,
                                                     const struct nats_ack_subject *ack);

/** From the answer of $JS.API.STREAM.MSG.GET. NULL when it is not one, or out of memory. */
struct nats_delivery *event_bus_nats_delivery_from_json(const char *stream, json_t *answer);

/** RFC 3339 with up to nine digits of a second, as Go writes it. 0 when it is none. */
int64_t event_bus_nats_time_parse(const char *text);

/** Bytes of standard base64 with padding; out holds 3/4 of its length. false: it is none. */
bool event_bus_nats_base64_decode(struct wb_str text, char *out, size_t *ret_len);

/**
 * Take header lines as they stand on the wire ("NATS/1.0\r\nA: b\r\n\r\n") apart, leaving out those
 * of the bus itself. block is written to.
 * @param headers  room for max; more are left out.
 */
size_t event_bus_nats_headers_parse(char *block, size_t len, struct message_header *headers,
                                    size_t max, struct wb_str *ret_msg_id);

#endif /* EVENT_BUS_NATS_DELIVERY_H */
