/* Letters by the kind of their reasons. */
#include "dead_letter_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* The oldest letter's texts are copied, for the letters are gone when the groups are known. */
struct group {
    struct dead_letter_group seen;
    char *subject, *reason;
};

/* Open addressing by the fingerprint: slots hold an index of list plus one. */
struct groups {
    struct group *list;
    size_t count, capacity;
    size_t slots[2 * 16384];
    wb_err err;
};

#define SLOT_COUNT (sizeof(((struct groups *)NULL)->slots) / sizeof(size_t))

_Static_assert(DEAD_LETTER_GROUPS_MAX < SLOT_COUNT / 2, "the table must not fill up");

static size_t *slot_of(struct groups *self, const char *fingerprint)
{
    size_t at = (size_t)wb_hash(fingerprint, WB_FINGERPRINT_TEXT - 1) % SLOT_COUNT;

    while (self->slots[at] != 0 &&
           strcmp(self->list[self->slots[at] - 1].seen.fingerprint, fingerprint) != 0)
        at = (at + 1) % SLOT_COUNT;
    return &self->slots[at];
}

static struct group *group_make(struct groups *self, const char *fingerprint)
{
    if (self->count == DEAD_LETTER_GROUPS_MAX) {
        self->err = WB_FULL;
        return NULL;
    }
    if (self->list == NULL || self->count == self->capacity) {
        size_t capacity = self->capacity > 0 ? 2 * self->capacity : 16;
        struct group *list = realloc(self->list, capacity * sizeof(*list));
        if (list == NULL) {
            self->err = WB_NOMEM;
            return NULL;
        }
        self->list = list;
        self->capacity = capacity;
    }
    struct group *group = &self->list[self->count++];
    *group = (struct group){.seen = {.count = 0}};
    memcpy(group->seen.fingerprint, fingerprint, WB_FINGERPRINT_TEXT);
    return group;
}

/* The letter becomes its group's example. */
static bool example_set(struct group *group, const struct dead_letter *letter)
{
    char *subject = wb_str_dup(letter->subject);
    char *reason = wb_str_dup(letter->reason);

    if (subject == NULL || reason == NULL) {
        free(subject);
        free(reason);
        return false;
    }
    free(group->subject);
    free(group->reason);
    group->subject = subject;
    group->reason = reason;
    group->seen.oldest_wall_ns = letter->at_wall_ns;
    dead_letter_id_format(letter->kind, letter->number, group->seen.example);
    return true;
}

static bool group_visit(void *ctx, const struct dead_letter *letter)
{
    struct groups *self = ctx;
    size_t *slot = slot_of(self, letter->fingerprint);
    struct group *group;

    if (*slot == 0) {
        if (group_make(self, letter->fingerprint) == NULL)
            return false;
        *slot = self->count;
    }
    group = &self->list[*slot - 1];
    if ((group->seen.count == 0 || letter->at_wall_ns < group->seen.oldest_wall_ns) &&
        !example_set(group, letter)) {
        self->err = WB_NOMEM;
        return false;
    }
    group->seen.count++;
    group->seen.blocked += wb_str_eq(letter->state, wb_str("blocked")) ? 1 : 0;
    if (letter->at_wall_ns > group->seen.newest_wall_ns)
        group->seen.newest_wall_ns = letter->at_wall_ns;
    return true;
}

static int larger_first(const void *a, const void *b)
{
    const struct group *left = a;
    const struct group *right = b;

    if (left->seen.count != right->seen.count)
        return left->seen.count > right->seen.count ? -1 : 1;
    return strcmp(left->seen.fingerprint, right->seen.fingerprint);
}

static void hand_out(struct groups *self, size_t limit, dead_letter_group_visit visit, void *ctx)
{
    if (self->count > 1)
        qsort(self->list, self->count, sizeof(*self->list), larger_first);
    for (size_t i = 0; i < self->count && i < limit; i++) {
        struct group *group = &self->list[i];
        group->seen.subject = wb_str(group->subject);
        group->seen.reason = wb_str(group->reason);
        if (!visit(ctx, &group->seen))
            break;
    }
}

wb_err dead_letter_groups(struct db *db, const struct dead_letter_query *query,
                          dead_letter_group_visit visit, void *ctx, struct wb_why *why)
{
    struct groups *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "group dead letters: out of memory");
    wb_err err = dead_letter_walk(db, query, group_visit, self, why);
    if (err == WB_OK && self->err == WB_FULL)
        err = wb_fail(why, WB_FULL,
                      "more than %d kinds of reasons among the dead letters; choose fewer letters "
                      "by a filter",
                      DEAD_LETTER_GROUPS_MAX);
    else if (err == WB_OK && self->err != WB_OK)
        err = wb_fail(why, self->err, "group dead letters: out of memory");
    if (err == WB_OK)
        hand_out(self, query->limit > 0 ? query->limit : 100, visit, ctx);
    for (size_t i = 0; i < self->count; i++) {
        free(self->list[i].subject);
        free(self->list[i].reason);
    }
    free(self->list);
    free(self);
    return err;
}
