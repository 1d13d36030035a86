/* Reads what was sent, writes it anew: a batch, a transaction, a pause. */
#include "waybill/outbox_replay.h"

#include <assert.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <waybill/operator_log.h>
#include <waybill/outbox_retention.h>
#include <waybill/subject.h>

#include "replay.h"

#define HOLD_NS          (600 * WB_SEC) /* prolonged with every batch */
#define BATCHES_A_SECOND 20

/* ---- open and close -------------------------------------------------------------------------- */

static wb_err selection_check(const struct outbox_replay_options *options, struct wb_why *why)
{
    wb_err err = WB_OK;

    if (options->selection.pattern.ptr != NULL)
        err = subject_pattern_check(options->selection.pattern, why);
    if (err == WB_OK && options->to_subject.ptr != NULL)
        err = subject_check(options->to_subject, why);
    return err;
}

static wb_err setup(struct outbox_replay *self, const struct outbox_replay_options *options,
                    struct wb_why *why)
{
    const struct db_options how = {.sync = options->full_sync ? DB_SYNC_FULL : DB_SYNC_NORMAL,
                                   .must_exist = true,
                                   .read_only = options->plan_only};

    if (options->to_subject.ptr != NULL &&
        (self->to_subject = wb_str_dup(options->to_subject)) == NULL)
        return wb_fail(why, WB_NOMEM, "send rows again: out of memory");
    wb_err err = db_open(options->path, &how, &self->db, why);
    if (err == WB_OK)
        err = outbox_schema_require(db_handle(self->db), why);
    if (err == WB_OK && !options->plan_only)
        err = outbox_attach(db_handle(self->db), &self->outbox, why);
    if (err == WB_OK && options->archive_path != NULL)
        err = outbox_replay_source_archive(self, options->archive_path, why);
    if (err == WB_OK)
        err = outbox_replay_source_table(self, why);
    return err;
}

wb_err outbox_replay_open(const struct outbox_replay_options *options,
                          struct outbox_replay **ret_replay, struct wb_why *why)
{
    assert(options != NULL);
    assert(options->path != NULL);
    assert(ret_replay != NULL);

    wb_err err = selection_check(options, why);
    if (err != WB_OK)
        return err;
    struct outbox_replay *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "send rows again: out of memory");
    self->selection = options->selection;
    self->rate = options->rate > 0 ? options->rate : OUTBOX_REPLAY_RATE;
    self->clock = options->clock != NULL ? options->clock : wb_clock_system();
    self->log_target = options->log_target;
    self->log_reason = options->log_reason;
    (void)snprintf(self->hold_name, sizeof(self->hold_name), "replay %d %" PRId64, (int)getpid(),
                   wb_mono_ns(wb_clock_system()));
    err = setup(self, options, why);
    if (err != WB_OK) {
        outbox_replay_close(self);
        return err;
    }
    *ret_replay = self;
    return WB_OK;
}

void outbox_replay_close(struct outbox_replay *replay)
{
    if (replay == NULL)
        return;
    if (replay->held) /* else it ends by itself, later */
        (void)outbox_retention_release(db_handle(replay->db), replay->hold_name, NULL);
    outbox_detach(replay->outbox);
    for (size_t i = 0; i < replay->source_count; i++)
        if (replay->sources[i].archive)
            db_close(replay->sources[i].db);
    db_close(replay->db); /* with its statements */
    free(replay->to_subject);
    free(replay);
}

/* ---- the plan -------------------------------------------------------------------------------- */

struct counting {
    struct outbox_replay_plan plan;
    int64_t window_from_wall_ns;
};

static void count_row(void *ctx, const struct replay_source *source, const struct replay_row *row)
{
    struct outbox_replay_plan *plan = &((struct counting *)ctx)->plan;

    if (plan->rows == 0) {
        plan->first_id = row->row.id;
        plan->first_wall_ns = row->row.created_wall_ns;
    }
    plan->rows++;
    plan->bytes += row->row.payload.len;
    plan->archived += source->archive;
    plan->last_id = row->row.id;
    plan->last_wall_ns = row->row.created_wall_ns;
    plan->in_window += row->row.created_wall_ns >= ((struct counting *)ctx)->window_from_wall_ns;
}

wb_err outbox_replay_plan(struct outbox_replay *replay, int64_t window_ns,
                          struct outbox_replay_plan *ret_plan, struct wb_why *why)
{
    struct counting counting = {
        .window_from_wall_ns = window_ns > 0 ? wb_wall_ns(replay->clock) - window_ns : INT64_MAX};
    struct replay_source before[2];
    bool end = false;
    wb_err err = WB_OK;

    memcpy(before, replay->sources, sizeof(before));
    while (err == WB_OK && !end)
        err = outbox_replay_pick(replay, OUTBOX_REPLAY_BATCH, count_row, &counting, &end, why);
    memcpy(replay->sources, before, sizeof(before));
    replay->pick_count = 0;
    if (err != WB_OK)
        return err;
    counting.plan.took_ns = (int64_t)((double)counting.plan.rows * 1e9 / (double)replay->rate);
    *ret_plan = counting.plan;
    return WB_OK;
}

/* ---- sending --------------------------------------------------------------------------------- */

