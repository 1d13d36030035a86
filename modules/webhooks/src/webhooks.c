#include <waybill_modules/webhooks.h>

#include "delivery.h"

static const struct db_migration migrations[] = {
    {"CREATE TABLE webhooks_delivery("
     "id TEXT NOT NULL PRIMARY KEY," /* X-GitHub-Delivery; unique, which makes a repeat harmless */
     "event TEXT NOT NULL,"
     "action TEXT,"
     "subject TEXT NOT NULL,"
     "event_id TEXT NOT NULL," /* of the event it became, in the outbox */
     "received_at TEXT NOT NULL,"
     "body_sha256 BLOB NOT NULL CHECK(length(body_sha256) = 32),"
     "body_size INTEGER NOT NULL) STRICT, WITHOUT ROWID"},
};

static const struct config_key settings[] = {
    {.name = "webhooks.secret",
     .type = CONFIG_STRING,
     .secret = true,
     .help = "secret shared with GitHub; without it no delivery is taken"},
};

static void answer(struct module_response *response, int status,
                   const struct webhooks_delivery *delivery, const struct webhooks_receipt *receipt)
{
    response->status = status;
    wb_buf_str(&response->body,
               status == 200 ? "{\"duplicate\":true,\"delivery\":" : "{\"delivery\":");
    wb_buf_json_str(&response->body, delivery->id);
    wb_buf_str(&response->body, ",\"subject\":");
    wb_buf_json_str(&response->body, wb_str(receipt->subject));
    wb_buf_str(&response->body, ",\"event_id\":");
    wb_buf_json_str(&response->body, wb_str(receipt->event_id));
    wb_buf_str(&response->body, "}\n");
}

static void answer_failure(struct module_response *response, wb_err err, const struct wb_why *why)
{
    if (err == WB_CONFLICT)
        module_respond_error(response, 409, why->text, "give every delivery an id of its own");
    else if (err == WB_TOO_BIG)
        module_respond_error(response, 413, why->text, "choose fewer events at GitHub");
    else if (wb_err_class(err) == WB_RETRY)
        module_respond_error(response, 503, why->text,
                             "send it again: the delivery id keeps it from being taken twice");
    else
        module_respond_error(response, 500, why->text, "see the log, and run 'waybill doctor'");
}

static void receive(struct module_scope *scope, const struct module_request *request,
                    struct module_response *response)
{
    struct webhooks_delivery delivery;
    struct webhooks_receipt receipt;
    struct wb_why why = {""};

    if (!webhooks_delivery_read(scope, request, &delivery, response))
        return;
    wb_err err = webhooks_delivery_take(scope, &delivery, &receipt, &why);
    if (err == WB_OK)
        answer(response, 202, &delivery, &receipt);
    else if (err == WB_EXISTS)
        answer(response, 200, &delivery, &receipt);
    else
        answer_failure(response, err, &why);
    webhooks_delivery_free(&delivery);
}

static const struct module_route routes[] = {
    {"POST", "/webhooks/github", WEBHOOKS_BODY_MAX, receive},
};

static const char *const subjects[] = {"webhooks.>", NULL};

const struct module webhooks_module = {
    .name = "webhooks",
    .stream = "WEBHOOKS",
    .subjects = subjects,
    .migrations = migrations,
    .migration_count = sizeof(migrations) / sizeof(migrations[0]),
    .settings = settings,
    .setting_count = sizeof(settings) / sizeof(settings[0]),
    .routes = routes,
    .route_count = sizeof(routes) / sizeof(routes[0]),
};
