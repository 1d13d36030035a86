/*
 * The stream is read once from its first message to its last. A bit says which rows were found; the
 * rows themselves are read in slices of numbers, each when the scan comes to it, because messages
 * and rows run in the same order but for a few.
 *
 * While it reads, a publisher may publish, and mend. So what is missing is decided last: the rows
 * in question are read again, and then what the stream has got meanwhile. A row without an
 * exception was stored before it was read so, and is found now, or is not there.
 */
#include "waybill/outbox_verify.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outbox_verify_mark.h"

enum {
    LIST_DEFAULT = 1000,
    STRAYS_MAX = 64 /* rows looked up one by one before a slice is changed for theirs */
};

#define SPAN_DEFAULT ((size_t)1 << 27)

struct verify {
    struct event_bus *bus;
    const char *stream;
    struct outbox_verify_table table;
    struct outbox_verify_report report;
    size_t list_max;
    size_t span;
    int64_t created_ns;             /* of the stream when it began */
    uint64_t start;                 /* of the stream, here */
    struct outbox_verify_key *keys; /* OUTBOX_VERIFY_KEYS */

    uint64_t visited_seq;    /* of the first message visited; 0: none */
    uint64_t head_seq;       /* nothing below this was looked at */
    int64_t straight_id;     /* of the first row found in its place; INT64_MAX: none */
    uint64_t passed_seq;     /* messages up to here are counted */
    uint64_t next_start_seq; /* where the first row behind this span was seen; 0: nowhere yet */

    int64_t base;    /* the span begins with this row number, */
    int64_t end;     /* and ends before this one */
    uint64_t *found; /* a bit for each number */
    uint64_t *twice;
    uint64_t *due;
    bool reviewed; /* `due` is final: what is read from now on can only be found */

    struct outbox_verify_row *rows; /* of the slice in memory, */
    int64_t rows_id;                /* which begins with this number; 0: none */
    unsigned strays;                /* looked up one by one, one after another */

    wb_err err; /* what stopped a visit */
    struct wb_why *why;
};

/* ---- bits ------------------------------------------------------------------------------------ */

static bool bit(const uint64_t *bits, size_t at)
{
    return (bits[at / 64] >> at % 64 & 1) != 0;
}

static void set_bit(uint64_t *bits, size_t at)
{
    bits[at / 64] |= UINT64_C(1) << at % 64;
}

static void clear_bit(uint64_t *bits, size_t at)
{
    bits[at / 64] &= ~(UINT64_C(1) << at % 64);
}

static uint64_t count_bits(uint64_t word)
{
    return (uint64_t)__builtin_popcountll(word);
}

/* ---- the rows of a message ------------------------------------------------------------------- */

/* Read a slice, and note what of it is due. */
static wb_err load_slice(struct verify *v, int64_t first)
{
    wb_err err = outbox_verify_rows(&v->table, first, OUTBOX_VERIFY_SLICE, v->rows, v->why);

    v->rows_id = err == WB_OK ? first : 0;
    v->strays = 0;
    for (size_t i = 0; err == WB_OK && !v->reviewed && i < OUTBOX_VERIFY_SLICE; i++) {
        size_t at = (size_t)(first - v->base) + i;
        if (v->rows[i].state == OUTBOX_VERIFY_DUE)
            set_bit(v->due, at);
        else
            clear_bit(v->due, at);
    }
    return err;
}

static int64_t slice_of(const struct verify *v, int64_t id)
{
    return id - (id - v->base) % OUTBOX_VERIFY_SLICE;
}

/*
 * The row of a number: from the slice in memory, from the next one, which then is, or by itself. A
 * slice of older rows is read only when many of them turn up one after another.
 */
static wb_err row_of(struct verify *v, int64_t id, struct outbox_verify_row *ret_row)
{
    int64_t first = slice_of(v, id);

    if (first != v->rows_id && first < v->rows_id && ++v->strays < STRAYS_MAX)
        return outbox_verify_rows(&v->table, id, 1, ret_row, v->why);
    if (first != v->rows_id) {
        wb_err err = load_slice(v, first);
        if (err != WB_OK)
            return err;
    }
    v->strays = 0;
    *ret_row = v->rows[id - first];
    return WB_OK;
}

/* ---- what a message is ----------------------------------------------------------------------- */

static void add_to_list(struct outbox_verify_list *list, size_t max, int64_t id)
{
    if (list->count < max)
        list->ids[list->count++] = id;
    else
        list->truncated = true;
}

