#include <waybill_modules/ar.h>

#include <string.h>

#include <jansson.h>

#include "ledger.h"

#define LIST_MAX 1000
#define BODY_MAX 4096

static const struct db_migration migrations[] = {
    {"CREATE TABLE ar_account("
     "id TEXT NOT NULL PRIMARY KEY,"
     "user_id TEXT NOT NULL UNIQUE,"
     "opened_at TEXT NOT NULL) STRICT, WITHOUT ROWID;"
     "CREATE TABLE ar_invoice("
     "id TEXT NOT NULL PRIMARY KEY,"
     "account_id TEXT NOT NULL REFERENCES ar_account(id),"
     "amount_cents INTEGER NOT NULL CHECK(amount_cents BETWEEN 1 AND 1000000000000),"
     "currency TEXT NOT NULL CHECK(currency GLOB '[A-Z][A-Z][A-Z]'),"
     "issued_at TEXT NOT NULL) STRICT, WITHOUT ROWID;"
     "CREATE INDEX ar_invoice_account ON ar_invoice(account_id)"},
};

static struct wb_str member_text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return wb_str_n(json_string_value(value), json_string_length(value));
}

/* ---- events ---------------------------------------------------------------------------------- */

/* The trace goes on; what is no traceparent (W3C Trace Context, level 1: 55 bytes) is left out. */
static struct wb_str trace_of(const struct message *message)
{
    struct wb_str trace = message_header(message, MESSAGE_HEADER_TRACEPARENT);

    return trace.len == 55 ? trace : wb_str(NULL);
}

static wb_err user_created(struct module_scope *scope, const struct module_event *event,
                           struct wb_why *why)
{
    const struct wb_bytes payload = event->message->payload;
    const char *text = payload.len > 0 ? payload.ptr : "";
    json_t *user = json_loadb(text, payload.len, JSON_REJECT_DUPLICATES, NULL);
    struct wb_str user_id = member_text(user, "user_id");
    wb_err err;

    if (ar_user_id_valid(user_id))
        err = ar_account_open(scope, user_id, trace_of(event->message), why);
    else
        err = wb_fail(why, WB_INVALID,
                      "open an account: expected a JSON object with user_id, 1 to %d of "
                      "[A-Za-z0-9_-]; mend the sender and replay the event",
                      AR_USER_ID_MAX);
    json_decref(user);
    return err;
}

static const char *const user_created_patterns[] = {"auth.events.user.created", NULL};

static const struct module_subscription subscriptions[] = {
    {"accounts", user_created_patterns, user_created},
};

/* ---- routes ---------------------------------------------------------------------------------- */

static void answer_failure(struct module_response *response, wb_err err, const struct wb_why *why)
{
    if (err == WB_INVALID)
        module_respond_error(
            response, 400, why->text,
            "send {\"user_id\": ..., \"amount_cents\": 1200, \"currency\": \"EUR\"}");
    else if (err == WB_NOT_FOUND)
        module_respond_error(response, 404, why->text,
                             "add the user (POST /auth/users); the account opens when ar hears of "
                             "it, which takes a moment");
    else
        module_respond_failure(response, err, why);
}

static bool is_currency(struct wb_str text)
{
    if (text.len != 3)
        return false;
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < 'A' || text.ptr[i] > 'Z')
            return false;
    return true;
}

/* user_id of ret_invoice is a view into body. */
static wb_err invoice_read(const json_t *body, struct ar_invoice *ret_invoice, struct wb_why *why)
{
    const json_t *amount = json_object_get(body, "amount_cents");
    struct wb_str currency = member_text(body, "currency");
    struct ar_invoice invoice = {.user_id = member_text(body, "user_id")};

    if (!json_is_object(body))
        return wb_fail(why, WB_INVALID, "the body is no JSON object");
    if (!ar_user_id_valid(invoice.user_id))
        return wb_fail(why, WB_INVALID, "user_id: expected 1 to %d of [A-Za-z0-9_-]",
                       AR_USER_ID_MAX);
    invoice.amount_cents = json_integer_value(amount);
    if (!json_is_integer(amount) || invoice.amount_cents < 1 ||
        invoice.amount_cents > AR_AMOUNT_MAX)
        return wb_fail(why, WB_INVALID, "amount_cents: expected an integer from 1 to %lld",
                       (long long)AR_AMOUNT_MAX);
    if (!is_currency(currency))
        return wb_fail(why, WB_INVALID, "currency: expected three capital letters (ISO 4217)");
    memcpy(invoice.currency, currency.ptr, 3);
    *ret_invoice = invoice;
    return WB_OK;
}

static void invoice_post(struct module_scope *scope, const struct module_request *request,
                         struct module_response *response)
{
    struct ar_invoice invoice;
    struct wb_why why = {""};
    const char *text = request->body.len > 0 ? request->body.ptr : "";
    json_t *body = json_loadb(text, request->body.len, JSON_REJECT_DUPLICATES, NULL);

    wb_err err = invoice_read(body, &invoice, &why);
    if (err == WB_OK)
        err = ar_invoice_issue(scope, &invoice, &why);
    if (err == WB_OK) {
        response->status = 201;
        wb_buf_str(&response->body, "{");
        ar_invoice_members(&invoice, &response->body);
        wb_buf_printf(&response->body, ",\"event_id\":\"%s\"}\n", invoice.event_id);
    } else {
        answer_failure(response, err, &why);
    }
    json_decref(body);
}

static void accounts_get(struct module_scope *scope, const struct module_request *request,
                         struct module_response *response)
{
    struct wb_why why = {""};
    int64_t limit;

    if (module_request_limit(request, LIST_MAX, &limit, &why) != WB_OK) {
        module_respond_error(response, 400, why.text, "GET /ar/accounts?limit=100");
        return;
    }
    wb_err err = ar_account_list(scope->db, limit, true, &response->body, &why);
    if (err != WB_OK)
        answer_failure(response, err, &why);
}

static const struct module_route routes[] = {
    {"POST", "/ar/invoices", BODY_MAX, invoice_post},
    {"GET", "/ar/accounts", 0, accounts_get},
};

/* ---- commands -------------------------------------------------------------------------------- */

static wb_err ls_run(struct module_scope *scope, int argc, const char *const *argv, bool json,
                     struct wb_buf *out, struct wb_why *why)
{
    int64_t limit;
    wb_err err = module_command_limit(argc, argv, LIST_MAX, &limit, why);

    return err == WB_OK ? ar_account_list(scope->db, limit, json, out, why) : err;
}

static const struct module_command commands[] = {
    {"ls", "[--limit N]", "list the newest accounts and how many invoices each has", ls_run},
};

static const char *const subjects[] = {"ar.>", NULL};

const struct module ar_module = {
    .name = "ar",
    .stream = "AR",
    .subjects = subjects,
    .migrations = migrations,
    .migration_count = sizeof(migrations) / sizeof(migrations[0]),
    .subscriptions = subscriptions,
    .subscription_count = sizeof(subscriptions) / sizeof(subscriptions[0]),
    .routes = routes,
    .route_count = sizeof(routes) / sizeof(routes[0]),
    .commands = commands,
    .command_count = sizeof(commands) / sizeof(commands[0]),
};
