/* message.c - what a message may hold, how large it is, and how to keep one. */
#include <waybill/message.h>

#include <stdlib.h>
#include <string.h>

#include "message_text.h"

#define ID_HEADER "Nats-Msg-Id"

/* The wire form: "NATS/1.0\r\n", then "name: value\r\n" for each line, then "\r\n". */
#define WIRE_FRAME 12
#define WIRE_LINE  4

struct wb_str message_header(const struct message *msg, const char *name)
{
    struct wb_str wanted = wb_str(name);

    for (size_t i = 0; i < msg->header_count; i++)
        if (wb_str_case_eq(msg->headers[i].name, wanted))
            return msg->headers[i].value;
    return (struct wb_str){NULL, 0};
}

size_t message_header_bytes(const struct message *msg)
{
    if (msg->header_count == 0 && msg->msg_id.len == 0)
        return 0;
    size_t bytes = WIRE_FRAME;
    for (size_t i = 0; i < msg->header_count; i++)
        bytes += msg->headers[i].name.len + msg->headers[i].value.len + WIRE_LINE;
    if (msg->msg_id.len > 0)
        bytes += strlen(ID_HEADER) + msg->msg_id.len + WIRE_LINE;
    return bytes;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static wb_err check_id(struct wb_str id, struct wb_why *why)
{
    if (id.len > MESSAGE_ID_MAX)
        return wb_fail(
            why, WB_INVALID,
            "msg_id has %zu bytes, at most %d are allowed: use a shorter one, a UUID for "
            "example",
            id.len, MESSAGE_ID_MAX);
    for (size_t i = 0; i < id.len; i++)
        if (!message_is_printable(id.ptr[i]))
            return wb_fail(why, WB_INVALID,
                           "msg_id has byte 0x%02x at %zu: only printable ASCII without blanks is "
                           "allowed, a UUID for example",
                           (unsigned char)id.ptr[i], i);
    return WB_OK;
}

static wb_err check_sizes(const struct message *msg, size_t max_payload, struct wb_why *why)
{
    size_t header_bytes = message_header_bytes(msg);

    if (header_bytes > MESSAGE_HEADER_BYTES_MAX)
        return wb_fail(why, WB_TOO_BIG,
                       "headers take %zu bytes, at most %d are allowed: move data into the payload",
                       header_bytes, MESSAGE_HEADER_BYTES_MAX);
    if (header_bytes > max_payload || msg->payload.len > max_payload - header_bytes)
        return wb_fail(why, WB_TOO_BIG,
                       "payload of %zu and headers of %zu bytes exceed the limit of %zu together: "
                       "send a reference to the data, or raise max_payload",
                       msg->payload.len, header_bytes, max_payload);
    return WB_OK;
}

/* Who looks a header up without case would find one of two spellings, and which is chance. */
static wb_err check_spelling(const struct message *msg, size_t at, struct wb_why *why)
{
    struct wb_str name = msg->headers[at].name;

    for (size_t i = 0; i < at; i++) {
        struct wb_str other = msg->headers[i].name;
        if (wb_str_case_eq(other, name) && !wb_str_eq(other, name))
            return wb_fail(why, WB_INVALID,
                           "headers '%.*s' and '%.*s' differ only in case: use one spelling",
                           (int)other.len, other.ptr, (int)name.len, name.ptr);
    }
    return WB_OK;
}

wb_err message_check(const struct message *msg, size_t max_payload, struct wb_why *why)
{
    if (msg->header_count > MESSAGE_HEADERS_MAX)
        return wb_fail(why, WB_TOO_BIG, "%zu headers, at most %d are allowed: join some into one",
                       msg->header_count, MESSAGE_HEADERS_MAX);
    wb_err err = check_sizes(msg, max_payload, why);
    if (err == WB_OK)
        err = check_id(msg->msg_id, why);
    for (size_t i = 0; err == WB_OK && i < msg->header_count; i++) {
        err = message_check_name(msg->headers[i].name, why);
        if (err == WB_OK)
            err = message_check_value(msg->headers[i], why);
        if (err == WB_OK)
            err = check_spelling(msg, i, why);
    }
    return err;
}

/* ---- copies ---------------------------------------------------------------------------------- */

#define ALIGNMENT ((size_t)8)

static size_t aligned(size_t size)
{
    return (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

/* Put len bytes and a NUL at *at and move on; a view of nothing stays one. */
static const char *put(char **at, const void *data, size_t len)
{
    char *start = *at;

    if (data == NULL)
        return NULL;
    memcpy(start, data, len);
    start[len] = '\0';
    *at += len + 1;
    return start;
}

static struct wb_str put_str(char **at, struct wb_str text)
{
    return wb_str_n(put(at, text.ptr, text.len), text.len);
}

struct message *message_copy(const struct message *msg, size_t extra, void **ret_extra)
{
    size_t headers_at = aligned(sizeof(*msg));
    size_t texts_at = headers_at + msg->header_count * sizeof(*msg->headers);
    size_t size = texts_at + msg->subject.len + msg->payload.len + msg->msg_id.len + 3;

    for (size_t i = 0; i < msg->header_count; i++)
        size += msg->headers[i].name.len + msg->headers[i].value.len + 2;
    size_t extra_at = aligned(size);
    char *block = malloc(extra_at + extra);
    if (block == NULL)
        return NULL;

    struct message *copy = (struct message *)(void *)block;
    struct message_header *headers = (struct message_header *)(void *)(block + headers_at);
    char *at = block + texts_at;
    *copy = (struct message){.headers = msg->header_count == 0 ? NULL : headers,
                             .header_count = msg->header_count};
    copy->subject = put_str(&at, msg->subject);
    copy->payload =
        (struct wb_bytes){put(&at, msg->payload.ptr, msg->payload.len), msg->payload.len};
    copy->msg_id = put_str(&at, msg->msg_id);
    for (size_t i = 0; i < msg->header_count; i++)
        headers[i] = (struct message_header){put_str(&at, msg->headers[i].name),
                                             put_str(&at, msg->headers[i].value)};
    if (ret_extra != NULL)
        *ret_extra = block + extra_at;
    return copy;
}
