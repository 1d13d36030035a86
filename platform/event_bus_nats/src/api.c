#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nats_bus.h"

#define REQUEST_TIMEOUT_MS 4000

wb_err event_bus_nats_api_err(unsigned code, unsigned err_code)
{
    switch (err_code) {
    case NATS_API_NO_MESSAGE:
    case NATS_API_CONSUMER_NOT_FOUND:
        return WB_NOT_FOUND;
    case NATS_API_STREAM_NOT_FOUND:
        return WB_NO_STREAM;
    case NATS_API_NOT_ENABLED:
    case NATS_API_NOT_ENABLED_FOR_ACCOUNT:
        return WB_NO_JETSTREAM;
    case NATS_API_INSUFFICIENT_RESOURCES:
    case NATS_API_INSUFFICIENT_STORAGE:
    case NATS_API_STREAM_STORE_FAILED:
        return WB_FULL;
    case NATS_API_MESSAGE_TOO_BIG:
    case NATS_API_HEADER_TOO_BIG:
        return WB_TOO_BIG;
    case NATS_API_STREAM_EXISTS:
    case NATS_API_SUBJECT_OVERLAP:
    case NATS_API_WRONG_STREAM:
    case NATS_API_WRONG_LAST_ID:
    case NATS_API_WRONG_LAST_SEQUENCE:
    case NATS_API_BATCH_KNOWN:
        return WB_CONFLICT;
    default:
        /* 503: a cluster without a leader, a server that is starting or going. */
        return code == 503 ? WB_UNREACHABLE : WB_INVALID;
    }
}

json_t *event_bus_nats_json_at(json_t *object, const char *path)
{
    char key[64];

    while (object != NULL && *path != '\0') {
        size_t len = strcspn(path, ".");
        if (len >= sizeof(key))
            return NULL;
        memcpy(key, path, len);
        key[len] = '\0';
        object = json_object_get(object, key);
        path += len + (path[len] == '.');
    }
    return object;
}

uint64_t event_bus_nats_json_u64(json_t *object, const char *path)
{
    json_int_t value = json_integer_value(event_bus_nats_json_at(object, path));

    return value > 0 ? (uint64_t)value : 0;
}

const char *event_bus_nats_json_str(json_t *object, const char *path)
{
    const char *text = json_string_value(event_bus_nats_json_at(object, path));

    return text != NULL ? text : "";
}

/* Permission violations come outside of the call, which then only times out. */
static bool was_denied(struct nats_bus *bus, const char *subject)
{
    pthread_mutex_lock(&bus->mutex);
    bool denied = strcmp(bus->denied_subject, subject) == 0;
    if (denied)
        bus->denied_subject[0] = '\0';
    pthread_mutex_unlock(&bus->mutex);
    return denied;
}

wb_err event_bus_nats_api_explain(struct nats_bus *bus, const char *what, const char *subject,
                                  natsStatus status, struct wb_why *why)
{
    switch (status) {
    case NATS_NO_RESPONDERS:
        return wb_fail(why, WB_NO_JETSTREAM,
                       "%s: JetStream is not enabled on the server at %s; start nats-server with "
                       "-js or a jetstream block in its configuration",
                       what, bus->urls);
    case NATS_TIMEOUT:
        if (was_denied(bus, subject))
            return wb_fail(why, WB_DENIED,
                           "%s: the user at %s may not publish to %s; grant it or use another user",
                           what, bus->urls, subject);
        return wb_fail(why, WB_TIMEOUT, "%s: no answer from %s within %d ms", what, bus->urls,
                       REQUEST_TIMEOUT_MS);
    case NATS_NO_MEMORY:
        return wb_fail(why, WB_NOMEM, "%s: out of memory", what);
    default:
        return wb_fail(why, WB_UNREACHABLE, "%s: the connection to %s was lost (%s)", what,
                       bus->urls, natsStatus_GetText(status));
    }
}

static wb_err not_connected(struct nats_bus *bus, const char *what, struct wb_why *why)
{
    char problem[sizeof(bus->sub.problem)];

    event_bus_nats_link_problem(&bus->sub, problem, sizeof(problem));
    return wb_fail(why, WB_UNREACHABLE, "%s: not connected to %s: %s", what, bus->urls, problem);
}

wb_err event_bus_nats_api_answer(struct nats_bus *bus, const char *what, const char *subject,
                                 natsMsg *msg, json_t **ret_answer, struct wb_why *why)
{
    json_error_t at;

    if (natsMsg_IsNoResponders(msg))
        return event_bus_nats_api_explain(bus, what, subject, NATS_NO_RESPONDERS, why);
    json_t *answer = json_loadb(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg), 0, &at);

    if (!json_is_object(answer)) {
        json_decref(answer);
        return wb_fail(why, WB_INTERNAL, "%s: the answer of %s is no JSON object (%s)", what,
                       bus->urls, at.text);
    }
    json_t *error = json_object_get(answer, "error");
    if (error == NULL) {
        *ret_answer = answer;
        return WB_OK;
    }
    unsigned code = (unsigned)event_bus_nats_json_u64(error, "code");
    unsigned err_code = (unsigned)event_bus_nats_json_u64(error, "err_code");
    wb_err err = wb_fail(why, event_bus_nats_api_err(code, err_code), "%s: %s says: %s (%u)", what,
                         bus->urls, event_bus_nats_json_str(error, "description"), err_code);
    json_decref(answer);
    return err;
}

wb_err event_bus_nats_api_request(struct nats_bus *bus, const char *what, const char *subject,
                                  json_t *body, json_t **ret_answer, struct wb_why *why)
{
    natsMsg *msg = NULL;
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    bool out_of_memory = body != NULL && text == NULL;

    json_decref(body);
    if (out_of_memory)
        return wb_fail(why, WB_NOMEM, "%s: out of memory", what);
    natsConnection *nc = event_bus_nats_link_acquire(&bus->sub);
    if (nc == NULL) {
        free(text);
        return not_connected(bus, what, why);
    }
    natsStatus status = natsConnection_RequestString(&msg, nc, subject, text != NULL ? text : "",
                                                     REQUEST_TIMEOUT_MS);
    /* A request that times out is no broken connection: that is for the pings to find. */
    event_bus_nats_link_release(&bus->sub, status == NATS_TIMEOUT ? NATS_OK : status);
    free(text);
    if (status != NATS_OK)
        return event_bus_nats_api_explain(bus, what, subject, status, why);
    wb_err err = event_bus_nats_api_answer(bus, what, subject, msg, ret_answer, why);
    natsMsg_Destroy(msg);
    return err;
}
