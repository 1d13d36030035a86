/*
 * config_internal.h - what the files of this room share: settings, and how one is set.
 */
#ifndef CONFIG_INTERNAL_H
#define CONFIG_INTERNAL_H

#include <waybill/config.h>

#include "config_parser.h"

/* Which source wins: the greater. An alias such as NATS_URL may be set for other programs too. */
typedef enum config_rank {
    CONFIG_RANK_DEFAULT,
    CONFIG_RANK_FILE,
    CONFIG_RANK_ALIAS,
    CONFIG_RANK_ENV,
    CONFIG_RANK_FLAG
} config_rank;

/* One setting: a key of the table, or one [section.NAME] of a key with '*'. */
struct config_setting {
    const struct config_key *key;
    char *name;   /* owned; without '*' unless it is the key's own entry */
    char *value;  /* owned; NULL: the key's fallback holds */
    char *origin; /* owned; NULL: the default */
    config_rank rank;
    size_t line; /* where the source being loaded sets it (1 in the environment); 0: nowhere yet */
};

/* All settings. A load works on a copy, which replaces the original only when all is well. */
struct config_table {
    struct config_setting *settings; /* in the order of the keys, wildcard ones after their entry */
    size_t count;
    char **sections; /* the [section.NAME] of the files, in order of appearance */
    size_t section_count;
};

struct config {
    struct config_key *keys; /* a copy of the table; constant after create */
    size_t key_count;        /* constant after create */
    struct config_table table;
};

/* One value on its way in. */
struct config_change {
    const char *where;  /* for messages: "waybill.conf:3", "WAYBILL_BUS", "--bus" */
    const char *origin; /* for config_entry() */
    config_rank rank;
    const char *name; /* concrete: "nats.url" */
    const char *value;
};

/** NULL when no key of that name is known; wildcard keys match names of their form. */
const struct config_key *config_find_key(const struct config *config, const char *name);

/** The setting of a concrete name, or NULL. */
struct config_setting *config_find(const struct config_table *table, const char *name);

/** Same as config_find, but a missing wildcard setting is made. NULL when out of memory. */
struct config_setting *config_table_need(struct config_table *table, const struct config_key *key,
                                         const char *name);

/** Check a value and take it, unless a stronger source has set it. The name must be known. */
wb_err config_table_apply(struct config_table *table, const struct config_key *key,
                          const struct config_change *change, struct wb_why *why);

/** A section of a file; the same again does nothing. WB_NOMEM. */
wb_err config_table_add_section(struct config_table *table, struct wb_str section);

wb_err config_table_copy(const struct config_table *from, struct config_table *ret_table);
void config_table_free(struct config_table *table);

/** Does a value suit its key? where starts the message. WB_INVALID. */
wb_err config_value_check(const struct config_key *key, const char *name, struct wb_str value,
                          const char *where, struct wb_why *why);

/** Digits with an optional '-', within int64_t. */
bool config_int_parse(struct wb_str text, int64_t *ret_value);

/** Does a name have the form of a pattern, where '*' stands for one part? */
bool config_name_matches(struct wb_str pattern, struct wb_str name);

/* The best of several candidates for a misspelt word. Start with {.word = ...}. */
struct config_guess {
    struct wb_str word;
    struct wb_str best; /* {NULL, 0}: nothing is near */
    unsigned distance;
};
void config_guess_try(struct config_guess *guess, struct wb_str candidate);

/** The section of a key's name ("" for those at the top) and its last part. */
struct wb_str config_name_section(const char *name);
struct wb_str config_name_last(const char *name);

#endif /* CONFIG_INTERNAL_H */
