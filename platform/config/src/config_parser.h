/*
 * config_parser.h - the grammar of a configuration file, without knowledge of any key.
 *
 * A parser of our own instead of libinih: Debian's build of that cuts lines at 200 bytes and takes
 * ';' for the start of a comment even between quotes, so that a file could not be INI and TOML at
 * once. Everything accepted here is TOML too, with the same meaning.
 */
#ifndef CONFIG_PARSER_H
#define CONFIG_PARSER_H

#include <waybill/base.h>

#define CONFIG_NAME_MAX 64 /* bytes of one part of a section's or key's name */

/* How a value was written. */
typedef enum config_form { CONFIG_FORM_STRING, CONFIG_FORM_INTEGER, CONFIG_FORM_BOOL } config_form;

/* One `key = value`. Views, valid during the call. */
struct config_pair {
    size_t line;
    struct wb_str section; /* "" at the top of the file */
    struct wb_str key;
    config_form form;
    struct wb_str value; /* escapes resolved */
};

/* Whoever takes what was read. An error ends the parsing and is returned by it. */
struct config_sink {
    wb_err (*section)(void *ctx, size_t line, struct wb_str section, struct wb_why *why);
    wb_err (*pair)(void *ctx, const struct config_pair *pair, struct wb_why *why);
    void *ctx;
};

/** Read text; name appears in messages as "name:line: ". WB_INVALID, WB_NOMEM, or the sink's. */
wb_err config_parse(const char *name, struct wb_str text, const struct config_sink *sink,
                    struct wb_why *why);

/** One part of a name: 1 to CONFIG_NAME_MAX of [A-Za-z0-9_-], a bare key of TOML. */
bool config_name_valid(struct wb_str part);

#endif /* CONFIG_PARSER_H */
