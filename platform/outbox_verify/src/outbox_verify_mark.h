/* outbox_verify_mark.h - what a message says about itself. */
#ifndef OUTBOX_VERIFY_MARK_H
#define OUTBOX_VERIFY_MARK_H

#include <waybill/message.h>

#include "outbox_verify_table.h"

#define OUTBOX_VERIFY_KEYS 65536 /* whose order is watched; a power of two */

struct outbox_verify_mark {
    uint64_t source;
    int64_t id;
    uint8_t msg_id[WB_ID_SIZE];
    bool has_msg_id;
};

/** false: it does not say that it is of this outbox. */
bool outbox_verify_mark_read(const struct outbox_verify_table *table, const struct message *msg,
                             struct outbox_verify_mark *ret_mark);

/* The highest row seen of a key; another key may take its place. */
struct outbox_verify_key {
    uint64_t hash;
    int64_t id;
};

/** Does the message stand behind a younger row of its key? Told only of keys still remembered. */
bool outbox_verify_key_overtaken(struct outbox_verify_key *keys, const struct message *msg,
                                 const struct outbox_verify_mark *mark);

#endif /* OUTBOX_VERIFY_MARK_H */
