/* demo.c - the acts of the story, and the table at its end. */
#include "demo.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#define USERS         30
#define INVOICES_EACH 2
#define OUTAGE_NS     (3 * WB_SEC)
#define PATIENCE_NS   (20 * WB_SEC) /* for any one step */

extern const char demo_deliveries[];
extern const char demo_deliveries_end[];

struct demo {
    struct demo_stage *stage;
    const char *next; /* the next recorded delivery */
    int posted;       /* deliveries answered with 202 */
    int users, invoices;
    int repeats; /* posts that had to be sent again */
    int64_t started_ns;
};

static void tell(const struct demo *demo, const char *format, ...) WB_PRINTF(2, 3);
static void tell(const struct demo *demo, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    (void)fprintf(stderr, "%5.1f s  %s\n",
                  (double)(wb_mono_ns(wb_clock_system()) - demo->started_ns) / 1e9, text);
}

static void rest(int64_t ns)
{
    struct timespec time = {ns / WB_SEC, ns % WB_SEC};
    (void)nanosleep(&time, NULL);
}

/* ---- what goes in ---------------------------------------------------------------------------- */

/* Post until the answer is final; a service that is being restarted gets it again. */
static wb_err post(struct demo *demo, const char *path, const char *headers, struct wb_str body,
                   int wanted, int also, struct wb_why *why)
{
    int64_t until = wb_mono_ns(wb_clock_system()) + PATIENCE_NS;
    int status = 0;

    while (wb_mono_ns(wb_clock_system()) < until) {
        wb_err err = demo_post(demo->stage->http_port, path, headers, body, &status);
        if (err == WB_OK && (status == wanted || status == also))
            return WB_OK;
        if (err == WB_OK && status != 503 && status != 404)
            return wb_fail(why, WB_INTERNAL, "POST %s was answered with %d", path, status);
        demo->repeats++;
        rest(20 * WB_MS);
    }
    return wb_fail(why, WB_TIMEOUT, "POST %s: no good answer within 20 s (last: %d)", path, status);
}

/* {"event":"NAME","payload":{...}} -> the name and the payload, byte for byte. */
static bool next_delivery(struct demo *demo, struct wb_str *ret_event, struct wb_str *ret_payload)
{
    static const char head[] = "{\"event\":\"";
    static const char middle[] = "\",\"payload\":";
    const char *line = demo->next;

    if (line >= demo_deliveries_end)
        return false;
    const char *end = memchr(line, '\n', (size_t)(demo_deliveries_end - line));
    const char *name = line + sizeof(head) - 1;
    if (end == NULL || strncmp(line, head, sizeof(head) - 1) != 0)
        return false;
    const char *quote = strstr(name, middle);
    if (quote == NULL || quote > end)
        return false;
    const char *payload = quote + sizeof(middle) - 1;
    *ret_event = wb_str_n(name, (size_t)(quote - name));
    *ret_payload = wb_str_n(payload, (size_t)(end - payload) - 1); /* without the last brace */
    demo->next = end + 1;
    return true;
}

static wb_err post_delivery(struct demo *demo, struct wb_str event, struct wb_str payload,
                            struct wb_why *why)
{
    const char *secret = config_str(demo->stage->config, "webhooks.secret");
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned int mac_len = 0;
    char mac_text[2 * EVP_MAX_MD_SIZE + 1];
    char headers[400];

    if (HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)payload.ptr,
             payload.len, mac, &mac_len) == NULL)
        return wb_fail(why, WB_INTERNAL, "sign a delivery");
    wb_hex_encode(mac, mac_len, mac_text);
    (void)snprintf(headers, sizeof(headers),
                   "X-GitHub-Event: %.*s\r\nX-GitHub-Delivery: demo-%05d\r\n"
                   "X-Hub-Signature-256: sha256=%s\r\n",
                   (int)event.len, event.ptr, demo->posted, mac_text);
    wb_err err = post(demo, "/webhooks/github", headers, payload, 202, 200, why);
    if (err == WB_OK)
        demo->posted++;
    return err;
}

static wb_err post_deliveries(struct demo *demo, int count, struct wb_why *why)
{
    struct wb_str event;
    struct wb_str payload;
    wb_err err = WB_OK;

    for (int i = 0; err == WB_OK && i < count && next_delivery(demo, &event, &payload); i++)
        err = post_delivery(demo, event, payload, why);
    return err;
}

