/* cli_outbox_explain.c - the life of one event, from its transaction to its consumers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/event_bus_factory.h>

#include "cli_explain.h"
#include "cli_print.h"

struct explain_incident {
    int64_t id, at_wall_ns;
    char kind[32], detail[400];
};

struct explain {
    struct cli *cli;
    struct wb_buf row_json, row_text; /* the row, printed while it could be seen */
    int64_t row_id, created_wall_ns;
    char stream[EVENT_BUS_NAME_MAX + 1]; /* "": not known without asking the bus */
    char subject[256];
    bool published;
    struct outbox_trail trail;
    bool asked, verified;
    struct explain_search search;
    struct explain_incident incidents[EXPLAIN_INCIDENTS];
    size_t incident_count;
    struct explain_consumer consumers[EXPLAIN_CONSUMERS];
    size_t consumer_count;
    bool consumers_asked;
};

/* ---- the row --------------------------------------------------------------------------------- */

static void row_json(struct wb_buf *out, const struct outbox_row *row, const char *msg_id)
{
    wb_buf_printf(out, "{\"id\":%" PRId64 ",\"msg_id\":\"%s\",\"state\":\"%s\"", row->id, msg_id,
                  outbox_state_name(row->state));
    service_cli_json_text(out, "subject", row->subject);
    service_cli_json_text(out, "stream", row->stream);
    service_cli_json_text(out, "key", row->key);
    wb_buf_printf(out, ",\"bytes\":%zu", row->payload.len);
    service_cli_json_text(out, "traceparent", row->traceparent);
    service_cli_json_time(out, "created", row->created_wall_ns);
    service_cli_json_time(out, "due", row->due_wall_ns);
    service_cli_json_time(out, "expires", row->expires_wall_ns);
    wb_buf_printf(out, ",\"attempts\":%u", row->attempts);
    service_cli_json_time(out, "next", row->next_wall_ns);
    service_cli_json_text(out, "error", row->error);
}

static void row_text(struct wb_buf *out, const struct outbox_row *row, const char *msg_id)
{
    wb_buf_printf(out, "row      %" PRId64 "\nid       %s\n", row->id, msg_id);
    service_cli_text_field(out, "subject", row->subject);
    service_cli_text_field(out, "key", row->key);
    wb_buf_printf(out, "bytes    %zu\n", row->payload.len);
    service_cli_text_field(out, "trace", row->traceparent);
    service_cli_text_time(out, "written", row->created_wall_ns);
    service_cli_text_time(out, "due", row->due_wall_ns);
    service_cli_text_time(out, "expires", row->expires_wall_ns);
    wb_buf_printf(out, "state    %s\n", outbox_state_name(row->state));
    if (row->attempts > 0)
        wb_buf_printf(out, "tries    %u\n", row->attempts);
    service_cli_text_time(out, "next", row->next_wall_ns);
    service_cli_text_field(out, "error", row->error);
}

static bool take_row(void *ctx, const struct outbox_row *row)
{
    struct explain *self = ctx;
    char msg_id[WB_ID_TEXT];

    wb_hex_encode(row->msg_id, WB_ID_SIZE, msg_id);
    self->row_id = row->id;
    self->created_wall_ns = row->created_wall_ns;
    self->published = row->state == OUTBOX_PUBLISHED;
    (void)snprintf(self->stream, sizeof(self->stream), "%.*s", (int)row->stream.len,
                   row->stream.ptr);
    (void)snprintf(self->subject, sizeof(self->subject), "%.*s", (int)row->subject.len,
                   row->subject.ptr);
    row_json(&self->row_json, row, msg_id);
    row_text(&self->row_text, row, msg_id);
    return false;
}

