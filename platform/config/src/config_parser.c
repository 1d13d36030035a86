#include "config_parser.h"

#include <assert.h>
#include <string.h>

/* What is being read: a line, and a place in it. */
struct reader {
    const char *name;
    size_t line;
    const char *at, *end; /* the rest of the line, without its end */
    const struct config_sink *sink;
    struct wb_buf section; /* the current one; empty at the top */
    struct wb_buf value;   /* of the pair at hand */
    struct wb_why *why;
};

#define FAIL(reader, format, ...)                                                                  \
    wb_fail((reader)->why, WB_INVALID, "%s:%zu: " format, (reader)->name, (reader)->line,          \
            __VA_ARGS__)

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool config_name_valid(struct wb_str part)
{
    for (size_t i = 0; i < part.len; i++)
        if (!is_name_char(part.ptr[i]))
            return false;
    return part.len > 0 && part.len <= CONFIG_NAME_MAX;
}

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t'))
        r->at++;
}

/* Nothing more, or a comment. */
static bool at_line_end(struct reader *r)
{
    skip_blanks(r);
    return r->at == r->end || *r->at == '#';
}

/* The text up to the next blank, '#' or '=', at most 40 bytes of it: to be shown in a message. */
static struct wb_str word_at(const struct reader *r)
{
    const char *end = r->at;

    while (end < r->end && end - r->at < 40 && strchr(" \t#=", *end) == NULL)
        end++;
    return wb_str_n(r->at, (size_t)(end - r->at));
}

/* ---- values ---------------------------------------------------------------------------------- */

static void add_utf8(struct wb_buf *buf, unsigned code)
{
    char bytes[3];
    size_t len = 0;

    if (code < 0x80) {
        bytes[len++] = (char)code;
    } else if (code < 0x800) {
        bytes[len++] = (char)(0xc0 | (code >> 6));
        bytes[len++] = (char)(0x80 | (code & 0x3f));
    } else {
        bytes[len++] = (char)(0xe0 | (code >> 12));
        bytes[len++] = (char)(0x80 | ((code >> 6) & 0x3f));
        bytes[len++] = (char)(0x80 | (code & 0x3f));
    }
    wb_buf_add(buf, bytes, len);
}

/* After "\u": four hex digits. */
static wb_err read_unicode_escape(struct reader *r)
{
    uint8_t bytes[2];
    unsigned code;

    if (r->end - r->at < 4 || !wb_hex_decode(wb_str_n(r->at, 4), bytes, sizeof(bytes)))
        return FAIL(r, "%s", "\\u needs four hex digits, such as \\u00e9");
    code = (unsigned)bytes[0] << 8 | bytes[1];
    if (code == 0)
        return FAIL(r, "%s", "\\u0000 is not allowed: a value cannot hold a NUL");
    if (code >= 0xd800 && code <= 0xdfff)
        return FAIL(r, "\\u%04x is half of a surrogate pair; write the character itself", code);
    r->at += 4;
    add_utf8(&r->value, code);
    return WB_OK;
}

/* After a backslash. */
static wb_err read_escape(struct reader *r)
{
    static const char escapes[] = "\"\\nt";
    static const char meanings[] = "\"\\\n\t";
    const char *found;

    if (r->at == r->end)
        return FAIL(r, "%s", "the string has no closing '\"' on its line");
    if (*r->at == 'u') {
        r->at++;
        return read_unicode_escape(r);
    }
    found = memchr(escapes, *r->at, sizeof(escapes) - 1);
    if (found == NULL)
        return FAIL(r, "unknown escape in a string; known are %s (a backslash itself is \\\\)",
                    "\\\" \\\\ \\n \\t \\uXXXX");
    wb_buf_add(&r->value, &meanings[found - escapes], 1);
    r->at++;
    return WB_OK;
}

static wb_err read_string(struct reader *r)
{
    if (r->end - r->at >= 3 && memcmp(r->at, "\"\"\"", 3) == 0)
        return FAIL(r, "%s", "strings over several lines are not supported; write \\n in one");
    r->at++;
    while (r->at < r->end && *r->at != '"') {
        if (*r->at == '\\') {
            r->at++;
            wb_err err = read_escape(r);
            if (err != WB_OK)
                return err;
        } else {
            wb_buf_add(&r->value, r->at++, 1);
        }
    }
    if (r->at == r->end)
        return FAIL(r, "%s", "the string has no closing '\"' on its line");
    r->at++;
    return WB_OK;
}

static wb_err read_integer(struct reader *r)
{
    const char *start = r->at;
    const char *digits = *start == '-' || *start == '+' ? start + 1 : start;
    struct wb_str word = word_at(r);

    r->at = digits;
    while (r->at < r->end && is_digit(*r->at))
        r->at++;
    if (r->at == digits || r->at != start + word.len)
        return FAIL(r, "'%.*s' is no integer; put a value such as a duration or size in quotes",
                    (int)word.len, word.ptr);
    if (*digits == '0' && r->at - digits > 1)
        return FAIL(r, "'%.*s': an integer has no leading zero", (int)word.len, word.ptr);
    if (*start == '+')
        start++;
    wb_buf_add(&r->value, start, (size_t)(r->at - start));
    return WB_OK;
}

static wb_err read_bare(struct reader *r, struct config_pair *pair)
{
    struct wb_str word = word_at(r);

    if (!wb_str_eq(word, wb_str("true")) && !wb_str_eq(word, wb_str("false")))
        return FAIL(r, "put text in quotes: %.*s = \"%.*s\"", (int)pair->key.len, pair->key.ptr,
                    (int)word.len, word.ptr);
    pair->form = CONFIG_FORM_BOOL;
    wb_buf_add(&r->value, word.ptr, word.len);
    r->at += word.len;
    return WB_OK;
}

