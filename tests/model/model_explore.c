/* Depth first, over worlds not seen before. A world cannot be copied, so it is made again from the
 * beginning whenever another of its choices is to be tried. */
#include "model.h"

#include <stdio.h>

#define TELL_NS (10 * WB_SEC)

enum { CHOICES = 64 };

struct search {
    struct model_world world;
    struct model_result *result;
    uint64_t *seen; /* open addressing; 0: free */
    size_t capacity;
    struct model_action path[MODEL_PATH];
    size_t depth;
    bool over;
    int64_t told_ns; /* when it was last said how far the search is */
};

static bool seen_put(uint64_t *seen, size_t capacity, uint64_t hash)
{
    size_t at = hash & (capacity - 1);

    while (seen[at] != 0) {
        if (seen[at] == hash)
            return false;
        at = (at + 1) & (capacity - 1);
    }
    seen[at] = hash;
    return true;
}

static void seen_grow(struct search *search)
{
    size_t capacity = search->capacity > 0 ? 2 * search->capacity : 1U << 16;
    uint64_t *seen = calloc(capacity, sizeof(*seen));

    assert_non_null(seen);
    for (size_t i = 0; i < search->capacity; i++)
        if (search->seen[i] != 0)
            (void)seen_put(seen, capacity, search->seen[i]);
    free(search->seen);
    search->seen = seen;
    search->capacity = capacity;
}

/* false: this world was seen before. */
static bool is_new(struct search *search, uint64_t hash)
{
    if (2 * search->result->worlds >= search->capacity)
        seen_grow(search);
    return seen_put(search->seen, search->capacity, hash != 0 ? hash : 1);
}

static void back(struct search *search)
{
    search->result->replays++;
    model_world_replay(&search->world, search->path, search->depth);
}

static void violated(struct search *search, const struct wb_buf *what, const char *when)
{
    struct wb_buf *out = &search->result->violation;

    wb_buf_printf(out, "%s: %s\n  after: ", when, what->ptr);
    for (size_t i = 0; i < search->depth; i++)
        model_action_print(out, search->path[i]);
    wb_buf_str(out, "\n");
    search->result->complete = false;
    search->over = true;
}

/* What is left cannot be told before it is found. */
static void tell(struct search *search)
{
    int64_t now = wb_mono_ns(wb_clock_system());

    if (now - search->told_ns < TELL_NS)
        return;
    if (search->told_ns > 0)
        (void)fprintf(stderr, "model: %llu worlds so far, %zu steps deep\n",
                      (unsigned long long)search->result->worlds, search->depth);
    search->told_ns = now;
}

static void explore(struct search *search);

/* true: the action led somewhere, and the world has to be made again. */
static void try_all(struct search *search, const struct model_action *actions, size_t count)
{
    bool moved = false;
    unsigned no_crash_from = UINT32_MAX; /* the step has no more points than that */
    unsigned no_crash_who = 0;

    for (size_t i = 0; i < count && !search->over; i++) {
        if (actions[i].kind == MODEL_CRASH && actions[i].who == no_crash_who &&
            actions[i].n >= no_crash_from)
            continue;
        if (moved)
            back(search);
        moved = true;
        if (!model_world_apply(&search->world, actions[i])) {
            if (actions[i].kind == MODEL_CRASH) {
                no_crash_from = actions[i].n;
                no_crash_who = actions[i].who;
            }
            continue;
        }
        search->path[search->depth++] = actions[i];
        explore(search);
        search->depth--;
    }
    if (!search->over && moved)
        back(search);
}

static void explore(struct search *search)
{
    struct model_action actions[CHOICES];
    struct wb_buf what = {0};

    if (!is_new(search, model_look_hash(&search->world)))
        return;
    search->result->worlds++;
    tell(search);
    if (model_look_wrong(&search->world, &what))
        violated(search, &what, "wrong");
    if (search->result->worlds == search->world.scope->max_worlds) {
        search->result->complete = false;
        search->over = true;
    }
    if (!search->over && search->depth < MODEL_PATH)
        try_all(search, actions, model_world_actions(&search->world, actions, CHOICES));
    else if (!search->over)
        search->result->complete = false;
    if (!search->over) {
        model_world_heal(&search->world);
        if (model_look_unfinished(&search->world, &what))
            violated(search, &what, "does not come right");
    }
    wb_buf_free(&what);
}

void model_explore(const struct model_scope *scope, struct model_result *ret_result)
{
    struct search search = {.result = ret_result};

    *ret_result = (struct model_result){.complete = true};
    model_world_open(&search.world, scope);
    explore(&search);
    model_world_close(&search.world);
    free(search.seen);
}
