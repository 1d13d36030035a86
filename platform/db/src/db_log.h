/*
 * db_log.h - the write-ahead log of one connection: how large it is, and how to empty it.
 */
#ifndef DB_LOG_H
#define DB_LOG_H

#include "db_internal.h"

#define DB_MIB INT64_C(1048576)

/* From here on the checkpointer makes a gap between the writers; a writer that finds the log still
 * larger makes one itself. What is left up to DB_LOG_WARN_BYTES is room for one large transaction.
 */
#define DB_LOG_FORCE_BYTES (16 * DB_MIB)
#define DB_LOG_HELP_BYTES  (44 * DB_MIB)
#define DB_LOG_WARN_BYTES  (64 * DB_MIB)

/* How far a checkpoint came; frames are pages in the log. Both -1: another one is running. */
struct db_log_progress {
    int in_log, in_file;
};

/** Size of the log's file in bytes; 0 when there is none. */
int64_t db_log_size(const struct db *db);

/**
 * Run a checkpoint of an SQLite mode, waiting wait_ns for readers where the mode does. Returns
 * whether the whole log is in the file. What went wrong but for readers and writers in the way is
 * logged.
 */
bool db_log_checkpoint(struct db *db, int mode, int64_t wait_ns,
                       struct db_log_progress *ret_progress);

/** With the write queue held: empties the log if that can be done within a moment. */
void db_log_empty(struct db *db);

/**
 * After a commit, with the write queue held: empties a log that has passed DB_LOG_HELP_BYTES, so
 * that it stays bounded where the checkpointer gets no processor time, or there is none. Usually
 * costs nothing; where a reader is in the way it waits for it no more than once a second.
 */
void db_log_bound(struct db *db);

/* Who keeps the log from being emptied. */
struct db_log_reader {
    int pid;          /* 0: cannot be seen from here */
    char command[32]; /* its name, or "" */
};

/**
 * The process with the oldest snapshot that the log is kept for, by the locks of the log's index.
 * false: no reader stands in the way now.
 */
bool db_log_oldest_reader(struct db *db, struct db_log_reader *ret_reader);

#endif /* DB_LOG_H */
