/*
 * outbox_publisher_exceptions.h - the rows of one lane that left the straight path, in memory.
 *
 * Loaded from outbox_exception, changed here, and written back in the transaction that moves the
 * cursor. Those that wait for their time, expired or were cancelled are here only until they are
 * written. What a row does to the younger ones of its key follows from the policy of its class
 * (outbox.h): while it is to be sent first they wait; one in retry lets them pass where the latest
 * wins; one that is parked does so unless its class blocks the key.
 */
#ifndef OUTBOX_PUBLISHER_EXCEPTIONS_H
#define OUTBOX_PUBLISHER_EXCEPTIONS_H

#include "waybill/outbox_impl.h"

#define OUTBOX_PUBLISHER_BLOCKED_TEXT "waits for an older row of its key"

struct outbox_publisher_exception {
    int64_t id;
    uint64_t key_hash; /* 0: no key */
    int64_t next_ms;   /* waiting, retry: not before */
    uint32_t attempts;
    outbox_exception_state state;
    uint32_t crashes;     /* of processes that sent it by itself; not 0: it goes by itself */
    outbox_policy policy; /* of its class; matters in retry and parked */
    bool resent;          /* the stream holds younger ones, and may have held it */
    uint64_t sequence;    /* where it is stored; 0: not known */
    bool in_flight;
    bool dirty;  /* differs from the table */
    bool gone;   /* stored: to be deleted from the table */
    bool unseen; /* while reloading: the table has not named it yet */
    char *error; /* owned; NULL while not dirty */
};

/* A set of key hashes; 0 is never a member. */
struct outbox_publisher_keys {
    uint64_t *slots; /* owned; 0: free */
    size_t capacity; /* a power of two, or 0 */
    size_t count;
};

/** Empty the set and make room for n members. WB_NOMEM. */
wb_err outbox_publisher_keys_reset(struct outbox_publisher_keys *keys, size_t n);
/** There must be room. */
void outbox_publisher_keys_add(struct outbox_publisher_keys *keys, uint64_t hash);
bool outbox_publisher_keys_has(const struct outbox_publisher_keys *keys, uint64_t hash);
void outbox_publisher_keys_free(struct outbox_publisher_keys *keys);

struct outbox_publisher_exceptions {
    struct outbox_publisher_exception *list; /* owned; by rising id */
    size_t count, capacity;
    size_t dirty;
    size_t lost;                          /* of state lost */
    bool crashed;                         /* there may be some with crashes */
    struct outbox_publisher_keys stopped; /* keys that let no row of the straight path pass */
    bool stopped_stale;
    struct outbox_publisher_keys yielding; /* keys with one that a younger row would replace */
    bool yielding_stale;
    bool due_stale;    /* something changed since _due() */
    int64_t beyond_id; /* the first that is due beyond the limit of _due(); 0: none */
    struct outbox_publisher_keys scan; /* scratch of _due() */
};

void outbox_publisher_exceptions_clear(struct outbox_publisher_exceptions *self);
void outbox_publisher_exceptions_free(struct outbox_publisher_exceptions *self);

/** NULL when there is none. Valid until the next _put() or _written(). */
struct outbox_publisher_exception *
outbox_publisher_exceptions_find(struct outbox_publisher_exceptions *self, int64_t id);

/** What becomes of the younger rows of its key from now on. It is there. */
void outbox_publisher_exceptions_policy(struct outbox_publisher_exceptions *self, int64_t id,
                                        outbox_policy policy);

/** As read from the table. WB_NOMEM. */
wb_err outbox_publisher_exceptions_load(struct outbox_publisher_exceptions *self,
                                        const struct outbox_publisher_exception *loaded);

/** Add or change one; attempts stay what they are, or 0. error is copied; NULL: "". WB_NOMEM. */
wb_err outbox_publisher_exceptions_put(struct outbox_publisher_exceptions *self, int64_t id,
                                       uint64_t key_hash, outbox_exception_state state,
                                       int64_t next_ms, const char *error);

/** The row is stored in the stream at sequence, or (0) no longer in the table: forget it. */
void outbox_publisher_exceptions_done(struct outbox_publisher_exceptions *self, int64_t id,
                                      uint64_t sequence);

/** The row is stored, and the table has an exception of it, whether memory does or not. WB_NOMEM.
 */
wb_err outbox_publisher_exceptions_stored(struct outbox_publisher_exceptions *self, int64_t id,
                                          uint64_t sequence);

/** It was sent. */
void outbox_publisher_exceptions_depart(struct outbox_publisher_exceptions *self, int64_t id);

/** None is on its way any more. */
void outbox_publisher_exceptions_land(struct outbox_publisher_exceptions *self);

/** The dirty ones are in the table now. */
void outbox_publisher_exceptions_written(struct outbox_publisher_exceptions *self);

/** The table says `lost` of it now: it may be sent. WB_NOMEM. */
wb_err outbox_publisher_exceptions_claimed(struct outbox_publisher_exceptions *self, int64_t id,
                                           uint64_t key_hash, outbox_policy policy,
                                           uint32_t attempts);

/** Somebody else has decided about it: what memory had is void. */
void outbox_publisher_exceptions_forget(struct outbox_publisher_exceptions *self, int64_t id);

/**
 * Reading the table again: between begin and end _load() is called for each entry that is not
 * _busy(), which means on its way or not written yet. What was not named is forgotten.
 */
void outbox_publisher_exceptions_reload_begin(struct outbox_publisher_exceptions *self);
bool outbox_publisher_exceptions_busy(struct outbox_publisher_exceptions *self, int64_t id);
void outbox_publisher_exceptions_reload_end(struct outbox_publisher_exceptions *self);

/** Must this row of the straight path wait for an older one of its key? WB_NOMEM. */
wb_err outbox_publisher_exceptions_stop(struct outbox_publisher_exceptions *self, int64_t id,
                                        uint64_t key_hash, bool *ret_stop);

/** Is there an older one of the key that must go first and is not on its way? */
bool outbox_publisher_exceptions_older(const struct outbox_publisher_exceptions *self, int64_t id,
                                       uint64_t key_hash);

/**
 * A row of the key is in the stream: older ones of a class in which the latest wins are cancelled.
 * Those on their way and those that wait for their due_at are left alone. WB_NOMEM.
 *
 * @param ret_count  how many were; may be NULL.
 */
wb_err outbox_publisher_exceptions_supersede(struct outbox_publisher_exceptions *self, int64_t id,
                                             uint64_t key_hash, size_t *ret_count);

/**
 * Those that may be sent now, by rising id. What is lost and must wait for an older row of its key
 * becomes blocked.
 *
 * @param limit_id     only rows up to here. A row that left the straight path may be sent only once
 *                     all before it are acknowledged or have left it too: else the cursor could say
 *                     that the stream is known up to its message, yet not that the row is done.
 * @param ret_ids      room for max.
 * @param ret_next_ms  when the next one falls due; INT64_MAX: none. 0 when more are due than max.
 */
wb_err outbox_publisher_exceptions_due(struct outbox_publisher_exceptions *self, int64_t now_ms,
                                       int64_t limit_id, size_t max, int64_t *ret_ids,
                                       size_t *ret_count, int64_t *ret_next_ms);

/** Hash of a key; 0 for none. */
uint64_t outbox_publisher_key_hash(struct wb_str key);

#endif /* OUTBOX_PUBLISHER_EXCEPTIONS_H */
