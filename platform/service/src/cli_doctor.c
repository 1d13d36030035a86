/* cli_doctor.c - what is wrong, and how to mend it: one line for each check. */
#include <errno.h>
#include <inttypes.h>
#include <dirent.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <waybill/event_bus_factory.h>
#include <waybill/outbox.h>

#include "cli_http.h"

#define DISK_FAIL_BYTES (UINT64_C(64) << 20)
#define DISK_WARN_BYTES (UINT64_C(1) << 30)

typedef enum doctor_verdict { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL } doctor_verdict;

struct doctor {
    struct cli *cli;
    struct event_bus *bus; /* NULL: not reached, or the memory bus */
    unsigned counts[3];    /* by verdict */
    struct wb_buf items;   /* JSON */
};

/* ---- reporting ------------------------------------------------------------------------------- */

/* fix: what to do; NULL when detail says it, or nothing is to be done. */
static void report(struct doctor *doctor, doctor_verdict verdict, const char *what,
                   const char *detail, const char *fix)
{
    static const char *const words[] = {"ok", "warn", "FAIL"};
    static const char *const colors[] = {"\033[32m", "\033[33m", "\033[31m"};
    struct cli *cli = doctor->cli;
    struct wb_buf *out = &cli->out;

    doctor->counts[verdict]++;
    if (cli->json) {
        struct wb_buf *items = &doctor->items;
        wb_buf_printf(items, "%s{\"verdict\":\"%s\",\"what\":", items->len > 0 ? "," : "",
                      verdict == DOCTOR_FAIL ? "fail" : words[verdict]);
        wb_buf_json_str(items, wb_str(what));
        wb_buf_str(items, ",\"detail\":");
        wb_buf_json_str(items, wb_str(detail));
        wb_buf_str(items, ",\"fix\":");
        if (fix != NULL)
            wb_buf_json_str(items, wb_str(fix));
        else
            wb_buf_str(items, "null");
        wb_buf_str(items, "}");
        return;
    }
    wb_buf_printf(out, "%s%-4s%s  %-12s ", cli->color ? colors[verdict] : "", words[verdict],
                  cli->color ? "\033[0m" : "", what);
    wb_buf_printable(out, wb_str(detail));
    wb_buf_str(out, "\n");
    if (fix != NULL) {
        wb_buf_str(out, "                   fix: ");
        wb_buf_printable(out, wb_str(fix));
        wb_buf_str(out, "\n");
    }
    (void)service_cli_flush(cli); /* a slow check must not hide the ones before it */
}

/* ---- configuration --------------------------------------------------------------------------- */

static bool check_config(struct doctor *doctor)
{
    struct cli *cli = doctor->cli;
    char detail[128];
    wb_err err = service_cli_load_config(cli);

    if (err != WB_OK) {
        report(doctor, DOCTOR_FAIL, "config", cli->why.text,
               "mend the setting named here; `waybill config show --origin` lists all of them");
        return false;
    }
    (void)snprintf(detail, sizeof(detail), "bus %s, data %.60s", config_str(cli->config, "bus"),
                   config_str(cli->config, "data"));
    report(doctor, DOCTOR_OK, "config", detail, NULL);
    return true;
}

/* ---- the bus --------------------------------------------------------------------------------- */

/* What a running service says of itself: its lines that begin with [-]. */
static void report_unready(struct doctor *doctor, const struct wb_buf *body)
{
    static const char fix[] = "see the log of the service; it goes on trying by itself";
    char line[400];
    bool told = false;

    for (size_t at = 0; at < body->len;) {
        size_t len = strcspn(body->ptr + at, "\n");
        (void)snprintf(line, sizeof(line), "%.*s", (int)len, body->ptr + at);
        if (strncmp(line, "[-]", 3) == 0)
            report(doctor, DOCTOR_FAIL, "service", line + 3, fix);
        told = told || strncmp(line, "[-]", 3) == 0;
        at += len + 1;
    }
    if (!told)
        report(doctor, DOCTOR_FAIL, "service", "answers, but is not ready", fix);
}

