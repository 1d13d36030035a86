/* Choosing letters, and changing them chunk by chunk. */
#include "dead_letter_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/operator_log.h>
#include <waybill/outbox_impl.h>

#define CHUNK 250 /* letters in one transaction */

/* ---- choosing -------------------------------------------------------------------------------- */

struct choosing {
    struct dead_letter_selection *selection;
    size_t limit;
    bool named; /* by id: then a blocked one is an error */
    bool found, blocked, nomem;
    char *key, *consumer; /* of the letter named, when its whole key is meant */
};

static bool ref_add(struct choosing *self, const struct dead_letter *letter)
{
    struct dead_letter_selection *selection = self->selection;

    if (selection->count == selection->capacity) {
        size_t capacity = selection->capacity > 0 ? 2 * selection->capacity : 64;
        struct dead_letter_ref *refs = realloc(selection->refs, capacity * sizeof(*refs));
        if (refs == NULL) {
            self->nomem = true;
            return false;
        }
        selection->refs = refs;
        selection->capacity = capacity;
    }
    selection->refs[selection->count++] =
        (struct dead_letter_ref){.kind = letter->kind, .number = letter->number};
    return selection->count < self->limit;
}

static bool choose_visit(void *ctx, const struct dead_letter *letter)
{
    struct choosing *self = ctx;

    self->found = true;
    if (self->key != NULL && (!wb_str_eq(letter->key, wb_str(self->key)) ||
                              !wb_str_eq(letter->consumer, wb_str(self->consumer))))
        return true;
    if (!wb_str_eq(letter->state, wb_str("blocked")))
        return ref_add(self, letter);
    self->blocked = true;
    return !self->named;
}

static bool key_visit(void *ctx, const struct dead_letter *letter)
{
    struct choosing *self = ctx;

    self->found = true;
    if (letter->key.len == 0)
        return false;
    self->key = wb_str_dup(letter->key);
    self->consumer = wb_str_dup(letter->consumer);
    self->nomem = self->key == NULL || self->consumer == NULL;
    return false;
}

/* The key of the letter named; afterwards the query means all letters of its kind. */
static wb_err choose_key(struct db *db, struct dead_letter_query *query, struct choosing *self,
                         struct wb_why *why)
{
    wb_err err = dead_letter_walk(db, query, key_visit, self, why);

    if (err != WB_OK || self->key == NULL)
        return err;
    query->only_publisher = query->id.ptr[0] == 'p';
    query->id = (struct wb_str){NULL, 0};
    return WB_OK;
}

static bool said_blocked(void *ctx, const struct dead_letter *letter)
{
    *(int64_t *)ctx = letter->behind;
    return true;
}

static wb_err refuse_blocked(struct db *db, struct wb_str id, struct wb_why *why)
{
    int64_t behind = 0;
    wb_err err = dead_letter_show(db, id, NULL, said_blocked, &behind, why);

    if (err != WB_OK)
        return err;
    return wb_fail(why, WB_CONFLICT,
                   "%.*s only waits behind another row of its key: decide about p%" PRId64
                   ", then it goes on by itself",
                   (int)id.len, id.ptr, behind);
}

wb_err dead_letter_select(struct db *db, const struct dead_letter_query *query,
                          struct dead_letter_selection *ret_selection, struct wb_why *why)
{
    struct dead_letter_selection selection = {.count = 0};
    struct dead_letter_query meant = *query;
    struct choosing choosing = {.selection = &selection,
                                .named = query->id.len > 0 && !query->whole_key,
                                .limit =
                                    query->limit > 0 && query->limit < DEAD_LETTER_SELECTION_MAX
                                        ? query->limit
                                        : DEAD_LETTER_SELECTION_MAX};
    wb_err err = WB_OK;

    meant.payload = false;
    if (query->id.len > 0 && query->whole_key)
        err = choose_key(db, &meant, &choosing, why);
    if (err == WB_OK && !choosing.nomem)
        err = dead_letter_walk(db, &meant, choose_visit, &choosing, why);
    if (err == WB_OK && choosing.nomem)
        err = wb_fail(why, WB_NOMEM, "choose dead letters: out of memory");
    if (err == WB_OK && query->id.len > 0 && !choosing.found)
        err = wb_fail(why, WB_NOT_FOUND, "there is no dead letter %.*s; 'dlq ls' lists them",
                      (int)query->id.len, query->id.ptr);
    if (err == WB_OK && choosing.named && choosing.blocked)
        err = refuse_blocked(db, query->id, why);
    free(choosing.key);
    free(choosing.consumer);
    if (err == WB_OK)
        *ret_selection = selection;
    else
        dead_letter_selection_free(&selection);
    return err;
}

