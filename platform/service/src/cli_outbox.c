/* cli_outbox.c - the outbox in a file: status, ls, show. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <waybill/outbox.h>
#include <waybill/outbox_retention.h>
#include <waybill/subject.h>

#include "cli_message.h"
#include "cli_outbox.h"
#include "cli_print.h"
#include "service_json.h"

wb_err service_cli_outbox_open(struct cli *cli, const struct db_options *options,
                               struct db **ret_db)
{
    const char *path = service_cli_option(cli, "db");

    if (path == NULL)
        return service_cli_usage(cli, "which outbox? name its database with --db FILE");
    return db_open(path, options, ret_db, &cli->why);
}

/* ---- status ---------------------------------------------------------------------------------- */

void service_cli_outbox_age(int64_t then_wall_ns, char out[24])
{
    int64_t ms = (wb_wall_ns(wb_clock_system()) - then_wall_ns) / WB_MS;

    ms = ms < 0 ? 0 : ms;
    if (ms < 60000)
        (void)snprintf(out, 24, "%" PRId64 ".%" PRId64 "s", ms / 1000, ms % 1000 / 100);
    else if (ms < 3600000)
        (void)snprintf(out, 24, "%" PRId64 "m%02" PRId64 "s", ms / 60000, ms / 1000 % 60);
    else
        (void)snprintf(out, 24, "%" PRId64 "h%02" PRId64 "m", ms / 3600000, ms / 60000 % 60);
}

static void print_status_json(struct cli *cli, const struct outbox_status *status)
{
    struct wb_buf *out = &cli->out;
    char time[32];

    wb_buf_str(out, "{\"db\":");
    wb_buf_json_str(out, wb_str(service_cli_option(cli, "db")));
    wb_buf_printf(
        out,
        ",\"rows\":%" PRIu64 ",\"pending\":%" PRIu64 ",\"pending_exact\":%s,\"retry\":%" PRIu64
        ",\"waiting\":%" PRIu64 ",\"parked\":%" PRIu64 ",\"expired\":%" PRIu64
        ",\"cancelled\":%" PRIu64 ",\"counts_exact\":%s,\"last_id\":%" PRId64
        ",\"source\":\"%s\",\"oldest_pending\":",
        status->rows, status->pending, status->pending_exact ? "true" : "false", status->retry,
        status->waiting, status->parked, status->expired, status->cancelled,
        status->counts_exact ? "true" : "false", status->last_id, status->source);
    if (status->oldest_wall_ns > 0) {
        wb_time_format(status->oldest_wall_ns, time);
        wb_buf_printf(out, "\"%s\"", time);
    } else {
        wb_buf_str(out, "null");
    }
    wb_buf_str(out, ",\"streams\":[");
    for (size_t i = 0; i < status->stream_count; i++) {
        wb_buf_str(out, i > 0 ? ",{\"stream\":" : "{\"stream\":");
        wb_buf_json_str(out, wb_str(status->streams[i].stream));
        wb_buf_printf(out,
                      ",\"last_id\":%" PRId64 ",\"last_seq\":%" PRIu64 ",\"holder\":%" PRId64
                      ",\"verified_id\":%" PRId64 "}",
                      status->streams[i].last_id, status->streams[i].last_seq,
                      status->streams[i].holder, status->streams[i].verified_id);
    }
    wb_buf_str(out, "]}\n");
}

static void print_status_text(struct cli *cli, const struct outbox_status *status)
{
    struct wb_buf *out = &cli->out;
    char age[24];

    wb_buf_str(out, "outbox  ");
    wb_buf_printable(out, wb_str(service_cli_option(cli, "db")));
    wb_buf_printf(out, "\n  rows     %8" PRIu64 "\n  pending  %8" PRIu64 "%s", status->rows,
                  status->pending, status->pending_exact ? "" : " about");
    if (status->oldest_wall_ns > 0) {
        service_cli_outbox_age(status->oldest_wall_ns, age);
        wb_buf_printf(out, "   oldest %s", age);
    }
    wb_buf_printf(out,
                  "\n  retry    %8" PRIu64 "\n  waiting  %8" PRIu64 "\n  parked   %8" PRIu64
                  "\n  expired  %8" PRIu64 "\n  cancelled%8" PRIu64 "\n",
                  status->retry, status->waiting, status->parked, status->expired,
                  status->cancelled);
    if (!status->counts_exact)
        wb_buf_printf(out, "  (counted up to %d of each)\n", OUTBOX_STATUS_COUNT);
    for (size_t i = 0; i < status->stream_count; i++) {
        wb_buf_str(out, "  stream   ");
        wb_buf_printable(out, wb_str(status->streams[i].stream));
        wb_buf_printf(out,
                      "  published up to row %" PRId64 " at sequence %" PRIu64
                      ", read back up to row %" PRId64 "\n",
                      status->streams[i].last_id, status->streams[i].last_seq,
                      status->streams[i].verified_id);
    }
    if (status->retry + status->parked > 0)
        wb_buf_str(out, "hint: waybill outbox ls --state retry (or parked) says why\n");
}

