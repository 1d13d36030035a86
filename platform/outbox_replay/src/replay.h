/* replay.h - what the files of outbox_replay share. */
#ifndef REPLAY_H
#define REPLAY_H

#include <waybill/db.h>
#include <waybill/outbox.h>
#include <waybill/outbox_replay.h>

#include "waybill/outbox_impl.h"

struct sqlite3_stmt;

/* Where rows come from: the outbox itself, or an archive. In the order of (id, n). */
struct replay_source {
    struct db *db;
    struct sqlite3_stmt *scan; /* rows behind (?1, ?2), up to id ?3 */
    struct sqlite3_stmt *row;  /* the row (?1, ?2) */
    bool archive;
    int64_t at_id, at_n; /* decided up to here */
    int64_t last_id;     /* no row beyond */
};

/* A row that was chosen. */
struct replay_pick {
    struct replay_source *source;
    int64_t id, n;
};

struct outbox_replay {
    struct db *db;
    struct outbox *outbox;
    struct replay_source sources[2]; /* the archive first, when there is one */
    size_t source_count;
    struct sqlite3_stmt *still_there; /* is this row of the archive in the table, too? */
    struct outbox_replay_selection selection;
    char *to_subject; /* NULL: its own */
    unsigned rate;
    const struct wb_clock *clock;
    struct wb_str log_target, log_reason;
    bool logged, held;
    char hold_name[48];
    struct outbox_replay_progress progress;
    int64_t due_mono_ns; /* of the next batch */
    struct replay_pick picks[OUTBOX_REPLAY_BATCH];
    size_t pick_count;
};

/* A row as it was sent, while its statement stands on it. */
struct replay_row {
    struct outbox_row row;
    char source[OUTBOX_SOURCE_TEXT];
    int64_t n;
};

/* ---- replay_source.c ------------------------------------------------------------------------- */

wb_err outbox_replay_source_table(struct outbox_replay *self, struct wb_why *why);
wb_err outbox_replay_source_archive(struct outbox_replay *self, const char *path,
                                    struct wb_why *why);
void outbox_replay_row_read(struct sqlite3_stmt *stmt, struct replay_row *ret_row);

/* ---- replay_select.c ------------------------------------------------------------------------- */

bool outbox_replay_selects(const struct outbox_replay *self, const struct replay_row *row);

/**
 * Fill picks with up to limit rows that are chosen next, in order; *ret_end: there are no more.
 * visit, when given, sees each.
 */
wb_err outbox_replay_pick(struct outbox_replay *self, size_t limit,
                          void (*visit)(void *ctx, const struct replay_source *source,
                                        const struct replay_row *row),
                          void *ctx, bool *ret_end, struct wb_why *why);

#endif /* REPLAY_H */