void dead_letter_selection_free(struct dead_letter_selection *selection)
{
    free(selection->refs);
    *selection = (struct dead_letter_selection){.count = 0};
}

/* ---- one transaction ------------------------------------------------------------------------- */

/*
 * A change: one statement for each kind. ?1 is the number, ?2 the time in ms, ?3 the reason. Each
 * looks at the state again, for others may have been faster. It returns what the log keeps.
 */
struct change {
    const char *name; /* for messages */
    const char *sql[2];
    struct db *db;
    const struct dead_letter_act *act;
    struct sqlite3_stmt *stmts[2];
    struct wb_buf detail;
};

static const struct change retry_change = {
    .name = "retry dead letters",
    .sql = {"UPDATE main.outbox_exception SET state = 'retry', next_at = ?2, attempts = 0"
            " WHERE id = ?1 AND state = 'parked'"
            " RETURNING 'p' || id, (SELECT o.subject FROM main.outbox o"
            "  WHERE o.id = outbox_exception.id), error",
            "UPDATE main.dead_letter SET state = 'retry', next_at = ?2"
            " WHERE id = ?1 AND state = 'parked'"
            " RETURNING 'c' || id, consumer || ' ' || subject, reason"},
};

/* The old error of a row stays behind the reason, and so comes into the log's detail. */
static const struct change discard_change = {
    .name = "discard dead letters",
    .sql = {"UPDATE main.outbox_exception SET state = 'cancelled', next_at = NULL,"
            " error = 'discarded: ' || ?3 || '; it was parked for: ' || error"
            " WHERE id = ?1 AND state = 'parked'"
            " RETURNING 'p' || id, (SELECT o.subject || ' ' || o.key || ' ' ||"
            "  lower(hex(o.msg_id)) FROM main.outbox o WHERE o.id = outbox_exception.id), error",
            "DELETE FROM main.dead_letter WHERE id = ?1"
            " RETURNING 'c' || id, consumer || ' ' || subject || ' ' || key || ' ' || msg_id,"
            " reason"},
};

/* A line for each letter, so short that a chunk fits into the detail of an entry. */
static void detail_add(struct wb_buf *detail, struct sqlite3_stmt *stmt)
{
    const size_t max = OPERATOR_LOG_DETAIL_MAX / CHUNK - 1;
    size_t from = detail->len;

    for (int i = 0; i < 3; i++) {
        const char *text = (const char *)sqlite3_column_text(stmt, i);
        if (text == NULL || text[0] == '\0')
            continue;
        wb_buf_printf(detail, "%s%.250s", i > 0 ? " " : "", text);
    }
    if (detail->len - from > max)
        detail->len = from + max;
    wb_buf_str(detail, "\n");
}

/* Each statement is prepared when the first letter of its kind comes: a file may have one only. */
static wb_err stmt_of(struct change *self, dead_letter_kind kind, struct sqlite3_stmt **ret_stmt,
                      struct wb_why *why)
{
    wb_err err = WB_OK;

    if (self->stmts[kind] == NULL)
        err = db_prepare(self->db, self->sql[kind], &self->stmts[kind], why);
    *ret_stmt = self->stmts[kind];
    return err;
}

static wb_err change_one(struct change *self, const struct dead_letter_ref *ref, bool *ret_changed,
                         struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = stmt_of(self, ref->kind, &stmt, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(stmt, 1, ref->number);
    (void)sqlite3_bind_int64(stmt, 2, wb_wall_ns(self->act->clock) / WB_MS);
    if (sqlite3_bind_parameter_count(stmt) >= 3)
        db_bind_text(stmt, 3, self->act->reason);
    int rc = sqlite3_step(stmt);
    *ret_changed = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW) {
        detail_add(&self->detail, stmt);
        rc = sqlite3_step(stmt);
    }
    return db_statement_end(stmt, rc, self->name, why);
}

