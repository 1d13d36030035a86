/* inbox_fixture.h - a database with the inbox of one consumer, for tests of what it knows. */
#ifndef INBOX_FIXTURE_H
#define INBOX_FIXTURE_H

#include <stdio.h>

#include "test_db.h"

#include <waybill/inbox.h>

static char dir[256];
static char path[300];
static struct db *db;
static struct inbox *inbox; /* NULL where a test attaches it itself */

static inline void fixture_open(void)
{
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/test.db", dir);
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, NULL));
}

static inline void fixture_attach(const char *consumer)
{
    fixture_open();
    assert_ok(inbox_attach(db_handle(db), consumer, &inbox, NULL));
}

static inline int teardown(void **state)
{
    (void)state;
    inbox_detach(inbox);
    inbox = NULL;
    db_close(db);
    test_dir_remove(dir);
    return 0;
}

static inline int64_t query(const char *sql)
{
    return test_query(db, sql);
}

#endif /* INBOX_FIXTURE_H */
