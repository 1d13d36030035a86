/*
 * waybill/http.h - a small strict HTTP/1.1 server on libevent.
 *
 * Every byte passes a strict parser before anything is routed: what two readers could understand
 * differently (doubled or signed Content-Length, folded lines, bare LF, blanks before the colon,
 * missing or foreign Host, ...) is answered with 400 and the connection is closed. Methods GET and
 * POST; bodies by Content-Length only; HTTP/1.1 with keep-alive.
 *
 * Threads   One, which runs the event loop and calls the handler. Handlers must not block for long.
 */
#ifndef WAYBILL_HTTP_H
#define WAYBILL_HTTP_H

#include <waybill/base.h>
#include <waybill/module.h>
#include <waybill/observe.h>

#ifdef __cplusplus
extern "C" {
#endif

struct http_server;

struct http_options {
    const char *listen;         /* "127.0.0.1:8480"; port 0: any free one */
    const char *const *hosts;   /* further names allowed in Host, NULL-terminated; NULL: none. The
                                   address listened on and localhost are always allowed */
    size_t max_header_bytes;    /* 0: 8 KiB */
    size_t max_headers;         /* 0: 100 */
    size_t max_body;            /* 0: 1 MiB; above any route's */
    int64_t header_deadline_ns; /* 0: 5 s, absolute, from the first byte (or connect) */
    int64_t body_deadline_ns;   /* 0: 30 s, absolute */
    int64_t write_deadline_ns;  /* 0: 30 s, absolute, for the client to take the answer */
    int64_t idle_ns;            /* 0: 60 s between requests */
    uint32_t max_connections;   /* 0: 1024 */
    uint32_t max_per_address;   /* 0: 256 */
    struct observe *observe;    /* NULL: none */
    /* Largest body for a request line; SIZE_MAX: no such route (answers 404), SIZE_MAX - 1: known
     * path, other method (405). Called before the body is read. */
    size_t (*body_limit)(void *ctx, struct wb_str method, struct wb_str path);
    void (*handle)(void *ctx, const struct module_request *request,
                   struct module_response *response);
    void *ctx;
};

/** Bind, listen and start. WB_INVALID (address), WB_BUSY (port taken), WB_DENIED, WB_NOMEM. */
wb_err http_server_start(const struct http_options *options, struct http_server **ret_server,
                         struct wb_why *why);

/** The port it listens on. */
uint16_t http_server_port(const struct http_server *server);

/** Finish the request at hand, close all connections, free. NULL does nothing. */
void http_server_stop(struct http_server *server);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_HTTP_H */
