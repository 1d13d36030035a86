/* cli_outbox.h - what the commands of the outbox share. */
#ifndef SERVICE_CLI_OUTBOX_H
#define SERVICE_CLI_OUTBOX_H

#include <waybill/db.h>

#include "cli.h"

/** Open the database of --db. WB_MISUSE when it is not given; else as db_open(). */
wb_err service_cli_outbox_open(struct cli *cli, const struct db_options *options,
                               struct db **ret_db);

/** How long ago, for people: "3.2s", "6m02s", "2h10m". */
void service_cli_outbox_age(int64_t then_wall_ns, char out[24]);

struct outbox_incident;

/** An incident as a JSON object. */
void service_cli_incident_json(struct wb_buf *out, const struct outbox_incident *incident);

#endif /* SERVICE_CLI_OUTBOX_H */
