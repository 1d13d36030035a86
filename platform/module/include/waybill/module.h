/*
 * waybill/module.h - what a module tells the platform about itself: one constant table.
 *
 * A module owns one SQLite file, one outbox in it, and one stream. The service opens them, runs the
 * migrations, the publisher and the consumers, routes requests and commands to it. A module sees
 * layers 0 to 3 only; it cannot tell which bus carries its events.
 *
 * Threads   Each consumer and the HTTP server call a module on a thread of their own, each with a
 *           scope (and database connection) of its own. A module keeps no other mutable state.
 */
#ifndef WAYBILL_MODULE_H
#define WAYBILL_MODULE_H

#include <waybill/base.h>
#include <waybill/config.h>
#include <waybill/db.h>
#include <waybill/message.h>

#ifdef __cplusplus
extern "C" {
#endif

struct outbox;
struct module;

/* What module code runs with. Borrowed for the call. */
struct module_scope {
    const struct module *module;
    const struct config *config; /* the module's own keys are among them */
    const struct wb_clock *clock;
    struct db *db;
    struct outbox *outbox; /* attached to db; see waybill/outbox.h */
};

/* A delivered event. Views, valid during the call. */
struct module_event {
    const struct message *message;
    struct wb_str stream;
    uint64_t sequence;
    int64_t stored_wall_ns;
};

/* A subscription: each event once, in order, in a transaction that is open on scope->db. */
struct module_subscription {
    const char *name;            /* with the module's name it is the consumer: "ar_accounts" */
    const char *const *patterns; /* NULL-terminated */
    wb_err (*handle)(struct module_scope *scope, const struct module_event *event,
                     struct wb_why *why);
};

/* An HTTP request that passed the gate. Views, valid during the call. */
struct module_request {
    struct wb_str method;
    struct wb_str path;  /* decoded, without query */
    struct wb_str query; /* raw, without '?' */
    struct wb_bytes body;
    const struct message_header *headers;
    size_t header_count;
};

/** First header of that name, without case; {NULL, 0} if absent. */
struct wb_str module_request_header(const struct module_request *request, const char *name);

/* Rows of a list that is not told how many. */
#define MODULE_LIST_DEFAULT 100

/**
 * How many rows a list is to have: the query is empty, or limit=N with N from 1 to max.
 * @return WB_INVALID for any other query.
 */
wb_err module_request_limit(const struct module_request *request, uint32_t max, int64_t *ret_limit,
                            struct wb_why *why);

struct module_response {
    int status;               /* 200 unless set */
    const char *content_type; /* static; "application/json" unless set */
    struct wb_buf body;
};

/** Answer with {"error": ..., "next": ...}. next may be NULL. */
void module_respond_error(struct module_response *response, int status, const char *error,
                          const char *next);

/**
 * Answer a failed call: 503 for what may work later, 500 for what needs a person. Errors of the
 * request itself are the module's to answer first.
 */
void module_respond_failure(struct module_response *response, wb_err err, const struct wb_why *why);

struct module_route {
    const char *method; /* "GET", "POST" */
    const char *path;   /* exact */
    size_t max_body;    /* bytes; 0: none is accepted */
    void (*handle)(struct module_scope *scope, const struct module_request *request,
                   struct module_response *response);
};

/* `waybill <module> <name> ...`: results go to out; json says in which form. */
struct module_command {
    const char *name;
    const char *usage; /* "[--limit N]" */
    const char *help;
    /** WB_OK, or an error with why; the exit code follows from it. */
    wb_err (*run)(struct module_scope *scope, int argc, const char *const *argv, bool json,
                  struct wb_buf *out, struct wb_why *why);
};

/** The arguments are none, or --limit N with N from 1 to max. WB_MISUSE for others. */
wb_err module_command_limit(int argc, const char *const *argv, uint32_t max, int64_t *ret_limit,
                            struct wb_why *why);

struct module {
    const char *name;            /* [a-z][a-z0-9_]{0,31}; file name, metrics, commands */
    const char *stream;          /* "AUTH"; NULL: it publishes nothing */
    const char *const *subjects; /* what the stream covers, NULL-terminated */
    const struct db_migration *migrations;
    size_t migration_count;
    const struct config_key *settings;
    size_t setting_count;
    const struct module_subscription *subscriptions;
    size_t subscription_count;
    const struct module_route *routes;
    size_t route_count;
    const struct module_command *commands;
    size_t command_count;
};

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_MODULE_H */
