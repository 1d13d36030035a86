/* header.c - headers: what they may be, and their form as text. */
#include <waybill/message.h>

#include <string.h>

#include "message_text.h"

#define RESERVED_PREFIX "Nats-"

wb_err message_check_name(struct wb_str name, struct wb_why *why)
{
    const size_t prefix = strlen(RESERVED_PREFIX);

    if (name.ptr == NULL || name.len == 0)
        return wb_fail(why, WB_INVALID, "header without a name: write it as 'Name: value'");
    for (size_t i = 0; i < name.len; i++)
        if (!message_is_printable(name.ptr[i]) || name.ptr[i] == ':')
            return wb_fail(why, WB_INVALID,
                           "header name has byte 0x%02x at %zu: only printable ASCII without ':' "
                           "and blank is allowed",
                           (unsigned char)name.ptr[i], i);
    if (name.len >= prefix && wb_str_case_eq(wb_str_n(name.ptr, prefix), wb_str(RESERVED_PREFIX)))
        return wb_fail(why, WB_INVALID,
                       "header '%.*s': names that start with Nats- belong to the bus; choose "
                       "another (msg_id and expected_last_seq have fields of their own)",
                       (int)name.len, name.ptr);
    return WB_OK;
}

/* What is wrong with a value, or NULL. */
static const char *value_fault(struct wb_str value)
{
    if (value.ptr == NULL || value.len == 0)
        return "empty value; leave the header out";
    if (message_is_blank(value.ptr[0]) || message_is_blank(value.ptr[value.len - 1]))
        return "blank at an end of the value; trim it";
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] == '\r' || value.ptr[i] == '\n' || value.ptr[i] == '\0')
            return "line end or NUL in the value; encode it, by percent-encoding for example";
    if (!wb_utf8_valid(value))
        return "the value is not UTF-8; encode it, as base64 for example";
    return NULL;
}

wb_err message_check_value(struct message_header header, struct wb_why *why)
{
    const char *fault = value_fault(header.value);

    if (fault == NULL)
        return WB_OK;
    return wb_fail(why, WB_INVALID, "header '%.*s': %s", (int)header.name.len, header.name.ptr,
                   fault);
}

/* ---- as text --------------------------------------------------------------------------------- */

void message_headers_format(const struct message *msg, struct wb_buf *out)
{
    for (size_t i = 0; i < msg->header_count; i++) {
        if (i > 0)
            wb_buf_str(out, "\n");
        wb_buf_add(out, msg->headers[i].name.ptr, msg->headers[i].name.len);
        wb_buf_str(out, ": ");
        wb_buf_add(out, msg->headers[i].value.ptr, msg->headers[i].value.len);
    }
}

static struct wb_str trim(struct wb_str text)
{
    while (text.len > 0 && message_is_blank(text.ptr[0]))
        text = wb_str_n(text.ptr + 1, text.len - 1);
    while (text.len > 0 && message_is_blank(text.ptr[text.len - 1]))
        text.len--;
    return text;
}

static wb_err parse_line(struct wb_str line, struct message_header *ret_header, struct wb_why *why)
{
    const char *colon = memchr(line.ptr, ':', line.len);

    if (colon == NULL)
        return wb_fail(why, WB_INVALID, "no colon: write it as 'Name: value'");
    size_t name_len = (size_t)(colon - line.ptr);
    struct message_header header = {
        .name = trim(wb_str_n(line.ptr, name_len)),
        .value = trim(wb_str_n(colon + 1, line.len - name_len - 1)),
    };
    wb_err err = message_check_name(header.name, why);
    if (err == WB_OK)
        err = message_check_value(header, why);
    if (err == WB_OK)
        *ret_header = header;
    return err;
}

wb_err message_headers_parse(struct wb_str text, struct message_header *ret_headers,
                             size_t *ret_count, struct wb_why *why)
{
    size_t count = 0;
    size_t line_no = 1;

    for (size_t at = 0; at < text.len; line_no++) {
        const char *start = text.ptr + at;
        const char *end = memchr(start, '\n', text.len - at);
        struct wb_str line = wb_str_n(start, end == NULL ? text.len - at : (size_t)(end - start));
        at += line.len + 1;
        if (trim(line).len == 0)
            continue; /* a blank line, such as an editor leaves at the end */
        struct wb_why inner;
        if (count == MESSAGE_HEADERS_MAX)
            return wb_fail(why, WB_INVALID, "headers, line %zu: more than %d headers", line_no,
                           MESSAGE_HEADERS_MAX);
        if (parse_line(line, &ret_headers[count], &inner) != WB_OK)
            return wb_fail(why, WB_INVALID, "headers, line %zu: %s", line_no, inner.text);
        count++;
    }
    *ret_count = count;
    return WB_OK;
}