static wb_err make_users(struct demo *demo, int count, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (int i = 0; err == WB_OK && i < count; i++) {
        char body[128];
        (void)snprintf(body, sizeof(body),
                       "{\"email\":\"user%d@example.org\",\"name\":\"User %d\"}", demo->users,
                       demo->users);
        /* 409: an answer was lost on the way, the user was made. */
        err = post(demo, "/auth/users", "", wb_str(body), 201, 409, why);
        demo->users++;
    }
    return err;
}

/*
 * The ids are the service's: read from its database. A new account takes a moment: 404 until then.
 */
static wb_err issue_invoices(struct demo *demo, struct wb_why *why)
{
    char ids[USERS][64];
    int count = demo_user_ids(demo->stage, ids, USERS);
    wb_err err =
        count == USERS ? WB_OK : wb_fail(why, WB_INTERNAL, "%d of %d users exist", count, USERS);

    for (int i = 0; err == WB_OK && i < count * INVOICES_EACH; i++) {
        char body[160];
        (void)snprintf(body, sizeof(body),
                       "{\"user_id\":\"%s\",\"amount_cents\":%d,\"currency\":\"EUR\"}",
                       ids[i % count], 100 + i);
        err = post(demo, "/ar/invoices", "", wb_str(body), 201, 201, why);
        demo->invoices++;
    }
    return err;
}

/* ---- the acts -------------------------------------------------------------------------------- */

static wb_err act_flow(struct demo *demo, struct wb_why *why)
{
    wb_err err = post_deliveries(demo, 70, why);

    if (err == WB_OK)
        err = make_users(demo, USERS / 2, why);
    if (err == WB_OK)
        tell(demo, "%d GitHub deliveries and %d users went in over HTTP", demo->posted,
             demo->users);
    return err;
}

static wb_err act_outage(struct demo *demo, struct wb_why *why)
{
    int64_t until = wb_mono_ns(wb_clock_system()) + OUTAGE_NS;
    wb_err err = demo->stage->bus_down(demo->stage, why);

    if (err == WB_OK)
        tell(demo, "the bus is stopped; the service goes on taking work");
    if (err == WB_OK)
        err = post_deliveries(demo, 70, why);
    if (err == WB_OK)
        err = make_users(demo, USERS / 2, why);
    while (wb_mono_ns(wb_clock_system()) < until)
        rest(10 * WB_MS);
    if (err == WB_OK)
        tell(demo, "%lld events wait in the outboxes; the bus comes back",
             (long long)demo_pending(demo->stage));
    return err == WB_OK ? demo->stage->bus_up(demo->stage, why) : err;
}

static wb_err act_kill(struct demo *demo, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (int i = 0; err == WB_OK && i < 3; i++) {
        err = post_deliveries(demo, 27, why);
        if (err == WB_OK)
            err = demo->stage->kill_publisher(demo->stage, why);
        if (err == WB_OK)
            tell(demo, "in the middle: %s, and start it again", demo->stage->kill_text);
    }
    return err;
}

static wb_err act_finish(struct demo *demo, struct wb_why *why)
{
    int64_t until;
    wb_err err = post_deliveries(demo, 1000, why);

    if (err == WB_OK)
        err = issue_invoices(demo, why);
    until = wb_mono_ns(wb_clock_system()) + PATIENCE_NS;
    while (err == WB_OK && !demo_settled(demo->stage) && wb_mono_ns(wb_clock_system()) < until)
        rest(20 * WB_MS);
    if (err == WB_OK)
        tell(demo, "%d deliveries, %d users, %d invoices; %d requests were sent again",
             demo->posted, demo->users, demo->invoices, demo->repeats);
    return err;
}

static wb_err play(struct demo *demo, struct wb_why *why)
{
    static wb_err (*const acts[])(struct demo *, struct wb_why *) = {act_flow, act_outage, act_kill,
                                                                     act_finish};
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < sizeof(acts) / sizeof(acts[0]); i++)
        err = acts[i](demo, why);
    return err;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void print_count(int64_t count)
{
    if (count < 0)
        (void)printf(" %9s", "-");
    else
        (void)printf(" %9lld", (long long)count);
}

