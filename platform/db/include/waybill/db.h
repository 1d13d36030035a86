/*
 * waybill/db.h - SQLite as the house uses it: WAL, IMMEDIATE transactions, a fair queue of writers,
 * migrations, checkpoints.
 *
 * A struct db is one connection. Connections opened here run with journal_mode=WAL,
 * wal_autocheckpoint=0 (a db_checkpointer does it), foreign_keys=ON, trusted_schema=OFF,
 * DEFENSIVE, and busy_timeout for writers who are not in our queue.
 *
 * Files     path, path-wal, path-shm, and path-queue: the lock file of the write queue. All are
 *           created with mode 0600.
 * Threads   One connection belongs to one thread at a time. The checkpointer has its own thread.
 * Errors    SQLite's codes map to WB_BUSY, WB_DISK_FULL, WB_READ_ONLY, WB_CORRUPT, WB_IO, WB_NOMEM,
 *           WB_INVALID (constraint, SQL error); why has SQLite's own text and the file.
 */
#ifndef WAYBILL_DB_H
#define WAYBILL_DB_H

#include <waybill/base.h>
#include <waybill/observe.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct sqlite3_stmt;
struct db;

typedef enum db_sync {
    DB_SYNC_FULL,  /* a reported commit survives a power cut */
    DB_SYNC_NORMAL /* a reported commit may vanish in a power cut, but never after publication */
} db_sync;

struct db_options {
    db_sync sync;
    bool must_exist; /* WB_NOT_FOUND instead of creating the file */
    bool read_only;
    int64_t busy_timeout_ns; /* 0: 5 s */
};

/** Open a connection. WB_NOT_FOUND, WB_CORRUPT, WB_READ_ONLY, WB_DENIED, WB_IO, WB_NOMEM. */
wb_err db_open(const char *path, const struct db_options *options, struct db **ret_db,
               struct wb_why *why);

/** Roll back what is open, finalize, close. NULL does nothing. */
void db_close(struct db *db);

/** SQLite's own handle, for statements of the caller's. Owned by db. */
struct sqlite3 *db_handle(struct db *db);
const char *db_path(const struct db *db);

/** Map an SQLite result code, with sqlite3_errmsg and what was attempted into why. */
wb_err db_error(struct sqlite3 *handle, int code, const char *attempted, struct wb_why *why);

/* ---- statements ------------------------------------------------------------------------------ */

/** Run SQL without results. */
wb_err db_exec(struct db *db, const char *sql, struct wb_why *why);

/** Prepare a statement that is kept (SQLITE_PREPARE_PERSISTENT); finalize it before db_close(). */
wb_err db_prepare(struct db *db, const char *sql, struct sqlite3_stmt **ret_stmt,
                  struct wb_why *why);

/**
 * Bind text of known length; the empty view is the empty text, never NULL. It is borrowed: keep it
 * until the statement was stepped or reset. Returns SQLite's code.
 */
int db_bind_text(struct sqlite3_stmt *stmt, int index, struct wb_str text);

/** A column as text, borrowed until the statement is stepped or reset; of NULL, {NULL, 0}. */
struct wb_str db_column_text(struct sqlite3_stmt *stmt, int column);

/**
 * Make a statement ready for its next use, its parameters NULL. code is what its last
 * sqlite3_step() returned: SQLITE_ROW and SQLITE_DONE are WB_OK, others go through db_error().
 */
wb_err db_statement_end(struct sqlite3_stmt *stmt, int code, const char *attempted,
                        struct wb_why *why);

/** One step of a statement, then db_statement_end(). */
wb_err db_statement_run(struct sqlite3_stmt *stmt, const char *attempted, struct wb_why *why);

/* ---- transactions ---------------------------------------------------------------------------- */

/** Take a place in the write queue, then BEGIN IMMEDIATE. WB_BUSY after busy_timeout. */
wb_err db_begin(struct db *db, struct wb_why *why);

/**
 * The same with an empty log, for work where the disk is full: between taking the place in the
 * queue and BEGIN, before(ctx) is called (it may set space free that nobody else shall get) and the
 * log is moved into the file, as far as readers allow.
 */
wb_err db_begin_emptied(struct db *db, void (*before)(void *ctx), void *ctx, struct wb_why *why);

/**
 * COMMIT and leave the queue. On failure the transaction is rolled back. An I/O error at COMMIT
 * leaves the outcome open: then WB_UNKNOWN is returned. WB_CONFLICT: an earlier error had SQLite
 * roll it back already. WB_MISUSE: none was begun.
 */
wb_err db_commit(struct db *db, struct wb_why *why);