wb_err service_cli_outbox_status(struct cli *cli)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    struct outbox_status status;
    struct db *db = NULL;
    wb_err err = service_cli_outbox_open(cli, &options, &db);

    if (err != WB_OK)
        return err;
    err = outbox_status(db_handle(db), &status, &cli->why);
    db_close(db);
    if (err != WB_OK)
        return err;
    if (cli->json)
        print_status_json(cli, &status);
    else
        print_status_text(cli, &status);
    return WB_OK;
}

/* ---- ls -------------------------------------------------------------------------------------- */

/* The members that ls and show share, without the closing brace. */
static void print_row_json(struct wb_buf *out, const struct outbox_row *row)
{
    char id[WB_ID_TEXT];

    wb_hex_encode(row->msg_id, WB_ID_SIZE, id);
    wb_buf_printf(out, "{\"id\":%" PRId64 ",\"msg_id\":\"%s\",\"state\":\"%s\"", row->id, id,
                  outbox_state_name(row->state));
    service_cli_json_text(out, "subject", row->subject);
    service_cli_json_text(out, "stream", row->stream);
    service_cli_json_text(out, "key", row->key);
    service_cli_json_time(out, "created", row->created_wall_ns);
    service_cli_json_time(out, "due", row->due_wall_ns);
    service_cli_json_time(out, "expires", row->expires_wall_ns);
    wb_buf_printf(out, ",\"attempts\":%u", row->attempts);
    service_cli_json_time(out, "next", row->next_wall_ns);
    service_cli_json_text(out, "error", row->error);
}

/* When something will happen to a row by itself. */
static void row_time(struct wb_buf *out, const char *name, const struct outbox_row *row,
                     int64_t wall_ns)
{
    char time[32];

    if (wall_ns == 0 || (row->state != OUTBOX_PENDING && row->state != OUTBOX_WAITING &&
                         row->state != OUTBOX_RETRY))
        return;
    wb_time_format(wall_ns, time);
    wb_buf_printf(out, "  %s %s", name, time);
}

static bool print_row(void *ctx, const struct outbox_row *row)
{
    struct cli *cli = ctx;
    char age[24];

    if (cli->json) {
        print_row_json(&cli->out, row);
        wb_buf_str(&cli->out, "}\n");
        return service_cli_flush(cli) == WB_OK;
    }
    service_cli_outbox_age(row->created_wall_ns, age);
    wb_buf_printf(&cli->out, "%8" PRId64 "  %8s  %-9s  %5u  ", row->id, age,
                  outbox_state_name(row->state), row->attempts);
    wb_buf_printable(&cli->out, row->subject);
    row_time(&cli->out, "due", row, row->due_wall_ns);
    row_time(&cli->out, "expires", row, row->expires_wall_ns);
    if (row->error.len > 0) {
        wb_buf_str(&cli->out, "  ");
        wb_buf_printable(&cli->out, row->error);
    }
    wb_buf_str(&cli->out, "\n");
    return service_cli_flush(cli) == WB_OK;
}

static bool print_archived(void *ctx, const struct outbox_retention_archive_row *archived)
{
    return print_row(ctx, &archived->row);
}