static void check_service(struct doctor *doctor)
{
    struct cli *cli = doctor->cli;
    struct cli_http http;
    struct cli_http_reply reply = {.status = 0};
    const struct cli_http_request request = {.method = "GET", .target = "/readyz", .headers = ""};
    char detail[300];

    if (service_cli_http_open(cli, &http) != WB_OK)
        return; /* HTTP is off: nothing to ask */
    wb_err err = service_cli_http_call(&http, &request, &reply, &cli->why);
    (void)snprintf(detail, sizeof(detail), "%s at %s", err == WB_OK ? "ready" : "none runs",
                   http.address);
    if (err == WB_OK && reply.status != 200)
        report_unready(doctor, &reply.body);
    else if (err == WB_OK || err == WB_UNREACHABLE)
        report(doctor, DOCTOR_OK, "service", detail, NULL);
    else
        report(doctor, DOCTOR_WARN, "service", cli->why.text, NULL);
    service_cli_http_close(&http);
    wb_buf_free(&reply.body);
}

static void check_bus(struct doctor *doctor)
{
    struct cli *cli = doctor->cli;
    struct event_bus_health health;

    if (strcmp(config_str(cli->config, "bus"), "nats") != 0) {
        report(doctor, DOCTOR_OK, "bus", "memory: inside the service, forgets when it ends", NULL);
        return;
    }
    wb_err err = event_bus_factory_create(cli->config, NULL, true, &doctor->bus, &cli->why);
    if (err == WB_OK) {
        event_bus_health(doctor->bus, &health);
        report(doctor, DOCTOR_OK, "server", health.server, NULL);
        report(doctor, DOCTOR_OK, "jetstream", "on", NULL);
    } else if (err == WB_NO_JETSTREAM) {
        report(doctor, DOCTOR_OK, "server", "answers", NULL);
        report(doctor, DOCTOR_FAIL, "jetstream", cli->why.text,
               "add  jetstream { store_dir: /var/lib/nats }  to the server's configuration and "
               "restart it, or start it with -js");
    } else if (err == WB_DENIED) {
        report(doctor, DOCTOR_FAIL, "server", cli->why.text,
               "set NATS_USER and NATS_PASSWORD, NATS_CREDS or NATS_NKEY as the server expects");
    } else if (wb_err_class(err) == WB_RETRY) {
        report(doctor, DOCTOR_FAIL, "server", cli->why.text,
               "start one with  nats-server -js  or name another with -s nats://HOST:PORT");
    } else {
        report(doctor, DOCTOR_FAIL, "bus", cli->why.text, NULL);
    }
}

/* ---- streams --------------------------------------------------------------------------------- */

static const char *stream_fix(wb_err err, bool verify_only)
{
    if (err == WB_CONFLICT)
        return "change the declaration, or let the service update the stream with "
               "stream_provision = \"apply\"";
    if (err == WB_NO_STREAM && verify_only)
        return "declare it at the server, or let the service make it with "
               "stream_provision = \"create\"";
    if (err == WB_NO_STREAM)
        return "start the service once: it makes missing streams";
    return NULL;
}

static void report_stream(struct doctor *doctor, wb_err err, const char *name)
{
    bool verify_only = strcmp(config_str(doctor->cli->config, "stream_provision"), "verify") == 0;
    char what[32];

    (void)snprintf(what, sizeof(what), "stream%s%.20s", name != NULL ? " " : "s",
                   name != NULL ? name : "");
    report(doctor,
           err == WB_OK                          ? DOCTOR_OK
           : err == WB_NO_STREAM && !verify_only ? DOCTOR_WARN
                                                 : DOCTOR_FAIL,
           what, err == WB_OK ? "as declared" : doctor->cli->why.text,
           stream_fix(err, verify_only));
}

static bool is_configured(const struct config *config, const char *stream)
{
    struct wb_str name;

    for (size_t i = 0; config_section(config, "stream.*", i, &name); i++)
        if (wb_str_eq(name, wb_str(stream)))
            return true;
    return false;
}

