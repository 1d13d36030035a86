/* cli_outbox_add.c - an event into the outbox by hand, and out of it before it is sent. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <waybill/operator_log.h>
#include <waybill/outbox.h>
#include <waybill/subject.h>

#include "cli_message.h"
#include "cli_outbox.h"
#include "service_classes.h"

static struct db_options write_options(const struct cli *cli, bool must_exist)
{
    bool normal = strcmp(config_str(cli->config, "db.sync"), "normal") == 0;

    return (struct db_options){.sync = normal ? DB_SYNC_NORMAL : DB_SYNC_FULL,
                               .must_exist = must_exist};
}

/* ---- add ------------------------------------------------------------------------------------- */

static wb_err read_duration(struct cli *cli, const char *name, const char *text, int64_t *ret_ns)
{
    int64_t ns = 0;

    if (wb_duration_parse(wb_str(text), &ns) && ns > 0) {
        *ret_ns = ns;
        return WB_OK;
    }
    return wb_fail(&cli->why, WB_INVALID,
                   "--%s '%s': expected a time with its unit, such as 500ms, 5s or 1h30m", name,
                   text);
}

/* "2026-01-02T03:04:05Z", or "+5m" from now; not given: 0. */
static wb_err read_moment(struct cli *cli, const char *name, int64_t *ret_wall_ns)
{
    const char *text = service_cli_option(cli, name);
    int64_t ns = 0, now = wb_wall_ns(wb_clock_system());

    if (text == NULL)
        return WB_OK;
    if (text[0] == '+') {
        wb_err err = read_duration(cli, name, text + 1, &ns);
        if (err == WB_OK && ns <= INT64_MAX - now)
            *ret_wall_ns = now + ns;
        return err == WB_OK && ns > INT64_MAX - now
                   ? wb_fail(&cli->why, WB_INVALID, "--%s '%s' lies too far ahead", name, text)
                   : err;
    }
    if (wb_time_parse(wb_str(text), &ns) && ns > 0) {
        *ret_wall_ns = ns;
        return WB_OK;
    }
    return wb_fail(&cli->why, WB_INVALID,
                   "--%s '%s': expected a moment such as 2026-01-02T03:04:05Z, or +5m from now",
                   name, text);
}

static wb_err read_times(struct cli *cli, struct outbox_event *event)
{
    const char *delay = service_cli_option(cli, "delay");

    if (delay != NULL && service_cli_option(cli, "at") != NULL)
        return wb_fail(&cli->why, WB_INVALID,
                       "--at and --delay both say when to send the event: give one of them");
    wb_err err = read_moment(cli, "at", &event->due_wall_ns);
    if (err == WB_OK && delay != NULL)
        err = read_duration(cli, "delay", delay, &event->delay_ns);
    if (err == WB_OK)
        err = read_moment(cli, "expires", &event->expires_wall_ns);
    int64_t due =
        event->delay_ns > 0 ? wb_wall_ns(wb_clock_system()) + event->delay_ns : event->due_wall_ns;
    if (err == WB_OK && event->expires_wall_ns > 0 && due >= event->expires_wall_ns)
        err = wb_fail(&cli->why, WB_INVALID,
                      "--expires '%s' comes before the event is due: it would never be sent",
                      service_cli_option(cli, "expires"));
    return err;
}

static wb_err read_event(struct cli *cli, const struct cli_message *input,
                         struct outbox_event *ret_event)
{
    struct outbox_event event = {
        .subject = wb_str(cli->operands[0]),
        .payload = input->payload,
        .key = wb_str(service_cli_option(cli, "key")),
        .stream = wb_str(service_cli_option(cli, "stream")),
        .headers = input->headers,
        .header_count = input->header_count,
        .caller = wb_str(service_cli_option(cli, "caller")),
        .idempotency_key = wb_str(service_cli_option(cli, "idempotency-key")),
    };
    wb_err err = read_times(cli, &event);

    if (err == WB_OK && (event.caller.len == 0) != (event.idempotency_key.len == 0))
        err = wb_fail(&cli->why, WB_INVALID,
                      "--idempotency-key counts for its --caller: give both, or neither");
    if (err == WB_OK)
        *ret_event = event;
    return err;
}

static wb_err enqueue(struct cli *cli, struct db *db, const struct service_classes *classes,
                      const struct outbox_event *event, struct outbox_receipt *ret_receipt)
{
    struct outbox *outbox;
    wb_err err = outbox_attach(db_handle(db), &outbox, &cli->why);

    if (err != WB_OK)
        return err;
    service_classes_use(classes, outbox);
    err = db_begin(db, &cli->why);
    if (err == WB_OK) {
        err = outbox_enqueue(outbox, event, ret_receipt, &cli->why);
        if (err == WB_OK)
            err = db_commit(db, &cli->why);
        else
            db_rollback(db);
    }
    if (err == WB_OK)
        outbox_wake(outbox);
    outbox_detach(outbox);
    return err;
}