/* The stream of a row that names none, as long as only one was published to. */
static wb_err read_status(struct explain *self, struct db *db)
{
    struct outbox_status status;
    wb_err err = outbox_status(db_handle(db), &status, &self->cli->why);

    if (err != WB_OK)
        return err;
    if (self->stream[0] == '\0' && status.stream_count == 1)
        (void)snprintf(self->stream, sizeof(self->stream), "%s", status.streams[0].stream);
    for (size_t i = 0; i < status.stream_count; i++)
        if (strcmp(status.streams[i].stream, self->stream) == 0)
            self->verified = self->published && status.streams[i].verified_id >= self->row_id;
    return WB_OK;
}

static bool take_incident(void *ctx, const struct outbox_incident *incident)
{
    struct explain *self = ctx;

    if (!wb_str_eq(incident->stream, wb_str(self->stream)) ||
        incident->at_wall_ns < self->created_wall_ns)
        return true;
    /* Of many, the newest. */
    size_t at =
        self->incident_count < EXPLAIN_INCIDENTS ? self->incident_count++ : EXPLAIN_INCIDENTS - 1;
    if (at == EXPLAIN_INCIDENTS - 1)
        memmove(&self->incidents[0], &self->incidents[1], at * sizeof(self->incidents[0]));
    struct explain_incident *one = &self->incidents[at];
    one->id = incident->id;
    one->at_wall_ns = incident->at_wall_ns;
    (void)snprintf(one->kind, sizeof(one->kind), "%.*s", (int)incident->kind.len,
                   incident->kind.ptr);
    (void)snprintf(one->detail, sizeof(one->detail), "%.*s", (int)incident->detail.len,
                   incident->detail.ptr);
    return true;
}

static wb_err read_database(struct explain *self)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    struct cli *cli = self->cli;
    struct db *db = NULL;
    wb_err err = service_cli_outbox_open(cli, &options, &db);

    if (err != WB_OK)
        return err;
    err = outbox_show(db_handle(db), wb_str(cli->operands[0]), take_row, self, &cli->why);
    if (err == WB_OK)
        err = outbox_trail(db_handle(db), self->row_id, &self->trail, &cli->why);
    if (err == WB_OK)
        err = read_status(self, db);
    if (err == WB_OK)
        err = outbox_incidents(db_handle(db), 0, 10000, take_incident, self, &cli->why);
    db_close(db);
    return err;
}

/* ---- the stream and the consumers ------------------------------------------------------------ */

static wb_err ask_bus(struct explain *self)
{
    struct cli *cli = self->cli;
    struct event_bus *bus = NULL;

    if (strcmp(config_str(cli->config, "bus"), "memory") == 0) /* it would know nothing */
        return WB_OK;
    wb_err err = event_bus_factory_create(cli->config, NULL, true, &bus, &cli->why);
    if (err == WB_OK && self->stream[0] == '\0')
        err = event_bus_stream_for(bus, wb_str(self->subject), self->stream, &cli->why);
    if (err == WB_OK)
        err = service_cli_explain_search(bus, self->stream, self->trail.source, self->row_id,
                                         &self->search, &cli->why);
    event_bus_destroy(bus);
    self->asked = err == WB_OK;
    return err == WB_NO_STREAM ? WB_OK : err;
}

static wb_err ask_consumers(struct explain *self)
{
    struct cli *cli = self->cli;
    char event[64];
    wb_err err;

    (void)snprintf(event, sizeof(event), "%s/%" PRId64, self->trail.source, self->row_id);
    err = service_cli_explain_consumers(config_str(cli->config, "data"), event, self->consumers,
                                        EXPLAIN_CONSUMERS, &self->consumer_count, &cli->why);
    self->consumers_asked = err == WB_OK;
    /* Unless it was named, there need not be a data directory. */
    return err == WB_NOT_FOUND && service_cli_option(cli, "data") == NULL ? WB_OK : err;
}

/* ---- as JSON --------------------------------------------------------------------------------- */

