/* A row as views, and the message it becomes. */
#include <assert.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "waybill/outbox_impl.h"

#include <waybill/db.h>
#include <waybill/subject.h>

static int64_t column_ms_to_ns(struct sqlite3_stmt *stmt, int column)
{
    int64_t ms = sqlite3_column_int64(stmt, column);

    /* Written by hand it may be anything; the bounds keep the product within 64 bits. */
    if (ms > INT64_MAX / WB_MS)
        return INT64_MAX;
    return ms < 0 ? 0 : ms * WB_MS;
}

void outbox_row_read(struct sqlite3_stmt *stmt, struct outbox_row *ret_row)
{
    struct outbox_row row = {.id = sqlite3_column_int64(stmt, 0)};

    row.stream = db_column_text(stmt, 1);
    row.key = db_column_text(stmt, 2);
    row.subject = db_column_text(stmt, 3);
    row.headers = db_column_text(stmt, 4);
    if (sqlite3_column_bytes(stmt, 5) == WB_ID_SIZE)
        memcpy(row.msg_id, sqlite3_column_blob(stmt, 5), WB_ID_SIZE);
    row.due_wall_ns = column_ms_to_ns(stmt, 6);
    row.expires_wall_ns = column_ms_to_ns(stmt, 7);
    row.created_wall_ns = column_ms_to_ns(stmt, 8);
    row.traceparent = db_column_text(stmt, 9);
    if (sqlite3_column_type(stmt, 10) == SQLITE_BLOB) {
        row.payload.ptr = sqlite3_column_blob(stmt, 10);
        row.payload.len = (size_t)sqlite3_column_bytes(stmt, 10);
    } else { /* TEXT as UTF-8, whatever the encoding of the file; a number as its digits */
        struct wb_str text = db_column_text(stmt, 10);
        row.payload = (struct wb_bytes){.ptr = text.ptr, .len = text.len};
    }
    *ret_row = row;
}

/* A key may hold any bytes, a header value may not: what is not plain becomes %XX. */
static void key_encode(struct wb_str key, char *out)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < key.len; i++) {
        unsigned char c = (unsigned char)key.ptr[i];
        if (c > 0x20 && c < 0x7f && c != '%') {
            *out++ = (char)c;
            continue;
        }
        *out++ = '%';
        *out++ = digits[c >> 4];
        *out++ = digits[c & 15];
    }
    *out = '\0';
}

static void header_push(struct outbox_envelope *envelope, const char *name, struct wb_str value)
{
    struct message *msg = &envelope->message;

    envelope->headers[msg->header_count++] =
        (struct message_header){.name = wb_str(name), .value = value};
}

/* Of our names a row may have one: whom it repeats only the row can say. */
static bool header_reserved(struct wb_str name)
{
    const size_t len = sizeof(OUTBOX_HEADER_PREFIX) - 1;

    return name.len >= len &&
           wb_str_case_eq(wb_str_n(name.ptr, len), wb_str(OUTBOX_HEADER_PREFIX)) &&
           !wb_str_eq(name, wb_str(MESSAGE_HEADER_REPLAY_OF));
}

/* Copies the event's own headers; tells whether they hold a traceparent. */
static wb_err headers_take(struct outbox_envelope *envelope, const struct message_header *headers,
                           size_t count, bool *ret_traced, struct wb_why *why)
{
    bool traced = false;

    if (envelope->message.header_count + count + 1 > MESSAGE_HEADERS_MAX)
        return wb_fail(why, WB_INVALID, "an event has %zu headers: at most %d fit beside ours",
                       count, MESSAGE_HEADERS_MAX - 4);
    for (size_t i = 0; i < count; i++) {
        if (header_reserved(headers[i].name))
            return wb_fail(why, WB_INVALID,
                           "header '%.*s': names that start with " OUTBOX_HEADER_PREFIX
                           " are written by the outbox itself; choose another name",
                           (int)headers[i].name.len, headers[i].name.ptr);
        traced = traced || wb_str_case_eq(headers[i].name, wb_str(MESSAGE_HEADER_TRACEPARENT));
        envelope->headers[envelope->message.header_count++] = headers[i];
    }
    *ret_traced = traced;
    return WB_OK;
}

static wb_err columns_check(const struct outbox_row *row, struct wb_why *why)
{
    if (row->key.len > OUTBOX_KEY_MAX)
        return wb_fail(why, WB_INVALID, "the key has %zu bytes, at most %d are allowed",
                       row->key.len, OUTBOX_KEY_MAX);
    if (row->traceparent.len > OUTBOX_TRACEPARENT_MAX)
        return wb_fail(why, WB_INVALID, "traceparent has %zu bytes, at most %d are allowed",
                       row->traceparent.len, OUTBOX_TRACEPARENT_MAX);
    return subject_check(row->subject, why);
}

wb_err outbox_envelope_make(const struct outbox_row *row, const char source[OUTBOX_SOURCE_TEXT],
                            const struct message_header *headers, size_t header_count,
                            size_t max_payload, struct outbox_envelope *ret_envelope,
                            struct wb_why *why)
{
    struct outbox_envelope *self = ret_envelope;
    bool traced = false;
    wb_err err = columns_check(row, why);

    if (err != WB_OK)
        return err;
    memcpy(self->source, source, OUTBOX_SOURCE_TEXT);
    (void)snprintf(self->row, sizeof(self->row), "%" PRId64, row->id);
    wb_hex_encode(row->msg_id, WB_ID_SIZE, self->msg_id);
    self->message = (struct message){.subject = row->subject,
                                     .payload = row->payload,
                                     .headers = self->headers,
                                     .msg_id = wb_str(self->msg_id)};
    header_push(self, MESSAGE_HEADER_SOURCE, wb_str(self->source));
    header_push(self, MESSAGE_HEADER_ROW, wb_str(self->row));
    if (row->key.len > 0) {
        key_encode(row->key, self->key);
        header_push(self, MESSAGE_HEADER_KEY, wb_str(self->key));
    }
    err = headers_take(self, headers, header_count, &traced, why);
    if (err != WB_OK)
        return err;
    if (row->traceparent.len > 0 && !traced)
        header_push(self, MESSAGE_HEADER_TRACEPARENT, row->traceparent);
    return message_check(&self->message, max_payload, why);
}
