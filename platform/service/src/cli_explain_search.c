/* cli_explain_search.c - find an event in a stream, and ask the consumers about it. */
#include "cli_explain.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/inbox.h>

enum { NEIGHBOURS = 64, BEFORE = 4096, BEHIND = 200000 };

/* ---- the stream ------------------------------------------------------------------------------ */

/* The row a message says it is of this source; false: it is none of its. */
static bool row_of(const struct message *msg, const char *source, int64_t *ret_row)
{
    uint64_t row = 0;

    if (!wb_str_eq(message_header(msg, MESSAGE_HEADER_SOURCE), wb_str(source)) ||
        !wb_str_to_u64(message_header(msg, MESSAGE_HEADER_ROW), &row))
        return false;
    *ret_row = (int64_t)row;
    return true;
}

/* The row at a sequence, or at one of those behind it; false: none of this source is near. */
static wb_err row_near(struct event_bus *bus, const char *stream, const char *source,
                       uint64_t sequence, uint64_t last, bool *ret_found, int64_t *ret_row,
                       struct wb_why *why)
{
    wb_err err = WB_OK;

    *ret_found = false;
    for (uint64_t at = sequence; err == WB_OK && at <= last && at < sequence + NEIGHBOURS; at++) {
        struct event_bus_delivery *delivery = NULL;
        err = event_bus_get(bus, stream, at, &delivery, why);
        if (err == WB_OK)
            *ret_found = row_of(&delivery->message, source, ret_row);
        event_bus_release(delivery);
        if (err == WB_NOT_FOUND)
            err = WB_OK;
        if (*ret_found)
            break;
    }
    return err;
}

/* About where the row stands: the last place known to lie before it. */
static wb_err locate(struct event_bus *bus, const char *source, int64_t row_id,
                     const struct explain_search *search, uint64_t *ret_sequence,
                     struct wb_why *why)
{
    uint64_t low = search->first_seq, high = search->last_seq + 1;
    wb_err err = WB_OK;

    while (err == WB_OK && low + NEIGHBOURS < high) {
        uint64_t middle = low + (high - low) / 2;
        bool found = false;
        int64_t row = 0;
        err = row_near(bus, search->stream, source, middle, search->last_seq, &found, &row, why);
        if (found && row <= row_id)
            low = middle;
        else
            high = middle;
    }
    *ret_sequence = low;
    return err;
}

struct collecting {
    struct explain_search *search;
    const char *source;
    int64_t row_id;
};

static bool collect(void *ctx, const struct event_bus_delivery *delivery)
{
    struct collecting *self = ctx;
    struct explain_search *search = self->search;
    const struct message *msg = &delivery->message;
    int64_t row = 0;

    if (!row_of(msg, self->source, &row) || row != self->row_id)
        return true;
    struct explain_store *store = &search->stores[search->count++];
    store->sequence = delivery->sequence;
    store->stored_wall_ns = delivery->stored_wall_ns;
    (void)snprintf(store->msg_id, sizeof(store->msg_id), "%.*s", (int)msg->msg_id.len,
                   msg->msg_id.ptr);
    return search->count < EXPLAIN_STORES;
}

wb_err service_cli_explain_search(struct event_bus *bus, const char *stream, const char *source,
                                  int64_t row_id, struct explain_search *ret_search,
                                  struct wb_why *why)
{
    struct explain_search search = {.count = 0};
    const struct collecting template = {.source = source, .row_id = row_id};
    struct collecting collecting = template;
    struct event_bus_stream_info info;
    uint64_t at = 0, next = 0;
    wb_err err = event_bus_stream_info(bus, stream, &info, why);

    if (err != WB_OK)
        return err;
    (void)snprintf(search.stream, sizeof(search.stream), "%s", stream);
    search.last_seq = info.last_seq;
    search.first_seq = info.messages > 0 ? info.first_seq : info.last_seq + 1;
    collecting.search = &search;
    if (info.messages > 0) {
        err = locate(bus, source, row_id, &search, &at, why);
        search.from = at > search.first_seq + BEFORE ? at - BEFORE : search.first_seq;
        search.to = search.last_seq - at > BEHIND ? at + BEHIND : search.last_seq;
        if (err == WB_OK)
            err = event_bus_scan(bus, stream, search.from, search.to, collect, &collecting, &next,
                                 why);
    }
    if (err == WB_OK)
        *ret_search = search;
    return err;
}

/* ---- the consumers --------------------------------------------------------------------------- */

struct asking {
    const char *file, *event;
    struct sqlite3 *handle;
    struct explain_consumer *consumers;
    size_t max, count;
    struct wb_why *why;
    wb_err err;
};

static bool ask(void *ctx, const struct inbox_status *status)
{
    struct asking *asking = ctx;
    struct inbox_event_status event;

    if (asking->count == asking->max)
        return false;
    struct explain_consumer *one = &asking->consumers[asking->count];
    *one = (struct explain_consumer){.handled = false};
    (void)snprintf(one->file, sizeof(one->file), "%s", asking->file);
    (void)snprintf(one->name, sizeof(one->name), "%.*s", (int)status->consumer.len,
                   status->consumer.ptr);
    asking->err =
        inbox_handled(asking->handle, one->name, wb_str(asking->event), &event, asking->why);
    if (asking->err != WB_OK)
        return false;
    one->handled = event.handled;
    one->retry = event.letter_retry;
    one->failures = event.failures;
    one->letter = event.letter;
    (void)snprintf(one->reason, sizeof(one->reason), "%s", event.reason);
    asking->count++;
    return true;
}

/* A database without an inbox, or a file that is none, has nothing to say. */
static wb_err ask_file(const char *dir, struct asking *asking)
{
    const struct db_options options = {.must_exist = true, .read_only = true};
    struct wb_buf path = {0};
    struct db *db = NULL;

    wb_buf_printf(&path, "%s/%s", dir, asking->file);
    wb_err err = path.failed ? WB_NOMEM : db_open(path.ptr, &options, &db, NULL);
    if (err == WB_OK) {
        asking->handle = db_handle(db);
        err = inbox_list(asking->handle, ask, asking, NULL);
    }
    db_close(db);
    wb_buf_free(&path);
    return err == WB_NOMEM ? err : asking->err;
}

static int is_database(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);

    return len > 3 && strcmp(entry->d_name + len - 3, ".db") == 0;
}

wb_err service_cli_explain_consumers(const char *dir, const char *event,
                                     struct explain_consumer *ret_consumers, size_t max,
                                     size_t *ret_count, struct wb_why *why)
{
    struct asking asking = {.event = event, .consumers = ret_consumers, .max = max, .why = why};
    struct dirent **entries = NULL;
    int files = scandir(dir, &entries, is_database, alphasort);

    if (files < 0)
        return wb_fail(why, errno == ENOENT ? WB_NOT_FOUND : WB_IO,
                       "read the data directory %s: %s", dir, strerror(errno));
    for (int i = 0; i < files; i++) {
        asking.file = entries[i]->d_name;
        if (asking.err == WB_OK)
            asking.err = ask_file(dir, &asking);
        free(entries[i]);
    }
    free(entries);
    *ret_count = asking.count;
    return asking.err;
}
