#include "http_parser.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static http_step refuse(struct http_parser *p, int status, const char *error, const char *next)
{
    p->state = HTTP_IN_REFUSED;
    p->status = status;
    p->error = error;
    p->next = next;
    return HTTP_REFUSED;
}

/* "tchar" of RFC 9110, section 5.6.2. */
static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

/* Keep a byte of the current element. seen <= max_head makes sure that it fits. */
static http_step keep(struct http_parser *p, char c)
{
    assert(p->head_len < p->max_head);
    p->head[p->head_len++] = c;
    return HTTP_MORE;
}

/* End the current element and begin the next one. */
static struct wb_str take(struct http_parser *p)
{
    struct wb_str element = wb_str_n(p->head + p->mark, p->head_len - p->mark);

    p->mark = p->head_len;
    return element;
}

/* ---- the request line ------------------------------------------------------------------------ */

static http_step end_method(struct http_parser *p)
{
    static const char *const known[] = {"HEAD",  "PUT",     "DELETE", "PATCH",
                                        "TRACE", "OPTIONS", "CONNECT"};

    p->method = take(p);
    if (p->method.len == 0)
        return refuse(p, 400, "the request line begins with a blank",
                      "send: METHOD /path HTTP/1.1");
    p->state = HTTP_IN_TARGET;
    if (wb_str_eq(p->method, wb_str("GET")) || wb_str_eq(p->method, wb_str("POST")))
        return HTTP_MORE;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (wb_str_eq(p->method, wb_str(known[i])))
            return refuse(p, 405, "this method is not served", "use GET or POST");
    return refuse(p, 501, "unknown method", "use GET or POST, in capitals");
}

static http_step in_method(struct http_parser *p, char c)
{
    if (c == ' ')
        return end_method(p);
    if (c == '\r' || c == '\n')
        return refuse(p, 400, "an empty or broken request line", "send: METHOD /path HTTP/1.1");
    if (!is_token_char(c))
        return refuse(p, 400, "a method consists of letters", "send: METHOD /path HTTP/1.1");
    if (p->head_len - p->mark == HTTP_METHOD_MAX)
        return refuse(p, 501, "unknown method", "use GET or POST, in capitals");
    return keep(p, c);
}

static http_step in_target(struct http_parser *p, char c)
{
    if (c == ' ') {
        struct wb_str target = take(p);
        struct http_refusal bad =
            http_target_read(p->head + (target.ptr - p->head), target.len, &p->path, &p->query);
        if (bad.status != 0)
            return refuse(p, bad.status, bad.error, bad.next);
        p->state = HTTP_IN_VERSION;
        return HTTP_MORE;
    }
    if (c == '\r' || c == '\n')
        return refuse(p, 400, "the request line has no version", "end it with HTTP/1.1");
    if (is_control(c) || (unsigned char)c >= 0x80)
        return refuse(p, 400, "a byte in the target that must be percent-encoded",
                      "percent-encode what is not printable ASCII");
    if (p->head_len - p->mark == HTTP_TARGET_MAX)
        return refuse(p, 414, "path and query are longer than 4096 bytes", "shorten the query");
    return keep(p, c);
}

static http_step in_version(struct http_parser *p, char c)
{
    static const char form[] = "HTTP/d.d";
    size_t at = p->head_len - p->mark;

    if (c == '\r' && at == sizeof(form) - 1) {
        p->state = HTTP_IN_LINE_LF;
        if (!wb_str_eq(take(p), wb_str("HTTP/1.1")))
            return refuse(p, 505, "only HTTP/1.1 is spoken here", "send the request as HTTP/1.1");
        return HTTP_MORE;
    }
    if (at >= sizeof(form) - 1 || (form[at] == 'd' ? c < '0' || c > '9' : c != form[at]))
        return refuse(p, 400, "broken version in the request line",
                      "send: METHOD /path HTTP/1.1, one blank between them, CR LF at the end");
    return keep(p, c);
}

/* ---- header lines ---------------------------------------------------------------------------- */

static http_step in_name(struct http_parser *p, char c)
{
    if (c == ':') {
        struct wb_str name = take(p);
        if (name.len == 0)
            return refuse(p, 400, "a header without a name", "remove the line");
        if (p->header_count == p->max_headers)
            return refuse(p, 431, "too many header lines", "send fewer headers");
        p->headers[p->header_count].name = name;
        p->state = HTTP_IN_VALUE;
        return HTTP_MORE;
    }
    if (c == ' ' || c == '\t')
        return refuse(p, 400, "a blank in a header's name or before its colon", "send Name: value");
    if (c == '\r' || c == '\n')
        return refuse(p, 400, "a header line without a colon", "send Name: value");
    if (!is_token_char(c))
        return refuse(p, 400, "a header's name has a byte that is not allowed", "send Name: value");
    return keep(p, c);
}