static void stores_json(struct wb_buf *out, const struct explain *self)
{
    const struct explain_search *search = &self->search;

    if (!self->asked) {
        wb_buf_str(out, ",\"sent\":null");
        return;
    }
    wb_buf_str(out, ",\"sent\":{\"stream\":");
    wb_buf_json_str(out, wb_str(search->stream));
    wb_buf_printf(out, ",\"from\":%" PRIu64 ",\"to\":%" PRIu64 ",\"stored\":[", search->from,
                  search->to);
    for (size_t i = 0; i < search->count; i++) {
        wb_buf_printf(out, "%s{\"sequence\":%" PRIu64, i > 0 ? "," : "",
                      search->stores[i].sequence);
        service_cli_json_time(out, "time", search->stores[i].stored_wall_ns);
        service_cli_json_text(out, "msg_id", wb_str(search->stores[i].msg_id));
        wb_buf_str(out, "}");
    }
    wb_buf_str(out, "]}");
}

static void consumers_json(struct wb_buf *out, const struct explain *self)
{
    if (!self->consumers_asked) {
        wb_buf_str(out, ",\"consumers\":null");
        return;
    }
    wb_buf_str(out, ",\"consumers\":[");
    for (size_t i = 0; i < self->consumer_count; i++) {
        const struct explain_consumer *one = &self->consumers[i];
        wb_buf_str(out, i > 0 ? ",{\"db\":" : "{\"db\":");
        wb_buf_json_str(out, wb_str(one->file));
        service_cli_json_text(out, "consumer", wb_str(one->name));
        wb_buf_printf(out, ",\"handled\":%s,\"failures\":%u,\"retry\":%s,\"dead_letter\":",
                      one->handled ? "true" : "false", one->failures,
                      one->retry ? "true" : "false");
        if (one->letter > 0)
            wb_buf_printf(out, "%" PRId64, one->letter);
        else
            wb_buf_str(out, "null");
        service_cli_json_text(out, "reason", wb_str(one->reason));
        wb_buf_str(out, "}");
    }
    wb_buf_str(out, "]");
}

static void print_json(struct wb_buf *out, const struct explain *self)
{
    const struct outbox_trail *trail = &self->trail;

    wb_buf_add(out, self->row_json.ptr, self->row_json.len);
    service_cli_json_text(out, "source", wb_str(trail->source));
    service_cli_json_time(out, "edited", trail->edited_wall_ns);
    wb_buf_printf(out, ",\"crashes\":%u,\"suspect\":%s,\"verified\":%s", trail->crashes,
                  trail->suspect ? "true" : "false", self->verified ? "true" : "false");
    if (trail->late_seq > 0)
        wb_buf_printf(out, ",\"late\":%" PRIu64, trail->late_seq);
    else
        wb_buf_str(out, ",\"late\":null");
    wb_buf_str(out, ",\"replays\":[");
    for (size_t i = 0; i < trail->replay_count; i++)
        wb_buf_printf(out, "%s%" PRId64, i > 0 ? "," : "", trail->replays[i]);
    wb_buf_str(out, "]");
    stores_json(out, self);
    wb_buf_str(out, ",\"incidents\":[");
    for (size_t i = 0; i < self->incident_count; i++) {
        wb_buf_printf(out, "%s{\"id\":%" PRId64, i > 0 ? "," : "", self->incidents[i].id);
        service_cli_json_time(out, "time", self->incidents[i].at_wall_ns);
        service_cli_json_text(out, "kind", wb_str(self->incidents[i].kind));
        service_cli_json_text(out, "detail", wb_str(self->incidents[i].detail));
        wb_buf_str(out, "}");
    }
    wb_buf_str(out, "]");
    consumers_json(out, self);
    wb_buf_str(out, "}\n");
}

/* ---- as text --------------------------------------------------------------------------------- */