/* The first row that stands in its place tells which of the others can be below the stream. */
static void note_straight(struct verify *v, int64_t id, uint64_t late_seq)
{
    if (late_seq == 0 && v->straight_id == INT64_MAX)
        v->straight_id = id;
}

static void purged(struct verify *v, int64_t id)
{
    v->report.purged++;
    note_straight(v, id, 0);
}

static void orphan(struct verify *v, const struct event_bus_delivery *delivery)
{
    v->report.orphans++;
    add_to_list(&v->report.orphan_seqs, v->list_max, (int64_t)delivery->sequence);
}

/* The row is known: is it this message's? */
static void compare(struct verify *v, const struct event_bus_delivery *delivery,
                    const struct outbox_verify_mark *mark, const struct outbox_verify_row *row)
{
    size_t at = (size_t)(mark->id - v->base);
    bool same = row->state != OUTBOX_VERIFY_NO_ROW && mark->has_msg_id &&
                memcmp(row->msg_id, mark->msg_id, WB_ID_SIZE) == 0 &&
                outbox_verify_source_of(&v->table, mark->id) == mark->source;

    if (!same && row->state == OUTBOX_VERIFY_NO_ROW && mark->id <= v->table.cursor.verified_id) {
        purged(v, mark->id);
        return;
    }
    if (!same) {
        orphan(v, delivery);
        return;
    }
    note_straight(v, mark->id, row->late_seq);
    set_bit(bit(v->found, at) ? v->twice : v->found, at);
}

/* Beside the rows of the table: below its first, or behind the cursor. */
static void outside(struct verify *v, const struct event_bus_delivery *delivery,
                    const struct outbox_verify_mark *mark)
{
    if (mark->id > v->table.cursor.last_id)
        v->report.beyond++;
    else if (mark->id <= v->table.cursor.verified_id)
        purged(v, mark->id);
    else
        orphan(v, delivery);
}

/* Counted once, also when several passes see it. */
static void count_first(struct verify *v, const struct event_bus_delivery *delivery, bool ours,
                        const struct outbox_verify_mark *mark)
{
    if (delivery->sequence <= v->passed_seq)
        return;
    v->passed_seq = delivery->sequence;
    v->report.messages++;
    if (v->visited_seq == 0)
        v->visited_seq = delivery->sequence;
    if (!ours) {
        v->report.foreign++;
        return;
    }
    if (outbox_verify_key_overtaken(v->keys, &delivery->message, mark))
        v->report.out_of_order++;
    if (mark->id < v->table.first_id || mark->id > v->table.cursor.last_id)
        outside(v, delivery, mark);
}

static bool visit(void *ctx, const struct event_bus_delivery *delivery)
{
    struct verify *v = ctx;
    struct outbox_verify_mark mark = {.id = 0};
    struct outbox_verify_row row;
    bool ours = outbox_verify_mark_read(&v->table, &delivery->message, &mark);

    count_first(v, delivery, ours, &mark);
    if (!ours || mark.id < v->base || mark.id > v->table.cursor.last_id)
        return true;
    if (mark.id >= v->end) {
        if (v->next_start_seq == 0)
            v->next_start_seq = delivery->sequence;
        return true;
    }
    v->err = row_of(v, mark.id, &row);
    if (v->err == WB_OK)
        compare(v, delivery, &mark, &row);
    return v->err == WB_OK;
}

/* ---- the stream ------------------------------------------------------------------------------ */

static wb_err look_at_stream(struct verify *v, struct event_bus_stream_info *ret_info)
{
    wb_err err = event_bus_stream_info(v->bus, v->stream, ret_info, v->why);

    if (err != WB_OK)
        return err;
    if ((v->created_ns != 0 && ret_info->created_wall_ns != v->created_ns) ||
        ret_info->last_seq < v->report.last_seq)
        return wb_fail(v->why, WB_CONFLICT,
                       "stream %s was %s while it was compared: compare once more", v->stream,
                       ret_info->created_wall_ns != v->created_ns ? "made anew" : "cut short");
    return WB_OK;
}

/* Read the stream from `from` to where it ends now. */
static wb_err read_on(struct verify *v, uint64_t from)
{
    struct event_bus_stream_info info;
    uint64_t next = from;
    wb_err err = look_at_stream(v, &info);

    if (err != WB_OK)
        return err;
    v->report.last_seq = info.last_seq;
    v->head_seq = info.first_seq > v->start ? info.first_seq : v->start;
    err = event_bus_scan(v->bus, v->stream, from, info.last_seq, visit, v, &next, v->why);
    return err == WB_OK ? v->err : err;
}

