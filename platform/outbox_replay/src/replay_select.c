/* Which rows are meant, and which of them come next. */
#include <sqlite3.h>
#include <string.h>

#include "replay.h"

#include <waybill/subject.h>

enum {
    FIELD_ID,
    FIELD_SUBJECT,
    FIELD_STREAM,
    FIELD_KEY,
    FIELD_MSG_ID,
    FIELD_HEADERS,
    FIELD_PAYLOAD,
    FIELD_SIZE,
    FIELD_AT,
    FIELD_AGE
};

const struct filter_field outbox_replay_fields[] = {
    [FIELD_ID] = {"id", FILTER_ID},
    [FIELD_SUBJECT] = {"subject", FILTER_SUBJECT},
    [FIELD_STREAM] = {"stream", FILTER_TEXT},
    [FIELD_KEY] = {"key", FILTER_TEXT},
    [FIELD_MSG_ID] = {"msg_id", FILTER_TEXT},
    [FIELD_HEADERS] = {"headers", FILTER_TEXT},
    [FIELD_PAYLOAD] = {"payload", FILTER_TEXT},
    [FIELD_SIZE] = {"size", FILTER_NUMBER},
    [FIELD_AT] = {"at", FILTER_TIME},
    [FIELD_AGE] = {"age", FILTER_AGE},
};
const size_t outbox_replay_field_count =
    sizeof(outbox_replay_fields) / sizeof(outbox_replay_fields[0]);

struct asked {
    const struct outbox_row *row;
    int64_t now_wall_ns;
    char msg_id[WB_ID_TEXT];
};

static bool field_get(void *ctx, size_t field, struct filter_value *ret_value)
{
    struct asked *asked = ctx;
    const struct outbox_row *row = asked->row;
    const struct wb_str texts[] = {
        [FIELD_SUBJECT] = row->subject,
        [FIELD_STREAM] = row->stream,
        [FIELD_KEY] = row->key,
        [FIELD_MSG_ID] = wb_str(asked->msg_id),
        [FIELD_HEADERS] = row->headers,
        [FIELD_PAYLOAD] = wb_str_n(row->payload.ptr, row->payload.len),
    };
    const int64_t numbers[] = {
        [FIELD_ID] = row->id,
        [FIELD_SIZE] = (int64_t)row->payload.len,
        [FIELD_AT] = row->created_wall_ns,
        [FIELD_AGE] = asked->now_wall_ns - row->created_wall_ns,
    };

    wb_hex_encode(row->msg_id, WB_ID_SIZE, asked->msg_id);
    bool is_text = field >= FIELD_SUBJECT && field <= FIELD_PAYLOAD;
    if (is_text)
        ret_value->text = texts[field];
    else
        ret_value->number = numbers[field];
    return !(field == FIELD_KEY && row->key.len == 0);
}

bool outbox_replay_selects(const struct outbox_replay *self, const struct replay_row *row)
{
    const struct outbox_replay_selection *want = &self->selection;
    struct asked asked = {.row = &row->row};

    if (want->since_wall_ns != 0 && row->row.created_wall_ns < want->since_wall_ns)
        return false;
    if (want->until_wall_ns != 0 && row->row.created_wall_ns >= want->until_wall_ns)
        return false;
    if (want->key.ptr != NULL && !wb_str_eq(want->key, row->row.key))
        return false;
    if (want->pattern.ptr != NULL && !(subject_check(row->row.subject, NULL) == WB_OK &&
                                       subject_matches(want->pattern, row->row.subject)))
        return false;
    if (want->filter == NULL)
        return true;
    asked.now_wall_ns = wb_wall_ns(self->clock);
    return filter_matches(want->filter, field_get, &asked);
}

/* One source while rows are picked. */
struct head {
    struct replay_source *source;
    struct replay_row row;
    bool there; /* row is the next one */
};

/* After a crash between copy and deletion a row is in both; then it counts in the table. */
static bool doubled(struct outbox_replay *self, const struct head *head)
{
    struct sqlite3_stmt *stmt = self->still_there;

    if (!head->source->archive)
        return false;
    (void)sqlite3_bind_int64(stmt, 1, head->row.row.id);
    (void)sqlite3_bind_blob(stmt, 2, head->row.row.msg_id, WB_ID_SIZE, SQLITE_STATIC);
    bool found = sqlite3_step(stmt) == SQLITE_ROW;
    (void)sqlite3_reset(stmt);
    return found;
}

static wb_err head_next(struct head *head, struct wb_why *why)
{
    int rc = sqlite3_step(head->source->scan);

    head->there = rc == SQLITE_ROW;
    if (head->there)
        outbox_replay_row_read(head->source->scan, &head->row);
    else if (rc != SQLITE_DONE)
        return db_error(db_handle(head->source->db), rc, "read rows to send again", why);
    return WB_OK;
}

static wb_err heads_start(struct outbox_replay *self, struct head *heads, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (size_t i = 0; i < self->source_count; i++) {
        struct replay_source *source = &self->sources[i];
        heads[i] = (struct head){.source = source};
        (void)sqlite3_bind_int64(source->scan, 1, source->at_id);
        (void)sqlite3_bind_int64(source->scan, 2, source->at_n);
        (void)sqlite3_bind_int64(source->scan, 3, source->last_id);
        if (err == WB_OK)
            err = head_next(&heads[i], why);
    }
    return err;
}

/* The one with the lowest number; of two with the same the archived one is older. */
static struct head *lowest(struct head *heads, size_t count)
{
    struct head *best = NULL;

    for (size_t i = 0; i < count; i++)
        if (heads[i].there && (best == NULL || heads[i].row.row.id < best->row.row.id))
            best = &heads[i];
    return best;
}

wb_err outbox_replay_pick(struct outbox_replay *self, size_t limit,
                          void (*visit)(void *ctx, const struct replay_source *source,
                                        const struct replay_row *row),
                          void *ctx, bool *ret_end, struct wb_why *why)
{
    struct head heads[2];
    struct head *head = NULL;
    wb_err err = heads_start(self, heads, why);

    self->pick_count = 0;
    while (err == WB_OK && self->pick_count < limit &&
           (head = lowest(heads, self->source_count)) != NULL) {
        struct replay_source *source = head->source;
        source->at_id = head->row.row.id;
        source->at_n = head->row.n;
        if (outbox_replay_selects(self, &head->row) && !doubled(self, head)) {
            self->picks[self->pick_count++] =
                (struct replay_pick){source, source->at_id, source->at_n};
            if (visit != NULL)
                visit(ctx, source, &head->row);
        }
        err = head_next(head, why);
    }
    for (size_t i = 0; i < self->source_count; i++)
        (void)sqlite3_reset(self->sources[i].scan);
    *ret_end = err == WB_OK && lowest(heads, self->source_count) == NULL;
    return err;
}