static void print_receipt(struct cli *cli, const struct outbox_receipt *receipt)
{
    char id[WB_ID_TEXT];

    wb_hex_encode(receipt->msg_id, WB_ID_SIZE, id);
    if (cli->json) {
        wb_buf_printf(&cli->out,
                      "{\"id\":%" PRId64 ",\"msg_id\":\"%s\",\"existed\":%s,\"subject\":",
                      receipt->row_id, id, receipt->existed ? "true" : "false");
        wb_buf_json_str(&cli->out, wb_str(cli->operands[0]));
        wb_buf_str(&cli->out, "}\n");
    } else {
        wb_buf_printf(&cli->out, "%s row %" PRId64 "  %s  ",
                      receipt->existed ? "there already:" : "added", receipt->row_id, id);
        wb_buf_printable(&cli->out, wb_str(cli->operands[0]));
        wb_buf_str(&cli->out, "\n");
    }
}

wb_err service_cli_outbox_add(struct cli *cli)
{
    const struct db_options options = write_options(cli, false);
    struct cli_message input = {.header_count = 0};
    struct service_classes *classes = NULL;
    struct outbox_receipt receipt;
    struct outbox_event event;
    struct db *db = NULL;
    /* Before the file is made: a refused event leaves nothing behind. */
    wb_err err = subject_check(wb_str(cli->operands[0]), &cli->why);

    if (err == WB_OK)
        err = service_classes_read(cli->config, &classes, &cli->why);
    if (err == WB_OK)
        err = service_cli_message_read(cli, cli->operands[1], &input);
    if (err == WB_OK)
        err = read_event(cli, &input, &event);
    if (err == WB_OK)
        err = service_cli_outbox_open(cli, &options, &db);
    if (err == WB_OK)
        err = enqueue(cli, db, classes, &event, &receipt);
    if (err == WB_OK)
        print_receipt(cli, &receipt);
    db_close(db);
    service_classes_free(classes);
    service_cli_message_free(&input);
    return err;
}

/* ---- cancel ---------------------------------------------------------------------------------- */

/* Taken back, and said so in the operator log, or neither. */
static wb_err cancel(struct cli *cli, struct db *db, struct outbox *outbox, int64_t id)
{
    const struct operator_log_entry entry = {.command = wb_str("outbox cancel"),
                                             .target = wb_str(cli->operands[0]),
                                             .reason = wb_str(service_cli_option(cli, "reason"))};
    wb_err err = db_begin(db, &cli->why);

    if (err != WB_OK)
        return err;
    err = outbox_cancel(outbox, id, &cli->why);
    if (err == WB_OK)
        err = operator_log_add(db_handle(db), &entry, &cli->why);
    if (err == WB_OK)
        err = db_commit(db, &cli->why);
    else
        db_rollback(db);
    if (err == WB_OK)
        outbox_wake(outbox);
    return err;
}

static wb_err read_id(struct cli *cli, int64_t *ret_id)
{
    uint64_t id;

    if (!wb_str_to_u64(wb_str(cli->operands[0]), &id) || id > INT64_MAX)
        return wb_fail(&cli->why, WB_INVALID, "row '%s': expected its number; 'outbox ls' shows it",
                       cli->operands[0]);
    *ret_id = (int64_t)id;
    return WB_OK;
}

wb_err service_cli_outbox_cancel(struct cli *cli)
{
    const struct db_options options = write_options(cli, true);
    struct outbox_status status;
    struct outbox *outbox = NULL;
    struct db *db = NULL;
    int64_t id = 0;
    wb_err err = read_id(cli, &id);

    if (err == WB_OK)
        err = service_cli_outbox_open(cli, &options, &db);
    if (err == WB_OK) /* a file without an outbox shall not get one by this */
        err = outbox_status(db_handle(db), &status, &cli->why);
    if (err == WB_OK)
        err = outbox_attach(db_handle(db), &outbox, &cli->why);
    if (err == WB_OK)
        err = cancel(cli, db, outbox, id);
    if (err == WB_OK && cli->json)
        wb_buf_printf(&cli->out, "{\"id\":%" PRId64 ",\"state\":\"cancelled\"}\n", id);
    else if (err == WB_OK)
        wb_buf_printf(&cli->out, "cancelled row %" PRId64 "  it will never be sent\n", id);
    outbox_detach(outbox);
    db_close(db);
    return err;
}