/* ---- deciding -------------------------------------------------------------------------------- */

/* Rows stored below this sequence cannot be told of: removed, or not looked at. */
static uint64_t horizon(const struct verify *v)
{
    uint64_t seen = v->visited_seq > 0 ? v->visited_seq : v->report.last_seq + 1;

    return seen < v->head_seq ? seen : v->head_seq;
}

/* Due and not found: has it stood below the horizon? Rows are stored in order, but for the late. */
static bool is_gone(const struct verify *v, int64_t id, const struct outbox_verify_row *row)
{
    if (horizon(v) <= 1 || v->report.made_anew)
        return false;
    if (row->late_seq > 0)
        return row->late_seq < horizon(v);
    if (v->straight_id == INT64_MAX && v->report.rolled_back)
        return false;
    return id < v->straight_id;
}

/* Is the slice that begins at bit `at` loaded, with all that is due in it found? Both bitmaps empty
 * may also say that it was never loaded. */
static bool is_settled(const struct verify *v, size_t at)
{
    uint64_t any = 0;

    for (size_t i = at / 64; i < (at + OUTBOX_VERIFY_SLICE) / 64; i++) {
        if ((v->due[i] & ~v->found[i]) != 0)
            return false;
        any |= v->due[i];
    }
    return any != 0;
}

/* Read again what is in question; what is gone is due no more. */
static wb_err review(struct verify *v)
{
    for (int64_t first = v->base; first < v->end; first += OUTBOX_VERIFY_SLICE) {
        size_t at = (size_t)(first - v->base);
        if (is_settled(v, at))
            continue;
        wb_err err = load_slice(v, first);
        if (err != WB_OK)
            return err;
        for (size_t i = 0; i < OUTBOX_VERIFY_SLICE; i++)
            if (bit(v->due, at + i) && !bit(v->found, at + i) &&
                is_gone(v, first + (int64_t)i, &v->rows[i])) {
                clear_bit(v->due, at + i);
                v->report.gone++;
                v->report.rows++;
            }
    }
    return WB_OK;
}

static void list_bits(const struct verify *v, uint64_t word, size_t index,
                      struct outbox_verify_list *list)
{
    for (; word != 0 && !list->truncated; word &= word - 1)
        add_to_list(list, v->list_max,
                    v->base + (int64_t)(64 * index) + (int64_t)__builtin_ctzll(word));
}

static void sum_up(struct verify *v)
{
    struct outbox_verify_report *report = &v->report;
    size_t words = (size_t)(v->end - v->base) / 64;

    for (size_t i = 0; i < words; i++) {
        uint64_t missing = v->due[i] & ~v->found[i];
        report->rows += count_bits(v->due[i]);
        report->found += count_bits(v->due[i] & v->found[i]);
        report->missing += count_bits(missing);
        report->doubled += count_bits(v->twice[i]);
        list_bits(v, missing, i, &report->missing_ids);
        list_bits(v, v->twice[i], i, &report->doubled_ids);
    }
}

/* Compare the rows of one span with the stream from `from` on. */
static wb_err pass(struct verify *v, uint64_t from)
{
    size_t bytes = (size_t)(v->end - v->base) / 8;

    memset(v->found, 0, bytes);
    memset(v->twice, 0, bytes);
    memset(v->due, 0, bytes);
    v->rows_id = 0;
    v->next_start_seq = 0;
    v->reviewed = false;
    wb_err err = read_on(v, from);
    uint64_t behind = v->report.last_seq + 1;
    if (err == WB_OK)
        err = review(v);
    v->reviewed = true;
    if (err == WB_OK)
        err = read_on(v, behind);
    if (err == WB_OK)
        sum_up(v);
    return err;
}

static int64_t round_up(int64_t count)
{
    return (count + OUTBOX_VERIFY_SLICE - 1) / OUTBOX_VERIFY_SLICE * OUTBOX_VERIFY_SLICE;
}