/** ROLLBACK and leave the queue. Does nothing outside a transaction. */
void db_rollback(struct db *db);

/* ---- migrations ------------------------------------------------------------------------------ */

/* Step n takes a component's tables from version n - 1 to n. Append only. */
struct db_migration {
    const char *sql;
};

/**
 * Bring the tables of a component up to version count, in one transaction (the caller's, if one is
 * open), recorded in the table waybill_schema(component, version). Works on any SQLite handle. A
 * newer version than ours is refused: WB_UNSUPPORTED.
 */
wb_err db_migrate(struct sqlite3 *handle, const char *component, const struct db_migration *steps,
                  size_t count, struct wb_why *why);

/** Version of a component's tables; 0 when there are none. */
wb_err db_schema_version(struct sqlite3 *handle, const char *component, unsigned *ret_version,
                         struct wb_why *why);

/* ---- durability barrier ---------------------------------------------------------------------- */

/* Syncs the write-ahead log through a descriptor of its own; never opens the database file. */
struct db_barrier;

/** For the database at path; the log is opened by the first sync. WB_NOMEM. */
wb_err db_barrier_create(const char *path, struct db_barrier **ret_barrier, struct wb_why *why);
void db_barrier_destroy(struct db_barrier *barrier);

/**
 * After it returns, all that could be read from the database before the call survives a power cut.
 * Notices a replaced -wal file; after a new one the directory is synced too. WB_IO: also until the
 * log starts anew after a sync that failed, since the kernel forgets what it could not write.
 */
wb_err db_barrier_sync(struct db_barrier *barrier, struct wb_why *why);

/* ---- checkpoints ----------------------------------------------------------------------------- */

/*
 * One thread per database file: PASSIVE when the log passes 4 MiB or after 1 s of quiet, TRUNCATE
 * in gaps without readers. Past 16 MiB it makes such a gap: it goes first in the write queue and
 * holds it while the rest of the log is copied. A writer whose commit leaves the log over 44 MiB
 * empties it itself, with or without this thread. So the log's file stays within 64 MiB, but for
 * transactions of over 20 MiB, writers that do not use db_begin(), and readers whose snapshot is
 * kept open: from 64 MiB on the oldest of those is named.
 */
struct db_checkpointer;

/**
 * Start its thread for the database at path, with a connection of its own.
 *
 * @param observe  for its metrics; NULL: none. Borrowed until stop.
 * @return what db_open() returns; WB_NOMEM.
 */
wb_err db_checkpointer_start(const char *path, struct observe *observe,
                             struct db_checkpointer **ret_checkpointer, struct wb_why *why);
/** End its thread and free it. NULL does nothing. */
void db_checkpointer_stop(struct db_checkpointer *checkpointer);

struct db_checkpointer_health {
    int64_t wal_bytes;     /* size of the log's file */
    int64_t reader_age_ns; /* of the oldest snapshot the log is kept for; 0: none */
    int reader_pid;        /* whose it is, once it is a second old; 0: unknown */
    char problem[256];     /* for people, while the log is over 64 MiB; else "" */
};

/** As of its last look, up to 100 ms ago. Any thread. */
void db_checkpointer_health(struct db_checkpointer *checkpointer,
                            struct db_checkpointer_health *ret_health);

/* ---- exclusive roles ------------------------------------------------------------------------- */

/*
 * A role is a lock file beside the database, held by an OFD lock that the kernel frees the moment
 * its holder dies. One holder at a time over all processes of a host.
 *
 * A holder that is stopped, yet alive, keeps the lock. Then somebody removes the file: those who
 * wait notice that what they have open is no longer what the path names, and open it anew. The old
 * holder still believes in its role, so whatever it may do must be guarded by more than the lock.
 */
struct db_role;

/** Open path (created with mode 0600 if absent); does not take the lock. */
wb_err db_role_open(const char *path, struct db_role **ret_role, struct wb_why *why);
void db_role_close(struct db_role *role);

/**
 * Take it without waiting: WB_BUSY when somebody else has it. A file that was removed or replaced
 * since is opened anew first, and made if absent: WB_NOT_FOUND, WB_DENIED, WB_IO. WB_OK when it is
 * held already, even if the file was removed meanwhile.
 */
wb_err db_role_try(struct db_role *role, struct wb_why *why);

/**
 * A descriptor that is readable when it is worth trying again: the holder has let go or died, or
 * the file was removed. It says so a moment before the lock is free, so try a few times. Do not
 * read it; db_role_try() does. -1 when the system gives none: then try every few milliseconds.
 */
int db_role_fd(struct db_role *role);

/** Let it go; does nothing when it is not held. */
void db_role_release(struct db_role *role);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_DB_H */
