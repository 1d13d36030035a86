/*
 * fault.h - kill the parts of a running system at random and at named points, then check.
 *
 * A writer makes transactions of business rows and events; a publisher carries them; a consumer
 * handles them and writes follow-up events. Each may die at any moment. At the end everything that
 * happened is gathered into one SQLite file, and a checker that shares no code with the product
 * says whether an invariant is broken. The checker is first shown to catch planted faults.
 */
#ifndef FAULT_H
#define FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <sqlite3.h>

#include <waybill/db.h>
#include <waybill/event_bus.h>

#define FAULT_STREAM "FAULT"
#define FAULT_KEYS   8

/* Where everything of one campaign lies. */
struct fault_paths {
    char dir[256];
    char producer[300]; /* the writer's database: work rows and outbox */
    char consumer[300]; /* the consumer's: effects, inbox, its own outbox */
    char archive[320];  /* rows that retention has let go from the producer's */
    char history[300];  /* what the writer says it did, a line each */
};

void fault_paths_make(struct fault_paths *paths, const char *dir);

/* A phase and a transaction. A kill may leave a part of what was to be written: so each begins a
 * line, and says where it ends. */
#define FAULT_HISTORY_LINE "\n%s %s ."
enum { FAULT_PHASE_SIZE = 16, FAULT_TX_SIZE = 80 };
/** The next whole line; false: there is none. */
bool fault_history_next(FILE *history, char ret_phase[FAULT_PHASE_SIZE],
                        char ret_tx[FAULT_TX_SIZE]);

/* Ends the program with a message when good is false: a campaign that cannot run has failed. */
#define fault_must(good, ...)                                                                      \
    do {                                                                                           \
        if (!(good))                                                                               \
            fault_die(__VA_ARGS__);                                                                \
    } while (0)
_Noreturn void fault_die(const char *format, ...) WB_PRINTF(1, 2);

int64_t fault_now_ns(void);
void fault_rest(int64_t ns);

/* ---- fault_writer.c: a module that writes, in any process ------------------------------------ */

/* In the table of work, besides the keys proper, whose events keep an order: */
#define FAULT_CANCEL_KEY 97 /* a row was taken back: n is its number; there is no event */
#define FAULT_LATER_KEY  98 /* to be sent later; may expire, may be taken back */
#define FAULT_POISON_KEY 99 /* no bus takes it: it must end as parked */

struct fault_writer;
struct fault_writer_options {
    db_sync sync;
    uint64_t seed;
    const struct wb_clock *clock; /* of the publisher; NULL: the system's */
    /* Also told what the history is told. May be NULL. */
    void (*told)(void *ctx, const char *phase, const char *tx);
    void *ctx;
};
wb_err fault_writer_try(const struct fault_paths *paths, const struct fault_writer_options *options,
                        struct fault_writer **ret_writer, struct wb_why *why);
struct fault_writer *fault_writer_open(const struct fault_paths *paths,
                                       const struct fault_writer_options *options);
/* One transaction, told in the history; what failed was rolled back. */
wb_err fault_writer_transact(struct fault_writer *writer, bool poison, struct wb_why *why);
void fault_writer_close(struct fault_writer *writer);

/* ---- fault_work.c: the other roles, in any process ------------------------------------------- */

struct outbox_publisher;
struct event_consumer;
struct outbox_retention;
/* clock NULL: threads of their own; otherwise manual mode on that clock. */
wb_err fault_publisher_try(const struct fault_paths *paths, struct event_bus *bus,
                           const struct wb_clock *clock, struct outbox_publisher **ret_publisher,
                           struct wb_why *why);
struct outbox_publisher *fault_publisher_start(const struct fault_paths *paths,
                                               struct event_bus *bus, const struct wb_clock *clock);
wb_err fault_consumer_try(const struct fault_paths *paths, struct event_bus *bus,
                          const struct wb_clock *clock, struct event_consumer **ret_consumer,
                          struct wb_why *why);
struct event_consumer *fault_consumer_start(const struct fault_paths *paths, struct event_bus *bus,
                                            const struct wb_clock *clock);
/* Keeps few rows and archives the others. Only where the broker keeps what it has confirmed. */
wb_err fault_retention_try(const struct fault_paths *paths, const struct wb_clock *clock,
                           struct outbox_retention **ret_retention, struct wb_why *why);
struct outbox_retention *fault_retention_start(const struct fault_paths *paths,
                                               const struct wb_clock *clock);
void fault_declare(struct event_bus *bus);
/* 0: the usual duplicate window. */
void fault_declare_window(struct event_bus *bus, int64_t duplicate_window_ns);

/* ---- fault_gather.c -------------------------------------------------------------------------- */

/* Everything into one in-memory database: tx, work, outbox, ended, stream, effect, follow. */
sqlite3 *fault_gather(const struct fault_paths *paths, struct event_bus *bus);
uint64_t fault_rows(sqlite3 *gathered, const char *count_sql);
/* Events not yet handled; 0 when all is done. */
int64_t fault_behind(const struct fault_paths *paths);

/* Gather, check, prove the checker on what was gathered, and count what ran. */
struct fault_report;
void fault_conclude(const struct fault_paths *paths, struct event_bus *bus,
                    struct fault_report *report);

/* ---- fault_check.c --------------------------------------------------------------------------- */

/* Print each broken invariant with an example; returns how many are broken. quiet: prints nothing,
 * and the first is enough. */
size_t fault_check(sqlite3 *gathered, bool quiet);
/* Plant each fault into a copy of a good gathering; every one must be caught. */
void fault_prove_checker(sqlite3 *gathered);

/* ---- campaigns ------------------------------------------------------------------------------- */

struct fault_report {
    uint64_t kills, points, server_kills, pauses, fences, transactions, events;
    uint64_t archived, ended; /* of the events: let go by retention; taken back or expired */
    uint64_t keys_aside;      /* bit k: key k had a row that was put aside, and so comes late */
    int64_t started_ns;
    size_t broken;
};

/* In one process on the memory bus: crash points, at random and each by name. */
struct fault_report fault_memory(uint64_t seed, unsigned kills);
/* Processes of their own on JetStream: SIGKILL and SIGSTOP at random, and each crash point. */
struct fault_report fault_kill(const char *program, uint64_t seed, uint64_t kills);
/* A publisher is stopped and put out, its standby goes on, it moves again. */
struct fault_report fault_fence(const char *program, uint64_t seed, uint64_t fences);
/* A process of those campaigns: "writer", "publisher", "consumer". */
int fault_role(const char *role, const char *dir, const char *url, uint64_t seed);

/* All crash points of publisher, consumer and retention, each run into at its first passage and at
 * a later one. One that is behind another in life is behind it here. */
struct fault_point {
    const char *name;
    unsigned later; /* passage; 0: there is only one in a life */
};
extern const struct fault_point fault_points[];
extern const size_t fault_point_count;

#endif /* FAULT_H */
