/* outbox_verify_table.h - the rows as they are compared with a stream: in slices of numbers. */
#ifndef OUTBOX_VERIFY_TABLE_H
#define OUTBOX_VERIFY_TABLE_H

#include <waybill/base.h>

#define OUTBOX_VERIFY_SLICE    16384 /* row numbers */
#define OUTBOX_VERIFY_PATTERNS 128   /* of a stream */

struct db;
struct sqlite3_stmt;

/* What a row number stands for. */
enum outbox_verify_row_state {
    OUTBOX_VERIFY_NO_ROW,
    OUTBOX_VERIFY_OTHER, /* another stream's, or not said to be published */
    OUTBOX_VERIFY_DUE    /* the stream should hold it */
};

struct outbox_verify_row {
    uint8_t msg_id[WB_ID_SIZE];
    uint64_t late_seq; /* stored out of order, at this sequence or before it; 0: in its place */
    uint8_t state;     /* enum outbox_verify_row_state */
};

struct outbox_verify_cursor {
    int64_t last_id;
    uint64_t last_seq;
    int64_t stream_created;
    int64_t verified_id;
};

struct outbox_verify_table {
    struct db *db; /* borrowed */
    struct sqlite3_stmt *range;
    const char *stream;
    char subjects[1024];
    struct wb_str patterns[OUTBOX_VERIFY_PATTERNS]; /* views into subjects */
    size_t pattern_count;
    struct outbox_verify_cursor cursor;
    int64_t first_id, newest_id; /* of the table; 0: empty */
    struct {
        int64_t from_id;
        uint64_t source;
    } * sources; /* owned; by rising from_id */
    size_t source_count;

    char subject[256]; /* the last one looked at, and whether the stream covers it */
    size_t subject_len;
    bool covered;
};

/** Read all but the rows. subjects: the stream's patterns, as the bus tells them. */
wb_err outbox_verify_table_open(struct outbox_verify_table *table, struct db *db,
                                const char *stream, const char *subjects, struct wb_why *why);
void outbox_verify_table_close(struct outbox_verify_table *table);

/** Is this one of the outbox's sources? */
bool outbox_verify_source_known(const struct outbox_verify_table *table, uint64_t source);
/** The source of a row number; 0: none. */
uint64_t outbox_verify_source_of(const struct outbox_verify_table *table, int64_t id);

/** Read rows [first, first + count) into rows[0..count). */
wb_err outbox_verify_rows(struct outbox_verify_table *table, int64_t first, size_t count,
                          struct outbox_verify_row *rows, struct wb_why *why);

#endif /* OUTBOX_VERIFY_TABLE_H */
