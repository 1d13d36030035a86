/* api.h - requests to $JS.API, answered in JSON. */
#ifndef EVENT_BUS_NATS_API_H
#define EVENT_BUS_NATS_API_H

#include <jansson.h>

#include "link.h"

/* Numbers of nats-server's errors, server/errors.json. */
enum nats_api_error {
    NATS_API_CONSUMER_NOT_FOUND = 10014,
    NATS_API_INSUFFICIENT_RESOURCES = 10023,
    NATS_API_NO_MESSAGE = 10037,
    NATS_API_NOT_ENABLED_FOR_ACCOUNT = 10039,
    NATS_API_INSUFFICIENT_STORAGE = 10047,
    NATS_API_MESSAGE_TOO_BIG = 10054,
    NATS_API_STREAM_EXISTS = 10058,
    NATS_API_STREAM_NOT_FOUND = 10059,
    NATS_API_WRONG_STREAM = 10060,
    NATS_API_SUBJECT_OVERLAP = 10065,
    NATS_API_WRONG_LAST_ID = 10070,
    NATS_API_WRONG_LAST_SEQUENCE = 10071,
    NATS_API_NOT_ENABLED = 10076,
    NATS_API_STREAM_STORE_FAILED = 10077,
    NATS_API_HEADER_TOO_BIG = 10097,
    NATS_API_BATCH_KNOWN = 10201 /* an id of an atomic batch is known: it may be stored already */
};

struct nats_bus;

/** What an error number of the server means to a caller. code is its HTTP-like class. */
wb_err event_bus_nats_api_err(unsigned code, unsigned err_code);

/**
 * Ask and wait for the answer, on the connection that consumes.
 * @param what        for messages: "stream info 'ORDERS'".
 * @param body        a new reference that is taken over; NULL: none.
 * @param ret_answer  the whole answer, to be freed with json_decref(); not written on failure.
 */
wb_err event_bus_nats_api_request(struct nats_bus *bus, const char *what, const char *subject,
                                  json_t *body, json_t **ret_answer, struct wb_why *why);

/** What a request that got no answer means. Returns the error. */
wb_err event_bus_nats_api_explain(struct nats_bus *bus, const char *what, const char *subject,
                                  natsStatus status, struct wb_why *why);
/** Read an answer; the same as what a request returns. msg stays the caller's. */
wb_err event_bus_nats_api_answer(struct nats_bus *bus, const char *what, const char *subject,
                                 natsMsg *msg, json_t **ret_answer, struct wb_why *why);

/** Member of an object by path, "state.last_seq". NULL if absent. */
json_t *event_bus_nats_json_at(json_t *object, const char *path);
uint64_t event_bus_nats_json_u64(json_t *object, const char *path);
/** Text of a member; "" if absent. Lives as long as object. */
const char *event_bus_nats_json_str(json_t *object, const char *path);

#endif /* EVENT_BUS_NATS_API_H */
