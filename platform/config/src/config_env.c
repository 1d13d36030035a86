#include "config_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET_FILE_MAX 65536 /* bytes read of a file that holds a secret */

/* Variables of the whole process, which are no settings: file to read, who acts, where to crash. */
static const char *const process_variables[] = {"WAYBILL_CONFIG", "WAYBILL_OPERATOR",
                                                "WAYBILL_CRASH"};

/* One NAME=value of the environment. */
struct variable {
    struct wb_str name;
    const char *value;
};

static bool variable_split(const char *entry, struct variable *ret_variable)
{
    const char *equals = strchr(entry, '=');

    if (equals == NULL)
        return false;
    *ret_variable = (struct variable){wb_str_n(entry, (size_t)(equals - entry)), equals + 1};
    return true;
}

static bool starts_with(struct wb_str text, const char *prefix)
{
    size_t len = strlen(prefix);

    return text.len >= len && memcmp(text.ptr, prefix, len) == 0;
}

#define ENV_NAME_MAX 256 /* bytes of a variable's name; tables stay far below */

/* "nats.url" -> "WAYBILL_NATS_URL", or with _FILE behind it. Wildcard keys have no variable. */
static struct wb_str env_name(const struct config_key *key, const char *suffix,
                              char out[ENV_NAME_MAX])
{
    int len = snprintf(out, ENV_NAME_MAX, "WAYBILL_%s%s", key->name, suffix);

    assert(len > 0 && len < ENV_NAME_MAX);
    for (char *c = out; *c != '\0'; c++) {
        if (*c >= 'a' && *c <= 'z')
            *c = (char)(*c - 'a' + 'A');
        else if (*c == '.' || *c == '-')
            *c = '_';
    }
    return wb_str_n(out, (size_t)len);
}

static bool has_env(const struct config_key *key)
{
    return strchr(key->name, '*') == NULL;
}

static const struct config_key *find_by_env(const struct config *config, struct wb_str name,
                                            const char *suffix)
{
    char text[ENV_NAME_MAX];

    for (size_t i = 0; i < config->key_count; i++) {
        const struct config_key *key = &config->keys[i];
        if (has_env(key) && (suffix[0] == '\0' || key->secret) &&
            wb_str_eq(env_name(key, suffix, text), name))
            return key;
    }
    return NULL;
}

static wb_err fail_unknown(const struct config *config, struct wb_str name, struct wb_why *why)
{
    char text[ENV_NAME_MAX];
    const struct config_key *nearest = NULL;
    unsigned least = 4; /* more slips than three make it another word */

    for (size_t i = 0; i < config->key_count; i++) {
        if (!has_env(&config->keys[i]))
            continue;
        unsigned distance = wb_str_distance(name, env_name(&config->keys[i], "", text));
        if (distance < least) {
            least = distance;
            nearest = &config->keys[i];
        }
    }
    if (nearest == NULL)
        return wb_fail(why, WB_INVALID,
                       "%.*s: no setting belongs to this environment variable; unset it, or see "
                       "'waybill config show' for all settings",
                       (int)name.len, name.ptr);
    (void)env_name(nearest, "", text);
    return wb_fail(why, WB_INVALID,
                   "%.*s: no setting belongs to this environment variable; did you mean %s?",
                   (int)name.len, name.ptr, text);
}

static wb_err apply(struct config_table *staged, const struct config_key *key, struct wb_str name,
                    const char *value, config_rank rank, struct wb_why *why)
{
    struct wb_buf origin = {0};
    wb_err err;

    wb_buf_printf(&origin, "env %.*s", (int)name.len, name.ptr);
    if (origin.failed)
        return wb_fail(why, WB_NOMEM, "%s: out of memory", key->name);
    err = config_table_apply(staged, key,
                             &(struct config_change){.where = origin.ptr + strlen("env "),
                                                     .origin = origin.ptr,
                                                     .rank = rank,
                                                     .name = key->name,
                                                     .value = value},
                             why);
    wb_buf_free(&origin);
    return err;
}

/* ---- secrets in files ------------------------------------------------------------------------ */

static wb_err read_secret_fd(int fd, struct wb_str variable, const char *path, struct wb_buf *out,
                             struct wb_why *why)
{
    struct stat status;
    char chunk[4096];
    ssize_t got;

    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        return wb_fail(why, WB_INVALID, "%.*s: %s is no regular file", (int)variable.len,
                       variable.ptr, path);
    if ((status.st_mode & (S_IROTH | S_IWOTH)) != 0)
        return wb_fail(why, WB_INVALID,
                       "%.*s: %s may be read or written by every user of this machine; run "
                       "chmod 600 on it",
                       (int)variable.len, variable.ptr, path);
    do {
        got = read(fd, chunk, sizeof(chunk));
        if (got > 0)
            wb_buf_add(out, chunk, (size_t)got);
    } while ((got > 0 && out->len <= SECRET_FILE_MAX) || (got < 0 && errno == EINTR));
    if (got < 0)
        return wb_fail(why, WB_IO, "%.*s: cannot read %s: %s", (int)variable.len, variable.ptr,
                       path, strerror(errno));
    return out->failed ? wb_fail(why, WB_NOMEM, "%s: out of memory", path) : WB_OK;
}

