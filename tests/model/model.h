/*
 * model.h - every interleaving of a small world: writer, publishers, wire, broker.
 *
 * The publishers are the real ones, stepped by hand, on a real database file; the broker is the
 * in-memory bus; between them lies a wire whose moves are choices. The explorer tries all choices
 * within a scope, skips worlds it has seen, and asks in each of them: is what stands in the stream
 * right, and will everything come right from here if nothing more goes wrong?
 *
 * model_wire.c     a bus whose messages arrive when the explorer says so
 * model_world.c    one world, and the actions that move it
 * model_look.c     what a world looks like: its hash, and what must hold
 * model_explore.c  the search
 * model_main.c     the command line
 */
#ifndef MODEL_H
#define MODEL_H

#include "bus_wrap.h"
#include "outbox_publisher_private.h"
#include "test_support.h"

#include <waybill/db.h>
#include <waybill/event_bus_memory.h>

enum { MODEL_PUBLISHERS = 2, MODEL_EVENTS = 4, MODEL_PATH = 96 };

/* How much may happen. */
struct model_scope {
    unsigned events;     /* written */
    unsigned publishers; /* that compete */
    unsigned crashes;    /* of publishers, at any point of any step */
    unsigned breaks;     /* of a connection */
    unsigned fences;     /* by an operator who thinks that a publisher hangs */
    unsigned losses;     /* by the broker: the end of the stream, or all of it */
    unsigned restores;   /* of the database, from a backup of any earlier moment */
    uint64_t max_worlds; /* give up beyond; 0: never */
    bool unchained;      /* a broker that ignores the expected sequence: must be found out */
};

/* ---- the wire -------------------------------------------------------------------------------- */

struct model_message {
    struct model_message *next;
    struct message *message; /* owned */
    struct event_bus_publish_options options;
    event_bus_published done; /* NULL: its sender listens no more */
    void *ctx;
};

struct model_wire {
    struct bus_wrap wrap;       /* first; around the broker */
    struct model_message *live; /* oldest first */
    struct model_message *late; /* of a broken connection or a dead sender: may arrive still */
    bool unchained;
};

struct model_wire *model_wire_create(struct event_bus *broker, bool unchained);
/** What is on its way is lost. */
void model_wire_destroy(struct model_wire *wire);
/** The oldest arrives and is answered, if anybody listens. */
void model_wire_arrive(struct model_wire *wire, bool late);
/** What is late never arrives. */
void model_wire_drop(struct model_wire *wire);
/** The connection breaks and is back; what is on its way becomes late. */
void model_wire_break(struct model_wire *wire);

/* ---- the world ------------------------------------------------------------------------------- */

typedef enum model_kind {
    MODEL_ENQUEUE,
    MODEL_STEP,  /* of a publisher */
    MODEL_CRASH, /* at the n-th crash point of its next step; n = 0: before it */
    MODEL_START,
    MODEL_ARRIVE,
    MODEL_ARRIVE_LATE,
    MODEL_DROP_LATE,
    MODEL_BREAK,
    MODEL_PASS_TIME, /* until one of some publishers (n: bits) has something to do, and lets it;
                        the others are stopped */
    MODEL_FENCE,
    MODEL_LOSE, /* all behind sequence n */
    MODEL_BACK_UP,
    MODEL_RESTORE /* all publishers die, and the database is what it was at the backup */
} model_kind;

struct model_action {
    model_kind kind;
    unsigned who, n;
};

struct model_world {
    const struct model_scope *scope;
    char dir[256], path[300], template_path[300], backup_path[300];
    struct db *db;
    struct event_bus *broker;
    struct model_wire *wires[MODEL_PUBLISHERS];
    struct outbox_publisher *publishers[MODEL_PUBLISHERS]; /* NULL: dead */
    unsigned enqueued, crashes, breaks, fences, losses, restores;
    bool backed_up;
};

void model_world_open(struct model_world *world, const struct model_scope *scope);
void model_world_close(struct model_world *world);
/** From the beginning, by these actions. */
void model_world_replay(struct model_world *world, const struct model_action *path, size_t length);
/** false: it changes nothing, or cannot be done now. */
bool model_world_apply(struct model_world *world, struct model_action action);
/** All that can be tried now, at most max. */
size_t model_world_actions(const struct model_world *world, struct model_action *ret, size_t max);
/** Nothing more goes wrong: go on until all is at rest. */
void model_world_heal(struct model_world *world);
void model_action_print(struct wb_buf *out, struct model_action action);

/* ---- looking at it --------------------------------------------------------------------------- */

uint64_t model_look_hash(struct model_world *world);
/** What is wrong in the stream as it stands; false when nothing is. */
bool model_look_wrong(struct model_world *world, struct wb_buf *out);
/** What is wrong now that all is at rest. */
bool model_look_unfinished(struct model_world *world, struct wb_buf *out);

/* ---- the search ------------------------------------------------------------------------------ */

struct model_result {
    uint64_t worlds;         /* different ones */
    uint64_t replays;        /* from the beginning */
    bool complete;           /* nothing was left out for max_worlds */
    struct wb_buf violation; /* empty: none; the shortest found so far is not sought */
};

void model_explore(const struct model_scope *scope, struct model_result *ret_result);

#endif /* MODEL_H */
