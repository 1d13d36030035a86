/*
 * http_server_internal.h - what server and connections know of each other.
 *
 * All fields belong to the loop thread once it runs; before and after it, to the thread that starts
 * and stops the server.
 */
#ifndef HTTP_SERVER_INTERNAL_H
#define HTTP_SERVER_INTERNAL_H

#include <waybill/http.h>

#include <pthread.h>
#include <sys/socket.h>

#include "http_parser.h"

struct event;
struct event_base;
struct bufferevent;
struct evconnlistener;

/* What a connection is waiting for; each has a deadline that nothing but the next phase moves. */
typedef enum http_phase {
    HTTP_PHASE_HEAD,  /* the rest of a request's head, or the first byte after connecting */
    HTTP_PHASE_BODY,  /* the rest of its body */
    HTTP_PHASE_WRITE, /* the client to take the answer; nothing is read meanwhile */
    HTTP_PHASE_IDLE,  /* the next request */
    HTTP_PHASE_LINGER /* the client to hang up after the last answer; input is thrown away */
} http_phase;

struct http_connection {
    struct http_server *server;
    struct http_connection *previous, *next; /* of server->connections */
    struct bufferevent *bev;
    struct event *deadline;
    struct sockaddr_storage peer;
    struct http_parser parser;
    http_phase phase;
    bool served; /* false: only there to be told that there is no room */
    bool close_after_write;
    size_t thrown_away; /* bytes, while lingering */
};

struct http_server {
    struct http_options options; /* with defaults filled in; listen and hosts are not kept */
    uint16_t port;
    char **hosts; /* what Host may say; NULL-terminated */
    size_t host_count;
    struct event_base *base;
    struct evconnlistener *listener; /* NULL once stopping */
    struct event *stop;              /* made active from the stopping thread */
    struct event *pause;             /* until accepting is tried again */
    struct event *give_up;           /* the end of patience when stopping */
    struct http_connection *connections;
    size_t connection_count;
    size_t served_count;
    bool stopping;
    pthread_t thread;
};

/** Take over a connected socket. With refuse, it is only told that there is no room. */
void http_connection_open(struct http_server *server, int fd, const struct sockaddr *peer,
                          size_t peer_len, bool refuse);

/** Close and free. The last one of a stopping server ends its loop. */
void http_connection_free(struct http_connection *connection);

/** Finish the answer at hand, or close at once. */
void http_connection_stop(struct http_connection *connection);

/* http_hosts.c: the addresses a request may be meant for, against DNS rebinding. */
wb_err http_hosts_build(struct http_server *server, const struct http_options *options,
                        const struct sockaddr *address);
bool http_hosts_allow(const struct http_server *server, struct wb_str host);
void http_hosts_free(struct http_server *server);

#endif /* HTTP_SERVER_INTERNAL_H */
