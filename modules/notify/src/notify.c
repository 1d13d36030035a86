#include <waybill_modules/notify.h>

#include <stdio.h>

#include <sqlite3.h>

#define LIST_MAX 1000

static const struct db_migration migrations[] = {
    /* The platform hands out each event once; UNIQUE says so where the rows are. */
    {"CREATE TABLE notify_notification("
     "id INTEGER PRIMARY KEY,"
     "event_id TEXT NOT NULL UNIQUE,"
     "stream TEXT NOT NULL,"
     "subject TEXT NOT NULL,"
     "about TEXT NOT NULL," /* the event's key, \"\" when it has none */
     "happened_at TEXT NOT NULL) STRICT"},
};

/* ---- events ---------------------------------------------------------------------------------- */

/* The event's own id; an event from elsewhere that has none is known by its place. */
static struct wb_str event_id(const struct module_event *event, char place[128])
{
    if (event->message->msg_id.len > 0)
        return event->message->msg_id;
    snprintf(place, 128, "%.*s/%llu", (int)event->stream.len, event->stream.ptr,
             (unsigned long long)event->sequence);
    return wb_str(place);
}

static wb_err something_happened(struct module_scope *scope, const struct module_event *event,
                                 struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    char place[128];
    char happened_at[32];

    wb_err err = db_prepare(scope->db,
                            "INSERT INTO notify_notification(event_id, stream, subject, about, "
                            "happened_at) VALUES(?1, ?2, ?3, ?4, ?5)",
                            &stmt, why);
    if (err != WB_OK)
        return err;
    wb_time_format(event->stored_wall_ns, happened_at);
    db_bind_text(stmt, 1, event_id(event, place));
    db_bind_text(stmt, 2, event->stream);
    db_bind_text(stmt, 3, event->message->subject);
    db_bind_text(stmt, 4, message_header(event->message, MESSAGE_HEADER_KEY));
    db_bind_text(stmt, 5, wb_str(happened_at));
    int code = sqlite3_step(stmt);
    if (code != SQLITE_DONE)
        err = db_error(db_handle(scope->db), code, "write a notification", why);
    sqlite3_finalize(stmt);
    return err;
}

static const char *const patterns[] = {"*.events.*.created", "*.events.*.issued", NULL};

static const struct module_subscription subscriptions[] = {
    {"events", patterns, something_happened},
};

/* ---- listing --------------------------------------------------------------------------------- */

static wb_err newest(struct db *db, int64_t limit, struct wb_buf *out, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(
        db,
        "SELECT json_object('notifications', json_group_array(json_object('id', id, 'event_id', "
        "event_id, 'stream', stream, 'subject', subject, 'about', about, 'happened_at', "
        "happened_at)), 'total', (SELECT count(*) FROM notify_notification)) "
        "FROM (SELECT * FROM notify_notification ORDER BY id DESC LIMIT ?1)",
        &stmt, why);

    if (err != WB_OK)
        return err;
    sqlite3_bind_int64(stmt, 1, limit);
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        wb_buf_str(out, (const char *)sqlite3_column_text(stmt, 0));
        wb_buf_str(out, "\n");
    } else {
        err = db_error(db_handle(db), code, "list the notifications", why);
    }
    sqlite3_finalize(stmt);
    return err;
}

static void notifications_get(struct module_scope *scope, const struct module_request *request,
                              struct module_response *response)
{
    struct wb_why why = {""};
    int64_t limit;

    if (module_request_limit(request, LIST_MAX, &limit, &why) != WB_OK) {
        module_respond_error(response, 400, why.text, "GET /notify/notifications?limit=100");
        return;
    }
    wb_err err = newest(scope->db, limit, &response->body, &why);
    if (err != WB_OK)
        module_respond_failure(response, err, &why);
}

static const struct module_route routes[] = {
    {"GET", "/notify/notifications", 0, notifications_get},
};

const struct module notify_module = {
    .name = "notify",
    .stream = NULL,
    .migrations = migrations,
    .migration_count = sizeof(migrations) / sizeof(migrations[0]),
    .subscriptions = subscriptions,
    .subscription_count = sizeof(subscriptions) / sizeof(subscriptions[0]),
    .routes = routes,
    .route_count = sizeof(routes) / sizeof(routes[0]),
};
