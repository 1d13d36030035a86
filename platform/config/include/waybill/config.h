/*
 * waybill/config.h - one set of settings from defaults, a file, the environment and flags.
 *
 * Later sources win: default < file < environment < flag. Which source a value came from is kept
 * and can be printed. The file is INI that is also TOML: sections, `key = value`, where a value is
 * a "quoted string", an integer, or true/false; comments start with '#'. Unknown or doubled keys
 * and bad values are errors with file, line, what was expected and the nearest known key.
 *
 * Threads   One thread while loading; afterwards read-only, from any thread.
 */
#ifndef WAYBILL_CONFIG_H
#define WAYBILL_CONFIG_H

#include <waybill/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CONFIG_FILE_MAX (1U << 20) /* bytes; a larger file is refused */

typedef enum config_type {
    CONFIG_STRING,
    CONFIG_INT,      /* min..max */
    CONFIG_BOOL,     /* true, false */
    CONFIG_DURATION, /* "5s"; min..max in nanoseconds */
    CONFIG_SIZE,     /* "1MiB"; min..max in bytes */
    CONFIG_CHOICE    /* one of choices, "memory|nats" */
} config_type;

/*
 * One known setting. The name is "section.key", or "key" at the top of the file. A name of the form
 * "stream.*.subjects" stands for any [stream.NAME]. Constant, static tables.
 */
struct config_key {
    const char *name;
    config_type type;
    const char *fallback; /* as it would be written, without quotes; NULL: no default */
    const char *choices;  /* CONFIG_CHOICE */
    int64_t min, max;     /* both 0: no bounds */
    const char *env;      /* variable that sets it besides WAYBILL_SECTION_KEY, e.g. "NATS_URL" */
    bool secret;          /* shown as "***"; may also come from WAYBILL_..._FILE */
    const char *help;
};

struct config;

/** Defaults of the table. The table is copied, the texts it points to are kept. WB_NOMEM. */
wb_err config_create(const struct config_key *keys, size_t key_count, struct config **ret_config);
void config_destroy(struct config *config);

/**
 * Read a file ("-" is standard input). All or nothing: on failure the settings stay as they were.
 * Only later loads of the same or a stronger source replace what is set, so the order of the
 * calls does not matter.
 * @return WB_NOT_FOUND, WB_DENIED, WB_IO, WB_TOO_BIG, WB_INVALID; why has file:line.
 */
wb_err config_load_file(struct config *config, const char *path, struct wb_why *why);

/** Same, from memory; name appears in messages. */
wb_err config_load_text(struct config *config, const char *name, struct wb_str text,
                        struct wb_why *why);

/**
 * Take WAYBILL_* and the env aliases from an environment (as in environ). WAYBILL_NATS_URL sets
 * "nats.url" and is stronger than the key's alias; an empty alias counts as unset. For a secret,
 * WAYBILL_..._FILE names a file whose first line is the value; it may not be open to others.
 * WAYBILL_ names that no key answers to are errors. All or nothing.
 * @return WB_INVALID, WB_NOT_FOUND, WB_DENIED, WB_IO (a secret's file).
 */
wb_err config_load_env(struct config *config, const char *const *environment, struct wb_why *why);

/** Set one value; flag names the source in messages: "--bus". WB_INVALID, WB_NOT_FOUND. */
wb_err config_set(struct config *config, const char *name, const char *value, const char *flag,
                  struct wb_why *why);

/** The value as text; NULL when unset. Valid until the next load or set. */
const char *config_str(const struct config *config, const char *name);

/** Typed values; the key must be of the type and have a value or a default (asserted). */
int64_t config_int(const struct config *config, const char *name);
bool config_bool(const struct config *config, const char *name);
int64_t config_duration(const struct config *config, const char *name); /* nanoseconds */
uint64_t config_size(const struct config *config, const char *name);    /* bytes */

/**
 * Names used in place of '*': for "stream.*" each [stream.NAME] once, in order of appearance.
 * @return false when index is past the last.
 */
bool config_section(const struct config *config, const char *prefix, size_t index,
                    struct wb_str *ret_name);

/* One setting as `config show --origin` prints it. */
struct config_entry {
    const char *name;
    const char *value;  /* "***" for secrets; NULL: unset */
    const char *origin; /* "default", "file waybill.conf:12", "env WAYBILL_BUS", "flag --bus" */
    const char *help;
};

/**
 * The settings in the order of the table, wildcard ones after their table entry. false: no more.
 */
bool config_entry(const struct config *config, size_t index, struct config_entry *ret_entry);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_CONFIG_H */
