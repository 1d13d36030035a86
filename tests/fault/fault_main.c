/* fault_main.c - `./dev fault [--long] [--kills N] [--seed N] [--bus memory|nats]`. */
#include "fault.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHORT_KILLS 200
#define LONG_KILLS  10000

const char *const fault_points[] = {
    "outbox_publisher.read",  "outbox_publisher.synced",      "outbox_publisher.sent",
    "outbox_publisher.acked", "outbox_publisher.before_mark", "outbox_publisher.marked",
    "event_consumer.claimed", "event_consumer.handled",       "event_consumer.committed",
};
const size_t fault_point_count = sizeof(fault_points) / sizeof(fault_points[0]);

static size_t report(const char *bus, uint64_t seed, const struct fault_report *report)
{
    (void)printf("%s, seed %llu: %llu kills, %llu crash points, %llu kills of the server; "
                 "%llu transactions, %llu events in %llu s: %s\n",
                 bus, (unsigned long long)seed, (unsigned long long)report->kills,
                 (unsigned long long)report->points, (unsigned long long)report->server_kills,
                 (unsigned long long)report->transactions, (unsigned long long)report->events,
                 (unsigned long long)report->seconds,
                 report->broken == 0 ? "0 lost, 0 doubled, 0 out of order, 0 phantoms"
                                     : "INVARIANTS BROKEN, see above");
    (void)fflush(stdout);
    return report->broken;
}

static int usage(void)
{
    (void)fprintf(stderr, "usage: fault [--long] [--kills N] [--seed N] [--bus memory|nats]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"long", no_argument, NULL, 'l'},       {"kills", required_argument, NULL, 'k'},
        {"seed", required_argument, NULL, 's'}, {"bus", required_argument, NULL, 'b'},
        {"role", no_argument, NULL, 'r'},       {NULL, 0, NULL, 0}};
    uint64_t kills = SHORT_KILLS;
    uint64_t seed = 1;
    const char *bus = NULL;
    bool role = false;
    int option;

    while (!role && (option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == 'l')
            kills = LONG_KILLS;
        else if (option == 'b')
            bus = optarg;
        else if (option == 'r')
            role = true;
        else if (option == '?' || !wb_str_to_u64(wb_str(optarg), option == 'k' ? &kills : &seed))
            return usage();
    if (role && argc - optind == 4 && wb_str_to_u64(wb_str(argv[optind + 3]), &seed))
        return fault_role(argv[optind], argv[optind + 1], argv[optind + 2], seed);
    if (role || optind < argc)
        return usage();

    size_t broken = 0;
    if (bus == NULL || strcmp(bus, "memory") == 0) {
        struct fault_report done = fault_memory(seed, (unsigned)kills);
        broken += report("memory", seed, &done);
    }
    if (bus == NULL || strcmp(bus, "nats") == 0) {
        struct fault_report done = fault_nats("/proc/self/exe", seed, (unsigned)kills);
        broken += report("nats", seed, &done);
    }
    return broken == 0 ? 0 : 1;
}