/* The headers as they were sent, and which event this one repeats. */
static wb_err headers_make(const struct replay_row *from, struct message_header *headers,
                           size_t *ret_count, char of[48], struct wb_why *why)
{
    size_t count = 0;
    size_t kept = 0;
    struct wb_why reason = {""};

    if (message_headers_parse(from->row.headers, headers, &count, &reason) != WB_OK)
        return wb_fail(why, WB_INVALID, "send row %" PRId64 " again: %s", from->row.id,
                       reason.text);
    for (size_t i = 0; i < count; i++)
        if (!wb_str_case_eq(headers[i].name, wb_str(MESSAGE_HEADER_REPLAY_OF)))
            headers[kept++] = headers[i];
    (void)snprintf(of, 48, "%s/%" PRId64, from->source, from->row.id);
    headers[kept++] =
        (struct message_header){.name = wb_str(MESSAGE_HEADER_REPLAY_OF), .value = wb_str(of)};
    *ret_count = kept;
    return WB_OK;
}

static wb_err send_row(struct outbox_replay *self, const struct replay_row *from,
                       struct wb_why *why)
{
    struct message_header headers[MESSAGE_HEADERS_MAX + 1];
    struct outbox_event event = {.subject = from->row.subject,
                                 .payload = from->row.payload,
                                 .key = from->row.key,
                                 .stream = from->row.stream,
                                 .headers = headers};
    struct wb_why reason = {""};
    char of[48];
    wb_err err = headers_make(from, headers, &event.header_count, of, why);

    if (err != WB_OK)
        return err;
    if (self->to_subject != NULL) {
        event.subject = wb_str(self->to_subject);
        event.stream = (struct wb_str){NULL, 0}; /* whichever covers the new one */
    }
    err = outbox_enqueue(self->outbox, &event, NULL, &reason);
    if (err != WB_OK)
        return wb_fail(why, err, "send row %" PRId64 " again: %s", from->row.id, reason.text);
    return WB_OK;
}

static wb_err send_pick(struct outbox_replay *self, const struct replay_pick *pick, uint64_t *bytes,
                        struct wb_why *why)
{
    struct sqlite3_stmt *stmt = pick->source->row;
    struct replay_row row;
    wb_err err = WB_OK;

    (void)sqlite3_bind_int64(stmt, 1, pick->id);
    (void)sqlite3_bind_int64(stmt, 2, pick->n);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        outbox_replay_row_read(stmt, &row);
        *bytes += row.row.payload.len;
        err = send_row(self, &row, why);
    } else if (rc == SQLITE_DONE) {
        err = wb_fail(why, WB_CONFLICT, "send row %" PRId64 " again: it was deleted meanwhile",
                      pick->id);
    } else {
        err = db_error(db_handle(pick->source->db), rc, "read a row to send again", why);
    }
    (void)sqlite3_reset(stmt);
    return err;
}

static wb_err log_once(struct outbox_replay *self, struct wb_why *why)
{
    return self->logged
               ? WB_OK
               : operator_log_add(db_handle(self->db),
                                  &(struct operator_log_entry){.command = wb_str("outbox replay"),
                                                               .target = self->log_target,
                                                               .reason = self->log_reason},
                                  why);
}

static wb_err batch_write(struct outbox_replay *self, uint64_t *bytes, struct wb_why *why)
{
    wb_err err = db_begin(self->db, why);

    if (err != WB_OK)
        return err;
    err = log_once(self, why);
    if (err == WB_OK)
        err = outbox_retention_hold(db_handle(self->db), self->hold_name, self->picks[0].id,
                                    HOLD_NS, why);
    for (size_t i = 0; err == WB_OK && i < self->pick_count; i++)
        err = send_pick(self, &self->picks[i], bytes, why);
    if (err == WB_OK)
        err = db_commit(self->db, why);
    db_rollback(self->db);
    if (err != WB_OK)
        return err;
    self->logged = self->held = true;
    outbox_wake(self->outbox);
    return WB_OK;
}

/* When the next batch is due; time lost by a slow disk is not made up for in a burst. */
static int64_t pace(struct outbox_replay *self)
{
    int64_t now = wb_mono_ns(self->clock);
    int64_t batch_ns = (int64_t)((double)self->pick_count * 1e9 / (double)self->rate);

    if (self->due_mono_ns < now)
        self->due_mono_ns = now;
    self->due_mono_ns += batch_ns;
    return self->due_mono_ns - now;
}

wb_err outbox_replay_step(struct outbox_replay *replay, struct outbox_replay_progress *ret_progress,
                          struct wb_why *why)
{
    struct outbox_replay *self = replay;
    struct replay_source before[2];
    uint64_t bytes = 0;
    size_t limit = self->rate / BATCHES_A_SECOND;
    bool end = false;

    assert(self->outbox != NULL && "opened for a plan only");
    limit = limit < 1 ? 1 : limit > OUTBOX_REPLAY_BATCH ? OUTBOX_REPLAY_BATCH : limit;
    memcpy(before, self->sources, sizeof(before));
    wb_err err = outbox_replay_pick(self, limit, NULL, NULL, &end, why);
    if (err == WB_OK && self->pick_count > 0)
        err = batch_write(self, &bytes, why);
    if (err != WB_OK) {
        memcpy(self->sources, before, sizeof(before));
        return err;
    }
    self->progress.rows += self->pick_count;
    self->progress.bytes += bytes;
    if (self->pick_count > 0)
        self->progress.last_id = self->picks[self->pick_count - 1].id;
    self->progress.done = end;
    self->progress.wait_ns = end ? 0 : pace(self);
    *ret_progress = self->progress;
    return WB_OK;
}