static void stores_text(struct wb_buf *out, const struct explain *self)
{
    const struct explain_search *search = &self->search;
    char time[32];

    if (!self->asked) {
        wb_buf_str(out, "stream   not asked: name its server with -s URL\n");
        return;
    }
    for (size_t i = 0; i < search->count; i++) {
        wb_time_format(search->stores[i].stored_wall_ns, time);
        wb_buf_printf(out, "stored   %s  sequence %" PRIu64 " of stream ", time,
                      search->stores[i].sequence);
        wb_buf_printable(out, wb_str(search->stream));
        wb_buf_str(out, i > 0 ? "  again\n" : "\n");
    }
    if (search->count > 0)
        return;
    wb_buf_str(out, "stored   not found in stream ");
    wb_buf_printable(out, wb_str(search->stream));
    wb_buf_printf(out,
                  " between sequences %" PRIu64 " and %" PRIu64 " (it holds %" PRIu64 " to %" PRIu64
                  ")\n",
                  search->from, search->to, search->first_seq, search->last_seq);
}

static void consumers_text(struct wb_buf *out, const struct explain *self)
{
    for (size_t i = 0; i < self->consumer_count; i++) {
        const struct explain_consumer *one = &self->consumers[i];
        wb_buf_str(out, "consumer ");
        wb_buf_printable(out, wb_str(one->name));
        wb_buf_str(out, " in ");
        wb_buf_printable(out, wb_str(one->file));
        if (one->letter > 0)
            wb_buf_printf(out, "  dead letter %" PRId64 "%s", one->letter,
                          one->retry ? ", to be handled again" : "");
        else
            wb_buf_str(out, one->handled        ? "  handled"
                            : one->failures > 0 ? "  failing"
                                                : "  not handled");
        if (one->failures > 0)
            wb_buf_printf(out, "  failures %u", one->failures);
        if (one->reason[0] != '\0') {
            wb_buf_str(out, "  ");
            wb_buf_printable(out, wb_str(one->reason));
        }
        wb_buf_str(out, "\n");
    }
}

static void print_text(struct wb_buf *out, const struct explain *self)
{
    const struct outbox_trail *trail = &self->trail;
    char time[32];

    wb_buf_add(out, self->row_text.ptr, self->row_text.len);
    service_cli_text_field(out, "source", wb_str(trail->source));
    service_cli_text_time(out, "edited", trail->edited_wall_ns);
    if (trail->crashes > 0)
        wb_buf_printf(out, "crashes  %u\n", trail->crashes);
    if (trail->suspect)
        wb_buf_str(out, "suspect  it is being sent by itself\n");
    stores_text(out, self);
    if (trail->late_seq > 0)
        wb_buf_printf(out, "late     behind younger rows, about sequence %" PRIu64 "\n",
                      trail->late_seq);
    if (self->published)
        wb_buf_printf(out, "verified %s\n",
                      self->verified ? "read back from the stream" : "not yet");
    for (size_t i = 0; i < trail->replay_count; i++)
        wb_buf_printf(out, "replayed by row %" PRId64 "\n", trail->replays[i]);
    for (size_t i = 0; i < self->incident_count; i++) {
        wb_time_format(self->incidents[i].at_wall_ns, time);
        wb_buf_printf(out, "incident %s  ", time);
        wb_buf_printable(out, wb_str(self->incidents[i].kind));
        wb_buf_str(out, "  ");
        wb_buf_printable(out, wb_str(self->incidents[i].detail));
        wb_buf_str(out, "\n");
    }
    consumers_text(out, self);
}

/* ---- the command ----------------------------------------------------------------------------- */

wb_err service_cli_outbox_explain(struct cli *cli)
{
    struct explain *self = calloc(1, sizeof(*self));
    wb_err err = self != NULL ? WB_OK : WB_NOMEM;

    if (err == WB_OK) {
        self->cli = cli;
        err = read_database(self);
    }
    if (err == WB_OK)
        err = ask_bus(self);
    if (err == WB_OK)
        err = ask_consumers(self);
    if (err == WB_OK && cli->json)
        print_json(&cli->out, self);
    else if (err == WB_OK)
        print_text(&cli->out, self);
    if (self != NULL) {
        wb_buf_free(&self->row_json);
        wb_buf_free(&self->row_text);
    }
    free(self);
    return err;
}
