/*
 * fault_nats.c - processes of their own around a real nats-server; each is killed again and again.
 */
#include "fault.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <waybill/event_bus_nats.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox_publisher.h>

#include "test_support.h"

#define SETTLE_NS (60 * WB_SEC) /* for everything to be handled once the killing is over */

enum role { WRITER, PUBLISHER, CONSUMER, ROLE_COUNT };
static const char *const role_names[ROLE_COUNT] = {"writer", "publisher", "consumer"};

/* ---- a role, in its own process -------------------------------------------------------------- */

static struct event_bus *connect_bus(const char *url, bool wait)
{
    const struct event_bus_nats_options options = {.url = url};
    struct event_bus *bus;
    struct wb_why why = {""};

    fault_must(event_bus_nats_create(&options, wait, &bus, &why) == WB_OK, "%s", why.text);
    return bus;
}

static void rest(int64_t ns)
{
    struct timespec time = {ns / WB_SEC, ns % WB_SEC};
    (void)nanosleep(&time, NULL);
}

static void wait_for_term(void)
{
    sigset_t signals;
    int signal;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    (void)sigwait(&signals, &signal);
}

static void write_until_term(const struct fault_paths *paths, uint64_t seed)
{
    struct fault_writer *writer = fault_writer_open(paths, seed);
    const struct timespec pace = {0, WB_MS};
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    while (sigtimedwait(&signals, NULL, &pace) != SIGTERM) {
        struct wb_why why = {""};
        wb_err err = fault_writer_transact(writer, false, &why);
        fault_must(err == WB_OK || err == WB_BUSY || err == WB_UNKNOWN, "writer: %s", why.text);
    }
    fault_writer_close(writer);
}

int fault_role(const char *role, const char *dir, const char *url, uint64_t seed)
{
    struct fault_paths paths;
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread starts */
    wb_log_setup(STDERR_FILENO, WB_LOG_LOGFMT, WB_LOG_ERROR);
    fault_paths_make(&paths, dir);
    if (strcmp(role, role_names[WRITER]) == 0) {
        write_until_term(&paths, seed);
        return 0;
    }
    struct event_bus *bus = connect_bus(url, false);
    if (strcmp(role, role_names[PUBLISHER]) == 0) {
        struct outbox_publisher *publisher = fault_publisher_start(&paths, bus, NULL);
        wait_for_term();
        outbox_publisher_stop(publisher);
    } else {
        struct event_consumer *consumer = fault_consumer_start(&paths, bus, NULL);
        wait_for_term();
        event_consumer_stop(consumer);
    }
    event_bus_destroy(bus);
    return 0;
}

/* ---- the supervisor -------------------------------------------------------------------------- */

struct campaign {
    const char *self;
    struct fault_paths paths;
    struct test_nats server;
    struct wb_rng rng;
    pid_t pids[ROLE_COUNT];
    struct fault_report report;
};

/* crash: NULL, or what WAYBILL_CRASH is set to. */
static void start(struct campaign *self, enum role role, const char *crash)
{
    char seed[24];

    (void)snprintf(seed, sizeof(seed), "%llu", (unsigned long long)wb_rng_next(&self->rng));
    self->pids[role] = fork();
    fault_must(self->pids[role] >= 0, "fork: %s", strerror(errno));
    if (self->pids[role] != 0)
        return;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (crash != NULL)
        (void)setenv("WAYBILL_CRASH", crash, 1);
    execl(self->self, self->self, "--role", role_names[role], self->paths.dir, self->server.url,
          seed, (char *)NULL);
    _exit(126);
}

/* How it ended; a role that ends by itself with an error ends the campaign. */
static int reap(struct campaign *self, enum role role)
{
    int status = 0;

    fault_must(waitpid(self->pids[role], &status, 0) == self->pids[role], "wait for %s",
               role_names[role]);
    self->pids[role] = 0;
    return status;
}

static void kill_role(struct campaign *self, enum role role)
{
    (void)kill(self->pids[role], SIGKILL);
    int status = reap(self, role);
    fault_must(WIFSIGNALED(status), "%s ended by itself with status %d", role_names[role],
               WEXITSTATUS(status));
    self->report.kills++;
}

