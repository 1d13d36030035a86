/* cli_table.c - every option and command there is. */
#include "cli.h"

const struct cli_option service_cli_globals[] = {
    {"config", 0, "FILE", "settings; - reads standard input (WAYBILL_CONFIG)", NULL},
    {"server", 's', "URL", "NATS server; means --bus nats (NATS_URL)", "nats.url"},
    {"bus", 0, "memory|nats", "which bus (WAYBILL_BUS)", "bus"},
    {"data", 0, "DIR", "directory of the databases (WAYBILL_DATA)", "data"},
    {"http", 0, "HOST:PORT", "where the service listens (WAYBILL_HTTP_LISTEN)", "http.listen"},
    {"timeout", 0, "5s", "longest wait for an answer", NULL},
    {"json", 0, NULL, "results as JSON, one document a line where there are many", NULL},
    {"quiet", 'q', NULL, "no talk on standard error, only errors", NULL},
    {"verbose", 'v', NULL, "say more on standard error", NULL},
    {"no-color", 0, NULL, "no colours (NO_COLOR)", NULL},
    {"help", 'h', NULL, "what a command does", NULL},
    {"version", 0, NULL, "as `waybill version`", NULL},
    {0},
};

/* One row for options that several commands share. */
#define HEADER                                                                                     \
    {                                                                                              \
        "header", 'H', "K:V", "a header; may be repeated", NULL                                    \
    }
#define DB                                                                                         \
    {                                                                                              \
        "db", 0, "FILE", "the database that holds the outbox", NULL                                \
    }
#define WHERE                                                                                      \
    {                                                                                              \
        "where", 0, "FILTER", "only those the filter means: 'age > 1h and reason ~ timeout'", NULL \
    }
#define RAW                                                                                        \
    {                                                                                              \
        "raw", 0, NULL, "payloads as they are, control bytes included", NULL                       \
    }

static const struct cli_option match_options[] = {
    {"dialect", 0, "nats|zenoh", "how the pattern is written; default: nats", NULL},
    {0},
};
static const struct cli_option pub_options[] = {
    HEADER,
    {"id", 0, "ID", "the event's identity; default: a new UUIDv7", NULL},
    {"count", 0, "N", "publish it N times, each with an identity of its own", NULL},
    {0},
};
static const struct cli_option sub_options[] = {
    {"count", 0, "N", "end after N messages", NULL},
    {"all", 0, NULL, "begin with the oldest stored message", NULL},
    {"new", 0, NULL, "only what is published from now on (default)", NULL},
    {"durable", 0, "NAME", "go on where NAME stopped; acknowledges what was printed", NULL},
    RAW,
    {"wait", 0, "DUR", "end after DUR without a message; exit 4 if --count is not reached", NULL},
    {0},
};
static const struct cli_option outbox_add_options[] = {
    DB,
    {"key", 0, "KEY", "events of one key are handled in order", NULL},
    HEADER,
    {"stream", 0, "NAME", "the stream; default: the one that covers the subject", NULL},
    {"delay", 0, "DUR", "not before this time has passed", NULL},
    {"at", 0, "TIME|+DUR", "not before 2026-01-02T03:04:05Z", NULL},
    {"expires", 0, "TIME|+DUR", "not from then on", NULL},
    {"caller", 0, "NAME", "whose idempotency key it is", NULL},
    {"idempotency-key", 0, "KEY", "an event with the same caller and key is not added again", NULL},
    {0},
};
static const struct cli_option outbox_status_options[] = {DB, {0}};
static const struct cli_option outbox_ls_options[] = {
    DB,
    {"state", 0, "STATE", "pending, published, retry, waiting, parked, expired or cancelled", NULL},
    {"pattern", 0, "PATTERN", "only subjects it matches", NULL},
    {"after", 0, "ID", "only rows behind this one", NULL},
    {"limit", 0, "N", "at most N rows; default: 100", NULL},
    {0},
};
static const struct cli_option outbox_show_options[] = {DB, RAW, {0}};
static const struct cli_option outbox_run_options[] = {
    DB,
    {"once", 0, NULL, "publish what is there, print a summary, end", NULL},
    {0},
};
static const struct cli_option outbox_verify_options[] = {
    DB,
    {"stream", 0, "NAME", "only this stream; default: all that were published to", NULL},
    {"from-seq", 0, "N", "look at the stream from this sequence on", NULL},
    {0},
};
static const struct cli_option outbox_repair_options[] = {
    DB,
    {"stream", 0, "NAME", "only this stream; default: all that were published to", NULL},
    {"plan", 0, NULL, "say what would be done, and change nothing", NULL},
    {0},
};
static const struct cli_option outbox_incidents_options[] = {
    DB,
    {"after", 0, "ID", "only incidents behind this one", NULL},
    {"limit", 0, "N", "at most N; default: 100", NULL},
    {0},
};
static const struct cli_option outbox_orphans_options[] = {
    DB,
    {"limit", 0, "N", "at most N; default: 100", NULL},
    {0},
};

