/*
 * http_response.h - answers as bytes.
 */
#ifndef HTTP_RESPONSE_H
#define HTTP_RESPONSE_H

#include <waybill/base.h>
#include <waybill/module.h>

/* What goes around a response. */
struct http_envelope {
    bool close;        /* announce that the connection ends */
    bool without_body; /* for HEAD: the head alone */
    const char *allow; /* methods, for 405; NULL: none */
    int64_t wall_ns;   /* for Date */
};

/** Append head and body. */
void http_response_render(struct wb_buf *out, const struct module_response *response,
                          const struct http_envelope *envelope);

/** Short name of a refusal's status, for metrics: "malformed", "host", ... Static. */
const char *http_refusal_reason(int status);

#endif /* HTTP_RESPONSE_H */
