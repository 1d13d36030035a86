/* nats_bus.h - the bus itself, as its files see it. */
#ifndef EVENT_BUS_NATS_BUS_H
#define EVENT_BUS_NATS_BUS_H

#include <waybill/event_bus_impl.h>
#include <waybill/event_bus_nats.h>

#include "engine.h"
#include "link.h"
#include "publisher.h"

struct nats_bus {
    struct event_bus base;
    struct nats_link pub; /* publishes, and nothing else */
    struct nats_link sub; /* consumes, settles, and asks the API */
    struct nats_publisher publisher;
    struct nats_engine engine;
    struct observe_series *async_errors; /* constant */
    char *urls;                          /* constant; without credentials, for people */

    pthread_mutex_t mutex; /* guards all below */
    bool pub_up;
    bool sub_up;
    bool connected; /* both; as last told to the listeners */
    bool telling;   /* a thread is telling them */
    bool closed;
    int64_t since_mono_ns;
    uint64_t connections;
    size_t max_payload;
    event_bus_durability durability;
    char server[128];
    char trouble[200];        /* the last asynchronous error; "" */
    char denied_subject[256]; /* the last request that was refused by permissions */
};

static inline struct nats_bus *nats_bus_of(struct event_bus *base)
{
    return (struct nats_bus *)base;
}

/** "nats://127.0.0.1:4222" with user and password replaced by ***. Several separated by commas. */
char *event_bus_nats_redact(const char *urls);

/** Options for a connection. WB_INVALID, WB_NOMEM. */
wb_err event_bus_nats_connection_options(const struct event_bus_nats_options *options,
                                         const char *role, natsOptions **ret_options,
                                         struct wb_why *why);
/** URL and files: what can be told to be wrong without a server. WB_INVALID. */
wb_err event_bus_nats_options_check(const struct event_bus_nats_options *options,
                                    struct wb_why *why);

/** The public key of a seed file, as nats.c wants it beside the seed. WB_INVALID. */
wb_err event_bus_nats_nkey_public(const char *seed_file, char ret_key[57], struct wb_why *why);

/** The version that a server tells to whoever connects; false when it cannot be read. */
bool event_bus_nats_server_version(const char *url, char *out, size_t size);

/** A permission violation or the like came in; the subject is in the text. */
void event_bus_nats_trouble(struct nats_bus *bus, const char *text);
/** The subject that a permission violation for publishing names, in out; false: it is none. */
bool event_bus_nats_denied_subject(const char *text, char out[256]);

/* Operations, by file. */
wb_err event_bus_nats_declare_stream(struct event_bus *self,
                                     const struct event_bus_stream_options *options,
                                     event_bus_provision mode, struct wb_why *why);
wb_err event_bus_nats_stream_info(struct event_bus *self, const char *stream,
                                  struct event_bus_stream_info *ret_info, struct wb_why *why);
wb_err event_bus_nats_stream_for(struct event_bus *self, struct wb_str subject,
                                 char ret_stream[EVENT_BUS_NAME_MAX + 1], struct wb_why *why);
wb_err event_bus_nats_delete_stream(struct event_bus *self, const char *stream, struct wb_why *why);
wb_err event_bus_nats_get(struct event_bus *self, const char *stream, uint64_t sequence,
                          struct event_bus_delivery_impl **ret_delivery, struct wb_why *why);
wb_err event_bus_nats_scan(struct event_bus *self, const char *stream, uint64_t from, uint64_t to,
                           event_bus_scan_visit visit, void *ctx, uint64_t *ret_next,
                           struct wb_why *why);

#endif /* EVENT_BUS_NATS_BUS_H */
