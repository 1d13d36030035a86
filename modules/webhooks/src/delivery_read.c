#include "delivery.h"

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#define KEY_MAX 255 /* bytes; GitHub's longest "owner/repository" has 140 */

/* docs.github.com, "Validating webhook deliveries": HMAC with SHA-256 over the raw body. */
#define SIGNATURE_HEADER "X-Hub-Signature-256"
#define SIGNATURE_PREFIX "sha256="

static bool refuse(struct module_response *response, int status, const char *error,
                   const char *next)
{
    module_respond_error(response, status, error, next);
    return false;
}

/* 1 to WEBHOOKS_NAME_MAX bytes, all of them among those allowed. */
static bool is_name(struct wb_str text, const char *allowed)
{
    if (text.len == 0 || text.len > WEBHOOKS_NAME_MAX)
        return false;
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] == '\0' || strchr(allowed, text.ptr[i]) == NULL)
            return false;
    return true;
}

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define UPPER  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool signature_read(struct wb_str text, uint8_t ret_mac[SHA256_DIGEST_LENGTH])
{
    const size_t prefix = sizeof(SIGNATURE_PREFIX) - 1;

    return text.len == prefix + (size_t)2 * SHA256_DIGEST_LENGTH &&
           memcmp(text.ptr, SIGNATURE_PREFIX, prefix) == 0 &&
           wb_hex_decode(wb_str_n(text.ptr + prefix, text.len - prefix), ret_mac,
                         SHA256_DIGEST_LENGTH);
}

static bool signature_check(const char *secret, const struct module_request *request,
                            struct module_response *response)
{
    uint8_t claimed[SHA256_DIGEST_LENGTH];
    uint8_t actual[EVP_MAX_MD_SIZE];
    unsigned actual_len = 0;
    const unsigned char *body = request->body.len > 0 ? request->body.ptr : (const void *)"";

    if (secret == NULL || secret[0] == '\0')
        return refuse(response, 503,
                      "no webhook secret is configured, so no sender can be believed",
                      "set WAYBILL_WEBHOOKS_SECRET, or secret in section [webhooks] of the "
                      "configuration, to the secret entered at GitHub, and start again");
    if (!signature_read(module_request_header(request, SIGNATURE_HEADER), claimed))
        return refuse(
            response, 401,
            "header " SIGNATURE_HEADER " is missing or not 'sha256=' and 64 "
            "hex digits",
            "enter a secret at GitHub (Settings, Webhooks), so that deliveries are signed");
    if (HMAC(EVP_sha256(), secret, (int)strlen(secret), body, request->body.len, actual,
             &actual_len) == NULL ||
        actual_len != SHA256_DIGEST_LENGTH)
        return refuse(response, 500, "the signature could not be computed", "try again");
    if (!wb_equal_constant_time(claimed, actual, SHA256_DIGEST_LENGTH))
        return refuse(response, 401, "the signature does not belong to this body and our secret",
                      "compare the secret at GitHub with WAYBILL_WEBHOOKS_SECRET");
    return true;
}

static bool headers_read(const struct module_request *request, struct webhooks_delivery *delivery,
                         struct module_response *response)
{
    /* With digits: GitHub has an event "projects_v2_item". */
    delivery->event = module_request_header(request, "X-GitHub-Event");
    if (!is_name(delivery->event, LOWER DIGITS "_"))
        return refuse(response, 400, "header X-GitHub-Event is missing or not 1 to 64 of [a-z0-9_]",
                      "send the name of the event, for example 'push'");
    delivery->id = module_request_header(request, "X-GitHub-Delivery");
    if (!is_name(delivery->id, LOWER UPPER DIGITS "-"))
        return refuse(response, 400,
                      "header X-GitHub-Delivery is missing or not 1 to 64 of [A-Za-z0-9-]",
                      "send an id of your own for every delivery; repeat it only to repeat a "
                      "delivery");
    return true;
}

static struct wb_str member_text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return wb_str_n(json_string_value(value), json_string_length(value));
}

/* Events of one repository stay in order; those of no repository, in that of their organization. */
static struct wb_str ordering_key(const json_t *body)
{
    struct wb_str repository = member_text(json_object_get(body, "repository"), "full_name");

    if (repository.len > 0)
        return repository;
    return member_text(json_object_get(body, "organization"), "login");
}

static bool is_key(struct wb_str key)
{
    for (size_t i = 0; i < key.len; i++)
        if ((unsigned char)key.ptr[i] <= 0x20 || key.ptr[i] == 0x7f)
            return false;
    return key.len <= KEY_MAX;
}

/*
 * jansson refuses more than 2048 levels by itself. The body is passed on as it came, so what JSON
 * allows is not refused for our reader's sake: NUL in strings, integers beyond 64 bits.
 */
static bool body_read(const struct module_request *request, struct webhooks_delivery *delivery,
                      struct module_response *response)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL;
    const char *text = request->body.len > 0 ? request->body.ptr : "";
    json_error_t at;
    struct wb_why why;

    delivery->body = request->body;
    delivery->json = json_loadb(text, request->body.len, flags, &at);
    if (!json_is_object(delivery->json)) {
        wb_fail(&why, WB_INVALID, "the body is no JSON object: %s",
                delivery->json == NULL ? at.text : "it is another value");
        return refuse(response, 400, why.text,
                      "choose content type application/json at GitHub (Settings, Webhooks)");
    }
    delivery->key = ordering_key(delivery->json);
    if (!is_key(delivery->key))
        return refuse(
            response, 400,
            "repository.full_name or organization.login has blanks, control characters or "
            "more than 255 bytes",
            "send what GitHub sends");
    delivery->action = member_text(delivery->json, "action");
    if (!is_name(delivery->action, LOWER UPPER DIGITS "_-"))
        delivery->action = wb_str(NULL);
    SHA256((const unsigned char *)text, request->body.len, delivery->body_sha256);
    return true;
}

static void subject_write(struct webhooks_delivery *delivery)
{
    snprintf(delivery->subject, sizeof(delivery->subject), "webhooks.github.%.*s%s%.*s",
             (int)delivery->event.len, delivery->event.ptr, delivery->action.len > 0 ? "." : "",
             (int)delivery->action.len, delivery->action.len > 0 ? delivery->action.ptr : "");
}

static bool size_check(const struct module_request *request, struct module_response *response)
{
    struct wb_why why;

    if (request->body.len <= WEBHOOKS_BODY_MAX)
        return true;
    wb_fail(&why, WB_TOO_BIG, "the body has %zu bytes; the limit is %u (GitHub's own is 25 MiB)",
            request->body.len, WEBHOOKS_BODY_MAX);
    return refuse(response, 413, why.text, "choose fewer events at GitHub (Settings, Webhooks)");
}

bool webhooks_delivery_read(const struct module_scope *scope, const struct module_request *request,
                            struct webhooks_delivery *ret_delivery,
                            struct module_response *response)
{
    struct webhooks_delivery delivery = {0};

    if (!size_check(request, response) ||
        !signature_check(config_str(scope->config, "webhooks.secret"), request, response) ||
        !headers_read(request, &delivery, response))
        return false;
    if (!body_read(request, &delivery, response)) {
        webhooks_delivery_free(&delivery);
        return false;
    }
    subject_write(&delivery);
    *ret_delivery = delivery;
    return true;
}

void webhooks_delivery_free(struct webhooks_delivery *delivery)
{
    json_decref(delivery->json);
    delivery->json = NULL;
}
