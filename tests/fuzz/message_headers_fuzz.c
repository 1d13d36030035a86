/* Any bytes as header text: what is read can be sent, written and read again, and is the same. */
#include <stdint.h>
#include <stdlib.h>

#include <waybill/message.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static void same(const struct message *a, const struct message_header *b, size_t count)
{
    MUST(a->header_count == count);
    for (size_t i = 0; i < count; i++)
        MUST(wb_str_eq(a->headers[i].name, b[i].name) &&
             wb_str_eq(a->headers[i].value, b[i].value));
}

/* Only what the text cannot show is left for the check of the whole message. */
static void check_sendable(const struct message *msg)
{
    struct wb_why why;
    wb_err err = message_check(msg, MESSAGE_PAYLOAD_MAX, &why);

    if (err == WB_TOO_BIG)
        MUST(message_header_bytes(msg) > MESSAGE_HEADER_BYTES_MAX);
    else if (err == WB_INVALID)
        MUST(msg->header_count > 1); /* two names that differ only in case */
    else
        MUST(err == WB_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct message_header headers[MESSAGE_HEADERS_MAX];
    static struct message_header again[MESSAGE_HEADERS_MAX];
    struct message msg = {.headers = headers, .payload = {data, size}};
    struct wb_str text = wb_str_n((const char *)data, size);
    struct wb_why why;

    if (message_headers_parse(text, headers, &msg.header_count, &why) != WB_OK)
        return 0;
    check_sendable(&msg);

    struct wb_buf written = {0};
    size_t count = 0;
    message_headers_format(&msg, &written);
    text = wb_str_n(written.ptr, written.len);
    MUST(message_headers_parse(text, again, &count, NULL) == WB_OK);
    same(&msg, again, count);

    struct message *copy = message_copy(&msg, 0, NULL);
    MUST(copy != NULL);
    same(copy, headers, msg.header_count);
    MUST(message_header_bytes(copy) == message_header_bytes(&msg));
    free(copy);
    wb_buf_free(&written);
    return 0;
}