/* How letters are chosen, and what protects from choosing too many. */
#define CONSUMER                                                                                   \
    {                                                                                              \
        "consumer", 0, "NAME", "only letters of this consumer", NULL                               \
    }
#define REASON                                                                                     \
    {                                                                                              \
        "reason", 0, "TEXT", "why, for the operator log", NULL                                     \
    }
#define REVEAL                                                                                     \
    {                                                                                              \
        "reveal", 0, NULL, "show fields that dead_letter.redact hides; this is logged", NULL       \
    }
#define CHANGE_MANY                                                                                \
    {"limit", 0, "N", "at most N letters, the oldest", NULL}, REASON,                              \
        {"yes", 0, NULL, "change more than one", NULL},                                            \
        {"dry-run", 0, NULL, "only say which", NULL},                                              \
    {                                                                                              \
        "whole-key", 0, NULL, "and all others of its key", NULL                                    \
    }

static const struct cli_option dlq_ls_options[] = {
    DB,
    WHERE,
    CONSUMER,
    {"after", 0, "ID", "only letters that follow this one", NULL},
    {"limit", 0, "N", "at most N; default: 100", NULL},
    {0},
};
static const struct cli_option dlq_groups_options[] = {
    DB, WHERE, CONSUMER, {"limit", 0, "N", "at most N groups; default: 100", NULL}, {0},
};
static const struct cli_option dlq_show_options[] = {DB, RAW, REVEAL, {0}};
static const struct cli_option dlq_change_options[] = {DB, WHERE, CONSUMER, CHANGE_MANY, {0}};
static const struct cli_option outbox_cancel_options[] = {DB, REASON, {0}};
static const struct cli_option outbox_retry_options[] = {DB, WHERE, CHANGE_MANY, {0}};
static const struct cli_option dlq_edit_options[] = {
    DB,     {"subject", 0, "SUBJECT", "another subject", NULL},
    HEADER, {"no-header", 0, "NAME", "without this header; may be repeated", NULL},
    REASON, {0},
};
static const struct cli_option dlq_export_options[] = {
    DB,
    WHERE,
    CONSUMER,
    {"after", 0, "ID", "only letters that follow this one", NULL},
    {"limit", 0, "N", "at most N", NULL},
    REVEAL,
    {0},
};
static const struct cli_option dlq_import_options[] = {DB, REASON, {0}};
static const struct cli_option operator_log_options[] = {
    DB,
    WHERE,
    {"before", 0, "ID", "only entries older than this one", NULL},
    {"limit", 0, "N", "at most N entries; default: 100", NULL},
    {0},
};
static const struct cli_option outbox_explain_options[] = {DB, {0}};
static const struct cli_option outbox_fence_options[] = {
    DB,
    {"stream", 0, "NAME", "the stream whose publisher does not move", NULL},
    {0},
};
static const struct cli_option outbox_purge_options[] = {
    DB,
    {"older-than", 0, "DUR", "go by age alone, and by this one; default: as classes say", NULL},
    {"dry-run", 0, NULL, "say what would go, and change nothing", NULL},
    {0},
};
#define INBOX_DB                                                                                   \
    {                                                                                              \
        "db", 0, "FILE", "the database of the consumers", NULL                                     \
    }
static const struct cli_option inbox_options[] = {INBOX_DB, {0}};
static const struct cli_option inbox_forget_options[] = {
    INBOX_DB,
    {"yes", 0, NULL, "it is meant", NULL},
    {"reason", 0, "TEXT", "why, for the operator log", NULL},
    {0},
};
static const struct cli_option outbox_replay_options[] = {
    DB,
    {"id", 0, "A[-B]", "rows by number", NULL},
    {"since", 0, "TIME", "written then or later: 2026-01-31T10:00:00Z, or 2h for two hours ago",
     NULL},
    {"until", 0, "TIME", "written before", NULL},
    {"where", 0, "FILTER", "fields: id subject stream key msg_id headers payload size at age",
     NULL},
    {"key", 0, "KEY", "rows of this key", NULL},
    {"subject", 0, "PATTERN", "rows of such subjects", NULL},
    {"archive", 0, "FILE", "rows of this archive too", NULL},
    {"to-subject", 0, "SUBJECT", "send all to this subject; default: to their own", NULL},
    {"rate", 0, "N/s", "rows a second; default: 1000/s", NULL},
    {"reason", 0, "TEXT", "why, for the operator log", NULL},
    {"dry-run", 0, NULL, "say how much it is, and send nothing", NULL},
    {"yes", 0, NULL, "do it", NULL},
    {0},
};
static const struct cli_option config_show_options[] = {
    {"origin", 0, NULL, "where each value comes from", NULL},
    {0},
};

