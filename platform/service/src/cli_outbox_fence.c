/* cli_outbox_fence.c - put out a publisher that is stopped or hangs. */
#include <inttypes.h>
#include <string.h>

#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

#include "cli_outbox.h"

/* Who may write now; 0 when it cannot be said. */
static int64_t holder_of(const char *path, const char *stream)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    struct outbox_status status;
    struct db *db = NULL;
    int64_t holder = 0;

    if (db_open(path, &options, &db, NULL) != WB_OK)
        return 0;
    if (outbox_status(db_handle(db), &status, NULL) == WB_OK)
        for (size_t i = 0; i < status.stream_count; i++)
            if (strcmp(status.streams[i].stream, stream) == 0)
                holder = status.streams[i].holder;
    db_close(db);
    return holder;
}

wb_err service_cli_outbox_fence(struct cli *cli)
{
    const char *path = service_cli_option(cli, "db"), *stream = service_cli_option(cli, "stream");

    if (path == NULL)
        return service_cli_usage(cli, "which outbox? name its database with --db FILE");
    if (stream == NULL)
        return service_cli_usage(cli, "the publisher of which stream? name it with --stream NAME");
    wb_err err = outbox_publisher_fence(path, stream, &cli->why);
    if (err != WB_OK)
        return err;
    int64_t holder = holder_of(path, stream);
    if (cli->json) {
        wb_buf_str(&cli->out, "{\"stream\":");
        wb_buf_json_str(&cli->out, wb_str(stream));
        wb_buf_printf(&cli->out, ",\"holder\":%" PRId64 "}\n", holder);
        return WB_OK;
    }
    wb_buf_str(&cli->out, "fenced  stream ");
    wb_buf_printable(&cli->out, wb_str(stream));
    wb_buf_printf(&cli->out, "  holder %" PRId64 "\n", holder);
    service_cli_talk(cli, "who stands by publishes now; the one put out may be ended at leisure");
    return WB_OK;
}