/* Leave the first line, without the blanks around it. */
static wb_err trim_secret(struct wb_str variable, const char *path, struct wb_buf *text,
                          struct wb_why *why)
{
    char *start = text->ptr, *end;

    if (start != NULL && memchr(start, '\0', text->len) != NULL)
        return wb_fail(why, WB_INVALID, "%.*s: %s holds a NUL byte; expected one line of text",
                       (int)variable.len, variable.ptr, path);
    end = start == NULL ? NULL : start + strcspn(start, "\r\n");
    while (start < end && (*start == ' ' || *start == '\t'))
        start++;
    while (end > start && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    if (start == end)
        return wb_fail(why, WB_INVALID, "%.*s: the first line of %s is empty; expected the secret",
                       (int)variable.len, variable.ptr, path);
    memmove(text->ptr, start, (size_t)(end - start));
    text->len = (size_t)(end - start);
    text->ptr[text->len] = '\0';
    return WB_OK;
}

static wb_err apply_secret_file(struct config_table *staged, const struct config_key *key,
                                const struct variable *variable, struct wb_why *why)
{
    struct config_setting *setting = config_find(staged, key->name);
    struct wb_buf text = {0};
    wb_err err;
    /* O_NONBLOCK: opening a FIFO must not hang before it is refused. */
    int fd = open(variable->value, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return wb_fail(why, errno == ENOENT ? WB_NOT_FOUND : WB_DENIED, "%.*s: cannot open %s: %s",
                       (int)variable->name.len, variable->name.ptr, variable->value,
                       strerror(errno));
    err = read_secret_fd(fd, variable->name, variable->value, &text, why);
    (void)close(fd);
    if (err == WB_OK)
        err = trim_secret(variable->name, variable->value, &text, why);
    if (err == WB_OK && setting != NULL && setting->line != 0)
        err = wb_fail(why, WB_INVALID, "%s is given directly and by %.*s; keep one of them",
                      key->name, (int)variable->name.len, variable->name.ptr);
    if (err == WB_OK)
        err = apply(staged, key, variable->name, text.ptr, CONFIG_RANK_ENV, why);
    wb_buf_free(&text);
    return err;
}

/* ---- the passes ------------------------------------------------------------------------------ */

/* One look at one variable. */
typedef wb_err (*take_variable)(const struct config *config, struct config_table *staged,
                                const struct variable *variable, struct wb_why *why);

static wb_err take_alias(const struct config *config, struct config_table *staged,
                         const struct variable *variable, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < config->key_count; i++) {
        const struct config_key *key = &config->keys[i];
        if (key->env != NULL && wb_str_eq(wb_str(key->env), variable->name) &&
            variable->value[0] != '\0')
            err = apply(staged, key, variable->name, variable->value, CONFIG_RANK_ALIAS, why);
    }
    return err;
}

static bool is_alias(const struct config *config, struct wb_str name)
{
    for (size_t i = 0; i < config->key_count; i++)
        if (config->keys[i].env != NULL && wb_str_eq(wb_str(config->keys[i].env), name))
            return true;
    return false;
}

static bool is_process_variable(struct wb_str name)
{
    for (size_t i = 0; i < sizeof(process_variables) / sizeof(process_variables[0]); i++)
        if (wb_str_eq(wb_str(process_variables[i]), name))
            return true;
    return false;
}

static wb_err take_direct(const struct config *config, struct config_table *staged,
                          const struct variable *variable, struct wb_why *why)
{
    const struct config_key *key;
    wb_err err = WB_OK;

    if (!starts_with(variable->name, "WAYBILL_") || is_process_variable(variable->name) ||
        is_alias(config, variable->name))
        return WB_OK;
    key = find_by_env(config, variable->name, "");
    if (key != NULL) {
        err = apply(staged, key, variable->name, variable->value, CONFIG_RANK_ENV, why);
        if (err == WB_OK)
            config_find(staged, key->name)->line = 1; /* seen, in case a _FILE comes too */
    } else if (find_by_env(config, variable->name, "_FILE") == NULL) {
        err = fail_unknown(config, variable->name, why);
    }
    return err;
}

static wb_err take_file(const struct config *config, struct config_table *staged,
                        const struct variable *variable, struct wb_why *why)
{
    const struct config_key *key = NULL;

    if (starts_with(variable->name, "WAYBILL_") && find_by_env(config, variable->name, "") == NULL)
        key = find_by_env(config, variable->name, "_FILE");
    return key == NULL ? WB_OK : apply_secret_file(staged, key, variable, why);
}

wb_err config_load_env(struct config *config, const char *const *environment, struct wb_why *why)
{
    static const take_variable passes[] = {take_alias, take_direct, take_file};
    struct config_table staged;
    struct variable variable;
    wb_err err;

    assert(config != NULL);
    assert(environment != NULL);
    err = config_table_copy(&config->table, &staged);
    if (err != WB_OK)
        return wb_fail(why, err, "%s", "environment: out of memory");
    for (size_t p = 0; p < sizeof(passes) / sizeof(passes[0]); p++)
        for (size_t i = 0; err == WB_OK && environment[i] != NULL; i++)
            if (variable_split(environment[i], &variable))
                err = passes[p](config, &staged, &variable, why);
    if (err == WB_OK) {
        struct config_table before = config->table;
        config->table = staged;
        staged = before;
    }
    config_table_free(&staged);
    return err;
}