static wb_err read_value(struct reader *r, struct config_pair *pair)
{
    char first = *r->at;

    if (first == '"') {
        pair->form = CONFIG_FORM_STRING;
        return read_string(r);
    }
    if (is_digit(first) || first == '-' || first == '+') {
        pair->form = CONFIG_FORM_INTEGER;
        return read_integer(r);
    }
    if (first == '\'')
        return FAIL(r, "%s", "strings stand in double quotes: \"...\"");
    if (first == '[' || first == '{')
        return FAIL(r, "%s", "lists and tables are not supported as values");
    return read_bare(r, pair);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static wb_err read_section(struct reader *r)
{
    const char *start = ++r->at;
    const char *part = start;

    for (; r->at < r->end && (is_name_char(*r->at) || *r->at == '.'); r->at++) {
        if (*r->at != '.')
            continue;
        if (!config_name_valid(wb_str_n(part, (size_t)(r->at - part))))
            break;
        part = r->at + 1;
    }
    if (r->at == r->end || *r->at != ']' ||
        !config_name_valid(wb_str_n(part, (size_t)(r->at - part))))
        return FAIL(r,
                    "a section is written [name] or [name.NAME], of letters, digits, '_' and "
                    "'-', each part at most %d long",
                    CONFIG_NAME_MAX);
    wb_buf_clear(&r->section);
    wb_buf_add(&r->section, start, (size_t)(r->at - start));
    r->at++;
    if (!at_line_end(r))
        return FAIL(r, "only a comment may follow [%s] on its line", r->section.ptr);
    return r->sink->section(r->sink->ctx, r->line, wb_str_n(r->section.ptr, r->section.len),
                            r->why);
}

static wb_err read_key(struct reader *r, struct wb_str *ret_key)
{
    const char *start = r->at;

    while (r->at < r->end && is_name_char(*r->at))
        r->at++;
    *ret_key = wb_str_n(start, (size_t)(r->at - start));
    if (r->at < r->end && *r->at == '.')
        return FAIL(r, "a key has no dot; write it under a line [%.*s]", (int)ret_key->len,
                    ret_key->ptr);
    if (!config_name_valid(*ret_key))
        return FAIL(r,
                    "expected 'key = value', [section] or a comment with '#'; a key is 1 to %d "
                    "letters, digits, '_' or '-'",
                    CONFIG_NAME_MAX);
    skip_blanks(r);
    if (r->at == r->end || *r->at != '=')
        return FAIL(r, "expected '=' after '%.*s'", (int)ret_key->len, ret_key->ptr);
    r->at++;
    return WB_OK;
}

static wb_err read_pair(struct reader *r)
{
    struct config_pair pair = {.line = r->line,
                               .section = wb_str_n(r->section.ptr, r->section.len)};
    wb_err err = read_key(r, &pair.key);

    if (err != WB_OK)
        return err;
    if (at_line_end(r))
        return FAIL(r, "'%.*s' has no value; an empty text is \"\"", (int)pair.key.len,
                    pair.key.ptr);
    wb_buf_clear(&r->value);
    err = read_value(r, &pair);
    if (err != WB_OK)
        return err;
    if (!at_line_end(r))
        return FAIL(r, "only a comment with '#' may follow the value of '%.*s'", (int)pair.key.len,
                    pair.key.ptr);
    if (r->value.failed)
        return wb_fail(r->why, WB_NOMEM, "%s:%zu: out of memory", r->name, r->line);
    pair.value = wb_str_n(r->value.ptr == NULL ? "" : r->value.ptr, r->value.len);
    return r->sink->pair(r->sink->ctx, &pair, r->why);
}

/* TOML allows no control character but the tab, comments included; text is UTF-8. */
static wb_err check_line(struct reader *r)
{
    for (const char *c = r->at; c < r->end; c++) {
        if (*c == '\0')
            return FAIL(r, "%s", "a NUL byte; is this a text file?");
        if (*c == '\r')
            return FAIL(r, "%s", "a carriage return inside the line; lines end with LF or CR LF");
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
            return FAIL(r, "control character 0x%02x; in a string write \\u%04x", *c, *c);
    }
    if (!wb_utf8_valid(wb_str_n(r->at, (size_t)(r->end - r->at))))
        return FAIL(r, "%s", "not valid UTF-8; save the file as UTF-8");
    if (r->line == 1 && r->end - r->at >= 3 && memcmp(r->at, "\xef\xbb\xbf", 3) == 0)
        return FAIL(r, "%s", "a byte order mark; save the file as UTF-8 without one");
    return WB_OK;
}

static wb_err read_line(struct reader *r)
{
    wb_err err = check_line(r);

    if (err != WB_OK || at_line_end(r))
        return err;
    return *r->at == '[' ? read_section(r) : read_pair(r);
}

wb_err config_parse(const char *name, struct wb_str text, const struct config_sink *sink,
                    struct wb_why *why)
{
    struct reader r = {.name = name, .sink = sink, .why = why};
    wb_err err = WB_OK;

    assert(name != NULL);
    assert(sink != NULL);
    for (size_t at = 0; err == WB_OK && at < text.len;) {
        const char *line = text.ptr + at;
        const char *lf = memchr(line, '\n', text.len - at);
        size_t len = lf == NULL ? text.len - at : (size_t)(lf - line);

        at += len + 1;
        r.at = line;
        r.end = line + len;
        if (lf != NULL && len > 0 && r.end[-1] == '\r')
            r.end--;
        r.line++;
        err = read_line(&r);
    }
    if (err == WB_OK && r.section.failed)
        err = wb_fail(why, WB_NOMEM, "%s: out of memory", name);
    wb_buf_free(&r.section);
    wb_buf_free(&r.value);
    return err;
}
