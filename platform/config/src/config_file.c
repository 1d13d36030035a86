#include "config_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file being loaded into a copy of the settings. */
struct load {
    const struct config *config;
    struct config_table staged;
    const char *name;
    struct wb_buf sections; /* "[nats]\n" for each section seen, to find doubled ones */
    bool in_section;
};

/* ---- unknown names --------------------------------------------------------------------------- */

static bool section_known(const struct config *config, struct wb_str section)
{
    for (size_t i = 0; i < config->key_count; i++) {
        struct wb_str known = config_name_section(config->keys[i].name);
        if (known.len > 0 && config_name_matches(known, section))
            return true;
    }
    return false;
}

static wb_err fail_section(const struct load *load, size_t line, struct wb_str section,
                           struct wb_why *why)
{
    struct config_guess guess = {.word = section};

    for (size_t i = 0; i < load->config->key_count; i++) {
        struct wb_str known = config_name_section(load->config->keys[i].name);
        if (known.len == section.len + 2 && memcmp(known.ptr, section.ptr, section.len) == 0 &&
            memcmp(known.ptr + section.len, ".*", 2) == 0)
            return wb_fail(why, WB_INVALID, "%s:%zu: [%.*s] needs a name: [%.*s.NAME]", load->name,
                           line, (int)section.len, section.ptr, (int)section.len, section.ptr);
        if (known.len > 0)
            config_guess_try(&guess, known);
    }
    if (guess.best.ptr != NULL)
        return wb_fail(why, WB_INVALID, "%s:%zu: unknown section [%.*s]; did you mean [%.*s]?",
                       load->name, line, (int)section.len, section.ptr, (int)guess.best.len,
                       guess.best.ptr);
    return wb_fail(why, WB_INVALID,
                   "%s:%zu: unknown section [%.*s]; 'waybill config show' lists all settings",
                   load->name, line, (int)section.len, section.ptr);
}

/* The section where a key of this name is at home, when it is not at home here. */
static const struct config_key *key_elsewhere(const struct config *config, struct wb_str key)
{
    for (size_t i = 0; i < config->key_count; i++)
        if (wb_str_eq(config_name_last(config->keys[i].name), key))
            return &config->keys[i];
    return NULL;
}

static wb_err fail_key(const struct load *load, const struct config_pair *pair, struct wb_why *why)
{
    const struct config *config = load->config;
    const struct config_key *elsewhere = key_elsewhere(config, pair->key);
    struct config_guess guess = {.word = pair->key};
    struct wb_buf hint = {0};
    struct wb_str section;

    for (size_t i = 0; i < config->key_count; i++) {
        section = config_name_section(config->keys[i].name);
        if (section.len == 0 ? pair->section.len == 0 : config_name_matches(section, pair->section))
            config_guess_try(&guess, config_name_last(config->keys[i].name));
    }
    section = elsewhere == NULL ? (struct wb_str){NULL, 0} : config_name_section(elsewhere->name);
    if (guess.best.ptr != NULL)
        wb_buf_printf(&hint, "did you mean \"%.*s\"?", (int)guess.best.len, guess.best.ptr);
    else if (elsewhere == NULL)
        wb_buf_str(&hint, "'waybill config show' lists all settings");
    else if (section.len == 0)
        wb_buf_str(&hint, "it belongs at the top of the file, before the first [section]");
    else
        wb_buf_printf(&hint, "it belongs under [%.*s]", (int)section.len, section.ptr);
    wb_fail(why, WB_INVALID, "%s:%zu: unknown key \"%.*s\"%s%.*s%s; %s", load->name, pair->line,
            (int)pair->key.len, pair->key.ptr, pair->section.len > 0 ? " in [" : "",
            (int)pair->section.len, pair->section.len > 0 ? pair->section.ptr : "",
            pair->section.len > 0 ? "]" : "", hint.failed ? "" : hint.ptr);
    wb_buf_free(&hint);
    return WB_INVALID;
}

