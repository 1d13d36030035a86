/*
 * waybill/observe.h - the table of metrics, and their text for Prometheus.
 *
 * All metrics of the house stand in OBSERVE_METRICS, so that /metrics, the reference page and alert
 * rules cannot disagree. A metric has at most one label, of low cardinality.
 *
 * Threads   Any. Updating is one atomic addition, without a lock.
 */
#ifndef WAYBILL_OBSERVE_H
#define WAYBILL_OBSERVE_H

#include <waybill/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* id, Prometheus name, kind, label ("" = none), help */
#define OBSERVE_METRICS(X)                                                                         \
    X(BUILD_INFO, "waybill_build_info", GAUGE, "version", "Version of the running program")        \
    X(BUS_PUBLISHED, "waybill_bus_published_total", COUNTER, "result",                             \
      "Publishes by result: ok, duplicate, or the name of the error")                              \
    X(BUS_PUBLISH_SECONDS, "waybill_bus_publish_duration_seconds", HISTOGRAM, "",                  \
      "From publish to acknowledgement")                                                           \
    X(BUS_IN_FLIGHT, "waybill_bus_in_flight_messages", GAUGE, "", "Publishes not yet answered")    \
    X(BUS_DELIVERED, "waybill_bus_delivered_total", COUNTER, "subscription",                       \
      "Messages handed to handlers")                                                               \
    X(BUS_REDELIVERED, "waybill_bus_redelivered_total", COUNTER, "subscription",                   \
      "Deliveries that were not the first")                                                        \
    X(BUS_SETTLED, "waybill_bus_settled_total", COUNTER, "verdict",                                \
      "Deliveries settled: ack, nak, term, in_progress")                                           \
    X(BUS_LATE_ACKS, "waybill_bus_late_acks_total", COUNTER, "",                                   \
      "Acks that came after ack_wait by our clock")                                                \
    X(BUS_GIVEN_UP, "waybill_bus_given_up_total", COUNTER, "subscription",                         \
      "Messages given up after max_deliver failures")                                              \
    X(BUS_CONNECTED, "waybill_bus_connected", GAUGE, "", "1 while the bus is usable")              \
    X(BUS_RECONNECTS, "waybill_bus_reconnects_total", COUNTER, "", "Connections made anew")        \
    X(BUS_ASYNC_ERRORS, "waybill_bus_async_errors_total", COUNTER, "",                             \
      "Errors the server told outside of any call, permission violations among them")              \
    X(OUTBOX_PENDING, "waybill_outbox_pending_rows", GAUGE, "outbox",                              \
      "Rows beyond the cursor, as the publisher sees them")                                        \
    X(OUTBOX_OLDEST, "waybill_outbox_oldest_pending_seconds", GAUGE, "outbox",                     \
      "Age of the oldest due row not yet published")                                               \
    X(OUTBOX_PUBLISHED, "waybill_outbox_published_total", COUNTER, "outbox", "Rows published")     \
    X(OUTBOX_SETTLES, "waybill_outbox_settles_total", COUNTER, "outbox",                           \
      "Times the publisher read back what the stream holds")                                       \
    X(OUTBOX_PARKED, "waybill_outbox_parked_total", COUNTER, "outbox", "Rows set aside")           \
    X(OUTBOX_PURGED, "waybill_outbox_purged_total", COUNTER, "outbox", "Rows let go by retention") \
    X(OUTBOX_ARCHIVED, "waybill_outbox_archived_total", COUNTER, "outbox",                         \
      "Rows copied to the archive")                                                                \
    X(OUTBOX_BARRIERS, "waybill_outbox_barriers_total", COUNTER, "outbox",                         \
      "Times the write-ahead log was synced before sending")                                       \
    X(OUTBOX_STATE, "waybill_outbox_publisher_state", GAUGE, "outbox",                             \
      "0 standby, 1 check, 2 settle, 3 drain, 4 outage, 5 fenced, 6 stopping, 7 halted, "          \
      "8 repair, 9 restore")                                                                       \
    X(OUTBOX_AUDIT_GAP, "waybill_outbox_audit_gap_rows", GAUGE, "outbox",                          \
      "Published rows that were not read back yet")                                                \
    X(OUTBOX_VERIFIED, "waybill_outbox_verified_until_seconds", GAUGE, "outbox",                   \
      "Unix time up to which what was published is read back")                                     \
    X(OUTBOX_HOLES, "waybill_outbox_holes_total", COUNTER, "outbox",                               \
      "Published rows that were found missing when read back, and sent again")                     \
    X(OUTBOX_REPAIRS, "waybill_outbox_repairs_total", COUNTER, "outbox",                           \
      "Times the bus was found to have lost published events, and mended")                         \
    X(OUTBOX_REPUBLISHED, "waybill_outbox_republished_total", COUNTER, "outbox",                   \
      "Rows published again because the bus had lost them")                                        \
    X(OUTBOX_LATE, "waybill_outbox_late_total", COUNTER, "outbox",                                 \
      "Those of them that landed behind younger rows")                                             \
    X(OUTBOX_RESTORES, "waybill_outbox_restores_total", COUNTER, "outbox",                         \
      "Times the database was found to have gone back in time")                                    \
    X(OUTBOX_ORPHANS, "waybill_outbox_orphans_total", COUNTER, "outbox",                           \
      "Messages found in a stream whose rows that had undone")                                     \
    X(CONSUMER_HANDLED, "waybill_consumer_handled_total", COUNTER, "consumer",                     \
      "Events handled and committed")                                                              \
    X(CONSUMER_SKIPPED, "waybill_consumer_duplicates_total", COUNTER, "consumer",                  \
      "Deliveries the inbox had seen before")                                                      \
    X(CONSUMER_FAILED, "waybill_consumer_failed_total", COUNTER, "consumer",                       \
      "Handler runs that were rolled back")                                                        \
    X(CONSUMER_PARKED, "waybill_consumer_parked_total", COUNTER, "consumer",                       \
      "Events set aside after too many failures")                                                  \
    X(DB_WAL_BYTES, "waybill_db_wal_bytes", GAUGE, "db", "Size of the write-ahead log")            \
    X(DB_OLDEST_READER, "waybill_db_oldest_reader_seconds", GAUGE, "db",                           \
      "Age of the oldest snapshot that keeps the write-ahead log from being emptied; 0: none")     \
    X(DB_CHECKPOINTS, "waybill_db_checkpoints_total", COUNTER, "db", "Checkpoints run")            \
    X(HTTP_REQUESTS, "waybill_http_requests_total", COUNTER, "status", "Requests by status")       \
    X(HTTP_REFUSED, "waybill_http_refused_total", COUNTER, "reason",                               \
      "Requests and connections refused before routing")

