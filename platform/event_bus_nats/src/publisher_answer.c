/* publisher_answer.c - what the server's answer to a publish means. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "api.h"
#include "nats_bus.h"
#include "puback.h"

/* Where an answer belongs, read from its subject: <inbox>.<phase>.<slot>.<serial>. */
struct address {
    char phase;
    uint64_t slot;
    uint64_t serial;
};

static bool parse_address(const struct nats_publisher *p, const char *subject,
                          struct address *ret_address)
{
    size_t inbox = strlen(p->bus->pub.inbox);

    if (strncmp(subject, p->bus->pub.inbox, inbox) != 0 || subject[inbox] != '.' ||
        subject[inbox + 1] == '\0' || subject[inbox + 2] != '.')
        return false;
    const char *slot = subject + inbox + 3;
    const char *dot = strchr(slot, '.');
    if (dot == NULL)
        return false;
    ret_address->phase = subject[inbox + 1];
    return wb_str_to_u64(wb_str_n(slot, (size_t)(dot - slot)), &ret_address->slot) &&
           wb_str_to_u64(wb_str(dot + 1), &ret_address->serial) && ret_address->slot < p->window;
}

static struct wb_str text_of(natsMsg *msg)
{
    return wb_str_n(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg));
}

/*
 * Ask a second question about a slot, under a new serial, from the thread of the answers. If it
 * cannot be sent, the connection is being lost, and that completes the slot.
 */
static void ask(struct nats_publisher *p, struct nats_slot *slot, enum nats_slot_state state,
                char phase, char *out_reply, size_t size)
{
    slot->serial = ++p->serial;
    slot->state = state;
    event_bus_nats_slot_reply(p, slot, phase, out_reply, size);
}

static void send_question(struct nats_publisher *p, const char *subject, const char *reply,
                          const char *body)
{
    (void)event_bus_nats_link_send(&p->bus->pub, subject, reply,
                                   (struct wb_bytes){body, strlen(body)});
}

/* ---- nobody took it -------------------------------------------------------------------------- */

struct question {
    char subject[160];
    char reply[128];
    struct wb_buf body;
};

/* A 503 alone proves nothing: a cluster that elects a leader gives it for seconds. */
static void ask_for_stream(struct nats_publisher *p, struct nats_slot *slot, struct question *q)
{
    ask(p, slot, NATS_SLOT_LOOKUP, 'n', q->reply, sizeof(q->reply));
    (void)snprintf(q->subject, sizeof(q->subject), "$JS.API.STREAM.NAMES");
    wb_buf_str(&q->body, "{\"subject\":");
    wb_buf_json_str(&q->body, wb_str(slot->subject));
    wb_buf_str(&q->body, "}");
}

static void no_jetstream(struct nats_publisher *p, struct nats_slot *slot)
{
    event_bus_nats_slot_mark(slot, WB_NO_JETSTREAM,
                             "publish '%s': JetStream is not enabled on the server at %s; start "
                             "nats-server with -js or a jetstream block in its configuration",
                             slot->subject, p->bus->urls);
}

static void take_stream_names(struct nats_publisher *p, struct nats_slot *slot, natsMsg *msg)
{
    struct wb_str text = text_of(msg);
    json_t *answer = json_loadb(text.ptr, text.len, 0, NULL);
    uint64_t err_code = event_bus_nats_json_u64(answer, "error.err_code");
    json_t *streams = json_object_get(answer, "streams");

    if (natsMsg_IsNoResponders(msg) || err_code == NATS_API_NOT_ENABLED ||
        err_code == NATS_API_NOT_ENABLED_FOR_ACCOUNT)
        no_jetstream(p, slot);
    else if (err_code == 0 && json_is_object(answer) && json_array_size(streams) == 0)
        event_bus_nats_slot_mark(slot, WB_NO_STREAM,
                                 "publish '%s': no stream at %s covers it; declare one whose "
                                 "subjects match",
                                 slot->subject, p->bus->urls);
    else
        event_bus_nats_slot_mark(
            slot, WB_UNREACHABLE,
            "publish '%s': stream '%s' exists, but nobody took the message "
            "(503): it may be electing a leader; try again",
            slot->subject,
            json_array_size(streams) > 0 ? json_string_value(json_array_get(streams, 0)) : "?");
    json_decref(answer);
}

/* ---- a duplicate with an expectation --------------------------------------------------------- */

/* Servers before 2.12 look for the id first and never at the expectation; we promise the other
 * order, so the stream itself decides. */
static void ask_for_last(struct nats_publisher *p, struct nats_slot *slot, struct question *q)
{
    ask(p, slot, NATS_SLOT_READBACK, 'i', q->reply, sizeof(q->reply));
    (void)snprintf(q->subject, sizeof(q->subject), "$JS.API.STREAM.INFO.%s", slot->ack.stream);
}

