/*
 * puback.h - read the server's answer to a publish without building a tree for it.
 *
 *     {"stream":"ORDERS", "seq":42,"duplicate": true}
 *     {"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"seq":0}
 */
#ifndef EVENT_BUS_NATS_PUBACK_H
#define EVENT_BUS_NATS_PUBACK_H

#include <waybill/base.h>

struct nats_puback {
    struct wb_str stream; /* views into the text; names have no escapes */
    uint64_t seq;
    bool duplicate;
    bool error;
    unsigned code;
    unsigned err_code;
    struct wb_str description; /* as written: JSON escapes stay */
};

/** false: not such an answer. Unknown members are passed over. */
bool event_bus_nats_puback_parse(struct wb_str text, struct nats_puback *ret_ack);

/** The number at the end of "wrong last sequence: 3"; 0 when there is none. */
uint64_t event_bus_nats_puback_actual_sequence(struct wb_str description);

#endif /* EVENT_BUS_NATS_PUBACK_H */
