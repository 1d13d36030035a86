/*
 * subject_bench.c - what a match, an insert and a removal cost at 1 000, 100 000 and 1 000 000
 * patterns: subjects "tenant-NNNNN.module.events.entity.action" of one tenant for each 100
 * patterns; 60 % of the patterns are literal, 40 % have wildcards within a tenant, 92 span tenants.
 */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/subject.h>

#define PATTERN_BYTES       ((size_t)64)
#define SUBJECTS            100000
#define HOT_SUBJECTS        500
#define PATTERNS_PER_TENANT 100

static const char *const modules[] = {"auth", "ar",    "ap",      "ledger", "audit",
                                      "crm",  "stock", "billing", "mail",   "search"};
static const char *const entities[] = {"user",    "invoice", "payment", "order", "item",
                                       "account", "session", "report",  "note",  "file"};
static const char *const actions[] = {"created", "updated", "deleted", "issued", "paid", "closed"};

struct set {
    size_t count;
    char (*patterns)[PATTERN_BYTES];
    char (*subjects)[PATTERN_BYTES];
};

static const char *pick(struct wb_rng *rng, const char *const *list, size_t count)
{
    return list[wb_rng_below(rng, count)];
}

#define PICK(rng, list) pick((rng), (list), sizeof(list) / sizeof((list)[0]))

static void make_pattern(struct wb_rng *rng, size_t tenants, char out[PATTERN_BYTES])
{
    unsigned tenant = (unsigned)wb_rng_below(rng, tenants);
    const char *module = PICK(rng, modules);
    const char *entity = PICK(rng, entities);
    const char *action = PICK(rng, actions);
    uint64_t kind = wb_rng_below(rng, 100);

    if (kind < 60)
        (void)snprintf(out, PATTERN_BYTES, "tenant-%05u.%s.events.%s.%s", tenant, module, entity,
                       action);
    else if (kind < 75)
        (void)snprintf(out, PATTERN_BYTES, "tenant-%05u.%s.events.>", tenant, module);
    else if (kind < 90)
        (void)snprintf(out, PATTERN_BYTES, "tenant-%05u.*.events.%s.*", tenant, entity);
    else if (kind < 95)
        (void)snprintf(out, PATTERN_BYTES, "tenant-%05u.%s.events.%s.*", tenant, module, entity);
    else if (kind < 98)
        (void)snprintf(out, PATTERN_BYTES, "tenant-%05u.>", tenant);
    else
        (void)snprintf(out, PATTERN_BYTES, "tenant-%05u.*.events.*.%s", tenant, action);
}

/* Those who watch all tenants: the platform's own, few whatever the number of tenants. */
static void make_wide_pattern(struct wb_rng *rng, size_t i, char out[PATTERN_BYTES])
{
    if (i == 0)
        (void)snprintf(out, PATTERN_BYTES, ">");
    else if (i == 1)
        (void)snprintf(out, PATTERN_BYTES, "*.*.events.>");
    else if (i < 12)
        (void)snprintf(out, PATTERN_BYTES, "*.%s.events.>", modules[i - 2]);
    else if (i < 32)
        (void)snprintf(out, PATTERN_BYTES, "*.*.events.%s.%s", PICK(rng, entities),
                       PICK(rng, actions));
    else
        (void)snprintf(out, PATTERN_BYTES, "*.%s.events.%s.%s", PICK(rng, modules),
                       PICK(rng, entities), PICK(rng, actions));
}

static void make_set(struct set *set, size_t count)
{
    struct wb_rng rng;
    size_t tenants = count / PATTERNS_PER_TENANT;
    size_t wide = count / 10 < 92 ? count / 10 : 92;

    wb_rng_seed(&rng, count);
    *set = (struct set){.count = count,
                        .patterns = malloc(count * PATTERN_BYTES),
                        .subjects = malloc(SUBJECTS * PATTERN_BYTES)};
    if (set->patterns == NULL || set->subjects == NULL)
        abort();
    for (size_t i = 0; i < count; i++) {
        if (i < wide)
            make_wide_pattern(&rng, i, set->patterns[i]);
        else
            make_pattern(&rng, tenants, set->patterns[i]);
    }
    for (size_t i = 0; i < SUBJECTS; i++)
        (void)snprintf(set->subjects[i], PATTERN_BYTES, "tenant-%05u.%s.events.%s.%s",
                       (unsigned)wb_rng_below(&rng, tenants), PICK(&rng, modules),
                       PICK(&rng, entities), PICK(&rng, actions));
}

static void keep(void *ctx, void *value)
{
    uintptr_t *sum = ctx;

    *sum += (uintptr_t)value;
}

/* Nanoseconds for one match over the first count subjects; the best of three rounds. */
static double match_ns(const struct subject_index *index, const struct set *set, size_t count,
                       double *ret_found)
{
    double best = 1e18;

    for (int round = 0; round < 3; round++) {
        uintptr_t sum = 0;
        size_t found = 0;
        int64_t start = wb_mono_ns(wb_clock_system());
        for (size_t i = 0; i < SUBJECTS; i++)
            found += subject_index_match(index, wb_str(set->subjects[i % count]), keep, &sum);
        double ns = (double)(wb_mono_ns(wb_clock_system()) - start) / SUBJECTS;
        best = ns < best ? ns : best;
        *ret_found = (double)found / SUBJECTS;
    }
    return best;
}

static double add_ns(struct subject_index *index, const struct set *set)
{
    int64_t start = wb_mono_ns(wb_clock_system());

    for (uintptr_t i = 0; i < set->count; i++)
        if (subject_index_add(index, wb_str(set->patterns[i]), (void *)i) != WB_OK)
            abort();
    return (double)(wb_mono_ns(wb_clock_system()) - start) / (double)set->count;
}

static double remove_ns(struct subject_index *index, const struct set *set)
{
    int64_t start = wb_mono_ns(wb_clock_system());

    for (uintptr_t i = 0; i < set->count; i++)
        if (subject_index_remove(index, wb_str(set->patterns[i]), (void *)i) != WB_OK)
            abort();
    return (double)(wb_mono_ns(wb_clock_system()) - start) / (double)set->count;
}

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void run(size_t count)
{
    struct subject_index *index;
    struct set set;
    double found;
    double hot_found;

    make_set(&set, count);
    size_t before = heap_bytes();
    if (subject_index_create(&index) != WB_OK)
        abort();
    double add = add_ns(index, &set);
    size_t bytes = heap_bytes() - before;
    double uniform = match_ns(index, &set, SUBJECTS, &found);
    double hot = match_ns(index, &set, HOT_SUBJECTS, &hot_found);
    double removed = remove_ns(index, &set);
    size_t left = heap_bytes() - before;
    (void)printf("%8zu patterns: match %5.0f ns uniform (%.1f found), %5.0f ns hot (%.1f found); "
                 "add %4.0f ns, remove %4.0f ns; %4.0f bytes each, %zu left at the end\n",
                 count, uniform, found, hot, hot_found, add, removed, (double)bytes / (double)count,
                 left);
    subject_index_destroy(index);
    free(set.patterns);
    free(set.subjects);
}

int main(void)
{
    run(1000);
    run(100000);
    run(1000000);
    return 0;
}
