/* fault_main.c - `./dev fault [--long] [--only PART] [--count N] [--seed N]`. */
#include "fault.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault_broker.h"
#include "fault_full.h"
#include "fault_io.h"
#include "fault_mounts.h"
#include "fault_network.h"
#include "fault_power.h"

const struct fault_point fault_points[] = {
    {"outbox_publisher.read", 4},        {"outbox_publisher.claimed", 4},
    {"outbox_publisher.synced", 4},      {"outbox_publisher.sent", 4},
    {"outbox_publisher.acked", 4},       {"outbox_publisher.settled", 0},
    {"outbox_publisher.before_mark", 4}, {"outbox_publisher.marked", 4},
    {"outbox_publisher.audited", 4},     {"event_consumer.claimed", 4},
    {"event_consumer.handled", 4},       {"event_consumer.committed", 4},
    {"outbox_retention.archived", 4},    {"outbox_retention.deleted", 4},
    {"outbox_retention.purged", 4},
};
const size_t fault_point_count = sizeof(fault_points) / sizeof(fault_points[0]);

static size_t report(const char *part, uint64_t seed, const struct fault_report *report)
{
    (void)printf(
        "%s, seed %llu: %llu kills, %llu crash points, %llu kills of the server, %llu "
        "pauses, %llu fenced; %llu transactions, %llu events (%llu archived, %llu ended unsent) "
        "in %llu s: %s\n",
        part, (unsigned long long)seed, (unsigned long long)report->kills,
        (unsigned long long)report->points, (unsigned long long)report->server_kills,
        (unsigned long long)report->pauses, (unsigned long long)report->fences,
        (unsigned long long)report->transactions, (unsigned long long)report->events,
        (unsigned long long)report->archived, (unsigned long long)report->ended,
        (unsigned long long)((fault_now_ns() - report->started_ns) / WB_SEC),
        report->broken == 0 ? "0 lost, 0 doubled, 0 out of order, 0 phantoms"
                            : "INVARIANTS BROKEN, see above");
    (void)fflush(stdout);
    return report->broken;
}

static size_t run_memory(uint64_t seed, uint64_t count)
{
    struct fault_report done = fault_memory(seed, (unsigned)count);

    return report("memory", seed, &done);
}

static size_t run_kill(uint64_t seed, uint64_t count)
{
    struct fault_report done = fault_kill("/proc/self/exe", seed, count);

    return report("kill", seed, &done);
}

static size_t run_fence(uint64_t seed, uint64_t count)
{
    struct fault_report done = fault_fence("/proc/self/exe", seed, count);

    return report("fence", seed, &done);
}

/* What there is to do to the system, and how much of it: by commit, and by hand. */
static const struct part {
    const char *name;
    const char *counts;
    uint64_t count, long_count;
    size_t (*run)(uint64_t seed, uint64_t count);
    bool (*possible)(const char **ret_why); /* NULL: everywhere */
} parts[] = {
    {"power", "power cuts under SQLite", 300, 10000, fault_power, NULL},
    {"io", "runs with an operation on SQLite's files that fails", 250, UINT64_MAX, fault_io, NULL},
    {"alloc", "runs with an allocation that fails", 250, UINT64_MAX, fault_alloc, NULL},
    {"memory", "crashes at named points in one process", 200, 10000, run_memory, NULL},
    {"network", "troubles between product and nats-server", 9, 2000, fault_network, NULL},
    {"full", "disks of databases and broker that get full", 4, 200, fault_full, fault_can_fill},
    {"disk", "power cuts of disks of databases and broker", 4, 500, fault_disk, fault_can_cut},
    {"broker", "exchanges of a nats-server's store", 5, 1000, fault_broker, NULL},
    {"fence", "publishers stopped, put out and set going again", 20, 1000, run_fence, NULL},
    {"kill", "SIGKILLs of processes around a nats-server", 200, 10000, run_kill, NULL},
};

#define PART_COUNT (sizeof(parts) / sizeof(parts[0]))

