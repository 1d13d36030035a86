/* cli_sub.c - print messages as they come: straight from NATS, or from a running service. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include <waybill/event_bus_factory.h>
#include <waybill/subject.h>

#include "cli_http.h"
#include "cli_message.h"
#include "service_json.h"

#define EXIT_INTERRUPTED 130
#define POLL_SERVICE_MS  20
/* Acks follow printing at once; what is still under way at the end comes again after this. */
#define DURABLE_ACK_NS (10 * WB_SEC)

/* What was asked for, and how far it is. */
struct watch {
    struct cli *cli;
    int signals;
    uint64_t count; /* 0: no end */
    uint64_t printed;
    int64_t wait_ns; /* INT64_MAX: for ever */
    int64_t last_ns; /* monotonic: the last message, or the start */
    bool interrupted;
};

/* ---- printing -------------------------------------------------------------------------------- */

static void print_text(struct cli *cli, uint64_t number, const struct event_bus_delivery *delivery)
{
    const struct message *msg = &delivery->message;
    struct wb_buf *out = &cli->out;
    char time[32];

    wb_time_format(delivery->stored_wall_ns, time);
    wb_buf_printf(out, "#%llu %.12s ", (unsigned long long)number, time + strlen("2026-01-02T"));
    wb_buf_printable(out, msg->subject);
    wb_buf_str(out, "  ");
    wb_buf_printable(out, delivery->stream);
    wb_buf_printf(out, "/%llu  %zu B", (unsigned long long)delivery->sequence, msg->payload.len);
    for (int i = 0; cli->operand_count > 1 && i < cli->operand_count; i++) {
        if (!subject_matches(wb_str(cli->operands[i]), msg->subject))
            continue;
        wb_buf_str(out, "  matched ");
        wb_buf_printable(out, wb_str(cli->operands[i]));
        break;
    }
    wb_buf_str(out, "\n");
    service_cli_message_print(out, msg);
}

