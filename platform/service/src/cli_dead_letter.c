/* cli_dead_letter.c - dead letters looked at: dlq ls, groups, show, export. */
#include "cli_dead_letter.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <waybill/operator_log.h>

#include "cli_outbox.h"
#include "cli_print.h"
#include "service_json.h"

/* ---- what the commands share ----------------------------------------------------------------- */

static wb_err query_read(struct cli_letters *letters, uint64_t limit)
{
    struct cli *cli = letters->cli;
    struct dead_letter_query *query = &letters->query;
    const char *where = service_cli_option(cli, "where");
    dead_letter_kind kind;
    int64_t number;
    wb_err err = service_cli_number(cli, "limit", limit, 1, DEAD_LETTER_SELECTION_MAX, &limit);

    query->consumer = wb_str(service_cli_option(cli, "consumer"));
    query->after = wb_str(service_cli_option(cli, "after"));
    query->limit = (size_t)limit;
    query->now_wall_ns = wb_wall_ns(wb_clock_system());
    if (err == WB_OK && query->after.len > 0)
        err = dead_letter_id_parse(query->after, &kind, &number, &cli->why);
    if (err == WB_OK && where != NULL)
        err = filter_parse(wb_str(where), dead_letter_fields, dead_letter_field_count,
                           &letters->filter, &cli->why);
    query->filter = letters->filter;
    return err;
}

wb_err service_cli_letters_open(struct cli *cli, bool writes, uint64_t limit,
                                struct cli_letters *letters)
{
    const struct db_options options = {.must_exist = true, .read_only = !writes};

    *letters = (struct cli_letters){.cli = cli};
    wb_err err = query_read(letters, limit);
    if (err == WB_OK)
        err = service_cli_outbox_open(cli, &options, &letters->db);
    return err;
}

void service_cli_letters_close(struct cli_letters *letters)
{
    dead_letter_redaction_destroy(letters->redaction);
    db_close(letters->db);
    filter_destroy(letters->filter);
}

/* Before anything is shown: nobody sees what no line tells of. */
static wb_err reveal_log(struct cli_letters *letters, const char *target)
{
    struct cli *cli = letters->cli;
    char command[100];

    (void)snprintf(command, sizeof(command), "%s --reveal", cli->title);
    wb_err err = db_begin(letters->db, &cli->why);
    if (err == WB_OK) {
        err = operator_log_add(
            db_handle(letters->db),
            &(struct operator_log_entry){.command = wb_str(command), .target = wb_str(target)},
            &cli->why);
        if (err == WB_OK)
            err = db_commit(letters->db, &cli->why);
        db_rollback(letters->db);
    }
    return err;
}

