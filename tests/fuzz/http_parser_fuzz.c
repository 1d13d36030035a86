/*
 * Any bytes as a stream of requests: the same result whole and byte by byte, and no unclean view.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http_parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add(struct wb_buf *out, const char *what, struct wb_str text)
{
    wb_buf_printf(out, "%s %zu ", what, text.len);
    if (text.len > 0)
        wb_buf_add(out, text.ptr, text.len);
}

/* What must never get past the parser. */
static void check(const struct http_parser *p)
{
    static const char bad[] = {'\r', '\n', '\0'};

    for (size_t b = 0; b < sizeof(bad); b++) {
        if (memchr(p->path.ptr, bad[b], p->path.len) != NULL)
            abort();
        for (size_t i = 0; i < p->header_count; i++)
            if (memchr(p->headers[i].name.ptr, bad[b], p->headers[i].name.len) != NULL ||
                memchr(p->headers[i].value.ptr, bad[b], p->headers[i].value.len) != NULL)
                abort();
    }
    if (p->path.ptr[0] != '/' || memmem(p->path.ptr, p->path.len, "/../", 4) != NULL ||
        !wb_utf8_valid(p->path) || !http_host_valid(p->host))
        abort();
}

static void describe(const struct http_parser *p, struct wb_buf *out)
{
    add(out, "method", p->method);
    add(out, "path", p->path);
    add(out, "query", p->query);
    add(out, "host", p->host);
    for (size_t i = 0; i < p->header_count; i++) {
        add(out, "name", p->headers[i].name);
        add(out, "value", p->headers[i].value);
    }
    wb_buf_printf(out, "length %zu %d %d\n", p->content_length, p->wants_close,
                  p->expects_continue);
}

static void read_stream(const uint8_t *data, size_t size, size_t piece, struct wb_buf *out)
{
    struct http_parser parser;
    http_step step = HTTP_MORE;
    size_t used = 0;

    http_parser_init(&parser, 1024, 8);
    for (size_t at = 0; at < size && step != HTTP_REFUSED; at += used) {
        size_t len = piece < size - at ? piece : size - at;
        step = http_parser_feed(&parser, (const char *)data + at, len, &used);
        if (used == 0 || used > len)
            abort();
        if (step == HTTP_HEAD) {
            check(&parser);
            describe(&parser, out);
        }
        if (step == HTTP_REFUSED)
            wb_buf_printf(out, "refused %d at %zu\n", parser.status, at + used);
        if (step == HTTP_DONE)
            add(out, "body", wb_str_n(parser.body.ptr, parser.body.len));
        if (step == HTTP_DONE || (step == HTTP_HEAD && parser.content_length == 0))
            http_parser_reset(&parser);
    }
    http_parser_reset(&parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wb_buf whole = {0}, split = {0};

    read_stream(data, size, SIZE_MAX, &whole);
    read_stream(data, size, 1, &split);
    if (!wb_str_eq(wb_str_n(whole.ptr, whole.len), wb_str_n(split.ptr, split.len)))
        abort();
    wb_buf_free(&whole);
    wb_buf_free(&split);
    return 0;
}