static void kill_server(struct campaign *self)
{
    test_nats_kill(&self->server);
    rest((int64_t)wb_rng_below(&self->rng, 200) * WB_MS);
    test_nats_restart(&self->server);
    self->report.server_kills++;
}

static void kill_at_random(struct campaign *self, unsigned kills)
{
    while (self->report.kills < kills) {
        enum role role = (enum role)wb_rng_below(&self->rng, ROLE_COUNT);
        rest((int64_t)(5 + wb_rng_below(&self->rng, 120)) * WB_MS);
        kill_role(self, role);
        if (wb_rng_below(&self->rng, 25) == 0)
            kill_server(self);
        start(self, role, NULL);
    }
}

/* The role whose code has the point: "event_consumer.claimed" is the consumer's. */
static enum role role_of(const char *point)
{
    return strncmp(point, "event_consumer.", 15) == 0 ? CONSUMER : PUBLISHER;
}

static void crash_at(struct campaign *self, const char *point, unsigned passage)
{
    enum role role = role_of(point);
    int64_t until = wb_mono_ns(wb_clock_system()) + 20 * WB_SEC;
    char crash[100];
    int status = 0;

    kill_role(self, role);
    (void)snprintf(crash, sizeof(crash), "%s:%u", point, passage);
    start(self, role, crash);
    while (waitpid(self->pids[role], &status, WNOHANG) == 0) {
        fault_must(wb_mono_ns(wb_clock_system()) < until, "crash point %s was not reached", crash);
        rest(5 * WB_MS);
    }
    fault_must(WIFEXITED(status) && WEXITSTATUS(status) == 137, "crash point %s: status %d", crash,
               status);
    self->report.points++;
    start(self, role, NULL);
}

static void crash_everywhere(struct campaign *self)
{
    for (size_t i = 0; i < fault_point_count; i++) {
        crash_at(self, fault_points[i], 1);
        crash_at(self, fault_points[i], 4);
    }
}

static void settle(struct campaign *self)
{
    int64_t until = wb_mono_ns(wb_clock_system()) + SETTLE_NS;

    (void)kill(self->pids[WRITER], SIGTERM);
    int status = reap(self, WRITER);
    fault_must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the writer ended with %d", status);
    while (fault_behind(&self->paths) != 0 && wb_mono_ns(wb_clock_system()) < until)
        rest(10 * WB_MS);
    for (enum role role = PUBLISHER; role < ROLE_COUNT; role++) {
        (void)kill(self->pids[role], SIGTERM);
        status = reap(self, role);
        fault_must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s did not stop cleanly: %d",
                   role_names[role], status);
    }
}

static void check(struct campaign *self)
{
    struct event_bus *bus = connect_bus(self->server.url, true);

    fault_conclude(&self->paths, bus, &self->report);
    event_bus_destroy(bus);
}

struct fault_report fault_nats(const char *self_path, uint64_t seed, unsigned kills)
{
    struct campaign self = {.self = self_path};
    int64_t started = wb_mono_ns(wb_clock_system());
    char dir[256];

    wb_rng_seed(&self.rng, seed);
    test_dir_make(dir);
    fault_paths_make(&self.paths, dir);
    test_nats_start(&self.server, NULL);
    struct event_bus *bus = connect_bus(self.server.url, true);
    fault_declare(bus);
    event_bus_destroy(bus);
    for (enum role role = WRITER; role < ROLE_COUNT; role++)
        start(&self, role, NULL);
    kill_at_random(&self, kills);
    crash_everywhere(&self);
    settle(&self);
    check(&self);
    if (self.report.broken == 0) {
        test_nats_stop(&self.server);
        test_dir_remove(dir);
    } else {
        (void)printf("the files are left in %s and %s\n", dir, self.server.dir);
        test_nats_term(&self.server);
    }
    self.report.seconds = (uint64_t)((wb_mono_ns(wb_clock_system()) - started) / WB_SEC);
    return self.report;
}
