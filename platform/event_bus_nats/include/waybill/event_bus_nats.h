/*
 * waybill/event_bus_nats.h - the bus over NATS JetStream.
 *
 * Works with nats-server 2.9.10 and later. Two connections, one that publishes and one that
 * consumes, so that neither waits behind the other. Neither is reconnected by nats.c, whose
 * reconnect lets new messages overtake lost ones and gives up after refused credentials: the bus
 * makes new ones, with jitter, for as long as it lives. What was in flight when a connection was
 * lost completes with WB_UNKNOWN. A dead peer is noticed within 4 s.
 *
 * Threads   `workers` dispatcher threads, 4 for each of the two connections (one that connects, one
 *           that reads, one that pings, one that takes the answers), 1 for each subscription that
 *           has a durable, and 3 of nats.c for the process. Who publishes writes to the socket
 *           itself, without waiting for the peer. Completions run on the thread that takes the
 *           answers, or on the one that connects.
 */
#ifndef WAYBILL_EVENT_BUS_NATS_H
#define WAYBILL_EVENT_BUS_NATS_H

#include <waybill/event_bus.h>
#include <waybill/observe.h>

#ifdef __cplusplus
extern "C" {
#endif

struct event_bus_nats_options {
    const char *url;  /* "nats://127.0.0.1:4222", several separated by commas; NULL: that one */
    const char *name; /* shown by the server; NULL: "waybill" */
    const char *user; /* NULL: none. Credentials never come from the URL in logs */
    const char *password;
    const char *token;
    const char *creds_file; /* JWT and seed, as made by nsc */
    const char *nkey_seed_file;
    const char *tls_ca_file; /* any of these, or tls, or a tls:// URL: TLS is required */
    const char *tls_cert_file;
    const char *tls_key_file;
    bool tls;
    int64_t connect_timeout_ns;  /* 0: 2 s */
    int64_t ping_interval_ns;    /* 0: 1 s, at most 1 h; a dead peer is noticed after 3 of them */
    int64_t write_deadline_ns;   /* 0: 2 s; over TLS a full socket may hold a sender up so long */
    uint32_t publish_window;     /* unanswered messages; 0: 4096 */
    size_t publish_window_bytes; /* 0: 8 MiB */
    uint32_t pull_batch;         /* 0: 256 */
    uint32_t workers;            /* 0: 2 */
    struct observe *observe;     /* NULL: none */
};

/**
 * Create a bus and connect. Waits up to connect_timeout_ns for the first connection.
 * @param wait_connected  false: return WB_OK although the server is away, and go on trying.
 * @return WB_UNREACHABLE, WB_DENIED, WB_NO_JETSTREAM, WB_INVALID (URL, files), WB_NOMEM, WB_IO.
 */
wb_err event_bus_nats_create(const struct event_bus_nats_options *options, bool wait_connected,
                             struct event_bus **ret_bus, struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_EVENT_BUS_NATS_H */