static void conflict(struct nats_slot *slot, uint64_t actual)
{
    slot->ack.sequence = actual;
    slot->ack.duplicate = false;
    event_bus_nats_slot_mark(slot, WB_CONFLICT,
                             "publish '%s': the last sequence of the stream is %" PRIu64
                             ", expected %" PRIu64 "; read what is stored, then publish behind it",
                             slot->subject, actual, slot->last_seq);
}

static void take_stream_info(struct nats_slot *slot, natsMsg *msg)
{
    struct wb_str text = text_of(msg);
    json_t *answer = json_loadb(text.ptr, text.len, 0, NULL);
    json_t *last = event_bus_nats_json_at(answer, "state.last_seq");
    uint64_t last_seq = event_bus_nats_json_u64(answer, "state.last_seq");

    if (!json_is_integer(last))
        event_bus_nats_slot_mark(slot, WB_UNKNOWN,
                                 "publish '%s': its id is known to stream '%s', whose last "
                                 "sequence could not be read; read what is stored",
                                 slot->subject, slot->ack.stream);
    else if (last_seq == slot->last_seq)
        event_bus_nats_slot_mark(slot, WB_OK, NULL);
    else
        conflict(slot, last_seq);
    json_decref(answer);
}

/* ---- the first answer ------------------------------------------------------------------------ */

static void take_refusal(struct nats_publisher *p, struct nats_slot *slot,
                         const struct nats_puback *ack)
{
    wb_err err = event_bus_nats_api_err(ack->code, ack->err_code);

    if (ack->err_code == NATS_API_WRONG_LAST_SEQUENCE)
        conflict(slot, event_bus_nats_puback_actual_sequence(ack->description));
    else if (err == WB_NO_JETSTREAM)
        no_jetstream(p, slot);
    else
        event_bus_nats_slot_mark(slot, err, "publish '%s': the server at %s refused it: %.*s (%u)",
                                 slot->subject, p->bus->urls, (int)ack->description.len,
                                 ack->description.ptr, ack->err_code);
}

static void take_puback(struct nats_publisher *p, struct nats_slot *slot, natsMsg *msg,
                        struct question *q)
{
    struct nats_puback ack;

    if (natsMsg_IsNoResponders(msg)) {
        ask_for_stream(p, slot, q);
        return;
    }
    if (!event_bus_nats_puback_parse(text_of(msg), &ack) ||
        ack.stream.len >= sizeof(slot->ack.stream)) {
        event_bus_nats_slot_mark(
            slot, WB_UNKNOWN,
            "publish '%s': something that is no JetStream answered (%d bytes); "
            "does another program listen on this subject?",
            slot->subject, natsMsg_GetDataLength(msg));
        return;
    }
    memcpy(slot->ack.stream, ack.stream.ptr, ack.stream.len);
    if (ack.error) {
        take_refusal(p, slot, &ack);
        return;
    }
    slot->ack.sequence = ack.seq;
    slot->ack.duplicate = ack.duplicate;
    if (ack.duplicate && slot->expect_last_seq)
        ask_for_last(p, slot, q);
    else
        event_bus_nats_slot_mark(slot, WB_OK, NULL);
}

static void take_answer(struct nats_publisher *p, const struct address *address, natsMsg *msg,
                        struct question *q)
{
    struct nats_slot *slot = &p->slots[address->slot];

    if (slot->serial != address->serial)
        return; /* too late: completed without it */
    if (address->phase == 'p' && slot->state == NATS_SLOT_SENT)
        take_puback(p, slot, msg, q);
    else if (address->phase == 'n' && slot->state == NATS_SLOT_LOOKUP)
        take_stream_names(p, slot, msg);
    else if (address->phase == 'i' && slot->state == NATS_SLOT_READBACK)
        take_stream_info(slot, msg);
    if (slot->state == NATS_SLOT_DONE)
        event_bus_nats_slot_advance(p, slot);
}

void event_bus_nats_publisher_answer(struct nats_publisher *p, natsMsg *msg)
{
    struct address address;
    struct question q;

    q.subject[0] = '\0';
    q.body = (struct wb_buf){0};
    if (parse_address(p, natsMsg_GetSubject(msg), &address)) {
        pthread_mutex_lock(&p->mutex);
        take_answer(p, &address, msg, &q);
        event_bus_nats_publisher_hand_out(p);
        pthread_mutex_unlock(&p->mutex);
    }
    if (q.subject[0] != '\0')
        send_question(p, q.subject, q.reply, q.body.ptr != NULL ? q.body.ptr : "");
    wb_buf_free(&q.body);
    event_bus_nats_trash_add(&p->trash, msg);
}
