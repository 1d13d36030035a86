/*
 * What is not to be seen. SQLite reads the JSON: json_tree() names the fields, json_replace() hides
 * them. Afterwards the result is read again: should a marked field still show (a name given twice,
 * a name json_replace() cannot address), the whole payload is hidden.
 */
#include "dead_letter_internal.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/db.h>

#define MASK        "***"
#define REPLACE_MAX 256 /* fields hidden one by one; a payload with more is hidden whole */

struct name {
    struct wb_str whole; /* views of redaction->text */
    struct wb_str parts[DEAD_LETTER_REDACT_PARTS];
    size_t part_count;
};

struct dead_letter_redaction {
    struct db *db; /* borrowed */
    char *text;
    struct name names[DEAD_LETTER_REDACT_NAMES];
    size_t name_count;
    struct sqlite3_stmt *valid, *tree, *replace;
};

/*
 * A node on the way from the root: for each name, bit i tells that the labels down to here end with
 * its first i + 1 parts. An element of a list has the bits of the list.
 */
struct level {
    int64_t id;
    uint8_t bits[DEAD_LETTER_REDACT_NAMES];
};

struct walk {
    struct dead_letter_redaction *redaction;
    struct level *levels;
    size_t depth, capacity;
    char *path;  /* of the first marked field that shows; NULL: none */
    bool masked; /* a marked field is MASK */
    bool nomem;
};

/* ---- names ----------------------------------------------------------------------------------- */

static bool name_read(struct wb_str text, struct name *ret_name)
{
    struct name name = {.whole = text};
    size_t from = 0;

    for (size_t i = 0; i <= text.len; i++) {
        if (i < text.len && text.ptr[i] != '.')
            continue;
        if (i == from || name.part_count == DEAD_LETTER_REDACT_PARTS)
            return false;
        name.parts[name.part_count++] = wb_str_n(text.ptr + from, i - from);
        from = i + 1;
    }
    *ret_name = name;
    return true;
}

static bool is_separator(char c)
{
    return c == ' ' || c == ',' || c == '\t' || c == '\n' || c == '\r';
}

static wb_err names_read(struct dead_letter_redaction *self, struct wb_why *why)
{
    const char *at = self->text;

    for (;;) {
        while (is_separator(*at))
            at++;
        if (*at == '\0')
            return WB_OK;
        const char *from = at;
        while (*at != '\0' && !is_separator(*at))
            at++;
        struct wb_str text = wb_str_n(from, (size_t)(at - from));
        if (self->name_count == DEAD_LETTER_REDACT_NAMES)
            return wb_fail(why, WB_INVALID, "fields to hide: more than %d names",
                           DEAD_LETTER_REDACT_NAMES);
        if (!name_read(text, &self->names[self->name_count++]))
            return wb_fail(why, WB_INVALID,
                           "field to hide '%.*s': expected at most %d names joined by '.', as "
                           "password or card.number",
                           (int)(text.len < 80 ? text.len : 80), text.ptr,
                           DEAD_LETTER_REDACT_PARTS);
    }
}

wb_err dead_letter_redaction_create(struct db *db, struct wb_str names,
                                    struct dead_letter_redaction **ret_redaction,
                                    struct wb_why *why)
{
    struct dead_letter_redaction *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "read the fields to hide: out of memory");
    self->db = db;
    self->text = wb_str_dup(names);
    wb_err err = self->text != NULL
                     ? names_read(self, why)
                     : wb_fail(why, WB_NOMEM, "read the fields to hide: out of memory");
    if (err == WB_OK)
        err = db_prepare(db, "SELECT json_valid(?1)", &self->valid, why);
    if (err == WB_OK)
        err = db_prepare(db, "SELECT id, parent, key, fullkey, atom FROM json_tree(?1)",
                         &self->tree, why);
    if (err == WB_OK)
        err = db_prepare(db, "SELECT json_replace(?1, ?2, '" MASK "')", &self->replace, why);
    if (err != WB_OK) {
        dead_letter_redaction_destroy(self);
        return err;
    }
    *ret_redaction = self;
    return WB_OK;
}

void dead_letter_redaction_destroy(struct dead_letter_redaction *redaction)
{
    if (redaction == NULL)
        return;
    (void)sqlite3_finalize(redaction->valid);
    (void)sqlite3_finalize(redaction->tree);
    (void)sqlite3_finalize(redaction->replace);
    free(redaction->text);
    free(redaction);
}

/* ---- finding marked fields ------------------------------------------------------------------- */

static struct level *level_push(struct walk *self)
{
    if (self->depth == self->capacity) {
        size_t capacity = self->capacity > 0 ? 2 * self->capacity : 16;
        struct level *levels = realloc(self->levels, capacity * sizeof(*levels));
        if (levels == NULL) {
            self->nomem = true;
            return NULL;
        }
        self->levels = levels;
        self->capacity = capacity;
    }
    return &self->levels[self->depth++];
}

