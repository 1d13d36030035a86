/* fault_processes.c - see fault_processes.h. */
#include "fault_processes.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <waybill/event_bus_nats.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox_publisher.h>
#include <waybill/outbox_retention.h>

#define SETTLE_NS (60 * WB_SEC) /* for everything to be handled once the killing is over */
#define WINDOW_NS                                                                                  \
    (200 * WB_MS) /* shorter than many an outage here: ids are forgotten meanwhile                 \
                   */

static const char *const role_names[FAULT_ROLES] = {"writer", "publisher", "publisher", "consumer",
                                                    "retention"};

/* ---- a role, in its own process -------------------------------------------------------------- */

static struct event_bus *connect_bus(const char *url, bool wait)
{
    const struct event_bus_nats_options options = {.url = url};
    struct event_bus *bus;
    struct wb_why why = {""};

    fault_must(event_bus_nats_create(&options, wait, &bus, &why) == WB_OK, "%s", why.text);
    return bus;
}

/* Is it time to end? Asked for at most so long. */
static bool term_within(int64_t ns)
{
    const struct timespec time = {ns / WB_SEC, ns % WB_SEC};
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    return sigtimedwait(&signals, NULL, &time) == SIGTERM;
}

static void wait_for_term(void)
{
    while (!term_within(3600 * WB_SEC))
        continue;
}

static void write_until_term(const struct fault_paths *paths, uint64_t seed)
{
    const char *sync = getenv("FAULT_SYNC");
    const struct fault_writer_options options = {
        .sync = sync != NULL && strcmp(sync, "full") == 0 ? DB_SYNC_FULL : DB_SYNC_NORMAL,
        .seed = seed};
    struct fault_writer *writer = NULL;
    struct wb_why reason = {""};

    fault_must(fault_writer_try(paths, &options, &writer, &reason) == WB_OK, "%s", reason.text);
    while (!term_within(WB_MS)) {
        struct wb_why why = {""};
        wb_err err = fault_writer_transact(writer, false, &why);
        fault_must(err == WB_OK || err == WB_BUSY || err == WB_UNKNOWN, "writer: %s", why.text);
    }
    fault_writer_close(writer);
}

static void purge_until_term(const struct fault_paths *paths)
{
    struct outbox_retention_result result = {.next_ns = 0};
    struct outbox_retention *retention = NULL;

    while (!term_within(retention == NULL || result.next_ns > 50 * WB_MS ? 50 * WB_MS
                                                                         : result.next_ns)) {
        struct wb_why why = {""};
        wb_err err = retention == NULL ? fault_retention_try(paths, NULL, &retention, &why) : WB_OK;
        if (err == WB_OK)
            err = outbox_retention_step(retention, &result, &why);
        fault_must(err == WB_OK || err == WB_BUSY || err == WB_UNKNOWN || err == WB_NOT_FOUND,
                   "retention: %s", why.text);
    }
    outbox_retention_close(retention);
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
    if (strcmp(role, role_names[FAULT_WRITER]) == 0) {
        write_until_term(&paths, seed);
        return 0;
    }
    if (strcmp(role, role_names[FAULT_RETENTION]) == 0) {
        purge_until_term(&paths);
        return 0;
    }
    struct event_bus *bus = connect_bus(url, false);
    if (strcmp(role, role_names[FAULT_PUBLISHER]) == 0) {
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

/* ---- the roles, seen from outside ------------------------------------------------------------ */

void fault_process_start(struct fault_processes *self, enum fault_role role, const char *crash)
{
    char seed[24];
    sigset_t term, before;

    if (role == FAULT_RETENTION && self->keeps_all)
        return;
    (void)snprintf(seed, sizeof(seed), "%llu", (unsigned long long)wb_rng_next(&self->rng));
    /* It may be asked to stop before it is so far as to listen. */
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &term, &before);
    self->pids[role] = fork();
    if (self->pids[role] != 0)
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
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

static int reap(struct fault_processes *self, enum fault_role role)
{
    int status = 0;

    fault_must(waitpid(self->pids[role], &status, 0) == self->pids[role], "wait for %s",
               role_names[role]);
    self->pids[role] = 0;
    return status;
}

void fault_process_kill(struct fault_processes *self, enum fault_role role)
{
    if (self->pids[role] == 0)
        return;
    (void)kill(self->pids[role], SIGKILL);
    int status = reap(self, role);
    fault_must(WIFSIGNALED(status), "%s ended by itself with status %d", role_names[role],
               WEXITSTATUS(status));
    self->report.kills++;
}

void fault_process_pause(struct fault_processes *self, enum fault_role role)
{
    int status = 0;

    (void)kill(self->pids[role], SIGSTOP);
    fault_must(waitpid(self->pids[role], &status, WUNTRACED) == self->pids[role] &&
                   WIFSTOPPED(status),
               "%s ended by itself with status %d", role_names[role], status);
    self->report.pauses++;
}

void fault_process_resume(struct fault_processes *self, enum fault_role role)
{
    (void)kill(self->pids[role], SIGCONT);
}

/* ---- begin and end --------------------------------------------------------------------------- */

bool fault_processes_declare(struct fault_processes *self)
{
    struct event_bus *bus = connect_bus(self->server.url, true);
    struct event_bus_stream_info info;
    bool gone = event_bus_stream_info(bus, FAULT_STREAM, &info, NULL) == WB_NO_STREAM;

    if (gone)
        fault_declare_window(bus, WINDOW_NS);
    event_bus_destroy(bus);
    return gone;
}

void fault_processes_begin(struct fault_processes *self, const char *program, uint64_t seed,
                           const struct fault_processes_options *options)
{
    const struct test_nats_options server = {.dir = options->server_dir};
    char dir[256];

    *self = (struct fault_processes){.self = program, .keeps_all = options->keeps_all};
    self->report.started_ns = fault_now_ns();
    wb_rng_seed(&self->rng, seed);
    if (options->dir == NULL)
        test_dir_make(dir);
    fault_paths_make(&self->paths, options->dir != NULL ? options->dir : dir);
    test_nats_start(&self->server, &server);
    (void)fault_processes_declare(self);
    for (enum fault_role role = FAULT_WRITER; role < FAULT_ROLES; role++)
        fault_process_start(self, role, NULL);
}

static void end_in_order(struct fault_processes *self, enum fault_role role)
{
    if (self->pids[role] == 0)
        return;
    (void)kill(self->pids[role], SIGTERM);
    int status = reap(self, role);
    fault_must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s did not stop cleanly: %d",
               role_names[role], status);
}

void fault_processes_end(struct fault_processes *self)
{
    int64_t until = fault_now_ns() + SETTLE_NS;

    end_in_order(self, FAULT_WRITER);
    while (fault_behind(&self->paths) != 0 && fault_now_ns() < until)
        fault_rest(10 * WB_MS);
    for (enum fault_role role = FAULT_PUBLISHER; role < FAULT_ROLES; role++)
        end_in_order(self, role);
    struct event_bus *bus = connect_bus(self->server.url, true);
    fault_conclude(&self->paths, bus, &self->report);
    event_bus_destroy(bus);
    if (self->report.broken == 0) {
        test_nats_stop(&self->server);
        test_dir_remove(self->paths.dir);
    } else {
        (void)printf("the files are left in %s and %s\n", self->paths.dir, self->server.dir);
        test_nats_term(&self->server);
    }
}
