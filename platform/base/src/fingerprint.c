/* What texts of one kind of error have in common. */
#include <waybill/base.h>

#include <inttypes.h>
#include <stdio.h>

enum { TEXT_MAX = 4096, UUID_LEN = 36, HEX_WORD_MIN = 8 };

/* What is left of the text: never longer than it was. */
struct kept {
    char text[TEXT_MAX];
    size_t len;
};

static void keep(struct kept *kept, char c)
{
    kept->text[kept->len++] = c;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Part of a word; beyond ASCII all counts as letters. */
static bool is_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80) != 0;
}

static bool word_at(struct wb_str text, size_t at)
{
    return at < text.len && is_word(text.ptr[at]);
}

/* Length of the quoted text that begins here, quotes included; 0: none does, as in "it's". */
static size_t quoted_at(struct wb_str text, size_t at)
{
    char quote = text.ptr[at];

    if ((quote != '\'' && quote != '"' && quote != '`') || (at > 0 && word_at(text, at - 1)))
        return 0;
    for (size_t end = at + 1; end < text.len; end++)
        if (text.ptr[end] == quote && !word_at(text, end + 1))
            return end + 1 - at;
    return 0;
}

static size_t uuid_at(struct wb_str text, size_t at)
{
    if (at + UUID_LEN > text.len || word_at(text, at + UUID_LEN))
        return 0;
    for (size_t i = 0; i < UUID_LEN; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text.ptr[at + i] != '-' : !is_hex(text.ptr[at + i]))
            return 0;
    }
    return UUID_LEN;
}

/* Length of the word that begins here; *ret_number: it is a number, in base 10 or 16. */
static size_t word_length(struct wb_str text, size_t at, bool *ret_number)
{
    size_t skip = at + 2 < text.len && text.ptr[at] == '0' &&
                          (text.ptr[at + 1] == 'x' || text.ptr[at + 1] == 'X')
                      ? 2
                      : 0;
    bool hex = true, digit = false;
    size_t len = 0;

    for (; word_at(text, at + len); len++) {
        if (len < skip)
            continue;
        hex = hex && is_hex(text.ptr[at + len]);
        digit = digit || is_digit(text.ptr[at + len]);
    }
    /* "bad" and "deadbee" are words, "bad1" is not. */
    *ret_number = hex && (digit || skip > 0 || len >= HEX_WORD_MIN);
    return len;
}

/* A word that is no number keeps its letters: "utf8" becomes "utf#". */
static void word_write(const char *word, size_t len, struct kept *out)
{
    for (size_t i = 0; i < len; i++)
        if (!is_digit(word[i]))
            keep(out, word[i]);
        else if (i == 0 || !is_digit(word[i - 1]))
            keep(out, '#');
}

/* Write what stands here without what differs, and return its length. */
static size_t part_write(struct wb_str text, size_t at, struct kept *out)
{
    bool number = false;
    size_t len = quoted_at(text, at);

    if (len > 0) {
        keep(out, '\'');
        return len;
    }
    len = uuid_at(text, at);
    if (len == 0)
        len = word_length(text, at, &number);
    else
        number = true;
    if (len == 0) {
        keep(out, text.ptr[at]);
        return 1;
    }
    if (number)
        keep(out, '#');
    else
        word_write(text.ptr + at, len, out);
    return len;
}

void wb_fingerprint(struct wb_str text, char ret_hex[WB_FINGERPRINT_TEXT])
{
    struct kept kept = {.len = 0};

    if (text.len > TEXT_MAX)
        text.len = TEXT_MAX;
    for (size_t at = 0; at < text.len;)
        at += part_write(text, at, &kept);
    (void)snprintf(ret_hex, WB_FINGERPRINT_TEXT, "%016" PRIx64, wb_hash(kept.text, kept.len));
}