/* Parts that the labels end with, one label further; true: all of the name's. */
static bool name_step(const struct name *name, struct wb_str label, uint8_t *bits)
{
    unsigned before = (unsigned)*bits << 1 | 1U;
    unsigned after = 0;
    bool last = false;

    for (size_t i = 0; i < name->part_count; i++) {
        last = (before >> i & 1U) != 0 && wb_str_case_eq(name->parts[i], label);
        after |= last ? 1U << i : 0U;
    }
    *bits = (uint8_t)after;
    return last;
}

/* Is the node the statement stands on marked? Parents come before their children. */
static bool node_marked(struct walk *self, struct sqlite3_stmt *stmt)
{
    const int64_t parent = sqlite3_column_int64(stmt, 1);
    const bool root = sqlite3_column_type(stmt, 1) == SQLITE_NULL;
    const bool labelled = sqlite3_column_type(stmt, 2) == SQLITE_TEXT;
    bool marked = false;

    while (self->depth > 0 && (root || self->levels[self->depth - 1].id != parent))
        self->depth--;
    struct level *level = level_push(self);
    if (level == NULL)
        return false;
    if (self->depth > 1)
        *level = self->levels[self->depth - 2];
    else
        *level = (struct level){.id = 0};
    level->id = sqlite3_column_int64(stmt, 0);
    for (size_t i = 0; labelled && i < self->redaction->name_count; i++)
        marked = name_step(&self->redaction->names[i], db_column_text(stmt, 2), &level->bits[i]) ||
                 marked;
    return marked;
}

static bool is_mask(struct sqlite3_stmt *stmt)
{
    return sqlite3_column_type(stmt, 4) == SQLITE_TEXT &&
           wb_str_eq(db_column_text(stmt, 4), wb_str(MASK));
}

static wb_err walk_fields(struct walk *self, struct wb_str json, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->redaction->tree;
    int rc = SQLITE_DONE;

    self->depth = 0;
    db_bind_text(stmt, 1, json);
    while (self->path == NULL && !self->nomem && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        if (!node_marked(self, stmt))
            continue;
        if (is_mask(stmt)) {
            self->masked = true;
            continue;
        }
        self->path = wb_str_dup(db_column_text(stmt, 3));
        self->nomem = self->path == NULL;
    }
    wb_err err = WB_OK;
    if (self->nomem)
        err = wb_fail(why, WB_NOMEM, "hide fields of a payload: out of memory");
    else if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = db_error(db_handle(self->redaction->db), rc, "read a payload as JSON", why);
    (void)sqlite3_reset(stmt);
    (void)sqlite3_clear_bindings(stmt);
    return err;
}

/* ---- hiding ---------------------------------------------------------------------------------- */

static bool is_json(struct dead_letter_redaction *self, struct wb_bytes payload)
{
    struct wb_str text = wb_str_n(payload.ptr, payload.len);
    bool valid = false;

    /* SQLite's JSON ends at a NUL, and what stands behind it would not be looked at. */
    if (payload.len == 0 || memchr(payload.ptr, '\0', payload.len) != NULL || !wb_utf8_valid(text))
        return false;
    db_bind_text(self->valid, 1, text);
    if (sqlite3_step(self->valid) == SQLITE_ROW)
        valid = sqlite3_column_int(self->valid, 0) != 0;
    (void)sqlite3_reset(self->valid);
    (void)sqlite3_clear_bindings(self->valid);
    return valid;
}

static bool mentions(struct wb_bytes payload, struct wb_str word)
{
    const char *text = payload.ptr;

    for (size_t at = 0; at + word.len <= payload.len; at++)
        if (wb_str_case_eq(wb_str_n(text + at, word.len), word))
            return true;
    return false;
}

static bool mentions_any(const struct dead_letter_redaction *self, struct wb_bytes payload)
{
    for (size_t i = 0; i < self->name_count; i++)
        if (mentions(payload, self->names[i].parts[self->names[i].part_count - 1]))
            return true;
    return false;
}

/* json with the field at path hidden, into out. */
static wb_err replace(struct dead_letter_redaction *self, struct wb_str json, const char *path,
                      struct wb_buf *out, struct wb_why *why)
{
    wb_err err = WB_OK;

    db_bind_text(self->replace, 1, json);
    db_bind_text(self->replace, 2, wb_str(path));
    int rc = sqlite3_step(self->replace);
    if (rc == SQLITE_ROW) {
        struct wb_str replaced = db_column_text(self->replace, 0);
        wb_buf_add(out, replaced.ptr, replaced.len);
    } else {
        err = db_error(db_handle(self->db), rc, "hide a field of a payload", why);
    }
    (void)sqlite3_reset(self->replace);
    (void)sqlite3_clear_bindings(self->replace);
    return err;
}

