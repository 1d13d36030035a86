/*
 * module_contract.h - what contracts/<module> says against what a module does. Of JSON Schema
 * 2020-12 it knows what the contracts use: type, required, properties, pattern, minimum, maximum,
 * minLength, maxLength (in bytes).
 */
#ifndef MODULE_CONTRACT_H
#define MODULE_CONTRACT_H

#include "test_support.h"

#include <regex.h>
#include <stdio.h>

#include <jansson.h>

#include <waybill/module.h>
#include <waybill/subject.h>

static inline json_t *contract_load(const char *module, const char *file)
{
    char path[512];
    json_error_t error;

    snprintf(path, sizeof(path), TEST_DATA_DIR "/../../contracts/%s/%s", module, file);
    json_t *json = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL)
        fail_msg("%s: %s at line %d", path, error.text, error.line);
    return json;
}

static inline bool contract_type_is(const json_t *value, const char *type)
{
    return (strcmp(type, "object") == 0 && json_is_object(value)) ||
           (strcmp(type, "string") == 0 && json_is_string(value)) ||
           (strcmp(type, "integer") == 0 && json_is_integer(value)) ||
           (strcmp(type, "null") == 0 && json_is_null(value));
}

static inline bool contract_type_ok(const json_t *types, const json_t *value)
{
    size_t i;
    const json_t *type;

    if (json_is_string(types))
        return contract_type_is(value, json_string_value(types));
    json_array_foreach(types, i,
                       type) if (contract_type_is(value, json_string_value(type))) return true;
    return types == NULL;
}

static inline bool contract_pattern_ok(const char *pattern, const char *text)
{
    regex_t regex;

    if (pattern == NULL || text == NULL)
        return true;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    int code = regexec(&regex, text, 0, NULL, 0);
    regfree(&regex);
    return code == 0;
}

static inline bool contract_limit_ok(const json_t *schema, const char *minimum, const char *maximum,
                                     json_int_t value)
{
    const json_t *min = json_object_get(schema, minimum);
    const json_t *max = json_object_get(schema, maximum);

    return (min == NULL || value >= json_integer_value(min)) &&
           (max == NULL || value <= json_integer_value(max));
}

static inline bool contract_value_ok(const json_t *schema, const json_t *value)
{
    const char *pattern = json_string_value(json_object_get(schema, "pattern"));

    if (!contract_type_ok(json_object_get(schema, "type"), value) ||
        !contract_pattern_ok(pattern, json_string_value(value)))
        return false;
    if (json_is_string(value))
        return contract_limit_ok(schema, "minLength", "maxLength",
                                 (json_int_t)json_string_length(value));
    return !json_is_integer(value) ||
           contract_limit_ok(schema, "minimum", "maximum", json_integer_value(value));
}

/* Does the object meet the schema? ret_problem names the member that does not. */
static inline bool contract_object_ok(const json_t *schema, const json_t *object,
                                      const char **ret_problem)
{
    size_t i;
    const json_t *name;
    const char *member;
    json_t *property;

    *ret_problem = "the value itself";
    if (!contract_value_ok(schema, object))
        return false;
    json_array_foreach(json_object_get(schema, "required"), i, name)
    {
        *ret_problem = json_string_value(name);
        if (json_object_get(object, *ret_problem) == NULL)
            return false;
    }
    json_object_foreach(json_object_get(schema, "properties"), member, property)
    {
        const json_t *value = json_object_get(object, member);
        *ret_problem = member;
        if (value != NULL && !contract_value_ok(property, value))
            return false;
    }
    return true;
}

/* Every member that the object has is named in the schema. */
static inline bool contract_names_all(const json_t *schema, json_t *object)
{
    const char *member;
    json_t *value;

    json_object_foreach(object, member,
                        value) if (json_object_get(json_object_get(schema, "properties"), member) ==
                                   NULL) return false;
    return true;
}

/* The entry of the contract whose subject covers an event's. Borrowed from contract. */
static inline json_t *contract_entry(json_t *contract, const char *subject)
{
    size_t i;
    json_t *entry;

    json_array_foreach(
        json_object_get(contract, "publishes"), i,
        entry) if (subject_matches(wb_str(json_string_value(json_object_get(entry, "subject"))),
                                   wb_str(subject))) return entry;
    fail_msg("no entry of the contract covers %s", subject);
    return NULL;
}

/* An event that was emitted is what the contract promises. */
static inline void contract_check_event(const struct module *module, const char *subject,
                                        const char *payload, bool closed)
{
    const char *problem;
    json_t *contract = contract_load(module->name, "contract.json");
    json_t *entry = contract_entry(contract, subject);
    json_t *schema =
        contract_load(module->name, json_string_value(json_object_get(entry, "schema")));
    json_t *object = json_loads(payload, 0, NULL);

    if (!contract_object_ok(schema, object, &problem))
        fail_msg("%s: the schema refuses %s in %s", subject, problem, payload);
    if (closed && !contract_names_all(schema, object))
        fail_msg("%s: the schema does not name every member of %s", subject, payload);
    json_decref(object);
    json_decref(schema);
    json_decref(contract);
}

/* Each example meets its schema, and stops meeting it when a required member is taken away. */
static inline size_t contract_check_examples(const json_t *schema)
{
    const json_t *required = json_object_get(schema, "required");
    json_t *examples = json_object_get(schema, "examples");
    size_t i;
    size_t n;
    json_t *example;
    const json_t *name;
    const char *problem;

    json_array_foreach(examples, i, example)
    {
        if (!contract_object_ok(schema, example, &problem))
            fail_msg("example %zu: the schema refuses %s", i, problem);
        json_array_foreach(required, n, name)
        {
            json_t *without = json_copy(example);
            json_object_del(without, json_string_value(name));
            assert_false(contract_object_ok(schema, without, &problem));
            json_decref(without);
        }
    }
    return json_array_size(examples);
}

/* The contract names the stream and subjects of the module's table, and its examples are sound. */
static inline void contract_check(const struct module *module)
{
    size_t i;
    json_t *entry;
    json_t *contract = contract_load(module->name, "contract.json");
    json_t *subjects = json_object_get(contract, "subjects");

    assert_string_equal(json_string_value(json_object_get(contract, "module")), module->name);
    assert_string_equal(json_string_value(json_object_get(contract, "stream")), module->stream);
    for (i = 0; module->subjects[i] != NULL; i++)
        assert_string_equal(json_string_value(json_array_get(subjects, i)), module->subjects[i]);
    assert_int_equal(json_array_size(subjects), i);
    json_array_foreach(json_object_get(contract, "publishes"), i, entry)
    {
        json_t *schema =
            contract_load(module->name, json_string_value(json_object_get(entry, "schema")));
        assert_string_equal(json_string_value(json_object_get(schema, "$schema")),
                            "https://json-schema.org/draft/2020-12/schema");
        assert_true(contract_check_examples(schema) > 0);
        json_decref(schema);
    }
    json_decref(contract);
}

#endif /* MODULE_CONTRACT_H */
