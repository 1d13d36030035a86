/*
 * table.h - the hash table of the index: numbered slots with open addressing.
 *
 * Each slot gets an id, unique while the slot lives, by which others can name it although slots
 * move; ids of erased slots are used again. Linear probing, and erasing closes the gap, so that
 * neither lookups nor memory suffer from churn.
 */
#ifndef SUBJECT_TABLE_H
#define SUBJECT_TABLE_H

#include <waybill/base.h>

/* A step of a pattern: the child that one token leads to. */
struct subject_node {
    uint32_t parent;      /* id of a node; 0: the root */
    uint32_t token;       /* id of a token, or one of the wildcards */
    uint32_t children;    /* literal ones, plus SUBJECT_HAS_... */
    uint32_t value_count; /* values of the pattern that ends here */
    union {
        void *one;   /* when value_count is 1 */
        void **many; /* when it is more; capacity is the next power of two */
    } values;
};

/* The text of a token, kept once for all patterns. */
struct subject_token {
    uint32_t users; /* nodes that name it */
    uint32_t len;
    union {
        char here[16]; /* when len fits */
        char *away;
    } text;
};

/* Half a cache line, so that a lookup mostly costs one miss. */
struct subject_slot {
    uint32_t id; /* 0: free */
    uint32_t hash;
    union {
        struct subject_node node;
        struct subject_token token;
    } u;
};

struct subject_table {
    struct subject_slot *slots; /* mask + 1 of them, a power of two; at most 3/4 in use */
    size_t mask;
    size_t count;
    uint32_t *free_ids; /* room for every id handed out so far */
    size_t free_count;
    size_t free_capacity;
    uint32_t last_id;
};

bool subject_table_init(struct subject_table *table);
void subject_table_free(struct subject_table *table);

/**
 * A new slot with an id and otherwise zero; the caller has made sure that its key is new. Other
 * slots may move. NULL when out of memory; then nothing has moved.
 */
struct subject_slot *subject_table_insert(struct subject_table *table, uint32_t hash);

/** Free a slot and its id. Other slots may move. */
void subject_table_erase(struct subject_table *table, struct subject_slot *slot);

/** Walk the slots that may have this hash: for (s = first(t, h); s->id != 0; s = next(t, s)). */
static inline struct subject_slot *subject_table_first(const struct subject_table *table,
                                                       uint32_t hash)
{
    return &table->slots[hash & table->mask];
}

static inline struct subject_slot *subject_table_next(const struct subject_table *table,
                                                      const struct subject_slot *slot)
{
    return &table->slots[((size_t)(slot - table->slots) + 1) & table->mask];
}

#endif /* SUBJECT_TABLE_H */
