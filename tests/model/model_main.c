/* model_main.c - `./dev model [--events N] [--publishers N] [--crashes N] [--breaks N] ...`. */
#include "model.h"

#include <getopt.h>
#include <stdio.h>

static int usage(void)
{
    (void)fprintf(
        stderr,
        "usage: model [--events 1-4] [--publishers 1-2] [--crashes N]"
        " [--breaks N] [--fences N] [--losses N] [--restores N] [--max-worlds N] [--unchained]\n");
    return 2;
}

static bool options_read(int argc, char **argv, struct model_scope *scope)
{
    static const struct option options[] = {
        {"events", required_argument, NULL, 'e'},     {"publishers", required_argument, NULL, 'p'},
        {"crashes", required_argument, NULL, 'c'},    {"breaks", required_argument, NULL, 'b'},
        {"fences", required_argument, NULL, 'f'},     {"losses", required_argument, NULL, 'l'},
        {"max-worlds", required_argument, NULL, 'm'}, {"restores", required_argument, NULL, 'r'},
        {"unchained", no_argument, NULL, 'u'},        {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t value = 0;
        if (option == 'u') {
            scope->unchained = true;
            continue;
        }
        if (option == '?' || !wb_str_to_u64(wb_str(optarg), &value))
            return false;
        switch (option) {
        case 'e':
            scope->events = (unsigned)value;
            break;
        case 'p':
            scope->publishers = (unsigned)value;
            break;
        case 'c':
            scope->crashes = (unsigned)value;
            break;
        case 'b':
            scope->breaks = (unsigned)value;
            break;
        case 'f':
            scope->fences = (unsigned)value;
            break;
        case 'l':
            scope->losses = (unsigned)value;
            break;
        case 'r':
            scope->restores = (unsigned)value;
            break;
        default:
            scope->max_worlds = value;
            break;
        }
    }
    return optind == argc && scope->events >= 1 && scope->events <= MODEL_EVENTS &&
           scope->publishers >= 1 && scope->publishers <= MODEL_PUBLISHERS;
}

int main(int argc, char **argv)
{
    struct model_scope scope = {.events = 2, .publishers = 1, .crashes = 1, .breaks = 1};
    struct model_result result;

    if (!options_read(argc, argv, &scope))
        return usage();
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    int64_t begin = wb_mono_ns(wb_clock_system());
    model_explore(&scope, &result);
    int64_t took = wb_mono_ns(wb_clock_system()) - begin;
    bool wrong = result.violation.len > 0;
    (void)printf("events %u, publishers %u, crashes %u, breaks %u, fences %u, losses %u, restores "
                 "%u%s: %llu worlds, "
                 "%llu replays, %.1f s, %s: %s",
                 scope.events, scope.publishers, scope.crashes, scope.breaks, scope.fences,
                 scope.losses, scope.restores, scope.unchained ? ", unchained broker" : "",
                 (unsigned long long)result.worlds, (unsigned long long)result.replays,
                 (double)took / 1e9, result.complete ? "complete" : "NOT complete",
                 wrong ? result.violation.ptr : "no violation\n");
    wb_buf_free(&result.violation);
    return wrong != scope.unchained ? 1 : 0;
}
