#include <waybill_modules/auth.h>

#include <jansson.h>

#include "user.h"

#define LIST_MAX 1000
#define BODY_MAX 4096

static const struct db_migration migrations[] = {
    {"CREATE TABLE auth_user("
     "id TEXT NOT NULL PRIMARY KEY,"
     "email TEXT NOT NULL UNIQUE COLLATE NOCASE,"
     "name TEXT NOT NULL,"
     "created_at TEXT NOT NULL) STRICT, WITHOUT ROWID"},
};

/* ---- routes ---------------------------------------------------------------------------------- */

static void answer_failure(struct module_response *response, wb_err err, const struct wb_why *why)
{
    if (err == WB_INVALID)
        module_respond_error(response, 400, why->text, "correct it and send again");
    else if (err == WB_EXISTS)
        module_respond_error(response, 409, why->text, "use another email, or the user there is");
    else
        module_respond_failure(response, err, why);
}

static struct wb_str member_text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return wb_str_n(json_string_value(value), json_string_length(value));
}

static void user_post(struct module_scope *scope, const struct module_request *request,
                      struct module_response *response)
{
    struct auth_user user;
    struct wb_why why = {""};
    const char *text = request->body.len > 0 ? request->body.ptr : "";
    json_t *body = json_loadb(text, request->body.len, JSON_REJECT_DUPLICATES, NULL);
    struct wb_str email = member_text(body, "email");
    struct wb_str name = member_text(body, "name");

    if (!json_is_object(body)) {
        module_respond_error(response, 400, "the body is no JSON object",
                             "send {\"email\": ..., \"name\": ...}");
        goto release_body;
    }
    wb_err err = auth_user_add(scope, email, name, &user, &why);
    if (err != WB_OK) {
        answer_failure(response, err, &why);
        goto release_body;
    }
    response->status = 201;
    wb_buf_str(&response->body, "{");
    auth_user_members(&user, email, name, &response->body);
    wb_buf_printf(&response->body, ",\"event_id\":\"%s\"}\n", user.event_id);

release_body:
    json_decref(body);
}

static void users_get(struct module_scope *scope, const struct module_request *request,
                      struct module_response *response)
{
    struct wb_why why = {""};
    int64_t limit;

    if (module_request_limit(request, LIST_MAX, &limit, &why) != WB_OK) {
        module_respond_error(response, 400, why.text, "GET /auth/users?limit=100");
        return;
    }
    wb_err err = auth_user_list(scope->db, limit, true, &response->body, &why);
    if (err != WB_OK)
        answer_failure(response, err, &why);
}

static const struct module_route routes[] = {
    {"POST", "/auth/users", BODY_MAX, user_post},
    {"GET", "/auth/users", 0, users_get},
};

/* ---- commands -------------------------------------------------------------------------------- */

static wb_err add_run(struct module_scope *scope, int argc, const char *const *argv, bool json,
                      struct wb_buf *out, struct wb_why *why)
{
    struct auth_user user;

    if (argc != 2)
        return wb_fail(why, WB_MISUSE, "auth add: expected EMAIL NAME, found %d arguments", argc);
    wb_err err = auth_user_add(scope, wb_str(argv[0]), wb_str(argv[1]), &user, why);
    if (err != WB_OK)
        return err;
    if (!json) {
        wb_buf_printf(out, "%s\n", user.id);
        return WB_OK;
    }
    wb_buf_str(out, "{");
    auth_user_members(&user, wb_str(argv[0]), wb_str(argv[1]), out);
    wb_buf_printf(out, ",\"event_id\":\"%s\"}\n", user.event_id);
    return WB_OK;
}

static wb_err ls_run(struct module_scope *scope, int argc, const char *const *argv, bool json,
                     struct wb_buf *out, struct wb_why *why)
{
    int64_t limit;
    wb_err err = module_command_limit(argc, argv, LIST_MAX, &limit, why);

    return err == WB_OK ? auth_user_list(scope->db, limit, json, out, why) : err;
}

static const struct module_command commands[] = {
    {"add", "EMAIL NAME", "add a user", add_run},
    {"ls", "[--limit N]", "list the newest users", ls_run},
};

static const char *const subjects[] = {"auth.>", NULL};

const struct module auth_module = {
    .name = "auth",
    .stream = "AUTH",
    .subjects = subjects,
    .migrations = migrations,
    .migration_count = sizeof(migrations) / sizeof(migrations[0]),
    .routes = routes,
    .route_count = sizeof(routes) / sizeof(routes[0]),
    .commands = commands,
    .command_count = sizeof(commands) / sizeof(commands[0]),
};
