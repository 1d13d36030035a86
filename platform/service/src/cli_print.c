#include "cli_print.h"

void service_cli_json_text(struct wb_buf *out, const char *name, struct wb_str text)
{
    wb_buf_printf(out, ",\"%s\":", name);
    wb_buf_json_str(out, text);
}

void service_cli_json_time(struct wb_buf *out, const char *name, int64_t wall_ns)
{
    char time[32];

    wb_buf_printf(out, ",\"%s\":", name);
    if (wall_ns == 0) {
        wb_buf_str(out, "null");
        return;
    }
    wb_time_format(wall_ns, time);
    wb_buf_printf(out, "\"%s\"", time);
}

void service_cli_text_field(struct wb_buf *out, const char *name, struct wb_str text)
{
    if (text.len == 0)
        return;
    wb_buf_printf(out, "%-8s ", name);
    wb_buf_printable(out, text);
    wb_buf_str(out, "\n");
}

void service_cli_text_time(struct wb_buf *out, const char *name, int64_t wall_ns)
{
    char time[32];

    if (wall_ns == 0)
        return;
    wb_time_format(wall_ns, time);
    wb_buf_printf(out, "%-8s %s\n", name, time);
}
