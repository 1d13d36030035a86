/*
 * waybill/message.h - the envelope: subject, payload, headers and the event's identity.
 *
 * struct message is a view: it borrows everything it points to. message_copy() makes an owned one.
 *
 * Threads   A message is plain data; views may be read from any thread while what they borrow
 * lives.
 */
#ifndef WAYBILL_MESSAGE_H
#define WAYBILL_MESSAGE_H

#include <waybill/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MESSAGE_ID_MAX           64    /* printable bytes without blanks */
#define MESSAGE_HEADERS_MAX      100   /* header lines in one message */
#define MESSAGE_HEADER_BYTES_MAX 65535 /* nats-server refuses headers of 64 KiB (error 10097) */
#define MESSAGE_PAYLOAD_MAX      (1U << 20) /* nats-server's default max_payload, 1 MiB */

/* Headers of ours. Names that start with "Nats-" belong to the bus and are refused in messages. */
#define MESSAGE_HEADER_SOURCE      "waybill-source" /* 16 hex digits: which outbox */
#define MESSAGE_HEADER_ROW         "waybill-row"    /* decimal: the outbox row id */
#define MESSAGE_HEADER_KEY         "waybill-key"    /* ordering key, percent-encoded if need be */
#define MESSAGE_HEADER_REPLAY_OF   "waybill-replay-of" /* SOURCE/ROW of the event it repeats */
#define MESSAGE_HEADER_TRACEPARENT "traceparent"

struct message_header {
    struct wb_str name;
    struct wb_str value;
};

struct message {
    struct wb_str subject;
    struct wb_bytes payload;              /* may be empty */
    const struct message_header *headers; /* order within one name is kept */
    size_t header_count;
    struct wb_str msg_id; /* the event's identity; {NULL, 0}: none */
};

/**
 * Check all that does not depend on a server: header names (printable ASCII without ':' and blank,
 * not Nats-*, no two that differ only in case), values (valid UTF-8, not empty, no CR LF NUL, no
 * blank at either end), msg_id, sizes. The subject is checked by subject_check().
 *
 * @param max_payload  limit for headers and payload together, in bytes.
 * @return WB_INVALID, WB_TOO_BIG.
 */
wb_err message_check(const struct message *msg, size_t max_payload, struct wb_why *why);

/** First value of a header, looked up without case; {NULL, 0} if absent. */
struct wb_str message_header(const struct message *msg, const char *name);

/** Bytes the headers take on the NATS wire ("NATS/1.0" line included); 0 without headers and id. */
size_t message_header_bytes(const struct message *msg);

/**
 * An owned copy in one block: free it with free(). Its texts and payload are followed by a NUL,
 * which their lengths do not count. extra bytes are left at *ret_extra behind it
 * (8-aligned), for those who embed. ret_extra may be NULL when extra is 0. NULL when out of memory.
 */
struct message *message_copy(const struct message *msg, size_t extra, void **ret_extra);

/*
 * Headers as text: "Name: value" lines joined by '\n', the form of the outbox column `headers`,
 * easy to write by hand. Empty text is no headers.
 */

/** Append headers as text. */
void message_headers_format(const struct message *msg, struct wb_buf *out);

/**
 * Read header text; the views point into text. Blanks around names and values are trimmed.
 * Lines that are blank are skipped; names that differ only in case are left to message_check().
 * @param ret_headers  room for MESSAGE_HEADERS_MAX; on failure some of it may have been used.
 * @return WB_INVALID with the line number.
 */
wb_err message_headers_parse(struct wb_str text, struct message_header *ret_headers,
                             size_t *ret_count, struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_MESSAGE_H */
