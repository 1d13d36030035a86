#include "http_parser.h"

#include <string.h>

#define LENGTH_DIGITS_MAX 18 /* fits int64_t everywhere it is read */

static const struct http_refusal fine = {0, NULL, NULL};

/* How often a header is there; *ret_value is the last one's. */
static size_t find(const struct http_parser *p, const char *name, struct wb_str *ret_value)
{
    size_t count = 0;

    for (size_t i = 0; i < p->header_count; i++) {
        if (!wb_str_case_eq(p->headers[i].name, wb_str(name)))
            continue;
        *ret_value = p->headers[i].value;
        count++;
    }
    return count;
}

/* ---- Host ------------------------------------------------------------------------------------ */

static bool all_of(struct wb_str text, const char *allowed)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] == '\0' || strchr(allowed, text.ptr[i]) == NULL)
            return false;
    return true;
}

static bool port_valid(struct wb_str port)
{
    uint64_t number;

    return port.len <= 5 && wb_str_to_u64(port, &number) && number >= 1 && number <= 65535;
}

bool http_host_valid(struct wb_str host)
{
    static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789-._";
    bool v6 = host.len > 0 && host.ptr[0] == '[';
    const char *end = host.len == 0 ? NULL : memchr(host.ptr, v6 ? ']' : ':', host.len);
    struct wb_str name, rest = {NULL, 0};

    if (v6 && end == NULL)
        return false;
    name = end == NULL ? host : wb_str_n(host.ptr, (size_t)(end - host.ptr));
    if (v6)
        name = wb_str_n(name.ptr + 1, name.len - 1);
    if (end != NULL && v6)
        end++;
    if (end != NULL)
        rest = wb_str_n(end, host.len - (size_t)(end - host.ptr));
    if (name.len == 0 || name.len > 253 ||
        !all_of(name, v6 ? "0123456789abcdefABCDEF:." : name_chars))
        return false;
    return rest.len == 0 ||
           (rest.ptr[0] == ':' && port_valid(wb_str_n(rest.ptr + 1, rest.len - 1)));
}

static struct http_refusal read_host(struct http_parser *p)
{
    size_t count = find(p, "Host", &p->host);

    if (count == 0)
        return (struct http_refusal){400, "no Host header",
                                     "send Host: with the name of the server"};
    if (count > 1)
        return (struct http_refusal){400, "more than one Host header", "send one"};
    if (!http_host_valid(p->host))
        return (struct http_refusal){400, "malformed Host header", "send Host: name:port"};
    return fine;
}

/* ---- the length of the body ------------------------------------------------------------------ */

static struct http_refusal read_length(struct http_parser *p)
{
    static const struct http_refusal bad = {400, "malformed Content-Length",
                                            "send the length of the body in plain decimal digits"};
    struct wb_str value = {NULL, 0};
    size_t count = find(p, "Content-Length", &value);
    uint64_t length = 0;

    if (count == 0)
        return fine;
    if (count > 1)
        return (struct http_refusal){400, "more than one Content-Length", "send one"};
    if (value.len == 0 || value.len > LENGTH_DIGITS_MAX || !all_of(value, "0123456789") ||
        (value.len > 1 && value.ptr[0] == '0') || !wb_str_to_u64(value, &length))
        return bad;
    p->content_length = (size_t)length;
    return fine;
}

/* Chunked bodies are a coding we know but do not accept: a length is needed (411, RFC 9110,
 * section 15.5.12). Any other coding is unknown (501, RFC 9112, section 6.1). Next to a length,
 * or doubled, it is an attempt to be read in two ways. */
static struct http_refusal read_coding(struct http_parser *p)
{
    struct wb_str coding = {NULL, 0}, length = {NULL, 0};
    size_t count = find(p, "Transfer-Encoding", &coding);

    if (count == 0)
        return fine;
    if (count > 1 || find(p, "Content-Length", &length) > 0)
        return (struct http_refusal){400, "contradicting descriptions of the body",
                                     "send Content-Length alone"};
    if (wb_str_case_eq(coding, wb_str("chunked")))
        return (struct http_refusal){411, "a chunked body is not accepted", "send Content-Length"};
    return (struct http_refusal){501, "unknown Transfer-Encoding", "send Content-Length"};
}

/* ---- the rest -------------------------------------------------------------------------------- */

static struct wb_str trim(struct wb_str text)
{
    while (text.len > 0 && (*text.ptr == ' ' || *text.ptr == '\t'))
        text = wb_str_n(text.ptr + 1, text.len - 1);
    while (text.len > 0 && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t'))
        text.len--;
    return text;
}

static bool list_has(struct wb_str list, const char *token)
{
    while (list.len > 0) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t len = comma == NULL ? list.len : (size_t)(comma - list.ptr);
        if (wb_str_case_eq(trim(wb_str_n(list.ptr, len)), wb_str(token)))
            return true;
        len += comma == NULL ? 0 : 1;
        list = wb_str_n(list.ptr + len, list.len - len);
    }
    return false;
}

static struct http_refusal read_expect(struct http_parser *p)
{
    struct wb_str value = {NULL, 0};
    size_t count = find(p, "Expect", &value);

    if (count == 0)
        return fine;
    if (count > 1 || !wb_str_case_eq(value, wb_str("100-continue")))
        return (struct http_refusal){417, "an expectation that cannot be met",
                                     "leave out Expect, or send 100-continue"};
    p->expects_continue = p->content_length > 0;
    return fine;
}

struct http_refusal http_fields_read(struct http_parser *p)
{
    static struct http_refusal (*const readers[])(struct http_parser *) = {read_coding, read_length,
                                                                           read_host, read_expect};

    for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
        struct http_refusal bad = readers[i](p);
        if (bad.status != 0)
            return bad;
    }
    for (size_t i = 0; i < p->header_count; i++)
        if (wb_str_case_eq(p->headers[i].name, wb_str("Connection")) &&
            list_has(p->headers[i].value, "close"))
            p->wants_close = true;
    return fine;
}
