/* retention.h - what the files of outbox_retention share. */
#ifndef RETENTION_H
#define RETENTION_H

#include <waybill/db.h>
#include <waybill/outbox_retention.h>

#include "waybill/outbox_impl.h"

struct sqlite3_stmt;

enum { DELETE_MORE_COUNT = 4 }; /* tables with rows that belong to one of the outbox */

#define RETENTION_BUDGET_NS (2 * WB_MS) /* of one transaction, and of one look for rows */

/* A row that is to go. */
struct retention_victim {
    int64_t id;
    uint8_t msg_id[WB_ID_SIZE];
    uint64_t bytes;
    bool gone; /* the transaction deleted it */
};

/*
 * One class, walking over the rows by itself: where its next row is, and what of it there is. The
 * last lane is for rows of no class. A walk stops at the first row that is too young, since those
 * behind it are younger.
 */
struct retention_lane {
    const struct outbox_class *class; /* NULL: none */
    int64_t keep_ns;                  /* constant after open */
    int64_t at;                       /* rows up to here have been decided on */
    int64_t due_ms;                   /* when the row it stopped at is old enough; 0: none */
    bool done;                        /* for now */
    bool skipped;                     /* rows stayed behind that may go later */
    uint64_t rows, bytes;             /* of all its rows up to counted_id; see retention_count() */
    struct outbox_retention_total total;
};

struct outbox_retention {
    struct db *db;
    const struct wb_clock *clock;
    const struct outbox_class *classes; /* borrowed */
    size_t class_count;
    struct retention_lane *lanes; /* class_count + 1 */
    bool dry_run, by_age_only;

    /* counting, only where a class limits rows or bytes */
    bool counts;
    int64_t counted_id;   /* rows up to here are in the lanes' accounts */
    bool counted;         /* that is all of them */
    int64_t purged_known; /* outbox_purged.rows as we know it; -1: not yet */

    size_t next_lane;
    struct retention_victim victims[OUTBOX_RETENTION_ROWS];
    size_t victim_count;
    int64_t overdue_ns; /* of the oldest victim; 0: none is late */

    /* pacing */
    int64_t version;             /* PRAGMA data_version at the last step */
    int64_t again_after_mono_ns; /* when rows that were skipped are looked at again */

    char *archive_path;
    struct retention_archive *archive; /* NULL: not opened yet */
    char *reserve_path;
    bool disk_full; /* a transaction failed so, and there has been no space for the reserve since */
    bool vacuums;   /* the file can shrink */

    struct sqlite3_stmt *limits, *walk, *count, *purged, *delete_row,
        *delete_more[DELETE_MORE_COUNT], *purged_add, *data_version;
    struct observe_series *purged_rows, *archived_rows;
};

/* What rows may go at all. */
struct retention_limits {
    int64_t last_id;  /* the highest row that may: read back, not the newest, not held */
    int64_t floor_id; /* what all cursors have read back: for rows that name no stream */
    int64_t purged;   /* outbox_purged.rows */
};

/* ---- outbox_retention.c ---------------------------------------------------------------------- */

wb_err outbox_retention_limits_read(struct outbox_retention *self,
                                    struct retention_limits *ret_limits, struct wb_why *why);

/* ---- retention_walk.c ------------------------------------------------------------------------ */

/* Look on from where the lane stands; fills victims. Marks the lane done when nothing is left. */
wb_err outbox_retention_walk(struct outbox_retention *self, struct retention_lane *lane,
                             const struct retention_limits *limits, struct wb_why *why);

/* Count rows that are not in the accounts yet, up to a bound. */
wb_err outbox_retention_count(struct outbox_retention *self, const struct retention_limits *limits,
                              struct wb_why *why);

/* ---- retention_purge.c ----------------------------------------------------------------------- */

/* Archive and delete the victims. *ret_archived: copied just now. */
wb_err outbox_retention_purge(struct outbox_retention *self, struct retention_lane *lane,
                              uint64_t *ret_archived, struct wb_why *why);

/* ---- retention_archive.c --------------------------------------------------------------------- */

struct retention_archive;

/* Made if absent. */
wb_err outbox_retention_archive_open(const char *path, struct retention_archive **ret_archive,
                                     struct wb_why *why);
void outbox_retention_archive_close(struct retention_archive *archive);

/* Copy rows, and sync them; those that are there already stay as they are. */
wb_err outbox_retention_archive_copy(struct retention_archive *archive, struct db *from,
                                     const struct retention_victim *victims, size_t count,
                                     int64_t now_wall_ns, uint64_t *ret_copied, struct wb_why *why);

/* ---- retention_reserve.c --------------------------------------------------------------------- */

/* Make it, if there is space. Returns whether it is there. */
bool outbox_retention_reserve_make(const char *path);
void outbox_retention_reserve_free(const char *path);

#endif /* RETENTION_H */
