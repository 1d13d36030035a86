/*
 * outbox_publisher_schedule.h - the rows that wait for their time, the nearest of them in memory.
 *
 * The table has them all, in order. Memory holds at most OUTBOX_PUBLISHER_SCHEDULE_MAX, in a heap:
 * every waiting row up to the horizon is in it, none behind. When it runs empty the next ones are
 * read. Looking for what is due costs the same however many wait.
 */
#ifndef OUTBOX_PUBLISHER_SCHEDULE_H
#define OUTBOX_PUBLISHER_SCHEDULE_H

#include <waybill/base.h>

#define OUTBOX_PUBLISHER_SCHEDULE_MAX 10000

struct outbox_publisher_due {
    int64_t due_ms, id;
};

struct outbox_publisher_schedule {
    struct outbox_publisher_due *heap; /* owned; room for twice the maximum, or NULL */
    size_t count;
    struct outbox_publisher_due horizon; /* the last one that memory knows of; whole: of all */
    bool known;                          /* there is a horizon */
    bool whole;                          /* nothing lies behind it */
};

void outbox_publisher_schedule_free(struct outbox_publisher_schedule *self);

/** Forget everything: the table is to be read from the start. */
void outbox_publisher_schedule_reset(struct outbox_publisher_schedule *self);

/** A row waits; one behind the horizon is left to the table. WB_NOMEM. */
wb_err outbox_publisher_schedule_add(struct outbox_publisher_schedule *self, int64_t due_ms,
                                     int64_t id);

/** The table has been read behind the horizon: this was the last one. */
void outbox_publisher_schedule_extend(struct outbox_publisher_schedule *self,
                                      struct outbox_publisher_due last, bool whole);

/** Memory has run empty, and the table may hold more. */
bool outbox_publisher_schedule_wants(const struct outbox_publisher_schedule *self);

/** The nearest one; NULL when memory holds none. */
const struct outbox_publisher_due *
outbox_publisher_schedule_first(const struct outbox_publisher_schedule *self);
void outbox_publisher_schedule_pop(struct outbox_publisher_schedule *self);

#endif /* OUTBOX_PUBLISHER_SCHEDULE_H */
