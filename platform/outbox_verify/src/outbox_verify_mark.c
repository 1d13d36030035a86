#include "outbox_verify_mark.h"

bool outbox_verify_mark_read(const struct outbox_verify_table *table, const struct message *msg,
                             struct outbox_verify_mark *ret_mark)
{
    struct wb_str source = message_header(msg, MESSAGE_HEADER_SOURCE);
    uint8_t bytes[sizeof(uint64_t)];
    uint64_t id;

    if (source.len != 2 * sizeof(bytes) || !wb_hex_decode(source, bytes, sizeof(bytes)) ||
        !wb_str_to_u64(message_header(msg, MESSAGE_HEADER_ROW), &id) || id == 0 || id > INT64_MAX)
        return false;
    ret_mark->source = 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        ret_mark->source = ret_mark->source << 8 | bytes[i];
    if (!outbox_verify_source_known(table, ret_mark->source))
        return false;
    ret_mark->id = (int64_t)id;
    /* What follows the digits tells only how often it was sent. */
    ret_mark->has_msg_id =
        msg->msg_id.len >= WB_ID_TEXT - 1 &&
        wb_hex_decode(wb_str_n(msg->msg_id.ptr, WB_ID_TEXT - 1), ret_mark->msg_id, WB_ID_SIZE);
    return true;
}

bool outbox_verify_key_overtaken(struct outbox_verify_key *keys, const struct message *msg,
                                 const struct outbox_verify_mark *mark)
{
    struct wb_str text = message_header(msg, MESSAGE_HEADER_KEY);

    if (text.len == 0)
        return false;
    uint64_t hash = (wb_hash(text.ptr, text.len) ^ mark->source) * UINT64_C(0x9e3779b97f4a7c15);
    struct outbox_verify_key *key = &keys[hash >> 48];
    if (key->hash == hash && mark->id < key->id)
        return true;
    *key = (struct outbox_verify_key){.hash = hash, .id = mark->id};
    return false;
}
