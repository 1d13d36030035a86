/* str.c - views of text. */
#include <waybill/base.h>

#include <stdlib.h>
#include <string.h>

struct wb_str wb_str(const char *text)
{
    return (struct wb_str){text, text == NULL ? 0 : strlen(text)};
}

struct wb_str wb_str_n(const char *ptr, size_t len)
{
    return (struct wb_str){ptr, len};
}

bool wb_str_eq(struct wb_str a, struct wb_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

bool wb_str_case_eq(struct wb_str a, struct wb_str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    return true;
}

char *wb_str_dup(struct wb_str text)
{
    char *copy = malloc(text.len + 1);
    if (copy == NULL)
        return NULL;
    if (text.len > 0)
        memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return copy;
}

bool wb_str_to_u64(struct wb_str text, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (text.len == 0)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(text.ptr[i] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret_value = value;
    return true;
}

/* Length of the valid UTF-8 sequence at p, or 0. Table 3-7 of the Unicode Standard, chapter 3. */
static size_t utf8_sequence(const unsigned char *p, size_t left)
{
    unsigned char lead = p[0];
    size_t len = lead < 0x80   ? 1
                 : lead < 0xc2 ? 0
                 : lead < 0xe0 ? 2
                 : lead < 0xf0 ? 3
                 : lead < 0xf5 ? 4
                               : 0;

    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((lead == 0xe0 && p[1] < 0xa0) || (lead == 0xed && p[1] > 0x9f) ||
        (lead == 0xf0 && p[1] < 0x90) || (lead == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

bool wb_utf8_valid(struct wb_str text)
{
    const unsigned char *p = (const unsigned char *)text.ptr;

    for (size_t at = 0; at < text.len;) {
        size_t len = utf8_sequence(p + at, text.len - at);
        if (len == 0)
            return false;
        at += len;
    }
    return true;
}

bool wb_equal_constant_time(const void *a, const void *b, size_t len)
{
    const volatile unsigned char *x = a;
    const volatile unsigned char *y = b;
    unsigned char difference = 0;

    for (size_t i = 0; i < len; i++)
        difference = (unsigned char)(difference | (x[i] ^ y[i]));
    return difference == 0;
}

unsigned wb_str_distance(struct wb_str a, struct wb_str b)
{
    unsigned row[65]; /* distances from a's prefix to each prefix of b */

    if (a.len > 64 || b.len > 64)
        return 99;
    for (size_t j = 0; j <= b.len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a.len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b.len; j++) {
            unsigned replaced = diagonal + (lower(a.ptr[i - 1]) != lower(b.ptr[j - 1]));
            unsigned shifted = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replaced < shifted ? replaced : shifted;
        }
    }
    return row[b.len];
}
