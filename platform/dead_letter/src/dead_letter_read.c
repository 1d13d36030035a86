/* Letters of both tables as one list. */
#include "dead_letter_internal.h"

#include <assert.h>
#include <sqlite3.h>
#include <string.h>

#include <waybill/db.h>
#include <waybill/outbox_impl.h>

#define LIST_LIMIT 100

/* The bytes of a payload, without reading it where it is a blob. */
#define SIZE(column)                                                                               \
    "CASE typeof(" column ") WHEN 'blob' THEN length(" column ") ELSE length(CAST(" column         \
    " AS BLOB)) END"

/*
 * Both kinds with the same columns. ?1 and ?2 bound the number, ?3 tells whether the payload is to
 * be read, ?4 is a consumer or empty.
 */
/* clang-format off */
/* As they go out: the trace context of a row stands in a column of its own. */
#define HEADERS "ifnull(x.headers, o.headers)"
#define SENT_HEADERS                                                                               \
    HEADERS " || CASE WHEN o.traceparent = '' OR instr(lower(" HEADERS "), 'traceparent:') > 0"    \
    " THEN '' ELSE CASE " HEADERS " WHEN '' THEN '' ELSE char(10) END"                             \
    " || 'traceparent: ' || o.traceparent END"
static const char publisher_sql[] =
    /* Rows behind one that is only in retry go on by themselves: no person is needed. */
    "WITH stopped(key) AS MATERIALIZED (SELECT o.key FROM main.outbox_exception e"
    "  JOIN main.outbox o ON o.id = e.id WHERE e.state = 'parked' AND o.key <> '')"
    " SELECT e.id, e.state, '', o.stream, ifnull(x.subject, o.subject), o.key,"
    " " SENT_HEADERS ", lower(hex(o.msg_id)),"
    " (SELECT lower(hex(s.source)) FROM main.outbox_source s WHERE s.from_id <= e.id"
    "  ORDER BY s.from_id DESC LIMIT 1),"
    " e.id, 0, e.attempts, o.created, o.created, ifnull(e.next_at, 0), e.error, '',"
    " x.id IS NOT NULL, " SIZE("ifnull(x.payload, o.payload)") ","
    " CASE WHEN ?3 THEN ifnull(x.payload, o.payload) END"
    " FROM main.outbox_exception e JOIN main.outbox o ON o.id = e.id"
    " LEFT JOIN main.outbox_edit x ON x.id = e.id"
    " WHERE e.id > ?1 AND e.id <= ?2 AND ?4 = '' AND (e.state = 'parked'"
    "  OR (e.state = 'blocked' AND o.key IN (SELECT key FROM stopped)))"
    " ORDER BY e.id";

static const char consumer_sql[] =
    "SELECT d.id, d.state, d.consumer, d.stream, d.subject, d.key, d.headers, d.msg_id, d.source,"
    " d.row_id, d.sequence, d.failures, d.stored_at, d.parked_at, ifnull(d.next_at, 0), d.reason,"
    " d.fingerprint, 0, " SIZE("d.payload") ", CASE WHEN ?3 THEN d.payload END"
    " FROM main.dead_letter d WHERE d.id > ?1 AND d.id <= ?2 AND (?4 = '' OR d.consumer = ?4)"
    " ORDER BY d.id";
/* clang-format on */

/* ---- tables ---------------------------------------------------------------------------------- */

static wb_err table_known(struct db *db, const char *component, unsigned expected, bool *ret_there,
                          struct wb_why *why)
{
    unsigned version = 0;
    wb_err err = db_schema_version(db_handle(db), component, &version, why);

    if (err == WB_OK && version > 0 && version < expected)
        err =
            wb_fail(why, WB_UNSUPPORTED,
                    "the %s in %s has version %u, older than this program's %u; start the service "
                    "that owns the file once, which brings it up to date",
                    component, db_path(db), version, expected);
    if (err == WB_OK && version > expected)
        err = wb_fail(why, WB_UNSUPPORTED,
                      "the %s in %s has version %u, this program knows versions up to %u: use the "
                      "newer program",
                      component, db_path(db), version, expected);
    *ret_there = version > 0;
    return err;
}

wb_err dead_letter_tables(struct db *db, bool *ret_publisher, bool *ret_consumer,
                          struct wb_why *why)
{
    wb_err err = table_known(db, "outbox", 2, ret_publisher, why);

    if (err == WB_OK)
        err = table_known(db, "inbox", 2, ret_consumer, why);
    if (err == WB_OK && !*ret_publisher && !*ret_consumer)
        err = wb_fail(why, WB_NOT_FOUND,
                      "database %s has neither an outbox nor an inbox, so no dead letters: is it "
                      "the file of a module?",
                      db_path(db));
    return err;
}

/* ---- one letter ------------------------------------------------------------------------------ */

/* Written by hand it may be anything; the bounds keep the product within 64 bits. */
static int64_t column_ms_to_ns(struct sqlite3_stmt *stmt, int column)
{
    int64_t ms = sqlite3_column_int64(stmt, column);

    if (ms > INT64_MAX / WB_MS)
        return INT64_MAX;
    return ms < 0 ? 0 : ms * WB_MS;
}

