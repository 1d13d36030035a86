/* Whose is a message of the stream? By its ids, not by its place. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "outbox_publisher_private.h"

/* Ours is compared by its first 32 digits: sent again under another id it stays the same event. */
static size_t id_bytes(struct wb_str msg_id, uint8_t out[MESSAGE_ID_MAX])
{
    if (msg_id.len >= WB_ID_TEXT - 1 &&
        wb_hex_decode(wb_str_n(msg_id.ptr, WB_ID_TEXT - 1), out, WB_ID_SIZE))
        return WB_ID_SIZE;
    size_t len = msg_id.len <= MESSAGE_ID_MAX ? msg_id.len : MESSAGE_ID_MAX;
    if (len > 0)
        memcpy(out, msg_id.ptr, len);
    return len;
}

size_t outbox_publisher_identity(const struct event_bus_delivery *delivery,
                                 uint8_t out[MESSAGE_ID_MAX])
{
    char when[32];

    if (delivery->message.msg_id.len > 0)
        return id_bytes(delivery->message.msg_id, out);
    int len = snprintf(when, sizeof(when), "@%" PRId64, delivery->stored_wall_ns);
    memcpy(out, when, (size_t)len);
    return (size_t)len;
}

static bool source_known(const struct outbox_publisher_lane *lane, struct wb_str source)
{
    for (size_t i = 0; i < lane->sources.count; i++)
        if (wb_str_eq(source, wb_str(lane->sources.list[i].text)))
            return true;
    return false;
}

/* Which row does the message say it is? 0: it says nothing of the kind. */
static int64_t row_told(const struct message *msg)
{
    uint64_t id = 0;

    if (message_header(msg, MESSAGE_HEADER_SOURCE).len == 0 ||
        !wb_str_to_u64(message_header(msg, MESSAGE_HEADER_ROW), &id) || id > INT64_MAX)
        return 0;
    return (int64_t)id;
}

bool outbox_publisher_claims(const struct outbox_publisher_lane *lane, const struct message *msg)
{
    return row_told(msg) > 0 && source_known(lane, message_header(msg, MESSAGE_HEADER_SOURCE));
}

static bool same_event(const struct message *msg, const uint8_t row_msg_id[WB_ID_SIZE])
{
    uint8_t identity[MESSAGE_ID_MAX];

    return id_bytes(msg->msg_id, identity) == WB_ID_SIZE &&
           memcmp(identity, row_msg_id, WB_ID_SIZE) == 0;
}

wb_err outbox_publisher_origin_of(struct outbox_publisher_lane *lane, const struct message *msg,
                                  struct outbox_publisher_origin *ret_origin, struct wb_why *why)
{
    struct wb_str source = message_header(msg, MESSAGE_HEADER_SOURCE);
    struct outbox_publisher_origin origin = {.kind = OUTBOX_PUBLISHER_FOREIGN, .id = row_told(msg)};
    uint8_t row_msg_id[WB_ID_SIZE];
    bool found = false;

    if (origin.id > 0) {
        wb_err err = outbox_publisher_store_msg_id(lane->store, origin.id, row_msg_id, &found, why);
        if (err != WB_OK)
            return err;
    }
    /* The ids are chance: a row of that number and id is the same event, whatever source it went
     * out under. The source alone says whether an event that is not in the table was ours. */
    if (found && same_event(msg, row_msg_id)) {
        origin.kind = OUTBOX_PUBLISHER_STORED;
    } else if (origin.id > 0 && source_known(lane, source)) {
        origin.current =
            wb_str_eq(source, wb_str(outbox_publisher_source_of(&lane->sources, origin.id)));
        /* Rows go from the table once they are confirmed, and those the cursor has passed. */
        origin.kind = origin.current && !found && origin.id <= lane->cursor.last_id
                          ? OUTBOX_PUBLISHER_PAST
                          : OUTBOX_PUBLISHER_ORPHAN;
    }
    *ret_origin = origin;
    return WB_OK;
}