/* ---- taking what the parser reads ------------------------------------------------------------ */

static wb_err take_section(void *ctx, size_t line, struct wb_str section, struct wb_why *why)
{
    struct load *load = ctx;
    struct wb_buf mark = {0};
    bool doubled;
    wb_err err = WB_OK;

    wb_buf_printf(&mark, "[%.*s]\n", (int)section.len, section.ptr);
    doubled =
        !mark.failed && load->sections.len > 0 && strstr(load->sections.ptr, mark.ptr) != NULL;
    if (!mark.failed)
        wb_buf_add(&load->sections, mark.ptr, mark.len);
    if (mark.failed || load->sections.failed)
        err = wb_fail(why, WB_NOMEM, "%s:%zu: out of memory", load->name, line);
    wb_buf_free(&mark);
    if (err != WB_OK)
        return err;
    if (!section_known(load->config, section))
        return fail_section(load, line, section, why);
    if (doubled)
        return wb_fail(why, WB_INVALID, "%s:%zu: [%.*s] is there already; put its keys together",
                       load->name, line, (int)section.len, section.ptr);
    if (config_table_add_section(&load->staged, section) != WB_OK)
        return wb_fail(why, WB_NOMEM, "%s:%zu: out of memory", load->name, line);
    return WB_OK;
}

/* The form of the value in the file must fit the type, as it would for any other reader of TOML. */
static wb_err check_form(const struct load *load, const struct config_pair *pair,
                         const struct config_key *key, struct wb_why *why)
{
    const char *expected = NULL;

    switch (key->type) {
    case CONFIG_INT:
        if (pair->form != CONFIG_FORM_INTEGER)
            expected = "an integer, without quotes";
        break;
    case CONFIG_BOOL:
        if (pair->form != CONFIG_FORM_BOOL)
            expected = "true or false, without quotes";
        break;
    case CONFIG_DURATION:
        if (pair->form != CONFIG_FORM_STRING)
            expected = "a duration with its unit in quotes, such as \"30s\"";
        break;
    case CONFIG_SIZE:
        if (pair->form == CONFIG_FORM_BOOL)
            expected = "a size, such as \"64KiB\"";
        break;
    case CONFIG_STRING:
    case CONFIG_CHOICE:
        if (pair->form != CONFIG_FORM_STRING)
            expected = "a text in quotes";
        break;
    }
    if (expected == NULL)
        return WB_OK;
    return wb_fail(why, WB_INVALID, "%s:%zu: %s: expected %s", load->name, pair->line, key->name,
                   expected);
}

static wb_err apply_pair(struct load *load, const struct config_pair *pair, const char *name,
                         struct wb_why *why)
{
    const struct config_key *key = config_find_key(load->config, name);
    struct config_setting *setting;
    struct wb_buf where = {0}, value = {0};
    wb_err err;

    if (key == NULL)
        return fail_key(load, pair, why);
    setting = config_table_need(&load->staged, key, name);
    if (setting == NULL)
        return wb_fail(why, WB_NOMEM, "%s:%zu: out of memory", load->name, pair->line);
    if (setting->line != 0)
        return wb_fail(why, WB_INVALID, "%s:%zu: %s is set already in line %zu; keep one of them",
                       load->name, pair->line, name, setting->line);
    setting->line = pair->line;
    err = check_form(load, pair, key, why);
    if (err != WB_OK)
        return err;
    wb_buf_printf(&where, "file %s:%zu", load->name, pair->line);
    wb_buf_printf(&value, "%.*s", (int)pair->value.len, pair->value.ptr);
    if (where.failed || value.failed)
        err = wb_fail(why, WB_NOMEM, "%s:%zu: out of memory", load->name, pair->line);
    else
        err = config_table_apply(&load->staged, key,
                                 &(struct config_change){.where = where.ptr + strlen("file "),
                                                         .origin = where.ptr,
                                                         .rank = CONFIG_RANK_FILE,
                                                         .name = name,
                                                         .value = value.ptr},
                                 why);
    wb_buf_free(&where);
    wb_buf_free(&value);
    return err;
}

