/* cli_print.h - members of JSON objects and lines of `show`, as all commands print them. */
#ifndef SERVICE_CLI_PRINT_H
#define SERVICE_CLI_PRINT_H

#include <waybill/base.h>

/* Append ,"name":"text". */
void service_cli_json_text(struct wb_buf *out, const char *name, struct wb_str text);

/* Append ,"name":"2026-01-02T03:04:05.678Z", or null for 0. */
void service_cli_json_time(struct wb_buf *out, const char *name, int64_t wall_ns);

/* Append a line "name     text"; nothing when there is none. */
void service_cli_text_field(struct wb_buf *out, const char *name, struct wb_str text);
void service_cli_text_time(struct wb_buf *out, const char *name, int64_t wall_ns);

#endif /* SERVICE_CLI_PRINT_H */