static wb_err passes(struct verify *v)
{
    int64_t last =
        v->table.newest_id < v->table.cursor.last_id ? v->table.newest_id : v->table.cursor.last_id;
    uint64_t from = v->start;
    wb_err err = WB_OK;

    v->base = v->table.first_id > 0 ? v->table.first_id : 1;
    do {
        int64_t left = last >= v->base ? round_up(last - v->base + 1) : OUTBOX_VERIFY_SLICE;
        v->end = v->base + (left < (int64_t)v->span ? left : (int64_t)v->span);
        err = pass(v, from);
        from = v->next_start_seq > 0 ? v->next_start_seq : v->report.last_seq + 1;
        v->base = v->end;
    } while (err == WB_OK && v->base <= last);
    return err;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static wb_err lists_new(struct verify *v, size_t max)
{
    struct outbox_verify_report *report = &v->report;

    v->list_max = max > 0 ? max : LIST_DEFAULT;
    report->missing_ids.ids = calloc(v->list_max, sizeof(int64_t));
    report->doubled_ids.ids = calloc(v->list_max, sizeof(int64_t));
    report->orphan_seqs.ids = calloc(v->list_max, sizeof(int64_t));
    return report->missing_ids.ids != NULL && report->doubled_ids.ids != NULL &&
                   report->orphan_seqs.ids != NULL
               ? WB_OK
               : WB_NOMEM;
}

/* A small table takes little, whatever span is allowed. */
static wb_err memory_new(struct verify *v, size_t span)
{
    int64_t whole = round_up(v->table.newest_id - v->table.first_id + 1);

    v->span = (size_t)round_up((int64_t)(span > 0 ? span : SPAN_DEFAULT));
    v->span = whole < (int64_t)v->span ? (size_t)whole : v->span;
    v->found = calloc(v->span / 8, 1);
    v->twice = calloc(v->span / 8, 1);
    v->due = calloc(v->span / 8, 1);
    v->rows = calloc(OUTBOX_VERIFY_SLICE, sizeof(*v->rows));
    v->keys = calloc(OUTBOX_VERIFY_KEYS, sizeof(*v->keys));
    return v->found != NULL && v->twice != NULL && v->due != NULL && v->rows != NULL &&
                   v->keys != NULL
               ? WB_OK
               : WB_NOMEM;
}

static void memory_free(struct verify *v)
{
    free(v->found);
    free(v->twice);
    free(v->due);
    free(v->rows);
    free(v->keys);
}

static wb_err begin(struct verify *v, struct db *db, const struct outbox_verify_options *options)
{
    struct event_bus_stream_info info;
    wb_err err = event_bus_stream_info(v->bus, v->stream, &info, v->why);

    if (err == WB_OK)
        err = outbox_verify_table_open(&v->table, db, v->stream, info.subjects, v->why);
    if (err != WB_OK)
        return err;
    v->created_ns = info.created_wall_ns;
    v->start = options->from_seq > 1 ? options->from_seq : 1;
    v->straight_id = INT64_MAX;
    v->report.last_id = v->table.cursor.last_id;
    v->report.last_seq = info.last_seq;
    v->report.made_anew = v->table.cursor.stream_created != 0 &&
                          v->table.cursor.stream_created != info.created_wall_ns;
    v->report.rolled_back = info.last_seq < v->table.cursor.last_seq;
    (void)snprintf(v->report.stream, sizeof(v->report.stream), "%s", v->stream);
    err = lists_new(v, options->list_max);
    if (err == WB_OK)
        err = memory_new(v, options->span);
    return err == WB_OK ? WB_OK : wb_fail(v->why, err, "verify %s: out of memory", v->stream);
}

void outbox_verify_report_free(struct outbox_verify_report *report)
{
    free(report->missing_ids.ids);
    free(report->doubled_ids.ids);
    free(report->orphan_seqs.ids);
    *report = (struct outbox_verify_report){.messages = 0};
}

wb_err outbox_verify(struct db *db, struct event_bus *bus,
                     const struct outbox_verify_options *options,
                     struct outbox_verify_report *ret_report, struct wb_why *why)
{
    assert(db != NULL);
    assert(bus != NULL);
    assert(options != NULL);
    assert(ret_report != NULL);

    struct verify v = {.bus = bus, .stream = options->stream, .why = why};
    wb_err err = begin(&v, db, options);
    if (err == WB_OK)
        err = passes(&v);
    memory_free(&v);
    outbox_verify_table_close(&v.table);
    v.report.first_seq = v.head_seq;
    if (err == WB_OK)
        *ret_report = v.report;
    else
        outbox_verify_report_free(&v.report);
    return err;
}
