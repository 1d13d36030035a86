#include "config_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const struct config_key *config_find_key(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->key_count; i++)
        if (config_name_matches(wb_str(config->keys[i].name), wb_str(name)))
            return &config->keys[i];
    return NULL;
}

wb_err config_create(const struct config_key *keys, size_t key_count, struct config **ret_config)
{
    struct config *config;

    assert(keys != NULL || key_count == 0);
    assert(ret_config != NULL);
    config = calloc(1, sizeof(*config));
    if (config == NULL)
        return WB_NOMEM;
    struct config_key *copy = calloc(key_count + 1, sizeof(*copy));
    if (copy == NULL)
        goto destroy_config;
    if (key_count > 0)
        memcpy(copy, keys, key_count * sizeof(*copy));
    config->keys = copy;
    keys = copy;
    config->key_count = key_count;
    config->table.settings = calloc(key_count + 1, sizeof(*config->table.settings));
    if (config->table.settings == NULL)
        goto destroy_config;
    for (size_t i = 0; i < key_count; i++) {
        assert(keys[i].fallback == NULL ||
               config_value_check(&keys[i], keys[i].name, wb_str(keys[i].fallback), "fallback",
                                  NULL) == WB_OK);
        struct config_setting *setting = &config->table.settings[i];
        setting->key = &keys[i];
        setting->name = wb_str_dup(wb_str(keys[i].name));
        if (setting->name == NULL)
            goto destroy_config;
        config->table.count++;
    }
    *ret_config = config;
    return WB_OK;

destroy_config:
    config_destroy(config);
    return WB_NOMEM;
}

void config_destroy(struct config *config)
{
    if (config == NULL)
        return;
    config_table_free(&config->table);
    free(config->keys);
    free(config);
}

wb_err config_set(struct config *config, const char *name, const char *value, const char *flag,
                  struct wb_why *why)
{
    const struct config_key *key;
    struct config_guess guess = {.word = wb_str(name)};
    struct wb_buf origin = {0};
    wb_err err;

    assert(config != NULL);
    assert(name != NULL);
    assert(value != NULL);
    assert(flag != NULL);
    key = config_find_key(config, name);
    if (key == NULL) {
        for (size_t i = 0; i < config->key_count; i++)
            config_guess_try(&guess, wb_str(config->keys[i].name));
        return guess.best.ptr == NULL
                   ? wb_fail(why, WB_NOT_FOUND, "%s: no setting is called \"%s\"", flag, name)
                   : wb_fail(why, WB_NOT_FOUND,
                             "%s: no setting is called \"%s\"; did you mean \"%.*s\"?", flag, name,
                             (int)guess.best.len, guess.best.ptr);
    }
    wb_buf_printf(&origin, "flag %s", flag);
    if (origin.failed)
        err = wb_fail(why, WB_NOMEM, "%s: out of memory", flag);
    else
        err = config_table_apply(&config->table, key,
                                 &(struct config_change){.where = flag,
                                                         .origin = origin.ptr,
                                                         .rank = CONFIG_RANK_FLAG,
                                                         .name = name,
                                                         .value = value},
                                 why);
    wb_buf_free(&origin);
    return err;
}

/* ---- reading --------------------------------------------------------------------------------- */

const char *config_str(const struct config *config, const char *name)
{
    const struct config_setting *setting;
    const struct config_key *key;

    assert(config != NULL);
    assert(name != NULL);
    setting = config_find(&config->table, name);
    if (setting != NULL && setting->value != NULL)
        return setting->value;
    key = setting != NULL ? setting->key : config_find_key(config, name);
    assert(key != NULL && "a setting that no table knows");
    return key == NULL ? NULL : key->fallback;
}

/* The text of a typed setting, which must have one. */
static struct wb_str typed(const struct config *config, const char *name, config_type type)
{
    const struct config_key *key = config_find_key(config, name);
    const char *text = config_str(config, name);

    assert(key != NULL);
    assert(key->type == type);
    assert(text != NULL && "a setting without value and default");
    (void)key;
    (void)type;
    return wb_str(text);
}

int64_t config_int(const struct config *config, const char *name)
{
    int64_t value = 0;
    bool valid = config_int_parse(typed(config, name, CONFIG_INT), &value);

    assert(valid);
    (void)valid;
    return value;
}

bool config_bool(const struct config *config, const char *name)
{
    return wb_str_eq(typed(config, name, CONFIG_BOOL), wb_str("true"));
}

int64_t config_duration(const struct config *config, const char *name)
{
    int64_t ns = 0;
    bool valid = wb_duration_parse(typed(config, name, CONFIG_DURATION), &ns);

    assert(valid);
    (void)valid;
    return ns;
}

uint64_t config_size(const struct config *config, const char *name)
{
    uint64_t bytes = 0;
    bool valid = wb_size_parse(typed(config, name, CONFIG_SIZE), &bytes);

    assert(valid);
    (void)valid;
    return bytes;
}

bool config_section(const struct config *config, const char *prefix, size_t index,
                    struct wb_str *ret_name)
{
    size_t found = 0;

    assert(config != NULL);
    assert(prefix != NULL);
    assert(ret_name != NULL);
    for (size_t i = 0; i < config->table.section_count; i++) {
        const char *section = config->table.sections[i];
        if (!config_name_matches(wb_str(prefix), wb_str(section)))
            continue;
        if (found++ == index) {
            *ret_name = config_name_last(section);
            return true;
        }
    }
    return false;
}

bool config_entry(const struct config *config, size_t index, struct config_entry *ret_entry)
{
    const struct config_setting *setting;
    const char *value;

    assert(config != NULL);
    assert(ret_entry != NULL);
    if (index >= config->table.count)
        return false;
    setting = &config->table.settings[index];
    value = setting->value != NULL ? setting->value : setting->key->fallback;
    *ret_entry = (struct config_entry){
        .name = setting->name,
        .value = value != NULL && setting->key->secret ? "***" : value,
        .origin = setting->origin != NULL ? setting->origin : "default",
        .help = setting->key->help,
    };
    return true;
}