const struct cli_command service_cli_commands[] = {
    {.noun = "serve",
     .usage = "",
     .help = "Run the service until SIGINT or SIGTERM",
     .configured = true,
     .run = service_cli_serve},
    {.noun = "pub",
     .usage = "SUBJECT [BODY|-|@FILE]",
     .help = "Publish a message: straight to NATS with --bus nats, else through a running service",
     .options = pub_options,
     .operands_min = 1,
     .operands_max = 2,
     .configured = true,
     .run = service_cli_pub},
    {.noun = "sub",
     .usage = "PATTERN...",
     .help = "Print messages as they come; --json prints one object a line",
     .options = sub_options,
     .operands_min = 1,
     .operands_max = 64,
     .configured = true,
     .run = service_cli_sub},
    {.noun = "match",
     .usage = "PATTERN SUBJECT...",
     .help = "Does the pattern match? Exit 0: all, 1: not all, 7: invalid pattern or subject",
     .options = match_options,
     .operands_min = 2,
     .operands_max = -1,
     .run = service_cli_match},
    {.noun = "outbox",
     .verb = "add",
     .usage = "SUBJECT BODY|-|@FILE --db FILE",
     .help = "Write one event into an outbox; file and tables are made if absent",
     .options = outbox_add_options,
     .operands_min = 2,
     .operands_max = 2,
     .configured = true,
     .run = service_cli_outbox_add},
    {.noun = "outbox",
     .verb = "status",
     .usage = "--db FILE",
     .help = "How much waits, since when, and what was refused",
     .options = outbox_status_options,
     .run = service_cli_outbox_status},
    {.noun = "outbox",
     .verb = "ls",
     .usage = "--db FILE",
     .help = "Rows of an outbox with what became of them",
     .options = outbox_ls_options,
     .run = service_cli_outbox_ls},
    {.noun = "outbox",
     .verb = "show",
     .usage = "ID --db FILE",
     .help = "One row, by its number or the 32 hex digits of its identity",
     .options = outbox_show_options,
     .operands_min = 1,
     .operands_max = 1,
     .run = service_cli_outbox_show},
    {.noun = "outbox",
     .verb = "run",
     .usage = "--db FILE",
     .help = "Publish the rows of an outbox; with --once exit 8 when some were left",
     .options = outbox_run_options,
     .configured = true,
     .run = service_cli_outbox_run},
    {.noun = "outbox",
     .verb = "cancel",
     .usage = "ID --db FILE",
     .help =
         "Take back a row with a due time, or one that stands aside; exit 6 when it is too late",
     .options = outbox_cancel_options,
     .operands_min = 1,
     .operands_max = 1,
     .configured = true,
     .run = service_cli_outbox_cancel},
    {.noun = "outbox",
     .verb = "verify",
     .usage = "--db FILE",
     .help = "Does the server hold what was published? Exit 1: events are missing or doubled",
     .options = outbox_verify_options,
     .configured = true,
     .run = service_cli_outbox_verify},
    {.noun = "outbox",
     .verb = "repair",
     .usage = "--db FILE [--stream NAME] [--plan]",
     .help = "Send again what a stream has lost; exit 8 when some of it cannot come back",
     .options = outbox_repair_options,
     .configured = true,
     .run = service_cli_outbox_repair},
    {.noun = "outbox",
     .verb = "incidents",
     .usage = "--db FILE",
     .help = "What streams have lost, and times the database went back, with what was done",
     .options = outbox_incidents_options,
     .run = service_cli_outbox_incidents},
    {.noun = "outbox",
     .verb = "orphans",
     .usage = "--db FILE",
     .help = "Events that are out although a restored database has undone them",
     .options = outbox_orphans_options,
     .run = service_cli_outbox_orphans},
    {.noun = "outbox",
     .verb = "retry",
     .usage = "ID...|--where FILTER --db FILE",
     .help = "Try parked rows again; as dlq retry, for the publisher's letters only",
     .options = outbox_retry_options,
     .operands_max = 1000,
     .run = service_cli_outbox_retry},
    {.noun = "dlq",
     .verb = "ls",
     .usage = "--db FILE",
     .help = "Events that need a person: rows the bus refused, and what a handler could not do",
     .options = dlq_ls_options,
     .run = service_cli_dlq_ls},
    {.noun = "dlq",
     .verb = "groups",
     .usage = "--db FILE",
     .help = "The same by kind of reason: how many, since when, an example",
     .options = dlq_groups_options,
     .run = service_cli_dlq_groups},
    {.noun = "dlq",
     .verb = "show",
     .usage = "ID --db FILE",
     .help = "One letter with headers, payload and what was done to it",
     .options = dlq_show_options,
     .operands_min = 1,
     .operands_max = 1,
     .configured = true,
     .run = service_cli_dlq_show},
    {.noun = "dlq",
     .verb = "retry",
     .usage = "ID...|--where FILTER --db FILE",
     .help = "Try letters again, oldest first",
     .options = dlq_change_options,
     .operands_max = 1000,
     .run = service_cli_dlq_retry},
    {.noun = "dlq",
     .verb = "edit",
     .usage = "ID [BODY|-|@FILE] --db FILE",
     .help = "Mend one letter and try it again; identity, key and place stay",
     .options = dlq_edit_options,
     .operands_min = 1,
     .operands_max = 2,
     .configured = true,
     .run = service_cli_dlq_edit},
    {.noun = "dlq",
     .verb = "discard",
     .usage = "ID...|--where FILTER --reason TEXT --db FILE",
     .help = "Give letters up for good; what waits behind them goes on",
     .options = dlq_change_options,
     .operands_max = 1000,
     .run = service_cli_dlq_discard},
    {.noun = "dlq",
     .verb = "export",
     .usage = "--db FILE",
     .help = "Letters as JSON, one a line, with headers and payload",
     .options = dlq_export_options,
     .configured = true,
     .run = service_cli_dlq_export},
    {.noun = "dlq",
     .verb = "import",
     .usage = "FILE|- --db FILE",
     .help = "Take exported letters in, parked; what is known already does not come twice",
     .options = dlq_import_options,
     .operands_min = 1,
     .operands_max = 1,
     .run = service_cli_dlq_import},
    {.noun = "operator",
     .verb = "log",
     .usage = "--db FILE",
     .help = "What was done by hand to the events of a file, by whom and why; the newest first",
     .options = operator_log_options,
     .run = service_cli_operator_log},
    {.noun = "outbox",
     .verb = "explain",
     .usage = "ID --db FILE",
     .help = "The life of one event: its row, what the stream holds of it, its consumers",
     .options = outbox_explain_options,
     .operands_min = 1,
     .operands_max = 1,
     .configured = true,
     .run = service_cli_outbox_explain},
    {.noun = "outbox",
     .verb = "fence",
     .usage = "--db FILE --stream NAME",
     .help = "Put out a publisher that is stopped or hangs: who stands by takes over",
     .options = outbox_fence_options,
     .run = service_cli_outbox_fence},
    {.noun = "outbox",
     .verb = "purge",
     .usage = "--db FILE",
     .help = "Let rows go that are known to be stored and old enough, into the archive if asked",
     .options = outbox_purge_options,
     .configured = true,
     .run = service_cli_outbox_purge},
    {.noun = "inbox",
     .verb = "ls",
     .usage = "--db FILE",
     .help = "Consumers: their streams and positions, what they handled, dead letters, suspects",
     .options = inbox_options,
     .run = service_cli_inbox_ls},
    {.noun = "inbox",
     .verb = "show",
     .usage = "CONSUMER SOURCE/ROW|MSG_ID --db FILE",
     .help = "Has a consumer handled an event? How often has it failed?",
     .options = inbox_options,
     .operands_min = 2,
     .operands_max = 2,
     .run = service_cli_inbox_show},
    {.noun = "inbox",
     .verb = "forget",
     .usage = "CONSUMER SOURCE/ROW|MSG_ID --db FILE --yes",
     .help = "Have an event handled once more when it is delivered again",
     .options = inbox_forget_options,
     .operands_min = 2,
     .operands_max = 2,
     .run = service_cli_inbox_forget},
    {.noun = "outbox",
     .verb = "replay",
     .usage = "--db FILE",
     .help = "Send published events once more, as new ones that name the old",
     .options = outbox_replay_options,
     .configured = true,
     .run = service_cli_outbox_replay},
    {.noun = "doctor",
     .usage = "",
     .help = "What is wrong, and how to mend it; exit 1 when something is",
     .run = service_cli_doctor},
    {.noun = "config",
     .verb = "show",
     .usage = "",
     .help = "The settings as they are in force",
     .options = config_show_options,
     .configured = true,
     .run = service_cli_config_show},
    {.noun = "version",
     .usage = "",
     .help = "Version of the program and its libraries",
     .run = service_cli_version},
    {.noun = "help",
     .usage = "[COMMAND [VERB]]",
     .help = "What there is, or what a command does",
     .operands_max = 2,
     .run = service_cli_help},
};

const size_t service_cli_command_count =
    sizeof(service_cli_commands) / sizeof(service_cli_commands[0]);