static void print_table(const struct demo_row rows[DEMO_ROWS])
{
    (void)printf("\n%-9s %9s %9s %9s %9s %9s %9s %9s %9s %12s\n", "module", "committed",
                 "published", "stored", "audit", "notify", "ar", "lost", "doubled", "out of order");
    for (int i = 0; i < DEMO_ROWS; i++) {
        const struct demo_row *row = &rows[i];
        const int64_t counts[] = {row->committed, row->published, row->stored, row->audited,
                                  row->notified,  row->accounts,  row->lost,   row->doubled};
        (void)printf("%-9s", row->module);
        for (size_t j = 0; j < sizeof(counts) / sizeof(counts[0]); j++)
            print_count(counts[j]);
        (void)printf(" %12lld\n", (long long)row->out_of_order);
    }
}

static void print_json(const char *bus, const struct demo_row rows[DEMO_ROWS], bool good)
{
    (void)printf("{\"bus\":\"%s\",\"good\":%s,\"modules\":[", bus, good ? "true" : "false");
    for (int i = 0; i < DEMO_ROWS; i++)
        (void)printf(
            "%s{\"module\":\"%s\",\"stream\":\"%s\",\"committed\":%lld,\"published\":%lld,"
            "\"stored\":%lld,\"audit\":%lld,\"notify\":%lld,\"ar\":%lld,\"lost\":%lld,"
            "\"doubled\":%lld,\"out_of_order\":%lld}",
            i == 0 ? "" : ",", rows[i].module, rows[i].stream, (long long)rows[i].committed,
            (long long)rows[i].published, (long long)rows[i].stored, (long long)rows[i].audited,
            (long long)rows[i].notified, (long long)rows[i].accounts, (long long)rows[i].lost,
            (long long)rows[i].doubled, (long long)rows[i].out_of_order);
    (void)printf("]}\n");
}

/* A count of -1 says that it could not be taken: that is no pass. */
static bool all_good(const struct demo_row rows[DEMO_ROWS])
{
    for (int i = 0; i < DEMO_ROWS; i++)
        if (rows[i].committed <= 0 || rows[i].lost != 0 || rows[i].doubled != 0 ||
            rows[i].out_of_order != 0)
            return false;
    return true;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int run_demo(const char *bus, bool json)
{
    struct demo demo = {.next = demo_deliveries, .started_ns = wb_mono_ns(wb_clock_system())};
    struct demo_row rows[DEMO_ROWS] = {{0}};
    struct wb_why why = {""};
    wb_err err = strcmp(bus, "nats") == 0 ? demo_stage_nats_create(&demo.stage, &why)
                                          : demo_stage_memory_create(&demo.stage, &why);

    if (err == WB_OK) {
        tell(&demo, "the service runs on the %s bus, HTTP on port %u", bus, demo.stage->http_port);
        err = play(&demo, &why);
        if (err == WB_OK)
            err = demo_check(demo.stage, rows, &why);
        demo.stage->destroy(demo.stage);
    }
    if (err != WB_OK) {
        (void)fprintf(stderr, "waybill demo: %s\n", why.text[0] ? why.text : wb_err_text(err));
        return err == WB_NOT_FOUND ? 3 : 1;
    }
    bool good = all_good(rows);
    if (json)
        print_json(bus, rows, good);
    else
        print_table(rows);
    return good ? 0 : 1;
}

static const char *default_bus(void)
{
    bool found = access("/usr/sbin/nats-server", X_OK) == 0 ||
                 access("/usr/bin/nats-server", X_OK) == 0 ||
                 access("/usr/local/bin/nats-server", X_OK) == 0;
    if (!found)
        (void)fprintf(stderr, "no nats-server found, using the in-memory bus\n");
    return found ? "nats" : "memory";
}

static int demo_main(int argc, char **argv)
{
    static const struct option options[] = {{"bus", required_argument, NULL, 'b'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"no-input", no_argument, NULL, 'n'},
                                            {NULL, 0, NULL, 0}};
    const char *bus = NULL;
    bool json = false;
    int option;

    optind = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'b')
            bus = optarg;
        else if (option == 'j')
            json = true;
        else if (option != 'n')
            return 2;
    }
    if (optind < argc || (bus != NULL && strcmp(bus, "memory") != 0 && strcmp(bus, "nats") != 0)) {
        (void)fprintf(stderr, "usage: waybill demo [--bus memory|nats] [--json]\n");
        return 2;
    }
    return run_demo(bus != NULL ? bus : default_bus(), json);
}

const struct service_command demo_command = {
    .name = "demo",
    .usage = "[--bus memory|nats] [--json]",
    .help = "The whole story in a quarter of a minute, with an outage and kills; counts what was "
            "lost, doubled or out of order",
    .run = demo_main,
};
