/* cli_outbox_purge.c - let old rows of an outbox go now, by hand. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include <waybill/operator_log.h>
#include <waybill/outbox_retention.h>

#include "cli_outbox.h"
#include "service_classes.h"

struct purge {
    struct cli *cli;
    struct outbox_retention *retention;
    int64_t older_than_ns; /* 0: as the classes say */
    bool dry_run;
};

/* What is about to be done, in the log of the file it is done to. */
static wb_err log_purge(const struct purge *purge)
{
    const struct db_options options = {.must_exist = true};
    char target[80] = "rows that their classes no longer keep";
    struct wb_why *why = &purge->cli->why;
    struct db *db = NULL;
    wb_err err = service_cli_outbox_open(purge->cli, &options, &db);

    if (purge->older_than_ns > 0)
        (void)snprintf(target, sizeof(target), "rows older than %s",
                       service_cli_option(purge->cli, "older-than"));
    if (err == WB_OK)
        err = db_begin(db, why);
    if (err == WB_OK)
        err = operator_log_add(db_handle(db),
                               &(struct operator_log_entry){.command = wb_str("outbox purge"),
                                                            .target = wb_str(target)},
                               why);
    if (err == WB_OK)
        err = db_commit(db, why);
    db_close(db);
    return err;
}

/* Until nothing is left that may go; others get their turn between the steps. */
static wb_err run_out(const struct purge *purge)
{
    struct outbox_retention_result result = {.more = true};
    wb_err err = WB_OK;

    while (err == WB_OK && result.more) {
        err = outbox_retention_step(purge->retention, &result, &purge->cli->why);
        if (err == WB_OK && result.more && !purge->dry_run)
            (void)nanosleep(&(struct timespec){.tv_sec = result.next_ns / WB_SEC,
                                               .tv_nsec = result.next_ns % WB_SEC},
                            NULL);
    }
    return err;
}

static struct outbox_retention_total sum(const struct purge *purge)
{
    struct outbox_retention_total all = {.name = ""}, one;

    for (size_t i = 0; outbox_retention_total(purge->retention, i, &one); i++) {
        all.rows += one.rows;
        all.bytes += one.bytes;
        all.archived += one.archived;
    }
    return all;
}

static void print_members(struct wb_buf *out, const struct outbox_retention_total *total)
{
    wb_buf_printf(out, "\"rows\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"archived\":%" PRIu64,
                  total->rows, total->bytes, total->archived);
}

static void print_json(const struct purge *purge, struct wb_buf *out)
{
    struct outbox_retention_total all = sum(purge), one;

    wb_buf_str(out, "{\"db\":");
    wb_buf_json_str(out, wb_str(service_cli_option(purge->cli, "db")));
    wb_buf_printf(out, ",\"dry_run\":%s,", purge->dry_run ? "true" : "false");
    print_members(out, &all);
    wb_buf_str(out, ",\"classes\":[");
    for (size_t i = 0; outbox_retention_total(purge->retention, i, &one); i++) {
        wb_buf_str(out, i > 0 ? ",{\"class\":" : "{\"class\":");
        wb_buf_json_str(out, wb_str(one.name));
        wb_buf_str(out, ",");
        print_members(out, &one);
        wb_buf_str(out, "}");
    }
    wb_buf_str(out, "]}\n");
}

static void print_text(const struct purge *purge, struct wb_buf *out)
{
    struct outbox_retention_total all = sum(purge), one;

    wb_buf_printf(out, "%s %" PRIu64 " rows  %" PRIu64 " B  archived %" PRIu64 "\n",
                  purge->dry_run ? "would purge" : "purged", all.rows, all.bytes, all.archived);
    for (size_t i = 0; outbox_retention_total(purge->retention, i, &one); i++)
        if (one.rows > 0 && one.name[0] != '\0')
            wb_buf_printf(out, "  class %-20s %" PRIu64 " rows  %" PRIu64 " B\n", one.name,
                          one.rows, one.bytes);
}

wb_err service_cli_outbox_purge(struct cli *cli)
{
    struct purge purge = {.cli = cli, .dry_run = service_cli_option(cli, "dry-run") != NULL};
    struct outbox_retention_options options = {.path = service_cli_option(cli, "db"),
                                               .dry_run = purge.dry_run};
    struct service_classes *classes = NULL;
    wb_err err = service_cli_duration(cli, "older-than", 0, &purge.older_than_ns);

    if (err == WB_OK && options.path == NULL)
        return service_cli_usage(cli, "which outbox? name its database with --db FILE");
    if (err == WB_OK)
        err = service_classes_read(cli->config, &classes, &cli->why);
    if (err != WB_OK)
        return err;
    options.older_than_ns = purge.older_than_ns;
    options.classes = service_classes_list(classes, &options.class_count);
    err = outbox_retention_open(&options, &purge.retention, &cli->why);
    if (err == WB_OK && !purge.dry_run)
        err = log_purge(&purge);
    if (err == WB_OK)
        err = run_out(&purge);
    if (err == WB_OK && cli->json)
        print_json(&purge, &cli->out);
    else if (err == WB_OK)
        print_text(&purge, &cli->out);
    outbox_retention_close(purge.retention);
    service_classes_free(classes);
    return err;
}
