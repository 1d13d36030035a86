/* Dead letters: events given up are kept whole, and handled again when a person says so. */
#include "inbox_internal.h"

#include <assert.h>

#include <waybill/db.h>

/* ---- writing --------------------------------------------------------------------------------- */

void inbox_letters_limit(struct inbox *inbox, uint64_t letters, uint64_t bytes)
{
    assert(inbox != NULL);
    inbox->letters_max = letters > 0 ? letters : INBOX_LETTERS_MAX;
    inbox->letter_bytes_max = bytes > 0 ? bytes : INBOX_LETTER_BYTES_MAX;
}

/* One that is larger than the limit alone finds room in an empty table, or it would never. */
static wb_err require_room(struct inbox *inbox, size_t size, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_LETTER_TOTAL);
    bool row = false;
    wb_err err = inbox_first(inbox, stmt, &row, "see how full dead_letter is", why);
    uint64_t letters = err == WB_OK && row ? (uint64_t)sqlite3_column_int64(stmt, 0) : 0;
    uint64_t bytes = err == WB_OK && row ? (uint64_t)sqlite3_column_int64(stmt, 1) : 0;

    sqlite3_reset(stmt);
    if (err == WB_OK && letters > 0 &&
        (letters >= inbox->letters_max || bytes + size > inbox->letter_bytes_max))
        return wb_fail(why, WB_FULL,
                       "cannot park an event of %s: the table dead_letter has %llu rows and %llu "
                       "bytes, the limits are %llu and %llu; find the common cause ('dlq groups'), "
                       "then retry or discard them, or raise dead_letter.max_letters or max_bytes",
                       inbox->consumer, (unsigned long long)letters, (unsigned long long)bytes,
                       (unsigned long long)inbox->letters_max,
                       (unsigned long long)inbox->letter_bytes_max);
    return err;
}

static void bind_letter(struct sqlite3_stmt *stmt, const struct message *msg,
                        const struct inbox_origin *origin, struct wb_str headers)
{
    db_bind_text(stmt, 2, msg->subject);
    db_bind_text(stmt, 3, headers);
    db_bind_text(stmt, 4, msg->msg_id);
    db_bind_text(stmt, 5, origin->stream);
    sqlite3_bind_int64(stmt, 6, (int64_t)origin->sequence);
    sqlite3_bind_int64(stmt, 7, origin->stored_wall_ns / WB_MS);
    sqlite3_bind_int64(stmt, 10, wb_wall_ns(wb_clock_system()) / WB_MS);
    sqlite3_bind_blob64(stmt, 11, msg->payload.len > 0 ? msg->payload.ptr : "", msg->payload.len,
                        SQLITE_STATIC);
    db_bind_text(stmt, 12, message_header(msg, MESSAGE_HEADER_KEY));
}

wb_err inbox_letter_write(struct inbox *inbox, const struct message *msg,
                          const struct inbox_identity *identity, const struct inbox_origin *origin,
                          const char *reason, int64_t failures, struct wb_why *why)
{
    char source[2 * INBOX_SOURCE_SIZE + 1] = "", fingerprint[WB_FINGERPRINT_TEXT];
    struct wb_buf headers = {0};

    message_headers_format(msg, &headers);
    if (headers.failed)
        return wb_fail(why, WB_NOMEM, "out of memory parking an event of %s", inbox->consumer);
    wb_err err = require_room(inbox, headers.len + msg->payload.len, why);
    if (err != WB_OK) {
        wb_buf_free(&headers);
        return err;
    }
    if (identity->ours)
        wb_hex_encode(identity->source, INBOX_SOURCE_SIZE, source);
    wb_fingerprint(wb_str(reason), fingerprint);
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_PARK);
    bind_letter(stmt, msg, origin, wb_str_n(headers.ptr, headers.len));
    db_bind_text(stmt, 8, wb_str(reason));
    sqlite3_bind_int64(stmt, 9, failures);
    db_bind_text(stmt, 13, wb_str(source));
    sqlite3_bind_int64(stmt, 14, identity->row);
    db_bind_text(stmt, 15, wb_str(fingerprint));
    err = inbox_run(inbox, stmt, "park an event", why);
    sqlite3_clear_bindings(stmt);
    wb_buf_free(&headers);
    return err;
}

wb_err inbox_set_aside(struct inbox *inbox, const struct message *msg,
                       const struct inbox_origin *origin, const char *reason, struct wb_why *why)
{
    struct inbox_identity identity = {0};

    assert(inbox != NULL);
    assert(inbox->batch.claimed);
    wb_err err = inbox_identify(inbox, msg, origin, &identity, why);
    return err == WB_OK ? inbox_letter_write(inbox, msg, &identity, origin, reason, 0, why) : err;
}

wb_err inbox_parked(struct inbox *inbox, uint64_t *ret_count, struct wb_why *why)
{
    bool row = false;

    assert(inbox != NULL);
    assert(ret_count != NULL);
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_PARKED);
    wb_err err = inbox_first(inbox, stmt, &row, "count dead letters", why);
    if (err == WB_OK)
        *ret_count = row ? (uint64_t)sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_reset(stmt);
    return err;
}

wb_err inbox_key_parked(struct inbox *inbox, struct wb_str key, int64_t *ret_id, struct wb_why *why)
{
    bool row = false;

    assert(inbox != NULL);
    assert(ret_id != NULL);
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_KEY_PARKED);
    db_bind_text(stmt, 2, key);
    wb_err err = inbox_first(inbox, stmt, &row, "look for dead letters of a key", why);
    if (err == WB_OK)
        *ret_id = sqlite3_column_int64(stmt, 0); /* NULL is 0 */
    sqlite3_reset(stmt);
    return err;
}

