/*
 * service_json.h - a delivered message as one JSON object, the same over HTTP and in `sub --json`.
 */
#ifndef SERVICE_JSON_H
#define SERVICE_JSON_H

#include <waybill/event_bus.h>

/**
 * Append {"subject":...,"stream":...,"sequence":...,"deliveries":...,"time":...,"msg_id":...,
 * "headers":{name:[values]},"payload":...}; a payload that is no text comes as "payload_base64".
 */
void service_delivery_json(const struct event_bus_delivery *delivery, struct wb_buf *out);

/** Append ,"payload":"text", or ,"payload_base64":"..." for a payload that is no text. */
void service_json_payload(struct wb_bytes payload, struct wb_buf *out);

#endif /* SERVICE_JSON_H */
