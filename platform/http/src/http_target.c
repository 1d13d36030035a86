#include "http_parser.h"

#include <string.h>

static const struct http_refusal fine = {0, NULL, NULL};
static const struct http_refusal bad_percent = {400, "broken percent-encoding in the target",
                                                "a '%' is followed by two hex digits"};

static struct http_refusal bad_path(const char *error)
{
    return (struct http_refusal){400, error, "send the plain path of a resource"};
}

/* Bytes a path may have unencoded: "pchar" and '/' of RFC 3986, section 3.3. */
static bool is_path_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~!$&'()*+,;=:@/", c) != NULL);
}

/*
 * The one decoding a path gets. '/' and '\' encoded would be a separator to some and not to others.
 */
static struct http_refusal decode(char *path, size_t len, size_t *ret_len)
{
    size_t out = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)path[i];
        if (byte == '%') {
            if (len - i < 3 || !wb_hex_decode(wb_str_n(path + i + 1, 2), &byte, 1))
                return bad_percent;
            if (byte == '/' || byte == '\\')
                return bad_path("an encoded slash or backslash in the path");
            if (byte < 0x20 || byte == 0x7f)
                return bad_path("an encoded control character in the path");
            i += 2;
        } else if (!is_path_char(path[i])) {
            return bad_path("a character in the path that must be percent-encoded");
        }
        path[out++] = (char)byte;
    }
    *ret_len = out;
    return fine;
}

/* "." and ".." between slashes, after decoding. */
static bool has_dot_segment(struct wb_str path)
{
    size_t start = 0;

    for (size_t i = 0; i <= path.len; i++) {
        if (i < path.len && path.ptr[i] != '/')
            continue;
        struct wb_str segment = wb_str_n(path.ptr + start, i - start);
        if (wb_str_eq(segment, wb_str(".")) || wb_str_eq(segment, wb_str("..")))
            return true;
        start = i + 1;
    }
    return false;
}

static struct http_refusal check_query(struct wb_str query)
{
    uint8_t byte;

    for (size_t i = 0; i < query.len; i++) {
        if (query.ptr[i] == '#')
            return bad_path("a fragment in the target");
        if (query.ptr[i] == '%' &&
            (query.len - i < 3 || !wb_hex_decode(wb_str_n(query.ptr + i + 1, 2), &byte, 1)))
            return bad_percent;
    }
    return fine;
}

struct http_refusal http_target_read(char *target, size_t len, struct wb_str *ret_path,
                                     struct wb_str *ret_query)
{
    char *mark = len == 0 ? NULL : memchr(target, '?', len);
    size_t path_len = mark == NULL ? len : (size_t)(mark - target);
    struct wb_str query = {NULL, 0};
    struct http_refusal bad;

    if (len == 0)
        return bad_path("an empty target: two blanks in the request line");
    if (target[0] != '/')
        return (struct http_refusal){
            400, "the target is not a path",
            "send the path only, beginning with '/', and the host in Host"};
    if (mark != NULL)
        query = wb_str_n(mark + 1, len - path_len - 1);
    bad = check_query(query);
    if (bad.status == 0)
        bad = decode(target, path_len, &path_len);
    if (bad.status != 0)
        return bad;
    if (!wb_utf8_valid(wb_str_n(target, path_len)))
        return bad_path("the decoded path is not valid UTF-8");
    if (has_dot_segment(wb_str_n(target, path_len)))
        return bad_path("'.' or '..' as a part of the path");
    *ret_path = wb_str_n(target, path_len);
    *ret_query = query;
    return fine;
}