static wb_err read_state(struct cli *cli, struct outbox_filter *filter)
{
    const char *text = service_cli_option(cli, "state");
    const char *names[OUTBOX_CANCELLED + 1];

    if (text == NULL)
        return WB_OK;
    for (outbox_state state = OUTBOX_PENDING; state <= OUTBOX_CANCELLED; state++) {
        names[state] = outbox_state_name(state);
        if (strcmp(text, names[state]) == 0) {
            filter->by_state = true;
            filter->state = state;
        }
    }
    if (filter->by_state)
        return WB_OK;
    const char *nearest = service_cli_nearest(text, names, OUTBOX_CANCELLED + 1);
    return service_cli_usage(cli,
                             "--state '%s': expected pending, published, retry, waiting, "
                             "parked, expired or cancelled%s%s%s",
                             text, nearest != NULL ? "; did you mean '" : "",
                             nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
}

static wb_err read_filter(struct cli *cli, struct outbox_filter *filter)
{
    uint64_t after = 0;
    uint64_t limit = 0;
    wb_err err = read_state(cli, filter);

    filter->pattern = wb_str(service_cli_option(cli, "pattern"));
    if (err == WB_OK && filter->pattern.len > 0)
        err = subject_pattern_check(filter->pattern, &cli->why);
    if (err == WB_OK)
        err = service_cli_number(cli, "after", 0, 0, INT64_MAX, &after);
    if (err == WB_OK)
        err = service_cli_number(cli, "limit", 100, 1, 1000000000, &limit);
    filter->after_id = (int64_t)after;
    filter->limit = (size_t)limit;
    return err;
}

wb_err service_cli_outbox_ls(struct cli *cli)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    struct outbox_filter filter = {.after_id = 0};
    struct db *db = NULL;
    wb_err err = read_filter(cli, &filter);

    if (err == WB_OK)
        err = service_cli_outbox_open(cli, &options, &db);
    if (err != WB_OK)
        return err;
    if (!cli->json)
        wb_buf_str(&cli->out, "      ID       AGE  STATE      TRIES  SUBJECT  ERROR\n");
    err =
        outbox_retention_archive_is(db_handle(db))
            ? outbox_retention_archive_list(db_handle(db), &filter, print_archived, cli, &cli->why)
            : outbox_list(db_handle(db), &filter, print_row, cli, &cli->why);
    if (err != WB_OK)
        wb_buf_clear(&cli->out);
    db_close(db);
    return err;
}

/* ---- show ------------------------------------------------------------------------------------ */

/* The row as the message it is, or will be, on the bus. */
static struct event_bus_delivery as_message(const struct outbox_row *row, const char *id,
                                            struct message_header *headers)
{
    struct event_bus_delivery delivery = {.stream = row->stream,
                                          .stored_wall_ns = row->created_wall_ns};

    delivery.message = (struct message){
        .subject = row->subject, .payload = row->payload, .headers = headers, .msg_id = wb_str(id)};
    /* What a hand-written row has there may be no headers at all; then the row's error says so. */
    if (message_headers_parse(row->headers, headers, &delivery.message.header_count, NULL) != WB_OK)
        delivery.message.header_count = 0;
    return delivery;
}

static void show_text(struct wb_buf *out, const struct outbox_row *row, const char *id,
                      const struct message *msg)
{
    wb_buf_printf(out, "row      %" PRId64 "\nid       %s\nstate    %s\n", row->id, id,
                  outbox_state_name(row->state));
    service_cli_text_field(out, "subject", row->subject);
    service_cli_text_field(out, "stream", row->stream);
    service_cli_text_field(out, "key", row->key);
    service_cli_text_time(out, "created", row->created_wall_ns);
    service_cli_text_time(out, "due", row->due_wall_ns);
    service_cli_text_time(out, "expires", row->expires_wall_ns);
    if (row->attempts > 0)
        wb_buf_printf(out, "tries    %u\n", row->attempts);
    service_cli_text_time(out, "next", row->next_wall_ns);
    service_cli_text_field(out, "error", row->error);
    service_cli_text_field(out, "trace", row->traceparent);
    wb_buf_printf(out, "payload  %zu B\n", row->payload.len);
    service_cli_message_print(out, msg);
}

static bool show_row(void *ctx, const struct outbox_row *row)
{
    struct cli *cli = ctx;
    struct message_header headers[MESSAGE_HEADERS_MAX];
    char id[WB_ID_TEXT];

    wb_hex_encode(row->msg_id, WB_ID_SIZE, id);
    struct event_bus_delivery delivery = as_message(row, id, headers);
    if (cli->json) {
        print_row_json(&cli->out, row);
        service_cli_json_text(&cli->out, "traceparent", row->traceparent);
        wb_buf_str(&cli->out, ",\"message\":");
        service_delivery_json(&delivery, &cli->out);
        wb_buf_str(&cli->out, "}\n");
    } else if (service_cli_option(cli, "raw") != NULL) {
        wb_buf_add(&cli->out, row->payload.ptr, row->payload.len);
    } else {
        show_text(&cli->out, row, id, &delivery.message);
    }
    return true;
}

static bool show_archived(void *ctx, const struct outbox_retention_archive_row *archived)
{
    return show_row(ctx, &archived->row);
}

wb_err service_cli_outbox_show(struct cli *cli)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    struct db *db = NULL;
    wb_err err = service_cli_outbox_open(cli, &options, &db);

    if (err != WB_OK)
        return err;
    struct wb_str id = wb_str(cli->operands[0]);
    err = outbox_retention_archive_is(db_handle(db))
              ? outbox_retention_archive_show(db_handle(db), id, show_archived, cli, &cli->why)
              : outbox_show(db_handle(db), id, show_row, cli, &cli->why);
    db_close(db);
    return err;
}
