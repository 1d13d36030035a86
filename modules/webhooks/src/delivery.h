/* delivery.h - one webhook delivery, from the request that brought it to its row and event. */
#ifndef WEBHOOKS_DELIVERY_H
#define WEBHOOKS_DELIVERY_H

#include <jansson.h>

#include <waybill/module.h>

/* nats-server's default limit counts headers too: 4 KiB leave room for ours and the bus's. */
#define WEBHOOKS_BODY_MAX (MESSAGE_PAYLOAD_MAX - 4096)

#define WEBHOOKS_NAME_MAX    64 /* bytes in a delivery id, an event or an action */
#define WEBHOOKS_SUBJECT_MAX (sizeof("webhooks.github..") + WEBHOOKS_NAME_MAX + WEBHOOKS_NAME_MAX)
#define WEBHOOKS_SHA256_SIZE 32

/* A delivery whose sender, headers and body are in order. Views into the request and json. */
struct webhooks_delivery {
    struct wb_str id;
    struct wb_str event;
    struct wb_str action; /* {NULL, 0}: the body has none that fits a subject */
    struct wb_str key;    /* repository or organization; {NULL, 0}: neither is named */
    struct wb_bytes body;
    uint8_t body_sha256[WEBHOOKS_SHA256_SIZE];
    char subject[WEBHOOKS_SUBJECT_MAX];
    json_t *json; /* owned */
};

/* What is known of a delivery after it was taken, now or earlier. */
struct webhooks_receipt {
    char subject[WEBHOOKS_SUBJECT_MAX];
    char event_id[WB_ID_TEXT];
};

/**
 * Check a request: the signature before anything else, then the headers, then the body.
 * @return false when the refusal is in response already; true: webhooks_delivery_free() it.
 */
bool webhooks_delivery_read(const struct module_scope *scope, const struct module_request *request,
                            struct webhooks_delivery *ret_delivery,
                            struct module_response *response);

void webhooks_delivery_free(struct webhooks_delivery *delivery);

/**
 * Keep the delivery's row and its event, in one transaction.
 * @return WB_OK; WB_EXISTS: it was taken before, ret_receipt tells as what; WB_CONFLICT: its id was
 *         taken before with another body or event; otherwise an error of the database or outbox.
 */
wb_err webhooks_delivery_take(struct module_scope *scope, const struct webhooks_delivery *delivery,
                              struct webhooks_receipt *ret_receipt, struct wb_why *why);

#endif /* WEBHOOKS_DELIVERY_H */