static void fingerprint_read(struct wb_str stored, struct dead_letter *letter)
{
    if (stored.len != WB_FINGERPRINT_TEXT - 1) {
        wb_fingerprint(letter->reason, letter->fingerprint);
        return;
    }
    memcpy(letter->fingerprint, stored.ptr, stored.len);
    letter->fingerprint[stored.len] = '\0';
}

static void letter_read(struct sqlite3_stmt *stmt, dead_letter_kind kind,
                        struct dead_letter *ret_letter)
{
    struct dead_letter letter = {
        .kind = kind,
        .number = sqlite3_column_int64(stmt, 0),
        .state = db_column_text(stmt, 1),
        .consumer = db_column_text(stmt, 2),
        .stream = db_column_text(stmt, 3),
        .subject = db_column_text(stmt, 4),
        .key = db_column_text(stmt, 5),
        .headers = db_column_text(stmt, 6),
        .msg_id = db_column_text(stmt, 7),
        .source = db_column_text(stmt, 8),
        .row_id = sqlite3_column_int64(stmt, 9),
        .sequence = (uint64_t)sqlite3_column_int64(stmt, 10),
        .failures = (uint32_t)sqlite3_column_int64(stmt, 11),
        .created_wall_ns = column_ms_to_ns(stmt, 12),
        .at_wall_ns = column_ms_to_ns(stmt, 13),
        .next_wall_ns = column_ms_to_ns(stmt, 14),
        .reason = db_column_text(stmt, 15),
        .edited = sqlite3_column_int(stmt, 17) != 0,
        .size = (size_t)sqlite3_column_int64(stmt, 18),
    };

    fingerprint_read(db_column_text(stmt, 16), &letter);
    if (sqlite3_column_type(stmt, 19) == SQLITE_BLOB) {
        letter.payload.ptr = sqlite3_column_blob(stmt, 19);
        letter.payload.len = (size_t)sqlite3_column_bytes(stmt, 19);
    } else {
        struct wb_str text = db_column_text(stmt, 19);
        letter.payload = (struct wb_bytes){text.ptr, text.len};
    }
    *ret_letter = letter;
}

/* ---- walking --------------------------------------------------------------------------------- */

struct walk {
    struct db *db;
    const struct dead_letter_query *query;
    dead_letter_visit visit;
    void *ctx;
    bool publisher, consumer; /* tables that are there and asked for */
    struct dead_letter_ref after;
    struct dead_letter_ref only; /* number 0: all */
    bool stopped;
};

/* What the ids of a query say; an id of a kind the file has not is simply not found. */
static wb_err walk_begin(struct walk *self, struct wb_why *why)
{
    const struct dead_letter_query *query = self->query;
    wb_err err = dead_letter_tables(self->db, &self->publisher, &self->consumer, why);

    if (err == WB_OK && query->id.len > 0)
        err = dead_letter_id_parse(query->id, &self->only.kind, &self->only.number, why);
    if (err == WB_OK && query->after.len > 0)
        err = dead_letter_id_parse(query->after, &self->after.kind, &self->after.number, why);
    if (err != WB_OK)
        return err;
    if (query->id.len > 0) {
        self->publisher = self->publisher && self->only.kind == DEAD_LETTER_PUBLISHER;
        self->consumer = self->consumer && self->only.kind == DEAD_LETTER_CONSUMER;
    }
    if (query->after.len > 0 && self->after.kind == DEAD_LETTER_CONSUMER)
        self->publisher = false;
    if (query->only_publisher)
        self->consumer = false;
    return WB_OK;
}

static bool meant(const struct walk *self, const struct dead_letter *letter)
{
    struct dead_letter_seen seen = {.letter = letter, .now_wall_ns = self->query->now_wall_ns};

    return filter_matches(self->query->filter, dead_letter_get, &seen);
}

static int walk_rows(struct walk *self, struct sqlite3_stmt *stmt, dead_letter_kind kind)
{
    const struct dead_letter_query *query = self->query;
    bool payload = query->payload || dead_letter_needs_payload(query->filter);
    int64_t from =
        query->after.len > 0 && self->after.kind == kind ? self->after.number : INT64_MIN;
    int64_t to = INT64_MAX;
    int rc = SQLITE_DONE;

    if (query->id.len > 0) {
        from = self->only.number - 1;
        to = self->only.number;
    }
    (void)sqlite3_bind_int64(stmt, 1, from);
    (void)sqlite3_bind_int64(stmt, 2, to);
    (void)sqlite3_bind_int(stmt, 3, payload ? 1 : 0);
    db_bind_text(stmt, 4, query->consumer);
    while (!self->stopped && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct dead_letter letter;
        letter_read(stmt, kind, &letter);
        if (meant(self, &letter))
            self->stopped = !self->visit(self->ctx, &letter);
    }
    return rc;
}

