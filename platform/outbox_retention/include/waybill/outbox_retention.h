/*
 * waybill/outbox_retention.h - let rows of an outbox go that are published, known to be stored, and
 * old enough.
 *
 * A row may go when it is *confirmed*: its stream's cursor says that it was read back from the bus
 * (verified_id), and it is not off the straight path (waiting, in retry, blocked, parked, lost).
 * Expired and cancelled rows go by age, too. The newest row of an outbox always stays, since its
 * number must not be given out again, and so do rows somebody holds (outbox_retention_hold()).
 *
 * How long a confirmed row is kept is up to its class (outbox.h): by age (24 h unless it says
 * otherwise; by the wall clock), and earlier, the oldest first, while the class has more rows or
 * bytes than it may. Rows of a class with `archive` are copied to a second file first, and synced
 * there before they go: at any moment, a crash included, each row is in the table or the archive.
 *
 * Work is done in small steps, so that nobody waits for it: at most OUTBOX_RETENTION_ROWS rows or
 * about 2 ms in one transaction, and then nothing for a while (struct outbox_retention_result).
 * Space within the file is used again by new rows; the file shrinks only if it was made with
 * PRAGMA auto_vacuum=INCREMENTAL. Files made here are not: it costs 5 to 25 % more log for each
 * row.
 *
 * Files     path-archive: the archive. path-reserve: 1 MiB that is set free when the disk is full,
 *           so that rows can go; it is made again once there is space.
 * Threads   One object belongs to one thread at a time. Several, in one or many processes, may work
 *           on one file. Starts no thread of its own: the service has one for all its files.
 */
#ifndef WAYBILL_OUTBOX_RETENTION_H
#define WAYBILL_OUTBOX_RETENTION_H

#include <waybill/observe.h>
#include <waybill/outbox.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OUTBOX_RETENTION_KEEP_NS (INT64_C(86400) * WB_SEC) /* unless the class says otherwise */
#define OUTBOX_RETENTION_ROWS    500                       /* deleted in one step, at most */

struct outbox_retention;

struct outbox_retention_options {
    const char *path;                   /* the database; it must have an outbox */
    const char *archive_path;           /* NULL: path-archive */
    const struct outbox_class *classes; /* borrowed until close */
    size_t class_count;
    int64_t older_than_ns;        /* > 0: only age counts, and this one, whatever the classes say */
    bool dry_run;                 /* say what would go; nothing is changed, no file is made */
    const struct wb_clock *clock; /* NULL: the system's */
    struct observe *observe;      /* may be NULL */
    const char *name;             /* label of the metrics; NULL: "" */
};

/**
 * Open a connection of its own. Rows are counted at first only if a class limits rows or bytes:
 * that reads the table once, in small steps, and again after somebody else has purged.
 * @return WB_NOT_FOUND (no file, no outbox in it), WB_UNSUPPORTED, else as db_open().
 */
wb_err outbox_retention_open(const struct outbox_retention_options *options,
                             struct outbox_retention **ret_retention, struct wb_why *why);

/** NULL does nothing. */
void outbox_retention_close(struct outbox_retention *retention);

struct outbox_retention_result {
    uint64_t rows, bytes; /* that went in this step; bytes of payload, headers, subject and key */
    uint64_t archived;    /* of them */
    bool more;            /* there may be more to do now */
    int64_t next_ns;      /* when to call again: others shall have the file until then */
};

/**
 * Do a little. A step that fails has changed nothing but, at most, the archive, and the next one
 * does it again.
 * @return WB_BUSY, WB_DISK_FULL (the next step uses the reserve), WB_IO, WB_CORRUPT, WB_UNKNOWN
 *         (the rows may have gone: the next step sees).
 */
wb_err outbox_retention_step(struct outbox_retention *retention,
                             struct outbox_retention_result *ret_result, struct wb_why *why);

/* What went since open. */
struct outbox_retention_total {
    const char *name; /* of the class; "" for rows of no class */
    uint64_t rows, bytes, archived;
};

/** One line for each class, and a last one for rows of none. false: index is past the last. */
bool outbox_retention_total(const struct outbox_retention *retention, size_t index,
                            struct outbox_retention_total *ret_total);

/* ---- rows somebody still needs --------------------------------------------------------------- */

/**
 * Keep rows from from_id on, for ttl_ns from now; again with the same name moves and prolongs it.
 * A transaction of its own on the connection. name: up to 64 bytes.
 */
wb_err outbox_retention_hold(struct sqlite3 *handle, const char *name, int64_t from_id,
                             int64_t ttl_ns, struct wb_why *why);
wb_err outbox_retention_release(struct sqlite3 *handle, const char *name, struct wb_why *why);

/* ---- the archive ----------------------------------------------------------------------------- */

/* A row as it went: state is published or expired. Views are valid during the call. */
struct outbox_retention_archive_row {
    struct outbox_row row; /* as it was sent: an operator's edit has replaced its own */
    char source[17];       /* hex; whose number row.id is: after a restore numbers come twice */
    int64_t archived_wall_ns;
    bool edited;
};

/** Return false to stop. */
typedef bool (*outbox_retention_archive_visit)(void *ctx,
                                               const struct outbox_retention_archive_row *row);

/** Is this database an archive? */
bool outbox_retention_archive_is(struct sqlite3 *handle);

/**
 * Visit rows in the order in which they went, which is that of their ids but for those that were
 * off the straight path. by_state in the filter is not looked at.
 * @return WB_NOT_FOUND: no archive.
 */
wb_err outbox_retention_archive_list(struct sqlite3 *handle, const struct outbox_filter *filter,
                                     outbox_retention_archive_visit visit, void *ctx,
                                     struct wb_why *why);

/** One row by its number (the newest of that number) or msg_id. WB_NOT_FOUND, WB_INVALID. */
wb_err outbox_retention_archive_show(struct sqlite3 *handle, struct wb_str id,
                                     outbox_retention_archive_visit visit, void *ctx,
                                     struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_OUTBOX_RETENTION_H */