static int usage(void)
{
    (void)fprintf(stderr, "usage: fault [--long] [--only PART] [--count N] [--seed N]\n");
    for (size_t i = 0; i < PART_COUNT; i++)
        if (parts[i].long_count == UINT64_MAX)
            (void)fprintf(stderr, "  %-8s %s (%llu; with --long each one)\n", parts[i].name,
                          parts[i].counts, (unsigned long long)parts[i].count);
        else
            (void)fprintf(stderr, "  %-8s %s (%llu; with --long %llu)\n", parts[i].name,
                          parts[i].counts, (unsigned long long)parts[i].count,
                          (unsigned long long)parts[i].long_count);
    return 2;
}

struct wanted {
    const char *only;     /* NULL: all */
    uint64_t seed, count; /* count 0: the part's own */
    bool at_length, role;
};

static bool parse(int argc, char **argv, struct wanted *ret_wanted)
{
    static const struct option options[] = {
        {"long", no_argument, NULL, 'l'},        {"only", required_argument, NULL, 'o'},
        {"count", required_argument, NULL, 'c'}, {"seed", required_argument, NULL, 's'},
        {"role", no_argument, NULL, 'r'},        {NULL, 0, NULL, 0}};
    int option;

    while (!ret_wanted->role && (option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == 'l')
            ret_wanted->at_length = true;
        else if (option == 'o')
            ret_wanted->only = optarg;
        else if (option == 'r')
            ret_wanted->role = true;
        else if (option == '?' || !wb_str_to_u64(wb_str(optarg), option == 'c' ? &ret_wanted->count
                                                                               : &ret_wanted->seed))
            return false;
    return ret_wanted->role ? argc - optind == 4 : optind == argc;
}

/*
 * What this machine does not let us inject was not tested. A person who asked for it, or for
 * everything at length, is told by the exit code; the short form only says so.
 */
static int run_part(const struct part *part, const struct wanted *wanted)
{
    uint64_t count = wanted->at_length ? part->long_count : part->count;
    const char *why = "";

    if (part->possible != NULL && !part->possible(&why)) {
        (void)printf("%s: NOT INJECTED: %s\n", part->name, why);
        return wanted->at_length || wanted->only != NULL ? 1 : 0;
    }
    return part->run(wanted->seed, wanted->count > 0 ? wanted->count : count) == 0 ? 0 : 1;
}

/* Each in a process of its own: one that crashes does not end the others. */
static int spawn_part(const char *program, const struct part *part, const struct wanted *wanted)
{
    char seed[24], count[24];
    const char *args[9] = {program, "--only", part->name, "--seed", seed};
    const char *why = "";
    int at = 5;

    /* Asked here, since the part itself is asked for by name and would fail. */
    if (!wanted->at_length && part->possible != NULL && !part->possible(&why))
        return run_part(part, wanted);
    (void)snprintf(seed, sizeof(seed), "%llu", (unsigned long long)wanted->seed);
    (void)snprintf(count, sizeof(count), "%llu", (unsigned long long)wanted->count);
    if (wanted->at_length)
        args[at++] = "--long";
    if (wanted->count > 0) {
        args[at++] = "--count";
        args[at++] = count;
    }
    return fault_run(args) ? 0 : 1;
}

static int run_parts(const char *program, const struct wanted *wanted)
{
    int failed = 0;

    for (size_t i = 0; i < PART_COUNT; i++) {
        if (wanted->only != NULL && strcmp(wanted->only, parts[i].name) == 0)
            return run_part(&parts[i], wanted);
        if (wanted->only == NULL)
            failed += spawn_part(program, &parts[i], wanted);
    }
    if (wanted->only != NULL)
        return usage();
    if (failed > 0)
        (void)printf("fault: %d of %zu parts FAILED\n", failed, PART_COUNT);
    return failed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct wanted wanted = {.seed = 1};

    if (!parse(argc, argv, &wanted))
        return usage();
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* a long form tells how far it is */
    if (wanted.role) {
        if (!wb_str_to_u64(wb_str(argv[optind + 3]), &wanted.seed))
            return usage();
        return fault_role(argv[optind], argv[optind + 1], argv[optind + 2], wanted.seed);
    }
    wb_log_setup(STDERR_FILENO, WB_LOG_LOGFMT, WB_LOG_ERROR);
    return run_parts("/proc/self/exe", &wanted);
}
