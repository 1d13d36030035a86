/*
 * module_fixture.h - a module with a database, outbox and settings of its own, without a service.
 */
#ifndef MODULE_FIXTURE_H
#define MODULE_FIXTURE_H

#include "test_support.h"

#include <stdio.h>

#include <sqlite3.h>

#include <waybill/module.h>
/*
 * A module that publishes nothing does not link the outbox; its test says FIXTURE_WITHOUT_OUTBOX.
 */
#ifndef FIXTURE_WITHOUT_OUTBOX
#include <waybill/outbox.h>
#endif

struct fixture {
    char dir[256];
    char path[300];
    struct wb_clock_virtual clock; /* 2026-01-02T03:04:05.678Z */
    struct module_scope scope;
    struct config *config;
    struct module_response response; /* of the last request */
};

/* Text from the first column of the first row of a query; "" for NULL or no row. */
struct fixture_text {
    char text[2048];
};

static inline void fixture_open(struct fixture *f, const struct module *module)
{
    const struct db_options options = {.busy_timeout_ns = 50 * WB_MS};
    struct wb_why why = {""};

    memset(f, 0, sizeof(*f));
    test_dir_make(f->dir);
    snprintf(f->path, sizeof(f->path), "%s/%s.db", f->dir, module->name);
    wb_clock_virtual_init(&f->clock, 0, INT64_C(1767323045678) * WB_MS);
    f->scope.module = module;
    f->scope.clock = &f->clock.clock;
    assert_ok(config_create(module->settings, module->setting_count, &f->config));
    f->scope.config = f->config;
    assert_ok(db_open(f->path, &options, &f->scope.db, &why));
    assert_ok(db_migrate(db_handle(f->scope.db), module->name, module->migrations,
                         module->migration_count, &why));
#ifndef FIXTURE_WITHOUT_OUTBOX
    assert_ok(outbox_attach(db_handle(f->scope.db), &f->scope.outbox, &why));
#endif
}

static inline void fixture_close(struct fixture *f)
{
    wb_buf_free(&f->response.body);
#ifndef FIXTURE_WITHOUT_OUTBOX
    outbox_detach(f->scope.outbox);
#endif
    db_close(f->scope.db);
    config_destroy(f->config);
    test_dir_remove(f->dir);
}

static inline void fixture_sql(struct fixture *f, const char *sql)
{
    struct wb_why why = {""};

    if (db_exec(f->scope.db, sql, &why) != WB_OK)
        fail_msg("%s: %s", sql, why.text);
}

static inline struct fixture_text fixture_text(struct fixture *f, const char *sql)
{
    struct fixture_text ret = {""};
    struct sqlite3_stmt *stmt = NULL;

    assert_int_equal(sqlite3_prepare_v2(db_handle(f->scope.db), sql, -1, &stmt, NULL), SQLITE_OK);
    if (sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
        snprintf(ret.text, sizeof(ret.text), "%s", (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
    return ret;
}

static inline int64_t fixture_number(struct fixture *f, const char *sql)
{
    return strtoll(fixture_text(f, sql).text, NULL, 10);
}

/* Make every INSERT into a table fail, as a full disk or a bug would. */
static inline void fixture_break(struct fixture *f, const char *table)
{
    char sql[200];

    snprintf(sql, sizeof(sql),
             "CREATE TRIGGER broken BEFORE INSERT ON %s BEGIN SELECT RAISE(ABORT, 'broken'); END",
             table);
    fixture_sql(f, sql);
}

static inline void fixture_mend(struct fixture *f)
{
    fixture_sql(f, "DROP TRIGGER broken");
}

/* Send a request to the route that the module's table has for it; returns the status. */
static inline int fixture_request(struct fixture *f, const struct module_request *request)
{
    const struct module *module = f->scope.module;

    wb_buf_free(&f->response.body);
    f->response = (struct module_response){.status = 200, .content_type = "application/json"};
    for (size_t i = 0; i < module->route_count; i++)
        if (wb_str_eq(request->method, wb_str(module->routes[i].method)) &&
            wb_str_eq(request->path, wb_str(module->routes[i].path))) {
            module->routes[i].handle(&f->scope, request, &f->response);
            assert_int_equal(sqlite3_get_autocommit(db_handle(f->scope.db)), 1);
            return f->response.status;
        }
    fail_msg("no such route: %.*s", (int)request->path.len, request->path.ptr);
    return 0;
}

static inline int fixture_get(struct fixture *f, const char *path, const char *query)
{
    const struct module_request request = {
        .method = wb_str("GET"), .path = wb_str(path), .query = wb_str(query)};

    return fixture_request(f, &request);
}

static inline int fixture_post(struct fixture *f, const char *path, const char *body)
{
    const struct module_request request = {
        .method = wb_str("POST"), .path = wb_str(path), .body = {body, strlen(body)}};

    return fixture_request(f, &request);
}

/* An event as a consumer gets it: in an open transaction that commits when the handler succeeds. */
static inline wb_err fixture_event(struct fixture *f, const struct message *message,
                                   const char *stream, uint64_t sequence, struct wb_why *why)
{
    const struct module_event event = {.message = message,
                                       .stream = wb_str(stream),
                                       .sequence = sequence,
                                       .stored_wall_ns = wb_wall_ns(&f->clock.clock)};

    assert_int_equal(f->scope.module->subscription_count, 1);
    assert_ok(db_begin(f->scope.db, why));
    wb_err err = f->scope.module->subscriptions[0].handle(&f->scope, &event, why);
    assert_int_equal(sqlite3_get_autocommit(db_handle(f->scope.db)), 0);
    if (err == WB_OK)
        assert_ok(db_commit(f->scope.db, why));
    else
        db_rollback(f->scope.db);
    return err;
}

/* Run `<module> name arg arg`; the arguments may be NULL. Free out. */
static inline wb_err fixture_command(struct fixture *f, const char *name, const char *arg1,
                                     const char *arg2, bool json, struct wb_buf *out,
                                     struct wb_why *why)
{
    const char *const argv[] = {arg1, arg2, NULL};
    const struct module *module = f->scope.module;
    int argc = arg1 == NULL ? 0 : arg2 == NULL ? 1 : 2;

    for (size_t i = 0; i < module->command_count; i++)
        if (strcmp(module->commands[i].name, name) == 0)
            return module->commands[i].run(&f->scope, argc, argv, json, out, why);
    fail_msg("no such command: %s", name);
    return WB_INTERNAL;
}

#define assert_body_has(f, expected)                                                               \
    do {                                                                                           \
        if (strstr((f)->response.body.ptr, (expected)) == NULL)                                    \
            fail_msg("'%s' is not in: %s", (expected), (f)->response.body.ptr);                    \
    } while (0)

/* The same of what a command wrote. */
#define assert_out_has(out, expected)                                                              \
    do {                                                                                           \
        if ((out)->ptr == NULL || strstr((out)->ptr, (expected)) == NULL)                          \
            fail_msg("'%s' is not in: %s", (expected), (out)->ptr != NULL ? (out)->ptr : "");      \
    } while (0)

/* ---- setup and teardown of one module a test ------------------------------------------------- */

#define FIXTURE(module)                                                                            \
    static int setup(void **state)                                                                 \
    {                                                                                              \
        static struct fixture f;                                                                   \
        fixture_open(&f, &(module));                                                               \
        *state = &f;                                                                               \
        return 0;                                                                                  \
    }                                                                                              \
    static int teardown(void **state)                                                              \
    {                                                                                              \
        fixture_close(*state);                                                                     \
        return 0;                                                                                  \
    }

#define FIXTURE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif /* MODULE_FIXTURE_H */
