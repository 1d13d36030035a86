/* outbox_fixture.h - a database with an outbox and nothing else, for tests of the table's side. */
#ifndef OUTBOX_FIXTURE_H
#define OUTBOX_FIXTURE_H

#include <stdio.h>

#include "test_db.h"
#include "waybill/outbox_impl.h"

struct fixture {
    char dir[256];
    char path[300];
    struct db *db;
    struct outbox *outbox;
};

static inline void fixture_open(struct fixture *f)
{
    (void)snprintf(f->path, sizeof(f->path), "%s/m.db", f->dir);
    assert_ok(db_open(f->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &f->db, NULL));
    assert_ok(outbox_attach(db_handle(f->db), &f->outbox, NULL));
}

static inline void fixture_close(struct fixture *f)
{
    outbox_detach(f->outbox);
    db_close(f->db);
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    test_dir_make(f->dir);
    fixture_open(f);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    fixture_close(f);
    test_dir_remove(f->dir);
    free(f);
    return 0;
}

static inline int64_t query_int(struct fixture *f, const char *sql)
{
    return test_query(f->db, sql);
}

#endif /* OUTBOX_FIXTURE_H */
