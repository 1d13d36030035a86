/* cli_message.c - messages given on the command line, and messages printed. */
#include "cli_message.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define BODY_MAX (64U << 20) /* bytes read; the bus has its own, lower limit */

/* ---- reading --------------------------------------------------------------------------------- */

static wb_err read_fd(int fd, const char *name, struct wb_buf *out, struct wb_why *why)
{
    char chunk[65536];
    ssize_t got;

    while ((got = read(fd, chunk, sizeof(chunk))) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return wb_fail(why, WB_IO, "read the body from %s: %s", name, strerror(errno));
        wb_buf_add(out, chunk, (size_t)got);
        if (out->len > BODY_MAX)
            return wb_fail(why, WB_TOO_BIG,
                           "the body in %s is larger than %u bytes; events carry facts, keep large "
                           "data elsewhere and send a reference",
                           name, BODY_MAX);
    }
    return out->failed ? WB_NOMEM : WB_OK;
}

static wb_err read_file(const char *path, struct wb_buf *out, struct wb_why *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return wb_fail(why,
                       errno == ENOENT   ? WB_NOT_FOUND
                       : errno == EACCES ? WB_DENIED
                                         : WB_IO,
                       "open the body's file '%s': %s; @ names a file, - reads standard input",
                       path, strerror(errno));
    wb_err err = read_fd(fd, path, out, why);
    (void)close(fd);
    return err;
}

static wb_err read_headers(struct cli *cli, struct cli_message *message)
{
    const char *text;

    for (size_t i = 0; (text = service_cli_option_at(cli, "header", i)) != NULL; i++) {
        const char *colon = strchr(text, ':');
        if (colon == NULL || colon == text)
            return service_cli_usage(cli, "header '%s': expected NAME:VALUE", text);
        if (message->header_count == MESSAGE_HEADERS_MAX)
            return service_cli_usage(cli, "more than %d headers", MESSAGE_HEADERS_MAX);
        const char *value = colon + 1;
        const char *end = value + strlen(value);
        while (*value == ' ' || *value == '\t')
            value++;
        while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
            end--;
        message->headers[message->header_count++] = (struct message_header){
            wb_str_n(text, (size_t)(colon - text)), wb_str_n(value, (size_t)(end - value))};
    }
    return WB_OK;
}

wb_err service_cli_message_read(struct cli *cli, const char *body, struct cli_message *message)
{
    wb_err err = read_headers(cli, message);

    if (err != WB_OK || body == NULL)
        return err;
    if (strcmp(body, "-") == 0)
        err = read_fd(STDIN_FILENO, "standard input", &message->body, &cli->why);
    else if (body[0] == '@')
        err = read_file(body + 1, &message->body, &cli->why);
    else
        wb_buf_str(&message->body, body);
    message->payload = (struct wb_bytes){message->body.ptr, message->body.len};
    return err == WB_OK && message->body.failed ? WB_NOMEM : err;
}

void service_cli_message_free(struct cli_message *message)
{
    wb_buf_free(&message->body);
}

/* ---- what a service hands out ---------------------------------------------------------------- */

static struct wb_str member(const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, name);

    return wb_str_n(json_string_value(value), json_string_length(value));
}

bool service_cli_base64_decode(struct wb_str text, struct wb_buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    unsigned count = 0;

    while (text.len > 0 && text.ptr[text.len - 1] == '=')
        text.len--;
    for (size_t i = 0; i < text.len; i++) {
        const char *digit = memchr(digits, text.ptr[i], sizeof(digits) - 1);
        if (digit == NULL)
            return false;
        bits = bits << 6 | (uint32_t)(digit - digits);
        count += 6;
        if (count >= 8) {
            count -= 8;
            char byte = (char)(bits >> count & 0xffU);
            wb_buf_add(out, &byte, 1);
        }
    }
    return !out->failed;
}

static size_t read_header_object(json_t *object, struct message_header *headers)
{
    const char *name;
    json_t *values;
    size_t count = 0;

    json_object_foreach(object, name, values)
    {
        for (size_t i = 0; i < json_array_size(values) && count < MESSAGE_HEADERS_MAX; i++) {
            const json_t *value = json_array_get(values, i);
            headers[count++] = (struct message_header){
                wb_str(name), wb_str_n(json_string_value(value), json_string_length(value))};
        }
    }
    return count;
}

wb_err service_cli_received_parse(struct wb_str line, struct cli_received *received,
                                  struct wb_why *why)
{
    json_t *root = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    struct message *msg = &received->delivery.message;

    if (!json_is_object(root)) {
        json_decref(root);
        return wb_fail(why, WB_INVALID,
                       "what answers is not the service: expected messages as JSON, one a line; "
                       "name the service with --http HOST:PORT");
    }
    *received = (struct cli_received){.root = root};
    msg->subject = member(root, "subject");
    msg->msg_id = member(root, "msg_id");
    received->delivery.stream = member(root, "stream");
    received->delivery.sequence = (uint64_t)json_integer_value(json_object_get(root, "sequence"));
    received->delivery.deliveries =
        (uint32_t)json_integer_value(json_object_get(root, "deliveries"));
    (void)wb_time_parse(member(root, "time"), &received->delivery.stored_wall_ns);
    msg->headers = received->headers;
    msg->header_count = read_header_object(json_object_get(root, "headers"), received->headers);

    struct wb_str text = member(root, "payload");
    if (json_object_get(root, "payload_base64") != NULL) {
        (void)service_cli_base64_decode(member(root, "payload_base64"), &received->payload);
        text = wb_str_n(received->payload.ptr, received->payload.len);
    }
    msg->payload = (struct wb_bytes){text.ptr, text.len};
    return received->payload.failed ? WB_NOMEM : WB_OK;
}

void service_cli_received_free(struct cli_received *received)
{
    json_decref(received->root);
    wb_buf_free(&received->payload);
}

/* ---- printing -------------------------------------------------------------------------------- */

void service_cli_message_print(struct wb_buf *out, const struct message *msg)
{
    for (size_t i = 0; i < msg->header_count; i++) {
        wb_buf_str(out, "   ");
        wb_buf_printable(out, msg->headers[i].name);
        wb_buf_str(out, ": ");
        wb_buf_printable(out, msg->headers[i].value);
        wb_buf_str(out, "\n");
    }
    if (msg->payload.len > 0) {
        wb_buf_str(out, "   ");
        wb_buf_printable(out, wb_str_n(msg->payload.ptr, msg->payload.len));
        wb_buf_str(out, "\n");
    }
}
