/* buf.c - a buffer that grows, up to a limit. */
#include <waybill/base.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_MAX ((size_t)1 << 30)

/* Room for len more bytes and the NUL. */
static bool reserve(struct wb_buf *buf, size_t len)
{
    if (buf->failed || len > BUF_MAX - buf->len - 1) {
        buf->failed = true;
        return false;
    }
    size_t needed = buf->len + len + 1;
    if (needed <= buf->capacity)
        return true;
    size_t capacity = buf->capacity < 64 ? 64 : buf->capacity;
    while (capacity < needed)
        capacity *= 2;
    char *ptr = realloc(buf->ptr, capacity);
    if (ptr == NULL) {
        buf->failed = true;
        return false;
    }
    buf->ptr = ptr;
    buf->capacity = capacity;
    return true;
}

void wb_buf_add(struct wb_buf *buf, const void *data, size_t len)
{
    if (!reserve(buf, len))
        return;
    if (len > 0)
        memcpy(buf->ptr + buf->len, data, len);
    buf->len += len;
    buf->ptr[buf->len] = '\0';
}

void wb_buf_str(struct wb_buf *buf, const char *text)
{
    wb_buf_add(buf, text, strlen(text));
}

void wb_buf_printf(struct wb_buf *buf, const char *format, ...)
{
    va_list args;
    va_list again;

    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    if (len < 0) {
        buf->failed = true;
    } else if (reserve(buf, (size_t)len)) {
        (void)vsnprintf(buf->ptr + buf->len, (size_t)len + 1, format, again);
        buf->len += (size_t)len;
    }
    va_end(again);
    va_end(args);
}

static void json_char(struct wb_buf *buf, unsigned char c)
{
    if (c == '"' || c == '\\')
        wb_buf_printf(buf, "\\%c", c);
    else if (c == '\n')
        wb_buf_str(buf, "\\n");
    else if (c < 0x20 || c == 0x7f)
        wb_buf_printf(buf, "\\u%04x", c);
    else
        wb_buf_add(buf, &c, 1);
}

/* Bytes of one character of text at the given place: 1 to 4; 0 when invalid. */
static size_t char_len(struct wb_str text, size_t at)
{
    for (size_t len = 1; len <= 4 && at + len <= text.len; len++)
        if (wb_utf8_valid(wb_str_n(text.ptr + at, len)))
            return len;
    return 0;
}

void wb_buf_json_str(struct wb_buf *buf, struct wb_str text)
{
    wb_buf_str(buf, "\"");
    for (size_t at = 0; at < text.len;) {
        size_t len = char_len(text, at);
        if (len == 1)
            json_char(buf, (unsigned char)text.ptr[at]);
        else if (len > 1)
            wb_buf_add(buf, text.ptr + at, len);
        else
            wb_buf_str(buf, "\xef\xbf\xbd");
        at += len == 0 ? 1 : len;
    }
    wb_buf_str(buf, "\"");
}

/* C1 controls and the marks that turn the direction of text can forge a terminal's line. */
static bool is_deceptive(const unsigned char *p, size_t len)
{
    if (len == 2)
        return p[0] == 0xc2 && p[1] < 0xa0;
    if (len == 3 && p[0] == 0xe2)
        return (p[1] == 0x80 &&
                ((p[2] >= 0x8b && p[2] <= 0x8f) || (p[2] >= 0xa8 && p[2] <= 0xae))) ||
               (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
    return false;
}

void wb_buf_printable(struct wb_buf *buf, struct wb_str text)
{
    for (size_t at = 0; at < text.len;) {
        const unsigned char *p = (const unsigned char *)text.ptr + at;
        size_t len = char_len(text, at);
        bool plain = len > 1 ? !is_deceptive(p, len) : len == 1 && p[0] >= 0x20 && p[0] != 0x7f;
        size_t taken = len == 0 ? 1 : len;
        if (plain)
            wb_buf_add(buf, p, len);
        else
            for (size_t i = 0; i < taken; i++)
                wb_buf_printf(buf, "\\x%02x", p[i]);
        at += taken;
    }
}

void wb_buf_clear(struct wb_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
    if (buf->ptr != NULL)
        buf->ptr[0] = '\0';
}

void wb_buf_free(struct wb_buf *buf)
{
    free(buf->ptr);
    *buf = (struct wb_buf){0};
}
