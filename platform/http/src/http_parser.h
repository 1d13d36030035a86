/*
 * http_parser.h - the strict reader of HTTP/1.1 requests. Pure: bytes in, a request or a refusal
 * out.
 *
 * It stands alone, instead of as a filter in front of evhttp: two parsers that read the same bytes
 * differently are exactly what request smuggling lives on. It looks at every byte once, as it
 * comes, so how the bytes are split into reads cannot change the result.
 *
 * Beyond RFC 9112 it refuses what the standard tolerates and readers disagree on: bare LF, empty
 * lines before a request, folded lines, any Transfer-Encoding, doubled Content-Length even if
 * equal, leading zeros in it, targets that are no plain path, and paths with "..".
 */
#ifndef HTTP_PARSER_H
#define HTTP_PARSER_H

#include <waybill/base.h>
#include <waybill/message.h>

#define HTTP_METHOD_MAX 16   /* bytes; longer is a method nobody knows */
#define HTTP_TARGET_MAX 4096 /* bytes of path and query */

typedef enum http_step {
    HTTP_MORE,   /* all bytes were used; the request goes on */
    HTTP_HEAD,   /* once: the head is complete and the fields below are set; decide on the body */
    HTTP_DONE,   /* the body is complete too */
    HTTP_REFUSED /* status, error, next say why; the connection must end */
} http_step;

typedef enum http_state {
    HTTP_IN_METHOD,
    HTTP_IN_TARGET,
    HTTP_IN_VERSION,
    HTTP_IN_LINE_START, /* the first byte of a header line, or of the end */
    HTTP_IN_NAME,
    HTTP_IN_VALUE,
    HTTP_IN_LINE_LF, /* CR was seen; LF must follow */
    HTTP_IN_END_LF,  /* same, behind the empty line */
    HTTP_IN_BODY,
    HTTP_IN_REFUSED
} http_state;

struct http_parser {
    size_t max_head;    /* constant; bytes of request line and headers */
    size_t max_headers; /* constant */
    http_state state;
    size_t seen; /* bytes of this head so far */
    char *head;  /* max_head bytes, owned; what the views below point into */
    size_t head_len;
    size_t mark; /* where the element being read begins in head */

    struct message_header *headers; /* max_headers, owned */
    size_t header_count;
    struct wb_str method;
    struct wb_str path;  /* decoded once */
    struct wb_str query; /* raw; {NULL, 0}: none */
    struct wb_str host;  /* as sent, of valid form */
    size_t content_length;
    bool wants_close;
    bool expects_continue;
    struct wb_buf body;

    int status; /* of a refusal */
    const char *error, *next;
};

void http_parser_init(struct http_parser *parser, size_t max_head, size_t max_headers);

/**
 * Be ready for the next request; all memory of the last one is freed, so an idle one costs none.
 */
void http_parser_reset(struct http_parser *parser);

/** Has any byte of a request come since the last reset? */
bool http_parser_started(const struct http_parser *parser);

/**
 * Read on. Never uses bytes behind the end of the request.
 * @param ret_used  how many of the bytes were used, whatever the result.
 */
http_step http_parser_feed(struct http_parser *parser, const char *data, size_t len,
                           size_t *ret_used);

/* ---- http_target.c, http_fields.c: the parts that need a whole element ----------------------- */

/* What is wrong, or status 0. Static texts. */
struct http_refusal {
    int status;
    const char *error, *next;
};

/** Split an origin-form target into path and query; decodes the path in place. */
struct http_refusal http_target_read(char *target, size_t len, struct wb_str *ret_path,
                                     struct wb_str *ret_query);

/** Is it "host", "host:port", "1.2.3.4:port" or "[v6]:port" in form? */
bool http_host_valid(struct wb_str host);

/** Look at all headers of a complete head: sets host, content_length and the flags. */
struct http_refusal http_fields_read(struct http_parser *parser);

#endif /* HTTP_PARSER_H */
