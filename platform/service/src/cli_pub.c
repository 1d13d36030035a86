/* cli_pub.c - publish: straight to NATS, or through a running service. */
#include <stdio.h>
#include <string.h>

#include <waybill/event_bus_factory.h>
#include <waybill/subject.h>

#include "cli_http.h"
#include "cli_message.h"

/* Where messages go to; one of the two. */
struct target {
    struct event_bus *bus;
    struct cli_http http;
};

/* What a series of publishes came to. */
struct summary {
    struct event_bus_ack_info first, last;
    uint64_t duplicates;
};

/* ---- through a service ----------------------------------------------------------------------- */

static wb_err format_headers(const struct message *msg, struct wb_buf *out, struct wb_why *why)
{
    /* They become lines of a request: what could end a line early must not get there. */
    wb_err err = message_check(msg, SIZE_MAX, why);
    if (err != WB_OK)
        return err;
    wb_buf_str(out, "Content-Type: application/octet-stream\r\n");
    wb_buf_printf(out, "msg-id: %.*s\r\n", (int)msg->msg_id.len, msg->msg_id.ptr);
    for (size_t i = 0; i < msg->header_count; i++)
        wb_buf_printf(out, "waybill-header: %.*s: %.*s\r\n", (int)msg->headers[i].name.len,
                      msg->headers[i].name.ptr, (int)msg->headers[i].value.len,
                      msg->headers[i].value.ptr);
    return out->failed ? WB_NOMEM : WB_OK;
}

static wb_err read_ack(const struct cli_http *http, const struct cli_http_reply *reply,
                       struct event_bus_ack_info *ret_ack, struct wb_why *why)
{
    json_t *root =
        json_loadb(reply->body.ptr == NULL ? "" : reply->body.ptr, reply->body.len, 0, NULL);
    const char *stream = json_string_value(json_object_get(root, "stream"));
    wb_err err = WB_OK;

    if (stream == NULL) {
        err = wb_fail(why, WB_INVALID,
                      "what answers at %s is not the service: expected {\"stream\", \"sequence\"}; "
                      "name the service with --http HOST:PORT",
                      http->address);
    } else {
        *ret_ack = (struct event_bus_ack_info){
            .sequence = (uint64_t)json_integer_value(json_object_get(root, "sequence")),
            .duplicate = json_is_true(json_object_get(root, "duplicate"))};
        (void)snprintf(ret_ack->stream, sizeof(ret_ack->stream), "%s", stream);
    }
    json_decref(root);
    return err;
}

static wb_err publish_http(struct cli_http *http, const struct message *msg,
                           struct event_bus_ack_info *ret_ack, struct wb_why *why)
{
    struct wb_buf target = {0};
    struct wb_buf headers = {0};
    struct cli_http_reply reply = {0};
    wb_err err = format_headers(msg, &headers, why);

    wb_buf_str(&target, "/bus/publish?subject=");
    service_cli_http_encode(&target, msg->subject);
    if (err == WB_OK && target.failed)
        err = WB_NOMEM;
    if (err == WB_OK) {
        const struct cli_http_request request = {
            .method = "POST", .target = target.ptr, .headers = headers.ptr, .body = msg->payload};
        err = service_cli_http_call(http, &request, &reply, why);
    }
    if (err == WB_OK)
        err = reply.status >= 300 ? service_cli_http_error(http, &reply, why)
                                  : read_ack(http, &reply, ret_ack, why);
    wb_buf_free(&reply.body);
    wb_buf_free(&headers);
    wb_buf_free(&target);
    return err;
}

/* ---- either way ------------------------------------------------------------------------------ */

static wb_err target_open(struct cli *cli, struct target *target)
{
    target->http.fd = -1;
    if (strcmp(config_str(cli->config, "bus"), "nats") == 0)
        return event_bus_factory_create(cli->config, NULL, true, &target->bus, &cli->why);
    return service_cli_http_open(cli, &target->http);
}

static void target_close(struct target *target)
{
    event_bus_destroy(target->bus);
    service_cli_http_close(&target->http);
}

static wb_err publish_one(struct cli *cli, struct target *target, const struct message *msg,
                          struct event_bus_ack_info *ret_ack)
{
    const struct event_bus_publish_options options = {.timeout_ns = cli->timeout_ns};

