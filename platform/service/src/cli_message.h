/* cli_message.h - messages given on the command line, and messages printed. */
#ifndef SERVICE_CLI_MESSAGE_H
#define SERVICE_CLI_MESSAGE_H

#include <jansson.h>

#include <waybill/event_bus.h>

#include "cli.h"

/* What BODY|-|@FILE and -H say. Views into what the struct owns, and into argv. */
struct cli_message {
    struct wb_buf body; /* owned, when it was read */
    struct wb_bytes payload;
    struct message_header headers[MESSAGE_HEADERS_MAX];
    size_t header_count;
};

/**
 * Read body (NULL: empty) and the options --header. "-" is standard input, "@FILE" a file.
 * WB_NOT_FOUND, WB_TOO_BIG, WB_IO, WB_MISUSE.
 */
wb_err service_cli_message_read(struct cli *cli, const char *body, struct cli_message *message);
void service_cli_message_free(struct cli_message *message);

/* A message as one line of JSON tells of it: a view, valid until it is freed. */
struct cli_received {
    struct event_bus_delivery delivery;
    struct message_header headers[MESSAGE_HEADERS_MAX];
    json_t *root;
    struct wb_buf payload;
};

/** Read one line of the form of service_json.h. WB_INVALID. */
wb_err service_cli_received_parse(struct wb_str line, struct cli_received *received,
                                  struct wb_why *why);
void service_cli_received_free(struct cli_received *received);

/* Append the bytes of Base64 text; false when it is none, or out of memory. */
bool service_cli_base64_decode(struct wb_str text, struct wb_buf *out);

/* Append headers and payload for people, indented; the payload as it is when raw. */
void service_cli_message_print(struct wb_buf *out, const struct message *msg);

#endif /* SERVICE_CLI_MESSAGE_H */
