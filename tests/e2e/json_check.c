/*
 * json_check.c - json_check SCHEMA [MIN]: is each line of standard input a document of the schema,
 * and are there at least MIN (default 1)?
 *
 * Knows the few keywords that contracts/cli/ uses and refuses a schema with any other, so that no
 * promise goes unchecked.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

static const char *const known[] = {"$schema",    "$id",   "title",
                                    "type",       "enum",  "required",
                                    "properties", "items", "additionalProperties"};

static const char *type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "array";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "integer";
    case JSON_REAL:
        return "number";
    case JSON_NULL:
        return "null";
    default:
        return "boolean";
    }
}

static bool fail(const char *path, const char *what, const char *detail)
{
    (void)fprintf(stderr, "json_check: at %s: %s %s\n", path[0] != '\0' ? path : "/", what, detail);
    return false;
}

static bool keywords_known(json_t *schema, const char *path)
{
    const char *key;
    json_t *value;

    json_object_foreach(schema, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
            found = found || strcmp(known[i], key) == 0;
        if (!found)
            return fail(path, "the schema uses an unknown keyword", key);
    }
    return true;
}

static bool in_list(const json_t *list, const json_t *value)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), value))
            return true;
    return false;
}

static bool type_allowed(const json_t *types, const json_t *value)
{
    json_t *name = json_string(type_of(value));
    bool allowed = json_equal(types, name) || in_list(types, name);

    json_decref(name);
    return types == NULL || allowed;
}

static bool check(json_t *schema, json_t *value, const char *path);

static bool check_members(json_t *schema, json_t *value, const char *path)
{
    json_t *properties = json_object_get(schema, "properties");
    json_t *others = json_object_get(schema, "additionalProperties");
    const char *name;
    json_t *member;
    char below[256];

    json_object_foreach(value, name, member)
    {
        json_t *rule = json_object_get(properties, name);
        (void)snprintf(below, sizeof(below), "%s/%s", path, name);
        if (rule == NULL && json_is_false(others))
            return fail(below, "is not promised", "");
        if (rule == NULL)
            rule = others;
        if (json_is_object(rule) && !check(rule, member, below))
            return false;
    }
    return true;
}

static bool check_required(json_t *schema, const json_t *value, const char *path)
{
    json_t *required = json_object_get(schema, "required");

    for (size_t i = 0; json_is_object(value) && i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (json_object_get(value, name) == NULL)
            return fail(path, "lacks", name);
    }
    return true;
}

static bool check_items(json_t *schema, const json_t *value, const char *path)
{
    json_t *items = json_object_get(schema, "items");
    char below[256];

    for (size_t i = 0; items != NULL && i < json_array_size(value); i++) {
        (void)snprintf(below, sizeof(below), "%s/%zu", path, i);
        if (!check(items, json_array_get(value, i), below))
            return false;
    }
    return true;
}

static bool check(json_t *schema, json_t *value, const char *path)
{
    const json_t *choices = json_object_get(schema, "enum");

    if (!keywords_known(schema, path))
        return false;
    if (!type_allowed(json_object_get(schema, "type"), value))
        return fail(path, "has the type", type_of(value));
    if (choices != NULL && !in_list(choices, value))
        return fail(path, "is none of the values promised", "");
    return check_required(schema, value, path) && check_members(schema, value, path) &&
           check_items(schema, value, path);
}

static int check_lines(json_t *schema, long min)
{
    char *line = NULL;
    size_t room = 0;
    long count = 0;
    int status = 0;
    json_error_t error;

    while (status == 0 && getline(&line, &room, stdin) > 0) {
        json_t *value = json_loads(line, JSON_REJECT_DUPLICATES, &error);
        count++;
        if (value == NULL)
            (void)fprintf(stderr, "json_check: line %ld: %s: %s", count, error.text, line);
        if (value == NULL || !check(schema, value, ""))
            status = 1;
        json_decref(value);
    }
    free(line);
    if (status == 0 && count < min) {
        (void)fprintf(stderr, "json_check: %ld lines, expected %ld\n", count, min);
        status = 1;
    }
    return status;
}

int main(int argc, char **argv)
{
    json_error_t error;

    if (argc < 2 || argc > 3) {
        (void)fprintf(stderr, "usage: json_check SCHEMA [MIN] <LINES\n");
        return 2;
    }
    json_t *schema = json_load_file(argv[1], JSON_REJECT_DUPLICATES, &error);
    if (schema == NULL) {
        (void)fprintf(stderr, "json_check: %s: %s\n", argv[1], error.text);
        return 2;
    }
    int status = check_lines(schema, argc == 3 ? strtol(argv[2], NULL, 10) : 1);
    json_decref(schema);
    return status;
}