/* ---- handling them again --------------------------------------------------------------------- */

/* One block for its texts and payload; the views are made when it does not move any more. */
static wb_err letter_read(struct inbox *inbox, struct sqlite3_stmt *stmt, struct wb_why *why)
{
    static const int columns[] = {1, 2, 3, 4, 8};
    struct wb_buf *text = &inbox->letter_text;
    struct wb_str parts[5];
    size_t at = 0, header_count = 0;

    wb_buf_clear(text);
    for (size_t i = 0; i < 5; i++) {
        parts[i] = db_column_text(stmt, columns[i]);
        wb_buf_add(text, parts[i].ptr, parts[i].len);
    }
    if (text->failed)
        return wb_fail(why, WB_NOMEM, "out of memory reading a dead letter of %s", inbox->consumer);
    for (size_t i = 0; i < 5; i++, at += parts[i - 1].len)
        parts[i].ptr = text->ptr + at;
    wb_err err = message_headers_parse(parts[1], inbox->letter_headers, &header_count, why);
    if (err != WB_OK)
        return err;
    inbox->letter = (struct inbox_letter){
        .id = sqlite3_column_int64(stmt, 0),
        .message = {.subject = parts[0],
                    .payload = {parts[4].ptr, parts[4].len},
                    .headers = inbox->letter_headers,
                    .header_count = header_count,
                    .msg_id = parts[2]},
        .origin = {.stream = parts[3],
                   .sequence = (uint64_t)sqlite3_column_int64(stmt, 5),
                   .stored_wall_ns = sqlite3_column_int64(stmt, 6) * WB_MS},
        .failures = (uint32_t)sqlite3_column_int64(stmt, 7),
    };
    return WB_OK;
}

wb_err inbox_letter_next(struct inbox *inbox, int64_t now_wall_ns, bool in_key_order,
                         const struct inbox_letter **ret_letter, struct wb_why *why)
{
    bool row = false;

    assert(inbox != NULL);
    assert(ret_letter != NULL);
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_RETRY_NEXT);
    sqlite3_bind_int64(stmt, 2, now_wall_ns / WB_MS);
    sqlite3_bind_int(stmt, 3, in_key_order);
    wb_err err = inbox_first(inbox, stmt, &row, "look for dead letters to handle again", why);
    inbox->letter.id = row ? sqlite3_column_int64(stmt, 0) : 0;
    if (err == WB_OK && row)
        err = letter_read(inbox, stmt, why);
    sqlite3_reset(stmt);
    if (err == WB_OK)
        *ret_letter = row ? &inbox->letter : NULL;
    return err;
}

int64_t inbox_letter_at_hand(const struct inbox *inbox)
{
    assert(inbox != NULL);
    return inbox->letter.id;
}

wb_err inbox_letter_due(struct inbox *inbox, int64_t now_wall_ns, int64_t *ret_due_wall_ns,
                        struct wb_why *why)
{
    bool row = false;

    assert(inbox != NULL);
    assert(ret_due_wall_ns != NULL);
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_RETRY_DUE);
    sqlite3_bind_int64(stmt, 2, now_wall_ns / WB_MS);
    wb_err err = inbox_first(inbox, stmt, &row, "look for dead letters to handle again", why);
    if (err == WB_OK) /* NULL is 0 */
        *ret_due_wall_ns = sqlite3_column_int64(stmt, 0) * WB_MS;
    sqlite3_reset(stmt);
    return err;
}

static wb_err require_change(struct inbox *inbox, int64_t id, struct wb_why *why)
{
    if (sqlite3_changes(inbox->handle) == 1)
        return WB_OK;
    return wb_fail(why, WB_NOT_FOUND, "dead letter %lld of %s is not to be handled again any more",
                   (long long)id, inbox->consumer);
}

wb_err inbox_letter_done(struct inbox *inbox, int64_t id, struct wb_why *why)
{
    assert(inbox != NULL);
    wb_err err = inbox_require_transaction(inbox, "remove a dead letter", why);
    if (err != WB_OK)
        return err;
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_RETRY_DONE);
    sqlite3_bind_int64(stmt, 2, id);
    err = inbox_run(inbox, stmt, "remove a dead letter", why);
    return err == WB_OK ? require_change(inbox, id, why) : err;
}

wb_err inbox_letter_failed(struct inbox *inbox, int64_t id, const char *reason, struct wb_why *why)
{
    char fingerprint[WB_FINGERPRINT_TEXT];

    assert(inbox != NULL);
    assert(reason != NULL);
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_RETRY_FAILED);
    wb_fingerprint(wb_str(reason), fingerprint);
    sqlite3_bind_int64(stmt, 2, id);
    db_bind_text(stmt, 3, wb_str(reason));
    db_bind_text(stmt, 4, wb_str(fingerprint));
    sqlite3_bind_int64(stmt, 5, wb_wall_ns(wb_clock_system()) / WB_MS);
    wb_err err = inbox_run(inbox, stmt, "park a dead letter again", why);
    return err == WB_OK ? require_change(inbox, id, why) : err;
}

wb_err inbox_changed(struct inbox *inbox, int64_t *ret_version, struct wb_why *why)
{
    bool row = false;

    assert(inbox != NULL);
    assert(ret_version != NULL);
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_DATA_VERSION);
    wb_err err = inbox_first(inbox, stmt, &row, "look for changes by others", why);
    if (err == WB_OK)
        *ret_version = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return err;
}