static void check_streams(struct doctor *doctor)
{
    struct cli *cli = doctor->cli;
    struct wb_str name;

    if (doctor->bus == NULL)
        return;
    if (config_section(cli->config, "stream.*", 0, &name))
        report_stream(
            doctor,
            event_bus_factory_declare(cli->config, doctor->bus, EVENT_BUS_VERIFY, &cli->why), NULL);
    for (size_t i = 0; i < cli->program->module_count; i++) {
        const struct module *module = cli->program->modules[i];
        if (module->stream == NULL || is_configured(cli->config, module->stream))
            continue;
        struct event_bus_stream_options options = {.name = module->stream,
                                                   .subjects = module->subjects};
        while (module->subjects[options.subject_count] != NULL)
            options.subject_count++;
        report_stream(doctor,
                      event_bus_declare_stream(doctor->bus, &options, EVENT_BUS_VERIFY, &cli->why),
                      module->stream);
    }
}

/* ---- databases ------------------------------------------------------------------------------- */

/* First value of a pragma as text into out. */
static wb_err pragma(struct db *db, const char *sql, char *out, size_t size, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = db_prepare(db, sql, &stmt, why);

    if (err != WB_OK)
        return err;
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        (void)snprintf(out, size, "%s", (const char *)sqlite3_column_text(stmt, 0));
    else
        err = db_error(db_handle(db), code, sql, why);
    (void)sqlite3_finalize(stmt);
    return err;
}

static wb_err check_integrity(struct db *db, struct wb_why *why)
{
    char text[256] = "";
    wb_err err = pragma(db, "PRAGMA quick_check(1)", text, sizeof(text), why);

    if (err == WB_OK && strcmp(text, "ok") != 0)
        return wb_fail(why, WB_CORRUPT, "%s: %s", db_path(db), text);
    if (err == WB_OK)
        err = pragma(db, "PRAGMA journal_mode", text, sizeof(text), why);
    if (err == WB_OK && strcmp(text, "wal") != 0)
        return wb_fail(why, WB_INVALID, "%s: journal_mode is %s, expected wal", db_path(db), text);
    return err;
}

/* A stream that ends before what was published to it has lost messages. */
static void check_cursors(struct doctor *doctor, const char *what,
                          const struct outbox_status *status)
{
    struct event_bus_stream_info info;
    char detail[400];

    for (size_t i = 0; doctor->bus != NULL && i < status->stream_count; i++) {
        const char *stream = status->streams[i].stream;
        if (event_bus_stream_info(doctor->bus, stream, &info, NULL) != WB_OK ||
            info.last_seq >= status->streams[i].last_seq)
            continue;
        (void)snprintf(detail, sizeof(detail),
                       "stream %s ends at %" PRIu64 ", but %" PRIu64
                       " was published: the server has lost messages",
                       stream, info.last_seq, status->streams[i].last_seq);
        report(doctor, DOCTOR_WARN, what, detail,
               "start the service, or `waybill outbox run`: it publishes the lost rows again");
    }
}

static void check_outbox(struct doctor *doctor, const char *what, const char *path,
                         const struct outbox_status *status)
{
    char detail[400];
    char fix[600];

    (void)snprintf(detail, sizeof(detail),
                   "WAL, quick_check ok; outbox: %" PRIu64 " rows, %" PRIu64 " pending, %" PRIu64
                   " retry, %" PRIu64 " parked",
                   status->rows, status->pending, status->retry, status->parked);
    (void)snprintf(fix, sizeof(fix), "waybill outbox ls --db %s --state %s", path,
                   status->parked > 0 ? "parked" : "retry");
    bool well = status->parked + status->retry == 0;
    report(doctor, well ? DOCTOR_OK : DOCTOR_WARN, what, detail, well ? NULL : fix);
    check_cursors(doctor, what, status);
}

static void check_database(struct doctor *doctor, const char *name, const char *path)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    struct wb_why *why = &doctor->cli->why;
    struct outbox_status status;
    struct db *db = NULL;
    char what[32];

    (void)snprintf(what, sizeof(what), "%.31s", name);
    wb_err err = db_open(path, &options, &db, why);
    if (err == WB_OK)
        err = check_integrity(db, why);
    if (err != WB_OK) {
        report(doctor, DOCTOR_FAIL, what, why->text,
               err == WB_CORRUPT ? "stop the service, keep a copy of the file with its -wal, and "
                                   "restore a backup (or try sqlite3's .recover on the copy)"
                                 : NULL);
        db_close(db);
        return;
    }
    err = outbox_status(db_handle(db), &status, why);
    if (err == WB_OK)
        check_outbox(doctor, what, path, &status);
    else if (err == WB_NOT_FOUND)
        report(doctor, DOCTOR_OK, what, "WAL, quick_check ok; no outbox", NULL);
    else
        report(doctor, DOCTOR_FAIL, what, why->text, NULL);
    db_close(db);
}

