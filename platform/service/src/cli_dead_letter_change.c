/* cli_dead_letter_change.c - dead letters changed: dlq retry, discard, edit; outbox retry. */
#include "cli_dead_letter.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_message.h"

#define NAMES_MAX 20 /* ids a dry run names */

struct change {
    wb_err (*run)(struct db *db, const struct dead_letter_selection *selection,
                  const struct dead_letter_act *act, struct dead_letter_result *ret_result,
                  struct wb_why *why);
    const char *verb, *done; /* "retry", "retried" */
};

static const struct change retry = {dead_letter_retry, "retry", "retried"};
static const struct change discard = {dead_letter_discard, "discard", "discarded"};

/* ---- which ----------------------------------------------------------------------------------- */

static wb_err selection_append(struct cli *cli, struct dead_letter_selection *all,
                               const struct dead_letter_selection *more)
{
    size_t count = all->count + more->count;
    struct dead_letter_ref *refs = realloc(all->refs, (count + 1) * sizeof(*refs));

    if (refs == NULL)
        return wb_fail(&cli->why, WB_NOMEM, "choose dead letters: out of memory");
    if (more->count > 0)
        memcpy(refs + all->count, more->refs, more->count * sizeof(*refs));
    *all = (struct dead_letter_selection){.refs = refs, .count = count, .capacity = count + 1};
    return WB_OK;
}

/* The n-th operand as an id: for `outbox retry` the number of a row is one too. */
static struct wb_str operand_id(const struct cli_letters *letters, int index,
                                char room[DEAD_LETTER_ID_TEXT])
{
    struct wb_str text = wb_str(letters->cli->operands[index]);
    uint64_t number;

    if (!letters->query.only_publisher || !wb_str_to_u64(text, &number) || number > INT64_MAX)
        return text;
    dead_letter_id_format(DEAD_LETTER_PUBLISHER, (int64_t)number, room);
    return wb_str(room);
}

static wb_err choose(struct cli_letters *letters, struct dead_letter_selection *all)
{
    struct cli *cli = letters->cli;
    struct dead_letter_query *query = &letters->query;
    wb_err err = WB_OK;

    if (cli->operand_count == 0)
        return dead_letter_select(letters->db, query, all, &cli->why);
    query->whole_key = service_cli_option(cli, "whole-key") != NULL;
    for (int i = 0; err == WB_OK && i < cli->operand_count; i++) {
        struct dead_letter_selection one = {.count = 0};
        char room[DEAD_LETTER_ID_TEXT];
        query->id = operand_id(letters, i, room);
        err = dead_letter_select(letters->db, query, &one, &cli->why);
        if (err == WB_OK)
            err = selection_append(cli, all, &one);
        dead_letter_selection_free(&one);
    }
    return err;
}

static wb_err choice_check(struct cli *cli, const struct change *change)
{
    bool chosen =
        service_cli_option(cli, "where") != NULL || service_cli_option(cli, "consumer") != NULL;

    if (cli->operand_count == 0 && !chosen)
        return service_cli_usage(cli, "which letters? name their ids, or choose by --where FILTER");
    if (cli->operand_count > 0 && chosen)
        return service_cli_usage(cli, "either ids or a choice by --where, not both");
    if (change == &discard && service_cli_option(cli, "reason") == NULL)
        return service_cli_usage(cli, "say why with --reason TEXT; the operator log keeps it");
    return WB_OK;
}

/* ---- doing ----------------------------------------------------------------------------------- */

static void print_ids(struct wb_buf *out, const struct dead_letter_selection *selection)
{
    char id[DEAD_LETTER_ID_TEXT];

    for (size_t i = 0; i < selection->count && i < NAMES_MAX; i++) {
        dead_letter_id_format(selection->refs[i].kind, selection->refs[i].number, id);
        wb_buf_printf(out, " %s", id);
    }
    wb_buf_str(out, selection->count > NAMES_MAX ? " ...\n" : "\n");
}

static void print_result(struct cli *cli, const struct change *change,
                         const struct dead_letter_selection *selection,
                         const struct dead_letter_result *result, bool dry)
{
    struct wb_buf *out = &cli->out;

    if (cli->json) {
        wb_buf_printf(out, "{\"matched\":%zu,\"changed\":%zu,\"left\":%zu,\"dry_run\":%s}\n",
                      selection->count, result->changed, result->left, dry ? "true" : "false");
    } else if (dry) {
        wb_buf_printf(out, "would %s %zu letters:", change->verb, selection->count);
        print_ids(out, selection);
    } else {
        wb_buf_printf(out, "%s %zu of %zu letters\n", change->done, result->changed,
                      selection->count);
    }
    if (result->left > 0) {
        service_cli_talk(cli, "%zu letters were changed by somebody else meanwhile, and left",
                         result->left);
        cli->exit_code = 8;
    }
}