    return target->bus != NULL ? event_bus_publish(target->bus, msg, &options, ret_ack, &cli->why)
                               : publish_http(&target->http, msg, ret_ack, &cli->why);
}

static void print_json(struct cli *cli, const struct message *msg,
                       const struct event_bus_ack_info *ack)
{
    wb_buf_str(&cli->out, "{\"subject\":");
    wb_buf_json_str(&cli->out, msg->subject);
    wb_buf_str(&cli->out, ",\"msg_id\":");
    wb_buf_json_str(&cli->out, msg->msg_id);
    wb_buf_printf(&cli->out, ",\"stream\":\"%s\",\"sequence\":%llu,\"duplicate\":%s}\n",
                  ack->stream, (unsigned long long)ack->sequence,
                  ack->duplicate ? "true" : "false");
}

static void print_text(struct cli *cli, const struct message *msg, uint64_t count,
                       const struct summary *summary, int64_t taken_ns)
{
    wb_buf_str(&cli->out, "published ");
    wb_buf_printable(&cli->out, msg->subject);
    if (count > 1)
        wb_buf_printf(&cli->out, "  %llu times", (unsigned long long)count);
    wb_buf_printf(&cli->out, "  %zu B  stream %s seq %llu", msg->payload.len, summary->last.stream,
                  (unsigned long long)summary->first.sequence);
    if (count > 1)
        wb_buf_printf(&cli->out, " to %llu", (unsigned long long)summary->last.sequence);
    wb_buf_printf(&cli->out, "  %.1f ms", (double)taken_ns / (double)WB_MS);
    if (summary->duplicates > 0)
        wb_buf_str(&cli->out, "  duplicate: this id is stored already, nothing was added");
    wb_buf_str(&cli->out, "\n");
}

/* Each message has an identity, so that a retry of the bus cannot double it. */
static wb_err publish_all(struct cli *cli, struct target *target, struct message *msg,
                          uint64_t count)
{
    const struct wb_clock *clock = wb_clock_system();
    int64_t begun = wb_mono_ns(clock);
    bool own_id = msg->msg_id.len > 0;
    struct summary summary = {.duplicates = 0};
    wb_err err = WB_OK;

    for (uint64_t i = 0; err == WB_OK && i < count; i++) {
        uint8_t id[WB_ID_SIZE];
        char id_text[WB_ID_TEXT];
        wb_id_new(clock, id);
        wb_hex_encode(id, sizeof(id), id_text);
        if (!own_id)
            msg->msg_id = wb_str(id_text);
        err = publish_one(cli, target, msg, &summary.last);
        if (err != WB_OK)
            break;
        if (i == 0)
            summary.first = summary.last;
        summary.duplicates += summary.last.duplicate;
        if (cli->json)
            print_json(cli, msg, &summary.last);
        if (cli->json)
            err = service_cli_flush(cli);
    }
    if (err == WB_OK && !cli->json)
        print_text(cli, msg, count, &summary, wb_mono_ns(clock) - begun);
    return err;
}

wb_err service_cli_pub(struct cli *cli)
{
    struct cli_message input = {.header_count = 0};
    struct target target = {.bus = NULL};
    const char *id = service_cli_option(cli, "id");
    uint64_t count;
    wb_err err = service_cli_number(cli, "count", 1, 1, 100000000, &count);

    if (err != WB_OK)
        return err;
    if (id != NULL && count > 1)
        return service_cli_usage(cli, "--id with --count: one identity is one event");
    err = subject_check(wb_str(cli->operands[0]), &cli->why);
    if (err == WB_OK)
        err =
            service_cli_message_read(cli, cli->operand_count > 1 ? cli->operands[1] : NULL, &input);
    if (err == WB_OK)
        err = target_open(cli, &target);
    if (err == WB_OK) {
        struct message msg = {.subject = wb_str(cli->operands[0]),
                              .payload = input.payload,
                              .headers = input.headers,
                              .header_count = input.header_count,
                              .msg_id = wb_str(id)};
        err = publish_all(cli, &target, &msg, count);
    }
    target_close(&target);
    service_cli_message_free(&input);
    return err;
}