static http_step in_line_start(struct http_parser *p, char c)
{
    if (c == '\r') {
        p->state = HTTP_IN_END_LF;
        return HTTP_MORE;
    }
    if (c == ' ' || c == '\t')
        return refuse(p, 400, "a header folded over several lines", "put it on one line");
    if (c == '\n')
        return refuse(p, 400, "a line ends with LF alone", "end lines with CR LF");
    p->state = HTTP_IN_NAME;
    return in_name(p, c);
}

static struct wb_str trim_end(struct wb_str text)
{
    while (text.len > 0 && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t'))
        text.len--;
    return text;
}

static http_step in_value(struct http_parser *p, char c)
{
    if (c == '\r') {
        p->headers[p->header_count++].value = trim_end(take(p));
        p->state = HTTP_IN_LINE_LF;
        return HTTP_MORE;
    }
    if (c == '\n')
        return refuse(p, 400, "a line ends with LF alone", "end lines with CR LF");
    if (is_control(c) && c != '\t')
        return refuse(p, 400, "a control character in a header's value", "remove it");
    if ((c == ' ' || c == '\t') && p->head_len == p->mark)
        return HTTP_MORE; /* blanks before the value */
    return keep(p, c);
}

static http_step in_line_lf(struct http_parser *p, char c)
{
    if (c != '\n')
        return refuse(p, 400, "CR without LF", "end lines with CR LF");
    p->state = HTTP_IN_LINE_START;
    return HTTP_MORE;
}

static http_step in_end_lf(struct http_parser *p, char c)
{
    struct http_refusal bad;

    if (c != '\n')
        return refuse(p, 400, "CR without LF", "end lines with CR LF");
    bad = http_fields_read(p);
    if (bad.status != 0)
        return refuse(p, bad.status, bad.error, bad.next);
    p->state = HTTP_IN_BODY;
    return HTTP_HEAD;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static http_step head_byte(struct http_parser *p, char c)
{
    static http_step (*const readers[])(struct http_parser *, char) = {
        [HTTP_IN_METHOD] = in_method,   [HTTP_IN_TARGET] = in_target,
        [HTTP_IN_VERSION] = in_version, [HTTP_IN_LINE_START] = in_line_start,
        [HTTP_IN_NAME] = in_name,       [HTTP_IN_VALUE] = in_value,
        [HTTP_IN_LINE_LF] = in_line_lf, [HTTP_IN_END_LF] = in_end_lf,
    };

    if (p->seen == p->max_head)
        return refuse(p, 431, "the head of the request is too large", "send smaller headers");
    p->seen++;
    return readers[p->state](p, c);
}

/* Memory for a head is taken with its first byte, so that silent connections cost none. */
static http_step prepare(struct http_parser *p)
{
    p->head = malloc(p->max_head);
    p->headers = calloc(p->max_headers, sizeof(*p->headers));
    if (p->head == NULL || p->headers == NULL)
        return refuse(p, 503, "out of memory", "try again later");
    return HTTP_MORE;
}

static http_step feed_body(struct http_parser *p, const char *data, size_t len, size_t *ret_used)
{
    size_t missing = p->content_length - p->body.len;

    *ret_used = len < missing ? len : missing;
    wb_buf_add(&p->body, data, *ret_used); /* grows with what comes, not with what is announced */
    if (p->body.failed)
        return refuse(p, 503, "out of memory", "try again later");
    return p->body.len == p->content_length ? HTTP_DONE : HTTP_MORE;
}

http_step http_parser_feed(struct http_parser *p, const char *data, size_t len, size_t *ret_used)
{
    http_step step = HTTP_MORE;
    size_t used = 0;

    assert(p != NULL);
    assert(data != NULL || len == 0);
    assert(ret_used != NULL);
    if (p->state == HTTP_IN_BODY)
        return feed_body(p, data, len, ret_used);
    if (p->state == HTTP_IN_REFUSED)
        step = HTTP_REFUSED;
    else if (p->head == NULL && len > 0)
        step = prepare(p);
    while (step == HTTP_MORE && used < len)
        step = head_byte(p, data[used++]);
    *ret_used = used;
    return step;
}

bool http_parser_started(const struct http_parser *p)
{
    return p->head != NULL;
}

void http_parser_init(struct http_parser *p, size_t max_head, size_t max_headers)
{
    assert(p != NULL);
    assert(max_head > 0);
    assert(max_headers > 0);
    *p = (struct http_parser){.max_head = max_head, .max_headers = max_headers};
}

void http_parser_reset(struct http_parser *p)
{
    free(p->head);
    free(p->headers);
    wb_buf_free(&p->body);
    http_parser_init(p, p->max_head, p->max_headers);
}
