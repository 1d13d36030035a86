/* cli_dead_letter.h - what the commands of dead letters share. */
#ifndef SERVICE_CLI_DEAD_LETTER_H
#define SERVICE_CLI_DEAD_LETTER_H

#include <waybill/db.h>
#include <waybill/dead_letter.h>

#include "cli.h"

/* A command at work: its file, and what its options mean. Ended by service_cli_letters_close(). */
struct cli_letters {
    struct cli *cli;
    struct db *db;
    struct dead_letter_query query;
    struct filter *filter;
    struct dead_letter_redaction *redaction; /* NULL with --reveal, or when nothing is marked */
};

/* Read --where, --consumer, --after, --limit and open --db. */
wb_err service_cli_letters_open(struct cli *cli, bool writes, uint64_t limit,
                                struct cli_letters *letters);
void service_cli_letters_close(struct cli_letters *letters);

/* Hide what `dead_letter.redact` names; with --reveal write into the operator log who looks. */
wb_err service_cli_letters_redact(struct cli_letters *letters, const char *target);

/* One letter as an object without an end of line; with headers and payload when whole. */
void service_cli_letter_json(struct wb_buf *out, const struct dead_letter *letter, bool whole);

#endif /* SERVICE_CLI_DEAD_LETTER_H */
