/* cli_dead_letter_import.c - dlq import: what dlq export has written. */
#include "cli_dead_letter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli_message.h"
#include "cli_outbox.h"

#define CHUNK    100        /* letters in one transaction */
#define LINE_MAX (96 << 20) /* bytes of a line: the largest payload in base64, and the rest */

/* Lines that wait to be written together. The letters are views of what is beside them. */
struct chunk {
    struct dead_letter letters[CHUNK];
    json_t *roots[CHUNK];
    struct wb_buf payloads[CHUNK];
    size_t count;
};

struct import {
    struct cli *cli;
    struct db *db;
    struct chunk chunk;
    size_t line;
    struct dead_letter_import_result sum;
};

static void chunk_clear(struct chunk *chunk)
{
    for (size_t i = 0; i < chunk->count; i++) {
        json_decref(chunk->roots[i]);
        wb_buf_free(&chunk->payloads[i]);
    }
    chunk->count = 0;
}

/* ---- one line -------------------------------------------------------------------------------- */

static struct wb_str text_of(const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, name);

    return wb_str_n(json_string_value(value), json_string_length(value));
}

static int64_t time_of(const json_t *root, const char *name)
{
    int64_t wall_ns = 0;

    (void)wb_time_parse(text_of(root, name), &wall_ns);
    return wall_ns;
}

static wb_err letter_invalid(struct import *self, const char *what)
{
    return wb_fail(&self->cli->why, WB_INVALID,
                   "line %zu: %s; expected a line of 'dlq export'; letters of earlier lines may be "
                   "in already, and do not come twice when you try again",
                   self->line, what);
}

static wb_err payload_read(struct import *self, const json_t *root, struct wb_buf *room,
                           struct dead_letter *letter)
{
    struct wb_str text = text_of(root, "payload");

    if (json_object_get(root, "payload_base64") != NULL) {
        if (!service_cli_base64_decode(text_of(root, "payload_base64"), room))
            return letter_invalid(self, "payload_base64 is not Base64");
        text = wb_str_n(room->ptr, room->len);
    } else if (!json_is_string(json_object_get(root, "payload"))) {
        return letter_invalid(self, "there is no payload");
    }
    letter->payload = (struct wb_bytes){text.ptr, text.len};
    return WB_OK;
}

static wb_err letter_read(struct import *self, const json_t *root, struct wb_buf *room,
                          struct dead_letter *ret_letter)
{
    struct dead_letter letter = {
        .consumer = text_of(root, "consumer"),
        .stream = text_of(root, "stream"),
        .subject = text_of(root, "subject"),
        .key = text_of(root, "key"),
        .headers = text_of(root, "headers"),
        .msg_id = text_of(root, "msg_id"),
        .source = text_of(root, "source"),
        .row_id = json_integer_value(json_object_get(root, "row")),
        .sequence = (uint64_t)json_integer_value(json_object_get(root, "sequence")),
        .failures = (uint32_t)json_integer_value(json_object_get(root, "failures")),
        .created_wall_ns = time_of(root, "created"),
        .at_wall_ns = time_of(root, "at"),
        .reason = text_of(root, "reason"),
        .edited = json_is_true(json_object_get(root, "edited")),
        .redacted = json_is_true(json_object_get(root, "redacted")),
    };

    if (dead_letter_id_parse(text_of(root, "id"), &letter.kind, &letter.number, NULL) != WB_OK)
        return letter_invalid(self, "there is no id of a letter");
    wb_err err = payload_read(self, root, room, &letter);
    if (err == WB_OK)
        *ret_letter = letter;
    return err;
}

static wb_err chunk_write(struct import *self)
{
    struct dead_letter_import_result result = {.taken = 0};
    const struct dead_letter_act act = {.command = wb_str(self->cli->title),
                                        .reason = wb_str(service_cli_option(self->cli, "reason")),
                                        .clock = wb_clock_system()};
    wb_err err = dead_letter_import(self->db, self->chunk.letters, self->chunk.count, &act, &result,
                                    &self->cli->why);

    self->sum.taken += result.taken;
    self->sum.known += result.known;
    chunk_clear(&self->chunk);
    return err;
}

static wb_err line_take(struct import *self, struct wb_str line)
{
    struct chunk *chunk = &self->chunk;
    json_t *root = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);

    if (!json_is_object(root)) {
        json_decref(root);
        return letter_invalid(self, "it is no JSON object");
    }
    size_t at = chunk->count++;
    chunk->roots[at] = root;
    chunk->payloads[at] = (struct wb_buf){.ptr = NULL};
    wb_err err = letter_read(self, root, &chunk->payloads[at], &chunk->letters[at]);
    return err == WB_OK && chunk->count == CHUNK ? chunk_write(self) : err;
}

/* ---- the file -------------------------------------------------------------------------------- */

static wb_err lines_take(struct import *self, FILE *file)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t len;
    wb_err err = WB_OK;

    while (err == WB_OK && (len = getline(&line, &capacity, file)) > 0) {
        self->line++;
        if (len > LINE_MAX)
            err = letter_invalid(self, "it is too long");
        else if (strspn(line, " \t\r\n") < (size_t)len)
            err = line_take(self, wb_str_n(line, (size_t)len));
    }
    if (err == WB_OK && ferror(file) != 0)
        err = wb_fail(&self->cli->why, WB_IO, "read dead letters: %s", strerror(errno));
    if (err == WB_OK && self->chunk.count > 0)
        err = chunk_write(self);
    chunk_clear(&self->chunk);
    free(line);
    return err;
}

static wb_err file_open(struct cli *cli, FILE **ret_file)
{
    const char *path = cli->operands[0];

    path += path[0] == '@' ? 1 : 0;
    *ret_file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (*ret_file != NULL)
        return WB_OK;
    return wb_fail(&cli->why, errno == ENOENT ? WB_NOT_FOUND : WB_IO, "open '%s': %s", path,
                   strerror(errno));
}

wb_err service_cli_dlq_import(struct cli *cli)
{
    const struct db_options options = {.must_exist = true};
    struct import *self = calloc(1, sizeof(*self));
    FILE *file = NULL;
    wb_err err = self != NULL ? file_open(cli, &file) : WB_NOMEM;

    if (err == WB_OK) {
        self->cli = cli;
        err = service_cli_outbox_open(cli, &options, &self->db);
    }
    if (err == WB_OK)
        err = lines_take(self, file);
    if (err == WB_OK)
        wb_buf_printf(&cli->out,
                      cli->json ? "{\"taken\":%zu,\"known\":%zu}\n"
                                : "took %zu letters in, %zu were known\n",
                      self->sum.taken, self->sum.known);
    if (file != NULL && file != stdin)
        (void)fclose(file);
    db_close(self != NULL ? self->db : NULL);
    free(self);
    return err;
}
