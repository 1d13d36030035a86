/* log.c - one line, one write: logfmt for people, JSON for machines. */
#include <waybill/base.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096 /* of the message, before it is escaped; the rest is cut */

/* Constant once threads run: wb_log_setup() comes before them. */
static struct {
    int fd;
    wb_log_format format;
    wb_log_level level;
} sink = {.fd = STDERR_FILENO, .level = WB_LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void wb_log_setup(int fd, wb_log_format format, wb_log_level level)
{
    sink.fd = fd;
    sink.format = format;
    sink.level = level;
}

bool wb_log_level_parse(struct wb_str text, wb_log_level *ret_level)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++)
        if (wb_str_eq(text, wb_str(level_names[i]))) {
            *ret_level = (wb_log_level)i;
            return true;
        }
    return false;
}

static void format_line(struct wb_buf *line, wb_log_level level, const char *component,
                        const char *text)
{
    char now[32];

    wb_time_format(wb_wall_ns(wb_clock_system()), now);
    if (sink.format == WB_LOG_JSON) {
        wb_buf_printf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"component\":\"%s\",\"msg\":", now,
                      level_names[level], component);
        wb_buf_json_str(line, wb_str(text));
        wb_buf_str(line, "}\n");
    } else {
        wb_buf_printf(line, "%s %-5s %s: ", now, level_names[level], component);
        wb_buf_printable(line, wb_str(text));
        wb_buf_str(line, "\n");
    }
}

void wb_log(wb_log_level level, const char *component, const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    struct wb_buf line = {0};
    va_list args;

    if (level < sink.level)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    format_line(&line, level, component, text);
    if (line.ptr != NULL && write(sink.fd, line.ptr, line.len) < 0) {
        /* Nowhere is left to tell of it. */
    }
    wb_buf_free(&line);
}
