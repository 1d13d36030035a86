#include "config_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void setting_free(struct config_setting *setting)
{
    free(setting->name);
    free(setting->value);
    free(setting->origin);
}

void config_table_free(struct config_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        setting_free(&table->settings[i]);
    for (size_t i = 0; i < table->section_count; i++)
        free(table->sections[i]);
    free(table->settings);
    free(table->sections);
    *table = (struct config_table){0};
}

/* A copy of a text that may be NULL; *ok turns false when out of memory. */
static char *copy_text(const char *text, bool *ok)
{
    char *copy = text == NULL ? NULL : wb_str_dup(wb_str(text));

    if (text != NULL && copy == NULL)
        *ok = false;
    return copy;
}

wb_err config_table_copy(const struct config_table *from, struct config_table *ret_table)
{
    struct config_table to = {0};
    bool ok = true;

    to.settings = calloc(from->count + 1, sizeof(*to.settings));
    to.sections = calloc(from->section_count + 1, sizeof(*to.sections));
    if (to.settings == NULL || to.sections == NULL)
        ok = false;
    for (size_t i = 0; ok && i < from->count; i++) {
        const struct config_setting *setting = &from->settings[i];
        to.settings[to.count++] = (struct config_setting){
            .key = setting->key,
            .name = copy_text(setting->name, &ok),
            .value = copy_text(setting->value, &ok),
            .origin = copy_text(setting->origin, &ok),
            .rank = setting->rank,
        };
    }
    for (size_t i = 0; ok && i < from->section_count; i++)
        to.sections[to.section_count++] = copy_text(from->sections[i], &ok);
    if (!ok) {
        config_table_free(&to);
        return WB_NOMEM;
    }
    *ret_table = to;
    return WB_OK;
}

struct config_setting *config_find(const struct config_table *table, const char *name)
{
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->settings[i].name, name) == 0)
            return &table->settings[i];
    return NULL;
}

/* Behind the last setting of the same key, which is at least the key's own entry. */
static size_t place_after(const struct config_table *table, const struct config_key *key)
{
    size_t place = table->count;

    while (place > 0 && table->settings[place - 1].key != key)
        place--;
    return place;
}

struct config_setting *config_table_need(struct config_table *table, const struct config_key *key,
                                         const char *name)
{
    struct config_setting *found = config_find(table, name);
    struct config_setting *grown;
    char *copy;
    size_t place;

    if (found != NULL)
        return found;
    copy = wb_str_dup(wb_str(name));
    grown = realloc(table->settings, (table->count + 1) * sizeof(*grown));
    if (grown != NULL)
        table->settings = grown;
    if (copy == NULL || grown == NULL) {
        free(copy);
        return NULL;
    }
    place = place_after(table, key);
    memmove(&grown[place + 1], &grown[place], (table->count - place) * sizeof(*grown));
    grown[place] = (struct config_setting){.key = key, .name = copy};
    table->count++;
    return &grown[place];
}

wb_err config_table_add_section(struct config_table *table, struct wb_str section)
{
    char **grown;

    for (size_t i = 0; i < table->section_count; i++)
        if (wb_str_eq(wb_str(table->sections[i]), section))
            return WB_OK;
    grown = realloc(table->sections, (table->section_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return WB_NOMEM;
    table->sections = grown;
    grown[table->section_count] = wb_str_dup(section);
    if (grown[table->section_count] == NULL)
        return WB_NOMEM;
    table->section_count++;
    return WB_OK;
}

/* The [section.NAME] a wildcard setting belongs to, however it was set. */
static wb_err note_section(struct config_table *table, const struct config_key *key,
                           const char *name)
{
    if (strchr(key->name, '*') == NULL)
        return WB_OK;
    return config_table_add_section(table, config_name_section(name));
}

wb_err config_table_apply(struct config_table *table, const struct config_key *key,
                          const struct config_change *change, struct wb_why *why)
{
    struct config_setting *setting;
    char *value, *origin;
    wb_err err;

    err = config_value_check(key, change->name, wb_str(change->value), change->where, why);
    if (err != WB_OK)
        return err;
    setting = config_table_need(table, key, change->name);
    if (setting == NULL || note_section(table, key, change->name) != WB_OK)
        return wb_fail(why, WB_NOMEM, "%s: out of memory", change->where);
    if (change->rank < setting->rank)
        return WB_OK;
    value = wb_str_dup(wb_str(change->value));
    origin = wb_str_dup(wb_str(change->origin));
    if (value == NULL || origin == NULL) {
        free(value);
        free(origin);
        return wb_fail(why, WB_NOMEM, "%s: out of memory", change->where);
    }
    free(setting->value);
    free(setting->origin);
    setting->value = value;
    setting->origin = origin;
    setting->rank = change->rank;
    return WB_OK;
}
