#include "headers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OLDEST_READ 0x030401U /* of nats.c, whose sources were read for this */
#define NEWEST_READ 0x030D00U

enum { OURS_MAX = 3, SMALL = 2048 };

bool event_bus_nats_headers_joined(void)
{
    uint32_t version = nats_GetVersionNumber();

    return version >= OLDEST_READ && version <= NEWEST_READ;
}

/* Those that tell the server what to look at before it stores the message. */
static size_t ours(const struct message *msg, const struct event_bus_publish_options *options,
                   char last_seq[24], struct message_header list[OURS_MAX])
{
    size_t count = 0;

    if (msg->msg_id.len > 0)
        list[count++] = (struct message_header){wb_str("Nats-Msg-Id"), msg->msg_id};
    if (options->last_msg_id[0] != '\0')
        list[count++] = (struct message_header){wb_str("Nats-Expected-Last-Msg-Id"),
                                                wb_str(options->last_msg_id)};
    /* By hand: js_PublishMsg leaves out an expectation of 0, "must never have held a message". */
    if (options->expect_last_seq) {
        int len = snprintf(last_seq, 24, "%" PRIu64, options->last_seq);
        list[count++] = (struct message_header){wb_str("Nats-Expected-Last-Sequence"),
                                                wb_str_n(last_seq, (size_t)len)};
    }
    return count;
}

static char *put(char *at, struct wb_str text)
{
    memcpy(at, text.ptr, text.len);
    return at + text.len;
}

static char *put_line(char *at, const struct message_header *header)
{
    at = put(put(put(at, header->name), wb_str(": ")), header->value);
    return put(at, wb_str("\r\n"));
}

static size_t bytes_of(const struct message_header *list, size_t count)
{
    size_t bytes = 0;

    for (size_t i = 0; i < count; i++)
        bytes += list[i].name.len + list[i].value.len + 4;
    return bytes;
}

/* All lines of both lists as one; the last one's value is the value. nats.c wants NUL-terminated
 * text. */
static natsStatus add(natsMsg *out, const struct message_header *first, size_t first_count,
                      const struct message_header *then, size_t then_count)
{
    char small[SMALL];
    size_t size = bytes_of(first, first_count) + bytes_of(then, then_count);
    char *text = size <= sizeof(small) ? small : malloc(size);
    char *at = text;

    if (text == NULL)
        return NATS_NO_MEMORY;
    const struct message_header *last =
        then_count > 0 ? &then[then_count - 1] : &first[first_count - 1];
    for (size_t i = 0; i < first_count && &first[i] != last; i++)
        at = put_line(at, &first[i]);
    for (size_t i = 0; i < then_count && &then[i] != last; i++)
        at = put_line(at, &then[i]);
    at = put(at, last->name);
    *at++ = '\0';
    char *value = at;
    at = put(at, last->value);
    *at = '\0';
    natsStatus s = natsMsgHeader_Add(out, text, value);
    if (text != small)
        free(text);
    return s;
}

natsStatus event_bus_nats_headers_add(natsMsg *out, const struct message *msg,
                                      const struct event_bus_publish_options *options, bool joined)
{
    struct message_header own[OURS_MAX];
    char last_seq[24];
    size_t count = ours(msg, options, last_seq, own);
    natsStatus s = NATS_OK;

    if (count + msg->header_count == 0)
        return NATS_OK;
    if (joined)
        return add(out, own, count, msg->headers, msg->header_count);
    for (size_t i = 0; s == NATS_OK && i < count; i++)
        s = add(out, &own[i], 1, NULL, 0);
    for (size_t i = 0; s == NATS_OK && i < msg->header_count; i++)
        s = add(out, &msg->headers[i], 1, NULL, 0);
    return s;
}
