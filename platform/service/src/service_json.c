/* service_json.c - a delivered message as one JSON object. */
#include "service_json.h"

#include <string.h>

static void add_base64(struct wb_buf *out, struct wb_bytes bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = bytes.ptr;

    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t left = bytes.len - i;
        uint32_t three = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                         (left > 2 ? p[i + 2] : 0U);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
                        left > 1 ? digits[three >> 6 & 63] : '=',
                        left > 2 ? digits[three & 63] : '='};
        wb_buf_add(out, four, sizeof(four));
    }
}

void service_json_payload(struct wb_bytes payload, struct wb_buf *out)
{
    struct wb_str text = wb_str_n(payload.ptr, payload.len);
    bool is_text =
        payload.len == 0 || (memchr(payload.ptr, '\0', payload.len) == NULL && wb_utf8_valid(text));

    if (is_text) {
        wb_buf_str(out, ",\"payload\":");
        wb_buf_json_str(out, text);
    } else {
        wb_buf_str(out, ",\"payload_base64\":\"");
        add_base64(out, payload);
        wb_buf_str(out, "\"");
    }
}

static bool named_before(const struct message *msg, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (wb_str_case_eq(msg->headers[i].name, msg->headers[index].name))
            return true;
    return false;
}

/* Values of one name stand together, in their order. */
static void add_headers(struct wb_buf *out, const struct message *msg)
{
    const char *comma = "";

    wb_buf_str(out, ",\"headers\":{");
    for (size_t i = 0; i < msg->header_count; i++) {
        if (named_before(msg, i))
            continue;
        wb_buf_str(out, comma);
        comma = ",";
        wb_buf_json_str(out, msg->headers[i].name);
        const char *opening = ":[";
        for (size_t j = i; j < msg->header_count; j++)
            if (wb_str_case_eq(msg->headers[i].name, msg->headers[j].name)) {
                wb_buf_str(out, opening);
                opening = ",";
                wb_buf_json_str(out, msg->headers[j].value);
            }
        wb_buf_str(out, "]");
    }
    wb_buf_str(out, "}");
}

void service_delivery_json(const struct event_bus_delivery *delivery, struct wb_buf *out)
{
    const struct message *msg = &delivery->message;
    char time[32];

    wb_time_format(delivery->stored_wall_ns, time);
    wb_buf_str(out, "{\"subject\":");
    wb_buf_json_str(out, msg->subject);
    wb_buf_str(out, ",\"stream\":");
    wb_buf_json_str(out, delivery->stream);
    wb_buf_printf(out, ",\"sequence\":%llu,\"deliveries\":%u,\"time\":\"%s\",\"msg_id\":",
                  (unsigned long long)delivery->sequence, delivery->deliveries, time);
    wb_buf_json_str(out, msg->msg_id);
    add_headers(out, msg);
    service_json_payload(msg->payload, out);
    wb_buf_str(out, "}");
}