static wb_err print(struct watch *watch, const struct event_bus_delivery *delivery)
{
    struct cli *cli = watch->cli;

    watch->printed++;
    watch->last_ns = wb_mono_ns(wb_clock_system());
    if (cli->json) {
        service_delivery_json(delivery, &cli->out);
        wb_buf_str(&cli->out, "\n");
    } else if (service_cli_option(cli, "raw") != NULL) {
        wb_buf_add(&cli->out, delivery->message.payload.ptr, delivery->message.payload.len);
        wb_buf_str(&cli->out, "\n");
    } else {
        print_text(cli, watch->printed, delivery);
    }
    return service_cli_flush(cli);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static bool enough(const struct watch *watch)
{
    return watch->count > 0 && watch->printed >= watch->count;
}

/* Wait for a signal, for fd (-1: none), or limit_ms; false when the watch is over. */
static bool wait_for_more(struct watch *watch, int fd, int limit_ms)
{
    struct pollfd ready[2] = {{.fd = watch->signals, .events = POLLIN},
                              {.fd = fd, .events = POLLIN}};
    int64_t quiet = wb_mono_ns(wb_clock_system()) - watch->last_ns;

    if (quiet >= watch->wait_ns)
        return false;
    int64_t left_ms = (watch->wait_ns - quiet) / WB_MS + 1;
    (void)poll(ready, 2, (int)(left_ms < limit_ms ? left_ms : limit_ms));
    watch->interrupted = (ready[0].revents & POLLIN) != 0;
    return !watch->interrupted;
}

/* ---- straight from NATS ---------------------------------------------------------------------- */

static wb_err print_waiting(struct watch *watch, struct event_bus_subscription *subscription,
                            bool acks)
{
    struct event_bus_delivery *delivery;
    wb_err err = WB_OK;

    while (err == WB_OK && !enough(watch)) {
        err = event_bus_next(subscription, 0, &delivery);
        if (err == WB_TIMEOUT)
            return WB_OK;
        if (err != WB_OK)
            return wb_fail(&watch->cli->why, err, "the subscription has ended: %s",
                           wb_err_text(err));
        err = print(watch, delivery);
        if (err == WB_OK && acks)
            err = event_bus_ack(delivery);
        event_bus_release(delivery);
    }
    return err;
}

static wb_err watch_bus(struct watch *watch)
{
    struct cli *cli = watch->cli;
    const char *durable = service_cli_option(cli, "durable");
    struct event_bus_subscription_options options = {
        .patterns = cli->operands,
        .pattern_count = (size_t)cli->operand_count,
        .durable = durable,
        .start = durable != NULL || service_cli_option(cli, "all") != NULL ? EVENT_BUS_START_ALL
                                                                           : EVENT_BUS_START_NEW,
        .ack_none = durable == NULL,
        .ack_wait_ns = durable != NULL ? DURABLE_ACK_NS : 0,
    };
    struct event_bus *bus;
    struct event_bus_subscription *subscription;
    wb_err err = event_bus_factory_create(cli->config, NULL, true, &bus, &cli->why);

    if (err != WB_OK)
        return err;
    if (service_cli_option(cli, "new") != NULL)
        options.start = EVENT_BUS_START_NEW;
    err = event_bus_subscribe(bus, &options, &subscription, &cli->why);
    if (err == WB_OK) {
        service_cli_talk(cli, "listening on %d pattern%s (Ctrl-C to stop)", cli->operand_count,
                         cli->operand_count == 1 ? "" : "s");
        do
            err = print_waiting(watch, subscription, durable != NULL);
        while (err == WB_OK && !enough(watch) &&
               wait_for_more(watch, event_bus_fd(subscription), 60000));
        event_bus_unsubscribe(subscription);
    }
    event_bus_destroy(bus);
    return err;
}

/* ---- from a running service ------------------------------------------------------------------ */

static wb_err call(struct cli_http *http, const struct cli_http_request *request,
                   struct cli_http_reply *reply, struct wb_why *why)
{
    wb_err err = service_cli_http_call(http, request, reply, why);

    return err == WB_OK && reply->status >= 300 ? service_cli_http_error(http, reply, why) : err;
}

/* Open a subscription at the service; *target is then what to ask for its messages. */
static wb_err open_remote(struct cli *cli, struct cli_http *http, struct wb_buf *target)
{
    struct wb_buf body = {0};
    struct cli_http_reply reply = {0};

    wb_buf_printf(&body, "{\"start\":\"%s\",\"patterns\":[",
                  service_cli_option(cli, "all") != NULL ? "all" : "new");
    for (int i = 0; i < cli->operand_count; i++) {
        wb_buf_str(&body, i > 0 ? "," : "");
        wb_buf_json_str(&body, wb_str(cli->operands[i]));
    }
    wb_buf_str(&body, "]}");
    const struct cli_http_request request = {.method = "POST",
                                             .target = "/bus/subscriptions",
                                             .headers = "Content-Type: application/json\r\n",
                                             .body = {body.ptr, body.len}};
    wb_err err = body.failed ? WB_NOMEM : call(http, &request, &reply, &cli->why);
    if (err == WB_OK) {
        json_t *root = json_loadb(reply.body.ptr, reply.body.len, 0, NULL);
        const char *id = json_string_value(json_object_get(root, "id"));
        wb_buf_str(target, "/bus/subscriptions/next?max=100&id=");
        if (id == NULL)
            err = wb_fail(&cli->why, WB_INVALID,
                          "what answers at %s is not the service: expected {\"id\"}; name the "
                          "service with --http HOST:PORT",
                          http->address);
        else
            service_cli_http_encode(target, wb_str(id));
        json_decref(root);
    }
    wb_buf_free(&reply.body);
    wb_buf_free(&body);
    return err == WB_OK && target->failed ? WB_NOMEM : err;
}

static wb_err print_lines(struct watch *watch, const struct wb_buf *lines)
{
    wb_err err = WB_OK;

    for (size_t at = 0; err == WB_OK && at < lines->len && !enough(watch);) {
        const char *line = lines->ptr + at;
        const char *end = memchr(line, '\n', lines->len - at);
        size_t len = end == NULL ? lines->len - at : (size_t)(end - line);
        struct cli_received received;
        err = service_cli_received_parse(wb_str_n(line, len), &received, &watch->cli->why);
        if (err != WB_OK)
            return err;
        err = print(watch, &received.delivery);
        service_cli_received_free(&received);
        at += len + 1;
    }
    return err;
}

static wb_err watch_service(struct watch *watch)
{
    struct cli *cli = watch->cli;
    struct cli_http http;
    struct wb_buf target = {0};

    if (service_cli_option(cli, "durable") != NULL)
        return wb_fail(&cli->why, WB_UNSUPPORTED,
                       "--durable: a position is kept by the NATS server; talk straight to it with "
                       "-s nats://127.0.0.1:4222");
    wb_err err = service_cli_http_open(cli, &http);
    if (err == WB_OK)
        err = open_remote(cli, &http, &target);
    if (err == WB_OK)
        service_cli_talk(cli, "listening on %d pattern%s at %s (Ctrl-C to stop)",
                         cli->operand_count, cli->operand_count == 1 ? "" : "s", http.address);
    while (err == WB_OK && !enough(watch) && !watch->interrupted) {
        const struct cli_http_request request = {
            .method = "GET", .target = target.ptr, .headers = ""};
        struct cli_http_reply reply = {0};
        err = call(&http, &request, &reply, &cli->why);
        bool none = reply.body.len == 0;
        if (err == WB_OK)
            err = print_lines(watch, &reply.body);
        wb_buf_free(&reply.body);
        if (err == WB_OK && !enough(watch) && !wait_for_more(watch, -1, none ? POLL_SERVICE_MS : 0))
            break;
    }
    service_cli_http_close(&http);
    wb_buf_free(&target);
    return err;
}

/* ---- the command ----------------------------------------------------------------------------- */

static wb_err check(struct cli *cli, struct watch *watch)
{
    wb_err err = service_cli_number(cli, "count", 0, 1, UINT64_MAX, &watch->count);

    if (err == WB_OK)
        err = service_cli_duration(cli, "wait", INT64_MAX, &watch->wait_ns);
    if (err == WB_OK && service_cli_option(cli, "all") != NULL &&
        service_cli_option(cli, "new") != NULL)
        err = service_cli_usage(cli, "--all and --new: which of them?");
    for (int i = 0; err == WB_OK && i < cli->operand_count; i++)
        err = subject_pattern_check(wb_str(cli->operands[i]), &cli->why);
    return err;
}

wb_err service_cli_sub(struct cli *cli)
{
    struct watch watch = {.cli = cli, .last_ns = wb_mono_ns(wb_clock_system())};
    wb_err err = check(cli, &watch);

    if (err == WB_OK)
        err = service_cli_signals_open(cli, &watch.signals);
    if (err != WB_OK)
        return err;
    err = strcmp(config_str(cli->config, "bus"), "nats") == 0 ? watch_bus(&watch)
                                                              : watch_service(&watch);
    service_cli_signals_close(watch.signals);
    if (err != WB_OK)
        return err;
    if (watch.interrupted)
        cli->exit_code = EXIT_INTERRUPTED;
    else if (watch.count > 0 && watch.printed < watch.count)
        return wb_fail(&cli->why, WB_TIMEOUT,
                       "%llu of %llu messages came; nothing more for the time of --wait",
                       (unsigned long long)watch.printed, (unsigned long long)watch.count);
    return WB_OK;
}