static wb_err walk_kind(struct walk *self, dead_letter_kind kind, const char *sql,
                        struct wb_why *why)
{
    struct sqlite3 *handle = db_handle(self->db);
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = WB_OK;
    int rc = sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK)
        rc = walk_rows(self, stmt, kind);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = db_error(handle, rc, "read dead letters", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

wb_err dead_letter_walk(struct db *db, const struct dead_letter_query *query,
                        dead_letter_visit visit, void *ctx, struct wb_why *why)
{
    struct walk walk = {.db = db, .query = query, .visit = visit, .ctx = ctx};
    wb_err err = walk_begin(&walk, why);

    if (err == WB_OK && walk.publisher)
        err = walk_kind(&walk, DEAD_LETTER_PUBLISHER, publisher_sql, why);
    if (err == WB_OK && walk.consumer && !walk.stopped)
        err = walk_kind(&walk, DEAD_LETTER_CONSUMER, consumer_sql, why);
    return err;
}

/* ---- listing --------------------------------------------------------------------------------- */

struct listing {
    const struct dead_letter_query *query;
    dead_letter_visit visit;
    void *ctx;
    size_t left;
    struct wb_buf headers, payload; /* with hidden fields */
    wb_err err;
    struct wb_why *why;
};

static bool list_visit(void *ctx, const struct dead_letter *letter)
{
    struct listing *self = ctx;
    struct dead_letter shown = *letter;
    struct dead_letter_redaction *redaction = self->query->redaction;
    bool hidden = false;

    if (redaction != NULL) {
        wb_buf_clear(&self->headers);
        wb_buf_clear(&self->payload);
        dead_letter_redact_headers(redaction, letter->headers, &self->headers, &shown.redacted);
        self->err = dead_letter_redact_payload(redaction, letter->payload, &self->payload, &hidden,
                                               self->why);
        if (self->err == WB_OK && (self->headers.failed || self->payload.failed))
            self->err = wb_fail(self->why, WB_NOMEM, "list dead letters: out of memory");
        if (self->err != WB_OK)
            return false;
        shown.redacted = shown.redacted || hidden;
        shown.headers = wb_str_n(self->headers.ptr, self->headers.len);
        shown.payload = (struct wb_bytes){self->payload.ptr, self->payload.len};
    }
    if (!self->query->payload)
        shown.payload = (struct wb_bytes){NULL, 0};
    self->left--;
    return self->visit(self->ctx, &shown) && self->left > 0;
}

wb_err dead_letter_list(struct db *db, const struct dead_letter_query *query,
                        dead_letter_visit visit, void *ctx, struct wb_why *why)
{
    struct listing listing = {.query = query,
                              .visit = visit,
                              .ctx = ctx,
                              .left = query->limit > 0 ? query->limit : LIST_LIMIT,
                              .why = why};
    wb_err err = dead_letter_walk(db, query, list_visit, &listing, why);

    wb_buf_free(&listing.headers);
    wb_buf_free(&listing.payload);
    return err == WB_OK ? listing.err : err;
}

/* ---- show ------------------------------------------------------------------------------------ */

struct showing {
    struct db *db;
    dead_letter_visit visit;
    void *ctx;
    bool found;
};

/* The oldest row of the key that is in the way of a blocked one; 0 when it cannot be told. */
static int64_t blocker(struct db *db, int64_t row)
{
    struct sqlite3_stmt *stmt = NULL;
    int64_t found = 0;
    int rc = sqlite3_prepare_v2(
        db_handle(db),
        "SELECT e.id FROM main.outbox_exception e JOIN main.outbox o ON o.id = e.id"
        " WHERE e.id < ?1 AND e.state IN ('parked', 'retry', 'lost')"
        " AND o.key = (SELECT key FROM main.outbox WHERE id = ?1) ORDER BY e.id LIMIT 1",
        -1, &stmt, NULL);

    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(stmt, 1, row);
        if (sqlite3_step(stmt) == SQLITE_ROW)
            found = sqlite3_column_int64(stmt, 0);
    }
    (void)sqlite3_finalize(stmt);
    return found;
}

static bool show_visit(void *ctx, const struct dead_letter *letter)
{
    struct showing *self = ctx;
    struct dead_letter shown = *letter;

    self->found = true;
    if (wb_str_eq(letter->state, wb_str("blocked")))
        shown.behind = blocker(self->db, letter->number);
    (void)self->visit(self->ctx, &shown);
    return false;
}

wb_err dead_letter_show(struct db *db, struct wb_str id, struct dead_letter_redaction *redaction,
                        dead_letter_visit visit, void *ctx, struct wb_why *why)
{
    struct showing showing = {.db = db, .visit = visit, .ctx = ctx};
    const struct dead_letter_query query = {
        .id = id, .payload = true, .redaction = redaction, .limit = 1};

    if (id.len == 0)
        return wb_fail(why, WB_INVALID, "which dead letter? give its id, as p17 or c4");
    wb_err err = dead_letter_list(db, &query, show_visit, &showing, why);
    if (err == WB_OK && !showing.found)
        err = wb_fail(why, WB_NOT_FOUND, "there is no dead letter %.*s; 'dlq ls' lists them",
                      (int)id.len, id.ptr);
    return err;
}
