/*
 * fault_writer.c - a module at work: transactions of business rows and events, told in a history.
 * Some events are to be sent later, some of those expire, and some are taken back.
 */
#include "fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <waybill/outbox.h>

struct fault_writer {
    struct fault_writer_options options;
    struct db *db;
    struct outbox *outbox;
    struct sqlite3_stmt *last_n;
    struct sqlite3_stmt *insert;
    struct sqlite3_stmt *insert_poison;
    int history;
    struct wb_rng rng;
    char name[40]; /* of this life: no two transactions share a name */
    uint64_t count;
    int64_t later;      /* a committed row that may still be taken back; 0: none */
    int64_t later_next; /* what it will be once this transaction is committed */
};

/* ---- open and close -------------------------------------------------------------------------- */

static wb_err writer_setup(struct fault_writer *self, const struct fault_paths *paths,
                           struct wb_why *why)
{
    const struct db_options options = {.sync = self->options.sync};
    wb_err err = db_open(paths->producer, &options, &self->db, why);

    if (err == WB_OK)
        err = db_exec(self->db,
                      "CREATE TABLE IF NOT EXISTS work(tx TEXT, key INTEGER, n INTEGER,"
                      " PRIMARY KEY(key, n))",
                      why);
    if (err == WB_OK)
        err = outbox_attach(db_handle(self->db), &self->outbox, why);
    if (err == WB_OK)
        err = db_prepare(self->db, "SELECT coalesce(max(n), 0) FROM work WHERE key = ?",
                         &self->last_n, why);
    if (err == WB_OK)
        err = db_prepare(self->db, "INSERT INTO work VALUES(?, ?, ?)", &self->insert, why);
    if (err == WB_OK)
        err = db_prepare(self->db,
                         "INSERT INTO outbox(subject, headers, payload)"
                         " VALUES('fault.poison', 'no header', ?1 || ' ' || ?2 || ' ' || ?3)",
                         &self->insert_poison, why);
    return err;
}

wb_err fault_writer_try(const struct fault_paths *paths, const struct fault_writer_options *options,
                        struct fault_writer **ret_writer, struct wb_why *why)
{
    struct fault_writer *self = calloc(1, sizeof(*self));
    uint8_t id[WB_ID_SIZE];

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "writer: no memory");
    self->options = *options;
    self->history = open(paths->history, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    fault_must(self->history >= 0, "open %s", paths->history);
    wb_rng_seed(&self->rng, options->seed);
    wb_random_fill(id, sizeof(id));
    wb_hex_encode(id, sizeof(id), self->name);
    wb_err err = writer_setup(self, paths, why);
    if (err != WB_OK) {
        fault_writer_close(self);
        return err;
    }
    *ret_writer = self;
    return WB_OK;
}

struct fault_writer *fault_writer_open(const struct fault_paths *paths,
                                       const struct fault_writer_options *options)
{
    struct fault_writer *writer = NULL;
    struct wb_why why = {""};

    fault_must(fault_writer_try(paths, options, &writer, &why) == WB_OK, "%s", why.text);
    return writer;
}

void fault_writer_close(struct fault_writer *writer)
{
    if (writer == NULL)
        return;
    sqlite3_finalize(writer->last_n);
    sqlite3_finalize(writer->insert);
    sqlite3_finalize(writer->insert_poison);
    outbox_detach(writer->outbox);
    db_close(writer->db);
    close(writer->history);
    free(writer);
}

/* ---- inside a transaction -------------------------------------------------------------------- */

/* Run a statement with what it takes: tx, key, n. */
static wb_err insert(struct sqlite3_stmt *stmt, const char *tx, int key, int64_t n,
                     struct wb_why *why)
{
    (void)db_bind_text(stmt, 1, wb_str(tx));
    (void)sqlite3_bind_int(stmt, 2, key);
    (void)sqlite3_bind_int64(stmt, 3, n);
    return db_statement_run(stmt, "insert work", why);
}

static wb_err next_n(struct fault_writer *self, int key, int *ret_n, struct wb_why *why)
{
    sqlite3_bind_int(self->last_n, 1, key);
    int code = sqlite3_step(self->last_n);
    if (code == SQLITE_ROW)
        *ret_n = sqlite3_column_int(self->last_n, 0) + 1;
    return db_statement_end(self->last_n, code, "read the last number", why);
}

static int64_t some_ms(struct fault_writer *self, uint64_t most)
{
    return (int64_t)(1 + wb_rng_below(&self->rng, most)) * WB_MS;
}

