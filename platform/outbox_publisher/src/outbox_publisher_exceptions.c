#include "outbox_publisher_exceptions.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the list -------------------------------------------------------------------------------- */

static void changed(struct outbox_publisher_exceptions *self)
{
    self->stopped_stale = true;
    self->yielding_stale = true;
    self->due_stale = true;
}

void outbox_publisher_exceptions_clear(struct outbox_publisher_exceptions *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->list[i].error);
    self->count = 0;
    self->dirty = 0;
    self->lost = 0;
    self->crashed = false;
    changed(self);
}

void outbox_publisher_exceptions_free(struct outbox_publisher_exceptions *self)
{
    outbox_publisher_exceptions_clear(self);
    outbox_publisher_keys_free(&self->stopped);
    outbox_publisher_keys_free(&self->yielding);
    outbox_publisher_keys_free(&self->scan);
    free(self->list);
    *self = (struct outbox_publisher_exceptions){0};
}

/* Where id stands, or would stand. */
static size_t position_of(const struct outbox_publisher_exceptions *self, int64_t id)
{
    size_t low = 0, high = self->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (self->list[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct outbox_publisher_exception *
outbox_publisher_exceptions_find(struct outbox_publisher_exceptions *self, int64_t id)
{
    size_t at = position_of(self, id);

    return at < self->count && self->list[at].id == id ? &self->list[at] : NULL;
}

static bool grow(struct outbox_publisher_exceptions *self)
{
    if (self->count < self->capacity)
        return true;
    size_t capacity = self->capacity > 0 ? 2 * self->capacity : 16;
    struct outbox_publisher_exception *list = realloc(self->list, capacity * sizeof(*list));
    if (list == NULL)
        return false;
    self->list = list;
    self->capacity = capacity;
    return true;
}

static struct outbox_publisher_exception *insert(struct outbox_publisher_exceptions *self,
                                                 int64_t id)
{
    size_t at = position_of(self, id);

    if (at < self->count && self->list[at].id == id)
        return &self->list[at];
    if (!grow(self))
        return NULL;
    memmove(&self->list[at + 1], &self->list[at], (self->count - at) * sizeof(*self->list));
    self->list[at] = (struct outbox_publisher_exception){
        .id = id, .state = OUTBOX_EXCEPTION_EXPIRED}; /* a state that neither stops nor counts */
    self->count++;
    return &self->list[at];
}

static void state_set(struct outbox_publisher_exceptions *self,
                      struct outbox_publisher_exception *one, outbox_exception_state state)
{
    self->lost -= one->state == OUTBOX_EXCEPTION_LOST ? 1 : 0;
    self->lost += state == OUTBOX_EXCEPTION_LOST ? 1 : 0;
    one->state = state;
    changed(self);
}

static void dirty_set(struct outbox_publisher_exceptions *self,
                      struct outbox_publisher_exception *one)
{
    self->dirty += one->dirty ? 0 : 1;
    one->dirty = true;
    changed(self);
}

wb_err outbox_publisher_exceptions_load(struct outbox_publisher_exceptions *self,
                                        const struct outbox_publisher_exception *loaded)
{
    struct outbox_publisher_exception *one = insert(self, loaded->id);

    if (one == NULL)
        return WB_NOMEM;
    one->key_hash = loaded->key_hash;
    one->next_ms = loaded->next_ms;
    one->attempts = loaded->attempts;
    one->crashes = loaded->crashes;
    self->crashed = self->crashed || loaded->crashes > 0;
    one->policy = loaded->policy;
    one->resent = loaded->resent;
    one->unseen = false;
    state_set(self, one, loaded->state);
    return WB_OK;
}

wb_err outbox_publisher_exceptions_put(struct outbox_publisher_exceptions *self, int64_t id,
                                       uint64_t key_hash, outbox_exception_state state,
                                       int64_t next_ms, const char *error)
{
    char *copy = wb_str_dup(wb_str(error != NULL ? error : ""));
    struct outbox_publisher_exception *one = copy != NULL ? insert(self, id) : NULL;

    if (one == NULL) {
        free(copy);
        return WB_NOMEM;
    }
    free(one->error);
    one->error = copy;
    one->key_hash = key_hash;
    one->next_ms = next_ms;
    one->in_flight = false;
    one->unseen = false;
    state_set(self, one, state);
    dirty_set(self, one);
    return WB_OK;
}

void outbox_publisher_exceptions_policy(struct outbox_publisher_exceptions *self, int64_t id,
                                        outbox_policy policy)
{
    outbox_publisher_exceptions_find(self, id)->policy = policy;
    changed(self);
}

void outbox_publisher_exceptions_done(struct outbox_publisher_exceptions *self, int64_t id,
                                      uint64_t sequence)
{
    struct outbox_publisher_exception *one = outbox_publisher_exceptions_find(self, id);

    if (one == NULL || one->gone)
        return;
    one->gone = true;
    one->sequence = sequence;
    one->in_flight = false;
    state_set(self, one, OUTBOX_EXCEPTION_EXPIRED);
    dirty_set(self, one);
}

wb_err outbox_publisher_exceptions_stored(struct outbox_publisher_exceptions *self, int64_t id,
                                          uint64_t sequence)
{
    if (insert(self, id) == NULL)
        return WB_NOMEM;
    outbox_publisher_exceptions_done(self, id, sequence);
    return WB_OK;
}

void outbox_publisher_exceptions_depart(struct outbox_publisher_exceptions *self, int64_t id)
{
    struct outbox_publisher_exception *one = outbox_publisher_exceptions_find(self, id);

    if (one == NULL)
        return;
    one->in_flight = true;
    self->stopped_stale = true;
}

void outbox_publisher_exceptions_land(struct outbox_publisher_exceptions *self)
{
    for (size_t i = 0; i < self->count; i++)
        self->list[i].in_flight = false;
    changed(self);
}

/* Of the others the table knows enough: they hold back nobody, and nothing is done about them. */
static bool remembered(outbox_exception_state state)
{
    return state == OUTBOX_EXCEPTION_LOST || state == OUTBOX_EXCEPTION_RETRY ||
           state == OUTBOX_EXCEPTION_BLOCKED || state == OUTBOX_EXCEPTION_PARKED;
}

void outbox_publisher_exceptions_written(struct outbox_publisher_exceptions *self)
{
    size_t kept = 0;

    for (size_t i = 0; i < self->count && self->dirty > 0; i++) {
        struct outbox_publisher_exception *one = &self->list[i];
        free(one->error);
        one->error = NULL;
        one->dirty = false;
        if (!one->gone && remembered(one->state))
            self->list[kept++] = *one;
    }
    if (self->dirty > 0)
        self->count = kept;
    self->dirty = 0;
    changed(self);
}

/* ---- agreeing with the table ----------------------------------------------------------------- */

static void clean(struct outbox_publisher_exceptions *self, struct outbox_publisher_exception *one)
{
    self->dirty -= one->dirty ? 1 : 0;
    one->dirty = false;
    free(one->error);
    one->error = NULL;
}

wb_err outbox_publisher_exceptions_claimed(struct outbox_publisher_exceptions *self, int64_t id,
                                           uint64_t key_hash, outbox_policy policy,
                                           uint32_t attempts)
{
    struct outbox_publisher_exception *one = insert(self, id);

    if (one == NULL)
        return WB_NOMEM;
    clean(self, one);
    one->key_hash = key_hash;
    one->policy = policy;
    one->attempts = attempts;
    one->next_ms = 0;
    state_set(self, one, OUTBOX_EXCEPTION_LOST);
    return WB_OK;
}

static void remove_at(struct outbox_publisher_exceptions *self, size_t at)
{
    clean(self, &self->list[at]);
    state_set(self, &self->list[at], OUTBOX_EXCEPTION_EXPIRED);
    self->count--;
    memmove(&self->list[at], &self->list[at + 1], (self->count - at) * sizeof(*self->list));
}

void outbox_publisher_exceptions_forget(struct outbox_publisher_exceptions *self, int64_t id)
{
    size_t at = position_of(self, id);

    if (at < self->count && self->list[at].id == id)
        remove_at(self, at);
}

static bool busy(const struct outbox_publisher_exception *one)
{
    return one->dirty || one->in_flight;
}

bool outbox_publisher_exceptions_busy(struct outbox_publisher_exceptions *self, int64_t id)
{
    const struct outbox_publisher_exception *one = outbox_publisher_exceptions_find(self, id);

    return one != NULL && busy(one);
}

void outbox_publisher_exceptions_reload_begin(struct outbox_publisher_exceptions *self)
{
    for (size_t i = 0; i < self->count; i++)
        self->list[i].unseen = !busy(&self->list[i]);
}

void outbox_publisher_exceptions_reload_end(struct outbox_publisher_exceptions *self)
{
    size_t kept = 0;

    for (size_t i = 0; i < self->count; i++) {
        if (self->list[i].unseen)
            state_set(self, &self->list[i], OUTBOX_EXCEPTION_EXPIRED);
        else
            self->list[kept++] = self->list[i];
    }
    self->count = kept;
    changed(self);
}

/* ---- order within a key ---------------------------------------------------------------------- */

/* On its way it stops nobody: what follows is chained behind it and fails if it fails. */
static bool stops_key(const struct outbox_publisher_exception *one)
{
    if (one->gone || one->in_flight)
        return false;
    switch (one->state) {
    case OUTBOX_EXCEPTION_LOST:
    case OUTBOX_EXCEPTION_BLOCKED:
        return true;
    case OUTBOX_EXCEPTION_RETRY:
        return one->policy != OUTBOX_LATEST_WINS;
    case OUTBOX_EXCEPTION_PARKED:
        return one->policy == OUTBOX_BLOCK_KEY;
    case OUTBOX_EXCEPTION_WAITING:
    case OUTBOX_EXCEPTION_EXPIRED:
    case OUTBOX_EXCEPTION_CANCELLED:
        break;
    }
    return false;
}

/* Does it give way to a younger row of its key that is out? */
static bool yields(const struct outbox_publisher_exception *one)
{
    if (one->gone || one->in_flight || one->policy != OUTBOX_LATEST_WINS || one->key_hash == 0)
        return false;
    return one->state == OUTBOX_EXCEPTION_RETRY || one->state == OUTBOX_EXCEPTION_PARKED ||
           one->state == OUTBOX_EXCEPTION_LOST;
}

wb_err outbox_publisher_exceptions_stop(struct outbox_publisher_exceptions *self, int64_t id,
                                        uint64_t key_hash, bool *ret_stop)
{
    if (self->count == 0 || key_hash == 0) {
        *ret_stop = false;
        return WB_OK;
    }
    if (self->stopped_stale) {
        if (outbox_publisher_keys_reset(&self->stopped, self->count) != WB_OK)
            return WB_NOMEM;
        for (size_t i = 0; i < self->count; i++)
            if (stops_key(&self->list[i]))
                outbox_publisher_keys_add(&self->stopped, self->list[i].key_hash);
        self->stopped_stale = false;
    }
    /* After a repair the straight path goes over rows again, and some exceptions lie before it. */
    *ret_stop = outbox_publisher_keys_has(&self->stopped, key_hash) &&
                outbox_publisher_exceptions_older(self, id, key_hash);
    return WB_OK;
}

bool outbox_publisher_exceptions_older(const struct outbox_publisher_exceptions *self, int64_t id,
                                       uint64_t key_hash)
{
    for (size_t i = 0; key_hash != 0 && i < self->count && self->list[i].id < id; i++)
        if (self->list[i].key_hash == key_hash && stops_key(&self->list[i]))
            return true;
    return false;
}

static wb_err cancel(struct outbox_publisher_exceptions *self, int64_t old_id, int64_t id)
{
    struct outbox_publisher_exception *one = outbox_publisher_exceptions_find(self, old_id);
    char error[80];

    (void)snprintf(error, sizeof(error), "row %lld, a younger one of its key, went out",
                   (long long)id);
    return outbox_publisher_exceptions_put(self, old_id, one->key_hash, OUTBOX_EXCEPTION_CANCELLED,
                                           0, error);
}

static wb_err yielding_gather(struct outbox_publisher_exceptions *self)
{
    if (!self->yielding_stale)
        return WB_OK;
    if (outbox_publisher_keys_reset(&self->yielding, self->count) != WB_OK)
        return WB_NOMEM;
    for (size_t i = 0; i < self->count; i++)
        if (yields(&self->list[i]))
            outbox_publisher_keys_add(&self->yielding, self->list[i].key_hash);
    self->yielding_stale = false;
    return WB_OK;
}

wb_err outbox_publisher_exceptions_supersede(struct outbox_publisher_exceptions *self, int64_t id,
                                             uint64_t key_hash, size_t *ret_count)
{
    size_t count = 0;
    wb_err err = WB_OK;

    if (self->count > 0 && key_hash != 0)
        err = yielding_gather(self);
    if (err == WB_OK && self->count > 0 && outbox_publisher_keys_has(&self->yielding, key_hash)) {
        for (size_t i = 0; err == WB_OK && i < self->count && self->list[i].id < id; i++) {
            if (self->list[i].key_hash != key_hash || !yields(&self->list[i]))
                continue;
            err = cancel(self, self->list[i].id, id);
            count++;
        }
    }
    if (ret_count != NULL)
        *ret_count = count;
    return err;
}

/* When this one may be sent if its key is free; INT64_MAX: not by itself. */
static int64_t due_ms(const struct outbox_publisher_exception *one)
{
    if (one->gone || one->in_flight)
        return INT64_MAX;
    switch (one->state) {
    case OUTBOX_EXCEPTION_LOST:
    case OUTBOX_EXCEPTION_BLOCKED:
        return 0;
    case OUTBOX_EXCEPTION_WAITING:
    case OUTBOX_EXCEPTION_RETRY:
        return one->next_ms;
    case OUTBOX_EXCEPTION_PARKED:
    case OUTBOX_EXCEPTION_EXPIRED:
    case OUTBOX_EXCEPTION_CANCELLED:
        break;
    }
    return INT64_MAX;
}

/* Lost, and found to wait for an older one: from now on it waits as others do. */
static wb_err hold(struct outbox_publisher_exceptions *self,
                   const struct outbox_publisher_exception *one)
{
    return outbox_publisher_exceptions_put(self, one->id, one->key_hash, OUTBOX_EXCEPTION_BLOCKED,
                                           0, OUTBOX_PUBLISHER_BLOCKED_TEXT);
}

wb_err outbox_publisher_exceptions_due(struct outbox_publisher_exceptions *self, int64_t now_ms,
                                       int64_t limit_id, size_t max, int64_t *ret_ids,
                                       size_t *ret_count, int64_t *ret_next_ms)
{
    int64_t next_ms = INT64_MAX;
    size_t count = 0;

    if (outbox_publisher_keys_reset(&self->scan, self->count) != WB_OK)
        return WB_NOMEM;
    self->due_stale = false;
    self->beyond_id = 0;
    for (size_t i = 0; i < self->count; i++) {
        const struct outbox_publisher_exception *one = &self->list[i];
        bool waits = outbox_publisher_keys_has(&self->scan, one->key_hash);
        int64_t due = waits ? INT64_MAX : due_ms(one);
        if (waits && count < max && one->state == OUTBOX_EXCEPTION_LOST && !one->in_flight &&
            hold(self, one) != WB_OK)
            return WB_NOMEM;
        one = &self->list[i];
        bool beyond = due <= now_ms && one->id > limit_id;
        if (beyond && self->beyond_id == 0)
            self->beyond_id = one->id;
        if (due <= now_ms && !beyond && count < max) {
            ret_ids[count++] = one->id;
            continue;
        }
        if (due < next_ms && !beyond)
            next_ms = due <= now_ms ? 0 : due;
        if (stops_key(one))
            outbox_publisher_keys_add(&self->scan, one->key_hash);
    }
    *ret_count = count;
    *ret_next_ms = next_ms;
    return WB_OK;
}