static wb_err change_chosen(struct cli_letters *letters, const struct change *change,
                            const struct dead_letter_selection *selection)
{
    struct cli *cli = letters->cli;
    const bool dry = service_cli_option(cli, "dry-run") != NULL;
    const struct dead_letter_act act = {.command = wb_str(cli->title),
                                        .what = wb_str(service_cli_option(cli, "where")),
                                        .reason = wb_str(service_cli_option(cli, "reason")),
                                        .clock = wb_clock_system()};
    struct dead_letter_result result = {.changed = 0};
    wb_err err = WB_OK;

    if (selection->count > 1 && !dry && service_cli_option(cli, "yes") == NULL)
        return service_cli_usage(cli, "%zu letters are meant: --yes to %s them, --dry-run to see",
                                 selection->count, change->verb);
    if (!dry)
        err = change->run(letters->db, selection, &act, &result, &cli->why);
    if (err == WB_OK)
        print_result(cli, change, selection, &result, dry);
    return err;
}

static wb_err change_letters(struct cli *cli, const struct change *change, bool only_publisher)
{
    struct dead_letter_selection selection = {.count = 0};
    struct cli_letters letters;
    wb_err err = choice_check(cli, change);

    if (err != WB_OK)
        return err;
    err = service_cli_letters_open(cli, true, DEAD_LETTER_SELECTION_MAX, &letters);
    letters.query.only_publisher = only_publisher;
    if (err == WB_OK)
        err = choose(&letters, &selection);
    if (err == WB_OK)
        err = change_chosen(&letters, change, &selection);
    dead_letter_selection_free(&selection);
    service_cli_letters_close(&letters);
    return err;
}

wb_err service_cli_dlq_retry(struct cli *cli)
{
    return change_letters(cli, &retry, false);
}

wb_err service_cli_dlq_discard(struct cli *cli)
{
    return change_letters(cli, &discard, false);
}

wb_err service_cli_outbox_retry(struct cli *cli)
{
    return change_letters(cli, &retry, true);
}

/* ---- edit ------------------------------------------------------------------------------------ */

#define REMOVE_MAX 32

static wb_err edit_run(struct cli_letters *letters, const struct cli_message *input)
{
    struct cli *cli = letters->cli;
    const char *subject_text = service_cli_option(cli, "subject");
    const struct wb_str subject = wb_str(subject_text);
    struct wb_str remove[REMOVE_MAX];
    struct dead_letter_edit edit = {.subject = subject_text != NULL ? &subject : NULL,
                                    .payload = cli->operand_count > 1 ? &input->payload : NULL,
                                    .set = input->headers,
                                    .set_count = input->header_count,
                                    .remove = remove,
                                    .redaction = letters->redaction};
    const struct dead_letter_act act = {.command = wb_str(cli->title),
                                        .reason = wb_str(service_cli_option(cli, "reason")),
                                        .clock = wb_clock_system()};
    const char *name;

    while ((name = service_cli_option_at(cli, "no-header", edit.remove_count)) != NULL) {
        if (edit.remove_count == REMOVE_MAX)
            return service_cli_usage(cli, "more than %d headers to remove", REMOVE_MAX);
        remove[edit.remove_count++] = wb_str(name);
    }
    if (edit.subject == NULL && edit.payload == NULL && edit.set_count + edit.remove_count == 0)
        return service_cli_usage(cli, "nothing to change: give a new payload, --subject, --header "
                                      "or --no-header; to try it again as it is: dlq retry");
    return dead_letter_edit(letters->db, wb_str(cli->operands[0]), &edit, &act, &cli->why);
}

wb_err service_cli_dlq_edit(struct cli *cli)
{
    struct cli_message input = {.header_count = 0};
    struct cli_letters letters;
    wb_err err = service_cli_letters_open(cli, true, 1, &letters);

    if (err == WB_OK)
        err = service_cli_letters_redact(&letters, cli->operands[0]);
    if (err == WB_OK)
        err =
            service_cli_message_read(cli, cli->operand_count > 1 ? cli->operands[1] : NULL, &input);
    if (err == WB_OK)
        err = edit_run(&letters, &input);
    if (err == WB_OK && cli->json)
        wb_buf_str(&cli->out, "{\"matched\":1,\"changed\":1,\"left\":0,\"dry_run\":false}\n");
    else if (err == WB_OK)
        wb_buf_printf(&cli->out, "mended %s, which is tried again now\n", cli->operands[0]);
    service_cli_message_free(&input);
    service_cli_letters_close(&letters);
    return err;
}
