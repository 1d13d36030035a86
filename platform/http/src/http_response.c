#include "http_response.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Status, reason phrase, and the label under which refusals by the server itself are counted. */
struct status {
    int code;
    const char *phrase;
    const char *reason;
};

static const struct status statuses[] = {
    {200, "OK", NULL},
    {201, "Created", NULL},
    {202, "Accepted", NULL},
    {204, "No Content", NULL},
    {400, "Bad Request", "malformed"},
    {401, "Unauthorized", NULL},
    {403, "Forbidden", NULL},
    {404, "Not Found", "route"},
    {405, "Method Not Allowed", "method"},
    {408, "Request Timeout", "deadline"},
    {409, "Conflict", NULL},
    {410, "Gone", NULL},
    {411, "Length Required", "length"},
    {413, "Content Too Large", "too_big"},
    {414, "URI Too Long", "too_big"},
    {415, "Unsupported Media Type", NULL},
    {417, "Expectation Failed", "expectation"},
    {421, "Misdirected Request", "host"},
    {422, "Unprocessable Content", NULL},
    {429, "Too Many Requests", NULL},
    {431, "Request Header Fields Too Large", "too_big"},
    {500, "Internal Server Error", NULL},
    {501, "Not Implemented", "method"},
    {503, "Service Unavailable", "overload"},
    {505, "HTTP Version Not Supported", "version"},
};

static const struct status *find(int code)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
        if (statuses[i].code == code)
            return &statuses[i];
    return NULL;
}

const char *http_refusal_reason(int status)
{
    const struct status *found = find(status);

    return found == NULL || found->reason == NULL ? "other" : found->reason;
}

/* RFC 9110, section 5.6.7. Not strftime, whose names depend on the locale. */
static void add_date(struct wb_buf *out, int64_t wall_ns)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)(wall_ns / WB_SEC);
    struct tm tm;

    if (gmtime_r(&seconds, &tm) == NULL)
        return;
    wb_buf_printf(out, "Date: %s, %02d %s %d %02d:%02d:%02d GMT\r\n", days[tm.tm_wday], tm.tm_mday,
                  months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void http_response_render(struct wb_buf *out, const struct module_response *response,
                          const struct http_envelope *envelope)
{
    const struct status *status = find(response->status);
    bool bodiless = response->status == 204; /* RFC 9110, section 8.6: no Content-Length either */

    assert(response->status >= 200 && response->status <= 599);
    assert(strpbrk(response->content_type, "\r\n") == NULL);
    wb_buf_printf(out, "HTTP/1.1 %d %s\r\n", response->status,
                  status == NULL ? "" : status->phrase);
    add_date(out, envelope->wall_ns);
    if (!bodiless)
        wb_buf_printf(out, "Content-Type: %s\r\nContent-Length: %zu\r\n", response->content_type,
                      response->body.len);
    if (envelope->allow != NULL)
        wb_buf_printf(out, "Allow: %s\r\n", envelope->allow);
    wb_buf_str(out, "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n");
    wb_buf_str(out, envelope->close ? "Connection: close\r\n\r\n" : "\r\n");
    if (!bodiless && !envelope->without_body && response->body.len > 0)
        wb_buf_add(out, response->body.ptr, response->body.len);
}