/* Without a key, since what is sent later takes no part in the order of one. */
static void make_later(struct fault_writer *self, struct outbox_event *event)
{
    const struct wb_clock *clock = self->options.clock;

    event->subject = wb_str("fault.later");
    event->key = (struct wb_str){NULL, 0};
    event->due_wall_ns = wb_wall_ns(clock != NULL ? clock : wb_clock_system()) + some_ms(self, 150);
    if (wb_rng_below(&self->rng, 4) == 0)
        event->expires_wall_ns = event->due_wall_ns + 2 * WB_MS + some_ms(self, 50);
}

static wb_err write_one(struct fault_writer *self, const char *tx, struct wb_why *why)
{
    bool later = wb_rng_below(&self->rng, 8) == 0;
    int key = later ? FAULT_LATER_KEY : (int)wb_rng_below(&self->rng, FAULT_KEYS);
    int pad = (int)wb_rng_below(&self->rng, 100) + 1;
    struct outbox_receipt receipt;
    char subject[32];
    char payload[200];
    int n = 0;
    wb_err err = next_n(self, key, &n, why);

    if (err == WB_OK)
        err = insert(self->insert, tx, key, n, why);
    if (err != WB_OK)
        return err;
    (void)snprintf(subject, sizeof(subject), "fault.k%d", key);
    int len = snprintf(payload, sizeof(payload), "%s %d %d %0*d", tx, key, n, pad, 0);
    struct outbox_event event = {
        .subject = wb_str(subject), .payload = {payload, (size_t)len}, .key = wb_str(subject)};
    if (later)
        make_later(self, &event);
    err = outbox_enqueue(self->outbox, &event, &receipt, why);
    if (err == WB_OK && later)
        self->later_next = receipt.row_id;
    return err;
}

/* An event that no bus will take: what stands in its headers is none. */
static wb_err write_poison(struct fault_writer *self, const char *tx, struct wb_why *why)
{
    int n = 0;
    wb_err err = next_n(self, FAULT_POISON_KEY, &n, why);

    if (err == WB_OK)
        err = insert(self->insert, tx, FAULT_POISON_KEY, n, why);
    if (err == WB_OK)
        err = insert(self->insert_poison, tx, FAULT_POISON_KEY, n, why);
    return err;
}

/* The business row tells which row was taken back. */
static wb_err take_back(struct fault_writer *self, const char *tx, struct wb_why *why)
{
    int64_t row_id = self->later;
    wb_err err = insert(self->insert, tx, FAULT_CANCEL_KEY, row_id, why);

    self->later_next = 0;
    return err == WB_OK ? outbox_cancel(self->outbox, row_id, why) : err;
}

/* ---- transactions ---------------------------------------------------------------------------- */

static void tell(const struct fault_writer *self, const char *phase, const char *tx)
{
    char line[100];
    int len = snprintf(line, sizeof(line), FAULT_HISTORY_LINE, phase, tx);

    fault_must(write(self->history, line, (size_t)len) == len, "write the history");
    if (self->options.told != NULL)
        self->options.told(self->options.ctx, phase, tx);
}

static wb_err write_all(struct fault_writer *self, bool poison, const char *tx, struct wb_why *why)
{
    wb_err err = WB_OK;

    if (poison)
        return write_poison(self, tx, why);
    if (self->later > 0 && wb_rng_below(&self->rng, 4) == 0)
        return take_back(self, tx, why);
    for (uint64_t left = 1 + wb_rng_below(&self->rng, 3); err == WB_OK && left > 0; left--)
        err = write_one(self, tx, why);
    return err;
}

wb_err fault_writer_transact(struct fault_writer *writer, bool poison, struct wb_why *why)
{
    bool undo = wb_rng_below(&writer->rng, 10) == 0 && !poison;
    char tx[FAULT_TX_SIZE];

    (void)snprintf(tx, sizeof(tx), "%s-%llu", writer->name, (unsigned long long)writer->count++);
    tell(writer, "invoke", tx);
    writer->later_next = writer->later;
    wb_err err = db_begin(writer->db, why);
    if (err == WB_OK)
        err = write_all(writer, poison, tx, why);
    if (err == WB_OK && !undo)
        err = db_commit(writer->db, why);
    else
        db_rollback(writer->db);
    if (err != WB_UNKNOWN)
        tell(writer, err == WB_OK && !undo ? "ok" : "fail", tx);
    if (err == WB_OK && !undo)
        writer->later = writer->later_next;
    if (err != WB_OK)
        writer->later = 0;
    outbox_wake(writer->outbox);
    /* It was too late to take a row back: on its way, or sent and no longer kept. */
    return err == WB_CONFLICT || err == WB_NOT_FOUND ? WB_OK : err;
}