static bool is_database(const char *name)
{
    size_t len = strlen(name);

    return len > 3 && name[0] != '.' && strcmp(name + len - 3, ".db") == 0;
}

static void check_databases(struct doctor *doctor, const char *dir)
{
    DIR *entries = opendir(dir);
    const struct dirent *entry;
    char path[512];

    if (entries == NULL)
        return;
    while ((entry = readdir(entries)) != NULL) {
        int len = snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        if (is_database(entry->d_name) && len > 0 && (size_t)len < sizeof(path))
            check_database(doctor, entry->d_name, path);
    }
    (void)closedir(entries);
}

/* ---- disk ------------------------------------------------------------------------------------ */

static void check_space(struct doctor *doctor, const char *dir)
{
    struct statvfs fs;
    char detail[128];

    if (statvfs(dir, &fs) != 0)
        return; /* the directory itself was reported before */
    uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
    (void)snprintf(detail, sizeof(detail), "%" PRIu64 " MiB left", left >> 20);
    if (left < DISK_FAIL_BYTES)
        report(doctor, DOCTOR_FAIL, "disk", detail,
               "make room: an outbox that cannot write "
               "refuses the changes it belongs to");
    else
        report(doctor, left < DISK_WARN_BYTES ? DOCTOR_WARN : DOCTOR_OK, "disk", detail, NULL);
}

static void check_data(struct doctor *doctor)
{
    const char *dir = config_str(doctor->cli->config, "data");
    struct stat st = {.st_mode = 0};
    char detail[400];

    if (stat(dir, &st) != 0 && errno == ENOENT) {
        (void)snprintf(detail, sizeof(detail), "%.300s is not there yet; the service makes it",
                       dir);
        report(doctor, DOCTOR_OK, "data", detail, NULL);
        return;
    }
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode) || access(dir, R_OK | W_OK | X_OK) != 0) {
        (void)snprintf(detail, sizeof(detail), "%.300s: %s", dir,
                       S_ISDIR(st.st_mode) ? "this user may not write there" : "no directory");
        report(doctor, DOCTOR_FAIL, "data", detail,
               "name a directory this user may write to, with --data DIR or data = \"DIR\"");
        return;
    }
    (void)snprintf(detail, sizeof(detail), "%.300s is writable", dir);
    report(doctor, DOCTOR_OK, "data", detail, NULL);
    check_space(doctor, dir);
    check_databases(doctor, dir);
}

/* ---- the command ----------------------------------------------------------------------------- */

static void print_end(struct doctor *doctor)
{
    struct cli *cli = doctor->cli;
    unsigned problems = doctor->counts[DOCTOR_WARN] + doctor->counts[DOCTOR_FAIL];

    if (cli->json) {
        wb_buf_printf(&cli->out, "{\"ok\":%s,\"checks\":[",
                      doctor->counts[DOCTOR_FAIL] == 0 ? "true" : "false");
        wb_buf_add(&cli->out, doctor->items.ptr, doctor->items.len);
        wb_buf_str(&cli->out, "]}\n");
    } else {
        wb_buf_printf(&cli->out, "%u problem%s (%u failure%s)\n", problems,
                      problems == 1 ? "" : "s", doctor->counts[DOCTOR_FAIL],
                      doctor->counts[DOCTOR_FAIL] == 1 ? "" : "s");
    }
}

wb_err service_cli_doctor(struct cli *cli)
{
    struct doctor doctor = {.cli = cli};

    if (check_config(&doctor)) {
        check_bus(&doctor);
        check_streams(&doctor);
        check_service(&doctor);
        check_data(&doctor);
    }
    event_bus_destroy(doctor.bus);
    print_end(&doctor);
    wb_buf_free(&doctor.items);
    cli->exit_code = doctor.counts[DOCTOR_FAIL] > 0 ? 1 : 0;
    return WB_OK;
}
