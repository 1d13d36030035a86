/* Dead letters that a person wants handled again: one at a time, between the events. */
#include "event_consumer_internal.h"

#include <assert.h>

/* Somebody else's command is seen after this at the latest. */
static const int64_t LOOK_NS = WB_SEC;

int64_t event_consumer_letters_wait_ns(const struct event_consumer *consumer)
{
    int64_t left = consumer->letters.next_mono_ns - wb_mono_ns(consumer->options.clock);

    return left > 0 ? left : 0;
}

/* Look again after a while; then only if something was changed, or one falls due. */
static void rest(struct event_consumer *consumer)
{
    consumer->letters.pending = false;
    consumer->letters.next_mono_ns = wb_mono_ns(consumer->options.clock) + LOOK_NS;
}

static bool wants_look(struct event_consumer *consumer)
{
    struct consumer_letters *letters = &consumer->letters;
    int64_t version = 0;

    if (letters->pending && wb_mono_ns(consumer->options.clock) >= letters->retry_mono_ns)
        return true;
    if (letters->pending || event_consumer_letters_wait_ns(consumer) > 0)
        return false;
    rest(consumer);
    if (inbox_changed(consumer->inbox, &version, NULL) != WB_OK)
        return false;
    bool changed = version != letters->version;
    letters->version = version;
    return changed || (letters->due_wall_ns > 0 &&
                       wb_wall_ns(consumer->options.clock) >= letters->due_wall_ns);
}

static wb_err next_letter(struct event_consumer *consumer, const struct inbox_letter **ret_letter,
                          struct wb_why *why)
{
    return inbox_letter_next(consumer->inbox, wb_wall_ns(consumer->options.clock),
                             consumer->options.policy == EVENT_CONSUMER_BLOCK_KEY, ret_letter, why);
}

static void tell(struct event_consumer *consumer, int64_t id, const char *text)
{
    event_consumer_problem(consumer, text);
    wb_log(WB_LOG_WARN, "event_consumer", "%s: dead letter %lld: %s", consumer->options.name,
           (long long)id, text);
}

/* Something that passes. */
static void trouble(struct event_consumer *consumer, int64_t id, const char *text)
{
    tell(consumer, id, text);
    event_consumer_unsuspect(consumer);
    consumer->letters.retry_mono_ns = event_consumer_backoff(consumer, consumer->letters.attempts);
    consumer->letters.attempts++;
}

static void park_again(struct event_consumer *consumer, int64_t id, const char *reason)
{
    struct wb_why why;
    wb_err err = db_begin(consumer->db, &why);

    if (err == WB_OK)
        err = inbox_letter_failed(consumer->inbox, id, reason, &why);
    if (err == WB_OK)
        err = event_consumer_commit(consumer, &why);
    db_rollback(consumer->db);
    if (err != WB_OK && err != WB_NOT_FOUND) {
        trouble(consumer, id, why.text);
        return;
    }
    wb_log(WB_LOG_WARN, "event_consumer", "%s: dead letter %lld: %s", consumer->options.name,
           (long long)id, reason);
    event_consumer_count(consumer, &consumer->health.failed, 1, consumer->failed_series);
}

/* The handler, and the letter away, in one transaction. WB_NOT_FOUND: it is another one by now. */
static wb_err handle(struct event_consumer *consumer, int64_t id, struct wb_why *why)
{
    const struct inbox_letter *letter = NULL;
    wb_err err = next_letter(consumer, &letter, why);

    if (err != WB_OK || letter == NULL || letter->id != id)
        return err == WB_OK ? WB_NOT_FOUND : err;
    const struct event_bus_delivery delivery = {.message = letter->message,
                                                .stream = letter->origin.stream,
                                                .sequence = letter->origin.sequence,
                                                .stored_wall_ns = letter->origin.stored_wall_ns,
                                                .deliveries = letter->failures + 1};
    err = event_consumer_handle(consumer, &delivery, why);
    if (err == WB_NOT_FOUND) /* means something else here */
        err = WB_INVALID;
    if (err == WB_OK)
        err = inbox_letter_done(consumer->inbox, id, why);
    return err == WB_OK ? event_consumer_commit(consumer, why) : err;
}

static void try_letter(struct event_consumer *consumer, int64_t id)
{
    struct wb_why why = {""};
    wb_err err = event_consumer_suspect(consumer, id, &why);

    if (err == WB_OK)
        err = db_begin(consumer->db, &why);
    if (err == WB_OK)
        err = handle(consumer, id, &why);
    db_rollback(consumer->db);
    if (err == WB_OK) {
        consumer->letters.attempts = 0;
        event_consumer_count(consumer, &consumer->health.handled, 1, consumer->handled_series);
        if (consumer->options.committed != NULL)
            consumer->options.committed(consumer->options.ctx, consumer->scope);
    } else if (event_consumer_is_trouble(err)) {
        trouble(consumer, id, why.text);
    } else if (err != WB_NOT_FOUND) {
        park_again(consumer, id, why.text);
    } else {
        event_consumer_unsuspect(consumer);
    }
}

bool event_consumer_letters_step(struct event_consumer *consumer)
{
    struct consumer_letters *letters = &consumer->letters;
    const struct inbox_letter *letter = NULL;
    struct wb_why why = {""};

    if (!wants_look(consumer))
        return false;
    /* Without a transaction: most of the time there is none. */
    wb_err err = next_letter(consumer, &letter, &why);
    int64_t id = err == WB_OK && letter == NULL ? 0 : inbox_letter_at_hand(consumer->inbox);
    if (err != WB_OK && (id == 0 || event_consumer_is_trouble(err))) {
        trouble(consumer, id, why.text);
        letters->pending = true;
        return false;
    }
    if (id == 0) {
        rest(consumer);
        letters->due_wall_ns = 0;
        (void)inbox_letter_due(consumer->inbox, wb_wall_ns(consumer->options.clock),
                               &letters->due_wall_ns, NULL);
        return false;
    }
    letters->pending = true;
    if (err != WB_OK)
        park_again(consumer, id, why.text);
    else if (inbox_is_accused_letter(consumer->inbox, id) &&
             event_consumer_condemned(consumer, &why))
        park_again(consumer, id, why.text);
    else
        try_letter(consumer, id);
    return true;
}