static wb_err log_chunk(struct change *self, const struct dead_letter_ref *refs, size_t count,
                        size_t changed, struct wb_why *why)
{
    char first[DEAD_LETTER_ID_TEXT], last[DEAD_LETTER_ID_TEXT], target[400];
    const struct dead_letter_act *act = self->act;

    dead_letter_id_format(refs[0].kind, refs[0].number, first);
    dead_letter_id_format(refs[count - 1].kind, refs[count - 1].number, last);
    if (count == 1)
        (void)snprintf(target, sizeof(target), "%s", first);
    else
        (void)snprintf(target, sizeof(target), "%zu letters of %s to %s%s%.*s", changed, first,
                       last, act->what.len > 0 ? " where " : "", (int)act->what.len, act->what.ptr);
    if (self->detail.failed)
        return wb_fail(why, WB_NOMEM, "%s: out of memory", self->name);
    return operator_log_add(
        db_handle(self->db),
        &(struct operator_log_entry){.at_wall_ns = wb_wall_ns(act->clock),
                                     .command = act->command,
                                     .target = wb_str(target),
                                     .reason = act->reason,
                                     .detail = wb_str_n(self->detail.ptr, self->detail.len)},
        why);
}

static wb_err chunk_inside(struct change *self, const struct dead_letter_ref *refs, size_t count,
                           size_t *ret_changed, struct wb_why *why)
{
    size_t changed = 0;
    wb_err err = WB_OK;

    wb_buf_clear(&self->detail);
    for (size_t i = 0; err == WB_OK && i < count; i++) {
        bool one = false;
        err = change_one(self, &refs[i], &one, why);
        changed += one ? 1 : 0;
    }
    if (err == WB_OK && changed > 0)
        err = log_chunk(self, refs, count, changed, why);
    *ret_changed = changed;
    return err;
}

static wb_err change_all(const struct change *kind, struct db *db,
                         const struct dead_letter_selection *selection,
                         const struct dead_letter_act *act, struct dead_letter_result *ret_result,
                         struct wb_why *why)
{
    struct change self = *kind;
    struct dead_letter_result result = {.changed = 0};
    wb_err err = WB_OK;

    self.db = db;
    self.act = act;
    for (size_t at = 0; err == WB_OK && at < selection->count; at += CHUNK) {
        size_t count = selection->count - at < CHUNK ? selection->count - at : CHUNK;
        size_t changed = 0;
        err = db_begin(db, why);
        if (err == WB_OK)
            err = chunk_inside(&self, selection->refs + at, count, &changed, why);
        if (err == WB_OK)
            err = db_commit(db, why);
        db_rollback(db);
        result.changed += err == WB_OK ? changed : 0;
        result.left += err == WB_OK ? count - changed : 0;
    }
    (void)sqlite3_finalize(self.stmts[0]);
    (void)sqlite3_finalize(self.stmts[1]);
    wb_buf_free(&self.detail);
    if (result.changed > 0)
        dead_letter_wake(db);
    *ret_result = result;
    return err;
}

wb_err dead_letter_retry(struct db *db, const struct dead_letter_selection *selection,
                         const struct dead_letter_act *act, struct dead_letter_result *ret_result,
                         struct wb_why *why)
{
    return change_all(&retry_change, db, selection, act, ret_result, why);
}

wb_err dead_letter_discard(struct db *db, const struct dead_letter_selection *selection,
                           const struct dead_letter_act *act, struct dead_letter_result *ret_result,
                           struct wb_why *why)
{
    if (act->reason.len == 0)
        return wb_fail(
            why, WB_INVALID,
            "discard dead letters: say why with a reason; it is kept in the operator log");
    return change_all(&discard_change, db, selection, act, ret_result, why);
}

/* ---- waking ---------------------------------------------------------------------------------- */

static void wake_slot(struct db *db, int fd, unsigned slot)
{
    struct sockaddr_un address;
    socklen_t length = 0;

    if (outbox_wake_address(db_path(db), slot, &address, &length, NULL) == WB_OK)
        (void)sendto(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&address,
                     length);
}

/* A courtesy: without it the publisher notices by itself within a second. */
void dead_letter_wake(struct db *db)
{
    struct outbox_wake_page *page = NULL;

    if (outbox_wake_open(db_path(db), &page, NULL) != WB_OK)
        return;
    uint64_t slots = outbox_wake_take(page);
    int fd = slots != 0 ? socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
    for (unsigned slot = 0; fd >= 0 && slot < OUTBOX_WAKE_SLOTS; slot++)
        if ((slots >> slot & 1U) != 0)
            wake_slot(db, fd, slot);
    if (fd >= 0)
        (void)close(fd);
    outbox_wake_close(page);
}