static wb_err take_pair(void *ctx, const struct config_pair *pair, struct wb_why *why)
{
    struct load *load = ctx;
    struct wb_buf name = {0};
    wb_err err;

    wb_buf_printf(&name, "%.*s%s%.*s", (int)pair->section.len,
                  pair->section.len > 0 ? pair->section.ptr : "", pair->section.len > 0 ? "." : "",
                  (int)pair->key.len, pair->key.ptr);
    if (name.failed)
        err = wb_fail(why, WB_NOMEM, "%s:%zu: out of memory", load->name, pair->line);
    else
        err = apply_pair(load, pair, name.ptr, why);
    wb_buf_free(&name);
    return err;
}

wb_err config_load_text(struct config *config, const char *name, struct wb_str text,
                        struct wb_why *why)
{
    struct load load = {.config = config, .name = name};
    const struct config_sink sink = {take_section, take_pair, &load};
    wb_err err;

    assert(config != NULL);
    assert(name != NULL);
    if (text.len > CONFIG_FILE_MAX)
        return wb_fail(why, WB_TOO_BIG, "%s: a configuration has at most %u bytes", name,
                       CONFIG_FILE_MAX);
    err = config_table_copy(&config->table, &load.staged);
    if (err != WB_OK)
        return wb_fail(why, err, "%s: out of memory", name);
    err = config_parse(name, text, &sink, why);
    if (err == WB_OK) {
        struct config_table before = config->table;
        config->table = load.staged;
        load.staged = before;
    }
    config_table_free(&load.staged);
    wb_buf_free(&load.sections);
    return err;
}

/* ---- the file -------------------------------------------------------------------------------- */

static wb_err fail_errno(const char *path, const char *what, struct wb_why *why)
{
    switch (errno) {
    case ENOENT:
        return wb_fail(why, WB_NOT_FOUND, "%s: there is no such file", path);
    case EACCES:
    case EPERM:
        return wb_fail(why, WB_DENIED, "%s: may not be read by this user (%s)", path,
                       strerror(errno));
    default:
        return wb_fail(why, WB_IO, "%s: cannot %s: %s", path, what, strerror(errno));
    }
}

/* Read all, but no more than one byte over the limit. */
static wb_err read_all(int fd, const char *name, struct wb_buf *text, struct wb_why *why)
{
    char chunk[8192];
    struct stat status;

    if (fstat(fd, &status) != 0)
        return fail_errno(name, "look at", why);
    if (S_ISDIR(status.st_mode))
        return wb_fail(why, WB_INVALID, "%s: is a directory; name a file", name);
    while (text->len <= CONFIG_FILE_MAX) {
        ssize_t got = read(fd, chunk, sizeof(chunk));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(name, "read", why);
        if (got == 0)
            break;
        wb_buf_add(text, chunk, (size_t)got);
    }
    return text->failed ? wb_fail(why, WB_NOMEM, "%s: out of memory", name) : WB_OK;
}

wb_err config_load_file(struct config *config, const char *path, struct wb_why *why)
{
    bool from_stdin;
    const char *name;
    struct wb_buf text = {0};
    wb_err err;
    int fd;

    assert(config != NULL);
    assert(path != NULL);
    from_stdin = strcmp(path, "-") == 0;
    name = from_stdin ? "standard input" : path;
    fd = from_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(name, "open", why);
    err = read_all(fd, name, &text, why);
    if (!from_stdin)
        (void)close(fd);
    if (err == WB_OK)
        err = config_load_text(config, name, wb_str_n(text.ptr, text.len), why);
    wb_buf_free(&text);
    return err;
}
