/* Ids, and letters as filters see them. */
#include "dead_letter_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

void dead_letter_id_format(dead_letter_kind kind, int64_t number, char out[DEAD_LETTER_ID_TEXT])
{
    (void)snprintf(out, DEAD_LETTER_ID_TEXT, "%c%" PRId64,
                   kind == DEAD_LETTER_PUBLISHER ? 'p' : 'c', number);
}

wb_err dead_letter_id_parse(struct wb_str text, dead_letter_kind *ret_kind, int64_t *ret_number,
                            struct wb_why *why)
{
    uint64_t number = 0;

    if (text.len < 2 || (text.ptr[0] != 'p' && text.ptr[0] != 'c') ||
        !wb_str_to_u64(wb_str_n(text.ptr + 1, text.len - 1), &number) || number > INT64_MAX)
        return wb_fail(why, WB_INVALID,
                       "dead letter '%.*s': expected p and the number of a row of the outbox, or c "
                       "and the number of a consumer's letter, as p17 or c4; 'dlq ls' lists them",
                       (int)(text.len < 40 ? text.len : 40), text.ptr);
    *ret_kind = text.ptr[0] == 'p' ? DEAD_LETTER_PUBLISHER : DEAD_LETTER_CONSUMER;
    *ret_number = (int64_t)number;
    return WB_OK;
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* Name, type, and where it stands in a letter. */
#define FIELDS(X)                                                                                  \
    X(ID, "id", FILTER_ID, number = letter->number)                                                \
    X(KIND, "kind", FILTER_TEXT,                                                                   \
      text = wb_str(letter->kind == DEAD_LETTER_PUBLISHER ? "publisher" : "consumer"))             \
    X(STATE, "state", FILTER_TEXT, text = letter->state)                                           \
    X(CONSUMER, "consumer", FILTER_TEXT, text = letter->consumer)                                  \
    X(STREAM, "stream", FILTER_TEXT, text = letter->stream)                                        \
    X(SUBJECT, "subject", FILTER_SUBJECT, text = letter->subject)                                  \
    X(KEY, "key", FILTER_TEXT, text = letter->key)                                                 \
    X(MSG_ID, "msg_id", FILTER_TEXT, text = letter->msg_id)                                        \
    X(SOURCE, "source", FILTER_TEXT, text = letter->source)                                        \
    X(ROW, "row", FILTER_ID, number = letter->row_id)                                              \
    X(REASON, "reason", FILTER_TEXT, text = letter->reason)                                        \
    X(FINGERPRINT, "fingerprint", FILTER_TEXT, text = wb_str(letter->fingerprint))                 \
    X(FAILURES, "failures", FILTER_NUMBER, number = letter->failures)                              \
    X(AT, "at", FILTER_TIME, number = letter->at_wall_ns)                                          \
    X(AGE, "age", FILTER_AGE, number = seen->now_wall_ns - letter->at_wall_ns)                     \
    X(SIZE, "size", FILTER_NUMBER, number = (int64_t)letter->size)                                 \
    X(HEADERS, "headers", FILTER_TEXT, text = letter->headers)                                     \
    X(PAYLOAD, "payload", FILTER_TEXT, text = wb_str_n(letter->payload.ptr, letter->payload.len))

enum {
#define X(name, text, type, value) FIELD_##name,
    FIELDS(X)
#undef X
};

const struct filter_field dead_letter_fields[] = {
#define X(name, text, type, value) {text, type},
    FIELDS(X)
#undef X
};
const size_t dead_letter_field_count = sizeof(dead_letter_fields) / sizeof(dead_letter_fields[0]);

bool dead_letter_get(void *ctx, size_t field, struct filter_value *ret_value)
{
    const struct dead_letter_seen *seen = ctx;
    const struct dead_letter *letter = seen->letter;

    switch (field) {
#define X(name, text_, type, value)                                                                \
    case FIELD_##name:                                                                             \
        ret_value->value;                                                                          \
        return true;
        FIELDS(X)
#undef X
    default:
        return false;
    }
}

bool dead_letter_needs_payload(const struct filter *filter)
{
    return filter_uses(filter, FIELD_PAYLOAD);
}
