/* cli_output.c - exit codes, errors, talk, results. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- exit codes ------------------------------------------------------------------------------ */

int service_cli_exit_code(wb_err err)
{
    static const unsigned char codes[] = {
        [WB_OK] = 0,        [WB_NOMEM] = 1,     [WB_INVALID] = 7,      [WB_TOO_BIG] = 7,
        [WB_NOT_FOUND] = 3, [WB_EXISTS] = 6,    [WB_CONFLICT] = 6,     [WB_FULL] = 4,
        [WB_BUSY] = 6,      [WB_TIMEOUT] = 4,   [WB_UNKNOWN] = 4,      [WB_UNREACHABLE] = 4,
        [WB_DENIED] = 5,    [WB_NO_STREAM] = 3, [WB_NO_JETSTREAM] = 4, [WB_IO] = 1,
        [WB_DISK_FULL] = 1, [WB_READ_ONLY] = 5, [WB_CORRUPT] = 7,      [WB_UNSUPPORTED] = 7,
        [WB_MISUSE] = 2,    [WB_CLOSED] = 1,    [WB_INTERNAL] = 1,
    };
    return (size_t)err < sizeof(codes) ? codes[err] : 1;
}

wb_err service_cli_err_of_name(const char *name)
{
    static const char *const names[] = {
#define X(name, class, text) [WB_##name] = #name,
        WB_ERR_MAP(X)
#undef X
    };
    for (size_t i = 0; name != NULL && i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return (wb_err)i;
    return WB_INTERNAL;
}

/* ---- talk ------------------------------------------------------------------------------------ */

static void write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t put = write(fd, text, len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return; /* nobody listens to what is said on standard error */
        text += put;
        len -= (size_t)put;
    }
}

static void write_line(const char *text)
{
    struct wb_buf line = {0};

    wb_buf_printable(&line, wb_str(text));
    wb_buf_str(&line, "\n");
    if (!line.failed)
        write_all(STDERR_FILENO, line.ptr, line.len);
    wb_buf_free(&line);
}

void service_cli_talk(const struct cli *cli, const char *format, ...)
{
    char text[1024];
    va_list args;

    if (cli->quiet)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    write_line(text);
}

/* ---- errors ---------------------------------------------------------------------------------- */

wb_err service_cli_usage(struct cli *cli, const char *format, ...)
{
    char text[400];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return wb_fail(&cli->why, WB_MISUSE, "%s; see: waybill help%s%s", text,
                   cli->title[0] != '\0' ? " " : "", cli->title);
}

void service_cli_print_error(const struct cli *cli, wb_err err)
{
    const char *message = cli->why.text[0] != '\0' ? cli->why.text : wb_err_text(err);
    struct wb_buf line = {0};

    if (cli->json) {
        wb_buf_str(&line, "{\"error\":{\"code\":");
        wb_buf_json_str(&line, wb_str(wb_err_name(err)));
        wb_buf_str(&line, ",\"message\":");
        wb_buf_json_str(&line, wb_str(message));
        wb_buf_str(&line, "}}\n");
    } else {
        wb_buf_printf(&line, "waybill%s%s: ", cli->title[0] != '\0' ? " " : "", cli->title);
        wb_buf_printable(&line, wb_str(message));
        wb_buf_str(&line, "\n");
    }
    if (!line.failed)
        write_all(STDERR_FILENO, line.ptr, line.len);
    wb_buf_free(&line);
}

/* ---- results --------------------------------------------------------------------------------- */

wb_err service_cli_flush(struct cli *cli)
{
    size_t at = 0;

    if (cli->out.failed)
        return wb_fail(&cli->why, WB_NOMEM, "the result does not fit into memory");
    while (at < cli->out.len) {
        ssize_t put = write(STDOUT_FILENO, cli->out.ptr + at, cli->out.len - at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == EPIPE) {
            cli->reader_gone = true;
            wb_buf_clear(&cli->out);
            return WB_CLOSED;
        }
        if (put <= 0)
            return wb_fail(&cli->why, errno == ENOSPC ? WB_DISK_FULL : WB_IO,
                           "write to standard output: %s", strerror(errno));
        at += (size_t)put;
    }
    wb_buf_clear(&cli->out);
    return WB_OK;
}