wb_err service_cli_letters_redact(struct cli_letters *letters, const char *target)
{
    struct cli *cli = letters->cli;
    const char *names = config_str(cli->config, "dead_letter.redact");
    wb_err err = WB_OK;

    if (service_cli_option(cli, "reveal") != NULL)
        return reveal_log(letters, target);
    if (names != NULL && names[0] != '\0')
        err = dead_letter_redaction_create(letters->db, wb_str(names), &letters->redaction,
                                           &cli->why);
    letters->query.redaction = letters->redaction;
    return err;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

void service_cli_letter_json(struct wb_buf *out, const struct dead_letter *letter, bool whole)
{
    char id[DEAD_LETTER_ID_TEXT];

    dead_letter_id_format(letter->kind, letter->number, id);
    wb_buf_printf(out, "{\"id\":\"%s\",\"kind\":\"%s\"", id,
                  letter->kind == DEAD_LETTER_PUBLISHER ? "publisher" : "consumer");
    service_cli_json_text(out, "state", letter->state);
    service_cli_json_text(out, "consumer", letter->consumer);
    service_cli_json_text(out, "stream", letter->stream);
    service_cli_json_text(out, "subject", letter->subject);
    service_cli_json_text(out, "key", letter->key);
    service_cli_json_text(out, "msg_id", letter->msg_id);
    service_cli_json_text(out, "source", letter->source);
    wb_buf_printf(out, ",\"row\":%" PRId64 ",\"sequence\":%" PRIu64 ",\"failures\":%u",
                  letter->row_id, letter->sequence, letter->failures);
    service_cli_json_time(out, "created", letter->created_wall_ns);
    service_cli_json_time(out, "at", letter->at_wall_ns);
    service_cli_json_time(out, "next", letter->next_wall_ns);
    service_cli_json_text(out, "reason", letter->reason);
    service_cli_json_text(out, "fingerprint", wb_str(letter->fingerprint));
    wb_buf_printf(out, ",\"edited\":%s,\"size\":%zu", letter->edited ? "true" : "false",
                  letter->size);
    if (whole) {
        wb_buf_printf(out, ",\"redacted\":%s", letter->redacted ? "true" : "false");
        service_cli_json_text(out, "headers", letter->headers);
        service_json_payload(letter->payload, out);
    }
    wb_buf_str(out, "}");
}

/* ---- ls -------------------------------------------------------------------------------------- */

static bool print_letter(void *ctx, const struct dead_letter *letter)
{
    struct cli *cli = ctx;
    struct wb_buf *out = &cli->out;
    char id[DEAD_LETTER_ID_TEXT], age[24];

    if (cli->json) {
        service_cli_letter_json(out, letter, false);
        wb_buf_str(out, "\n");
        return service_cli_flush(cli) == WB_OK;
    }
    dead_letter_id_format(letter->kind, letter->number, id);
    service_cli_outbox_age(letter->at_wall_ns, age);
    wb_buf_printf(out, "%8s  %8s  %-7.*s  %5u  ", id, age, (int)letter->state.len,
                  letter->state.ptr, letter->failures);
    wb_buf_printable(out, letter->consumer.len > 0 ? letter->consumer : wb_str("-"));
    wb_buf_str(out, "  ");
    wb_buf_printable(out, letter->subject);
    wb_buf_str(out, "  ");
    wb_buf_printable(out, letter->key.len > 0 ? letter->key : wb_str("-"));
    wb_buf_str(out, "  ");
    wb_buf_printable(out, letter->reason);
    wb_buf_str(out, "\n");
    return service_cli_flush(cli) == WB_OK;
}

wb_err service_cli_dlq_ls(struct cli *cli)
{
    struct cli_letters letters;
    wb_err err = service_cli_letters_open(cli, false, 100, &letters);

    if (err == WB_OK) {
        if (!cli->json)
            wb_buf_str(&cli->out,
                       "      ID       AGE  STATE    TRIES  CONSUMER  SUBJECT  KEY  REASON\n");
        err = dead_letter_list(letters.db, &letters.query, print_letter, cli, &cli->why);
    }
    if (err != WB_OK)
        wb_buf_clear(&cli->out);
    service_cli_letters_close(&letters);
    return err;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static bool print_group(void *ctx, const struct dead_letter_group *group)
{
    struct cli *cli = ctx;
    struct wb_buf *out = &cli->out;
    char oldest[24], newest[24];

    if (cli->json) {
        wb_buf_printf(out, "{\"fingerprint\":\"%s\",\"count\":%" PRIu64 ",\"blocked\":%" PRIu64,
                      group->fingerprint, group->count, group->blocked);
        service_cli_json_time(out, "oldest", group->oldest_wall_ns);
        service_cli_json_time(out, "newest", group->newest_wall_ns);
        service_cli_json_text(out, "example", wb_str(group->example));
        service_cli_json_text(out, "subject", group->subject);
        service_cli_json_text(out, "reason", group->reason);
        wb_buf_str(out, "}\n");
        return service_cli_flush(cli) == WB_OK;
    }
    service_cli_outbox_age(group->oldest_wall_ns, oldest);
    service_cli_outbox_age(group->newest_wall_ns, newest);
    wb_buf_printf(out, "%8" PRIu64 "  %8s  %8s  %s  %8s  ", group->count, oldest, newest,
                  group->fingerprint, group->example);
    wb_buf_printable(out, group->subject);
    wb_buf_str(out, "  ");
    wb_buf_printable(out, group->reason);
    wb_buf_str(out, "\n");
    return service_cli_flush(cli) == WB_OK;
}

wb_err service_cli_dlq_groups(struct cli *cli)
{
    struct cli_letters letters;
    wb_err err = service_cli_letters_open(cli, false, 100, &letters);

    if (err == WB_OK) {
        if (!cli->json)
            wb_buf_str(&cli->out, "   COUNT    OLDEST    NEWEST  FINGERPRINT        EXAMPLE  "
                                  "SUBJECT  REASON\n");
        err = dead_letter_groups(letters.db, &letters.query, print_group, cli, &cli->why);
    }
    if (err != WB_OK)
        wb_buf_clear(&cli->out);
    service_cli_letters_close(&letters);
    return err;
}

/* ---- show ------------------------------------------------------------------------------------ */

/* The header lines, or what stands in their place, indented. */
static void show_lines(struct wb_buf *out, struct wb_str text)
{
    size_t at = 0;

    while (at < text.len) {
        const char *line = text.ptr + at;
        const char *end = memchr(line, '\n', text.len - at);
        size_t len = end != NULL ? (size_t)(end - line) : text.len - at;
        wb_buf_str(out, "   ");
        wb_buf_printable(out, wb_str_n(line, len));
        wb_buf_str(out, "\n");
        at += len + 1;
    }
}

static void show_text(struct wb_buf *out, const struct dead_letter *letter)
{
    char id[DEAD_LETTER_ID_TEXT];

    dead_letter_id_format(letter->kind, letter->number, id);
    service_cli_text_field(out, "letter", wb_str(id));
    service_cli_text_field(out, "state", letter->state);
    if (letter->behind > 0)
        wb_buf_printf(out, "behind   p%" PRId64 "\n", letter->behind);
    service_cli_text_field(out, "consumer", letter->consumer);
    service_cli_text_field(out, "subject", letter->subject);
    service_cli_text_field(out, "stream", letter->stream);
    service_cli_text_field(out, "key", letter->key);
    service_cli_text_field(out, "id", letter->msg_id);
    if (letter->row_id > 0)
        wb_buf_printf(out, "row      %" PRId64 " of %.*s\n", letter->row_id,
                      (int)letter->source.len, letter->source.ptr);
    if (letter->sequence > 0)
        wb_buf_printf(out, "sequence %" PRIu64 "\n", letter->sequence);
    service_cli_text_time(out, "created", letter->created_wall_ns);
    if (letter->kind == DEAD_LETTER_CONSUMER)
        service_cli_text_time(out, "parked", letter->at_wall_ns);
    service_cli_text_time(out, "next", letter->next_wall_ns);
    wb_buf_printf(out, "failures %u\n", letter->failures);
    service_cli_text_field(out, "reason", letter->reason);
    service_cli_text_field(out, "group", wb_str(letter->fingerprint));
    if (letter->edited)
        wb_buf_str(out, "edited   yes: this is what will be sent\n");
    wb_buf_printf(out, "payload  %zu B%s\n", letter->size,
                  letter->redacted ? ", fields hidden" : "");
    show_lines(out, letter->headers);
    if (letter->payload.len > 0) {
        wb_buf_str(out, "   ");
        wb_buf_printable(out, wb_str_n(letter->payload.ptr, letter->payload.len));
        wb_buf_str(out, "\n");
    }
}

/* What was done to the letter by hand, the newest first. */
struct history {
    struct cli *cli;
    struct wb_buf lines;
};

static bool history_line(void *ctx, const struct operator_log_entry *entry)
{
    struct history *self = ctx;
    char time[32];

    wb_time_format(entry->at_wall_ns, time);
    if (self->cli->json) {
        wb_buf_str(&self->lines, self->lines.len > 0 ? ",{\"at\":" : "{\"at\":");
        wb_buf_json_str(&self->lines, wb_str(time));
        service_cli_json_text(&self->lines, "who", entry->who);
        service_cli_json_text(&self->lines, "command", entry->command);
        service_cli_json_text(&self->lines, "reason", entry->reason);
        wb_buf_str(&self->lines, "}");
        return true;
    }
    wb_buf_printf(&self->lines, "history  %s  ", time);
    wb_buf_printable(&self->lines, entry->who);
    wb_buf_str(&self->lines, "  ");
    wb_buf_printable(&self->lines, entry->command);
    wb_buf_str(&self->lines, entry->reason.len > 0 ? "  because: " : "");
    wb_buf_printable(&self->lines, entry->reason);
    wb_buf_str(&self->lines, "\n");
    return true;
}

/* Entries about this letter alone, and those about many whose detail has a line of it. */
static wb_err history_read(struct cli_letters *letters, struct wb_str id, struct history *history)
{
    struct filter *filter = NULL;
    char where[240];

    (void)snprintf(where, sizeof(where),
                   "target = %.*s or target ~ ' of %.*s ' or "
                   "(target ~ ' letters of ' and detail ~ '\n%.*s ')",
                   (int)id.len, id.ptr, (int)id.len, id.ptr, (int)id.len, id.ptr);
    wb_err err = filter_parse(wb_str(where), operator_log_fields, operator_log_field_count, &filter,
                              &letters->cli->why);
    if (err == WB_OK)
        err = operator_log_list(db_handle(letters->db),
                                &(struct operator_log_query){.filter = filter, .limit = 20},
                                history_line, history, &letters->cli->why);
    filter_destroy(filter);
    return err;
}

static bool show_letter(void *ctx, const struct dead_letter *letter)
{
    struct cli *cli = ctx;

    if (cli->json)
        service_cli_letter_json(&cli->out, letter, true);
    else if (service_cli_option(cli, "raw") != NULL)
        wb_buf_add(&cli->out, letter->payload.ptr, letter->payload.len);
    else
        show_text(&cli->out, letter);
    return true;
}

static void history_print(struct history *history)
{
    struct wb_buf *out = &history->cli->out;

    if (history->cli->json) { /* the letter's object gets one more member */
        out->len--;
        wb_buf_str(out, ",\"history\":[");
        wb_buf_add(out, history->lines.ptr, history->lines.len);
        wb_buf_str(out, "]}\n");
    } else {
        wb_buf_add(out, history->lines.ptr, history->lines.len);
    }
}

wb_err service_cli_dlq_show(struct cli *cli)
{
    const bool reveal = service_cli_option(cli, "reveal") != NULL;
    const bool raw = service_cli_option(cli, "raw") != NULL && !cli->json;
    struct wb_str id = wb_str(cli->operands[0]);
    struct history history = {.cli = cli};
    struct cli_letters letters;
    wb_err err = service_cli_letters_open(cli, reveal, 1, &letters);

    if (err == WB_OK)
        err = service_cli_letters_redact(&letters, cli->operands[0]);
    if (err == WB_OK)
        err = dead_letter_show(letters.db, id, letters.redaction, show_letter, cli, &cli->why);
    if (err == WB_OK && !raw)
        err = history_read(&letters, id, &history);
    if (err == WB_OK && !raw)
        history_print(&history);
    if (err != WB_OK)
        wb_buf_clear(&cli->out);
    wb_buf_free(&history.lines);
    service_cli_letters_close(&letters);
    return err;
}

/* ---- export ---------------------------------------------------------------------------------- */

static bool export_letter(void *ctx, const struct dead_letter *letter)
{
    struct cli *cli = ctx;

    service_cli_letter_json(&cli->out, letter, true);
    wb_buf_str(&cli->out, "\n");
    return service_cli_flush(cli) == WB_OK;
}

wb_err service_cli_dlq_export(struct cli *cli)
{
    const bool reveal = service_cli_option(cli, "reveal") != NULL;
    const char *where = service_cli_option(cli, "where");
    struct cli_letters letters;
    wb_err err = service_cli_letters_open(cli, reveal, DEAD_LETTER_SELECTION_MAX, &letters);

    if (err == WB_OK)
        err = service_cli_letters_redact(&letters, where != NULL ? where : "all letters");
    letters.query.payload = true;
    if (err == WB_OK)
        err = dead_letter_list(letters.db, &letters.query, export_letter, cli, &cli->why);
    service_cli_letters_close(&letters);
    return err;
}