typedef enum observe_metric {
#define X(id, name, kind, label, help) OBSERVE_##id,
    OBSERVE_METRICS(X)
#undef X
        OBSERVE_METRIC_COUNT
} observe_metric;

/* Distinct label values kept for one metric; further ones share the value "other", as do values
 * that are longer than OBSERVE_LABEL_MAX bytes or no UTF-8. */
#define OBSERVE_LABEL_VALUES_MAX 256
#define OBSERVE_LABEL_MAX        128

struct observe;        /* all metrics of one process */
struct observe_series; /* one metric with one label value */

/** WB_NOMEM. */
wb_err observe_create(struct observe **ret_observe);
void observe_destroy(struct observe *observe);

/**
 * The series of a metric for a label value (NULL or "" for metrics without label). The same
 * arguments give the same pointer, which lives as long as the registry. Takes a lock: look it up
 * once, not per event. Never NULL: without a registry (observe is NULL) or memory it is a series
 * that counts into the void.
 */
struct observe_series *observe_series(struct observe *observe, observe_metric metric,
                                      const char *label_value);

void observe_add(struct observe_series *series, int64_t amount); /* counters and gauges */
void observe_set(struct observe_series *series, int64_t value);  /* gauges, whole units */
void observe_set_ns(struct observe_series *series, int64_t ns);  /* gauges in seconds */
void observe_time(struct observe_series *series, int64_t ns);    /* histograms of seconds */

/**
 * Current value of a counter or gauge (of one in seconds: nanoseconds); observations of a
 * histogram. For tests and health.
 */
int64_t observe_value(const struct observe_series *series);

/** Append all series in the Prometheus text format 0.0.4. */
void observe_render(struct observe *observe, struct wb_buf *out);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_OBSERVE_H */