/*
 * Hide field after field until none shows; *ret_shows when one could not be hidden. Each is looked
 * for from the beginning: what cannot be addressed is found again at the same path.
 */
static wb_err hide_fields(struct dead_letter_redaction *self, struct wb_buf *json, bool *ret_shows,
                          struct wb_why *why)
{
    struct walk walk = {.redaction = self};
    wb_err err = walk_fields(&walk, wb_str_n(json->ptr, json->len), why);

    for (unsigned i = 0; err == WB_OK && walk.path != NULL && i < REPLACE_MAX; i++) {
        struct wb_buf next = {0};
        err = replace(self, wb_str_n(json->ptr, json->len), walk.path, &next, why);
        bool same = next.len == json->len && memcmp(next.ptr, json->ptr, json->len) == 0;
        wb_buf_free(json);
        *json = next;
        if (err != WB_OK || same)
            break;
        free(walk.path);
        walk.path = NULL;
        err = walk_fields(&walk, wb_str_n(json->ptr, json->len), why);
    }
    *ret_shows = walk.path != NULL;
    free(walk.path);
    free(walk.levels);
    return err;
}

wb_err dead_letter_redact_payload(struct dead_letter_redaction *redaction, struct wb_bytes payload,
                                  struct wb_buf *out, bool *ret_hidden, struct wb_why *why)
{
    struct wb_buf json = {0};
    bool shows = false;
    wb_err err = WB_OK;

    wb_buf_add(&json, payload.ptr, payload.len);
    if (redaction != NULL && redaction->name_count > 0) {
        if (is_json(redaction, payload))
            err = hide_fields(redaction, &json, &shows, why);
        else
            shows = mentions_any(redaction, payload);
    }
    if (err == WB_OK && json.failed)
        err = wb_fail(why, WB_NOMEM, "hide fields of a payload: out of memory");
    if (err == WB_OK && shows) {
        wb_buf_str(out, MASK);
        *ret_hidden = true;
    } else if (err == WB_OK) {
        wb_buf_add(out, json.ptr, json.len);
        *ret_hidden = json.len != payload.len ||
                      (json.len > 0 && memcmp(json.ptr, payload.ptr, json.len) != 0);
    }
    wb_buf_free(&json);
    return err;
}

wb_err dead_letter_redaction_masked(struct dead_letter_redaction *redaction,
                                    struct wb_bytes payload, bool *ret_masked, struct wb_why *why)
{
    struct walk walk = {.redaction = redaction};
    wb_err err = WB_OK;
    bool whole = payload.len == strlen(MASK) && memcmp(payload.ptr, MASK, payload.len) == 0;

    if (redaction != NULL && redaction->name_count > 0 && is_json(redaction, payload))
        err = walk_fields(&walk, wb_str_n(payload.ptr, payload.len), why);
    *ret_masked = whole || walk.masked;
    free(walk.path);
    free(walk.levels);
    return err;
}

/* ---- headers --------------------------------------------------------------------------------- */

static bool header_marked(const struct dead_letter_redaction *self, struct wb_str name)
{
    for (size_t i = 0; self != NULL && i < self->name_count; i++)
        if (wb_str_case_eq(self->names[i].whole, name))
            return true;
    return false;
}

static struct wb_str trimmed(struct wb_str text)
{
    while (text.len > 0 && is_separator(text.ptr[0]))
        text = wb_str_n(text.ptr + 1, text.len - 1);
    while (text.len > 0 && is_separator(text.ptr[text.len - 1]))
        text.len--;
    return text;
}

/* Line by line, for what stands there may be no headers at all. */
void dead_letter_redact_headers(const struct dead_letter_redaction *redaction,
                                struct wb_str headers, struct wb_buf *out, bool *ret_hidden)
{
    size_t at = 0;

    while (at < headers.len) {
        const char *line = headers.ptr + at;
        const char *end = memchr(line, '\n', headers.len - at);
        size_t len = end != NULL ? (size_t)(end - line) + 1 : headers.len - at;
        const char *colon = memchr(line, ':', len);
        if (colon != NULL &&
            header_marked(redaction, trimmed(wb_str_n(line, (size_t)(colon - line))))) {
            wb_buf_add(out, line, (size_t)(colon - line));
            wb_buf_str(out, ": " MASK);
            wb_buf_str(out, end != NULL ? "\n" : "");
            *ret_hidden = true;
        } else {
            wb_buf_add(out, line, len);
        }
        at += len;
    }
}
