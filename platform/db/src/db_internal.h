/* db_internal.h - what the files of db share. */
#ifndef DB_INTERNAL_H
#define DB_INTERNAL_H

#include <waybill/db.h>

#include "db_lock.h"

struct db {
    struct sqlite3 *handle;
    struct sqlite3_stmt *begin, *commit, *rollback; /* NULL when read only */
    char *path;
    char *wal_path;
    struct db_lock queue; /* this connection's place in the queue of writers */
    struct wb_rng rng;    /* for pauses */
    int64_t busy_timeout_ns;
    int64_t begin_by_mono_ns;   /* deadline of the db_begin() that is running; 0: none */
    int64_t give_up_mono_ns;    /* when the busy handler ends; set at its first call */
    int pages_seen;             /* written by this connection when it last looked at the log */
    int64_t help_after_mono_ns; /* when it may try again to empty the log */
    bool begun;                 /* between db_begin() and its end */
    bool read_only;
};

/** Map errno, with what was attempted on which file and what to do next. */
wb_err db_errno(int number, const char *attempted, const char *path, struct wb_why *why);

/** path followed by suffix, to be freed. NULL when out of memory. */
char *db_path_with(const char *path, const char *suffix);

#endif /* DB_INTERNAL_H */
