/*
 * cli_explain.h - the life of one event: its row, what the stream holds of it, what the consumers
 * made of it.
 */
#ifndef SERVICE_CLI_EXPLAIN_H
#define SERVICE_CLI_EXPLAIN_H

#include <waybill/event_bus.h>
#include <waybill/outbox.h>

#include "cli_outbox.h"

#define EXPLAIN_STORES    16
#define EXPLAIN_INCIDENTS 16
#define EXPLAIN_CONSUMERS 64

/* The event in the stream: once, unless something went wrong. */
struct explain_store {
    uint64_t sequence;
    int64_t stored_wall_ns;
    char msg_id[MESSAGE_ID_MAX + 1];
};

struct explain_search {
    char stream[EVENT_BUS_NAME_MAX + 1]; /* "": nobody was asked */
    uint64_t first_seq, last_seq;        /* what the stream holds */
    uint64_t from, to;                   /* what was read of it */
    struct explain_store stores[EXPLAIN_STORES];
    size_t count;
};

/**
 * Where does the stream hold the row? Rows stand nearly in their order: a binary search finds the
 * neighbourhood, which is read from some thousand messages before it to 200 000 behind it.
 */
wb_err service_cli_explain_search(struct event_bus *bus, const char *stream, const char *source,
                                  int64_t row_id, struct explain_search *ret_search,
                                  struct wb_why *why);

/* What one consumer knows of the event. */
struct explain_consumer {
    char file[256]; /* in the data directory */
    char name[128];
    bool handled, retry;
    uint32_t failures;
    int64_t letter; /* of its dead letter; 0: none */
    char reason[512];
};

/** Ask every consumer of every database in a directory; event is "SOURCE/ROW". */
wb_err service_cli_explain_consumers(const char *dir, const char *event,
                                     struct explain_consumer *ret_consumers, size_t max,
                                     size_t *ret_count, struct wb_why *why);

#endif /* SERVICE_CLI_EXPLAIN_H */
