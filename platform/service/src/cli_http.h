/* cli_http.h - a blocking HTTP/1.1 client for one service on this machine. */
#ifndef SERVICE_CLI_HTTP_H
#define SERVICE_CLI_HTTP_H

#include "cli.h"

struct cli_http {
    char address[256]; /* HOST:PORT, as configured */
    char host[240];
    char port[8];
    int64_t timeout_ns; /* of one call */
    int fd;             /* -1: not connected; kept open between calls */
};

struct cli_http_request {
    const char *method;
    const char *target;  /* path and query, encoded */
    const char *headers; /* further lines, each with CR LF; "" for none */
    struct wb_bytes body;
};

struct cli_http_reply {
    int status;
    struct wb_buf body; /* freed by the caller */
};

/* Take apart http.listen; connects at the first call. WB_INVALID; WB_UNREACHABLE when it is off. */
wb_err service_cli_http_open(struct cli *cli, struct cli_http *http);
void service_cli_http_close(struct cli_http *http);

/**
 * One request, one reply, whatever its status. WB_UNREACHABLE (nobody listens, or it hung up),
 * WB_TIMEOUT, WB_INVALID (no HTTP).
 */
wb_err service_cli_http_call(struct cli_http *http, const struct cli_http_request *request,
                             struct cli_http_reply *reply, struct wb_why *why);

/** The error that a reply of status 300 and above tells of. */
wb_err service_cli_http_error(const struct cli_http *http, const struct cli_http_reply *reply,
                              struct wb_why *why);

/** Append text percent-encoded for a query. */
void service_cli_http_encode(struct wb_buf *out, struct wb_str text);

#endif /* SERVICE_CLI_HTTP_H */
