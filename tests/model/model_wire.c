/* A bus between a publisher and the broker; what is sent lies on it until the explorer moves it. */
#include "model.h"

static struct model_wire *wire_of(struct event_bus *base)
{
    return (struct model_wire *)base;
}

static void push(struct model_message **list, struct model_message *one)
{
    while (*list != NULL)
        list = &(*list)->next;
    one->next = NULL;
    *list = one;
}

static struct model_message *pop(struct model_message **list)
{
    struct model_message *one = *list;

    *list = one->next;
    return one;
}

static void message_free(struct model_message *one)
{
    free(one->message);
    free(one);
}

/* ---- the bus --------------------------------------------------------------------------------- */

static wb_err publish_async(struct event_bus *base, const struct message *msg,
                            const struct event_bus_publish_options *options,
                            event_bus_published done, void *ctx, struct wb_why *why)
{
    struct model_message *one = calloc(1, sizeof(*one));

    (void)why;
    assert_non_null(one);
    *one = (struct model_message){
        .message = message_copy(msg, 0, NULL), .options = *options, .done = done, .ctx = ctx};
    assert_non_null(one->message);
    push(&wire_of(base)->live, one);
    return WB_OK;
}

static void health(struct event_bus *base, struct event_bus_health *ret_health)
{
    bus_wrap_health(base, ret_health);
    ret_health->durability = EVENT_BUS_DURABLE_PROCESS;
}

static void destroy(struct event_bus *base)
{
    event_bus_fini(base);
    free(base);
}

/* ---- its moves ------------------------------------------------------------------------------- */

struct model_wire *model_wire_create(struct event_bus *broker, bool unchained)
{
    static const struct event_bus_ops ops = {BUS_WRAP_READ, .kind = "wire",
                                             .publish_async = publish_async, .health = health,
                                             .destroy = destroy};
    struct model_wire *self = calloc(1, sizeof(*self));

    assert_non_null(self);
    self->wrap.inner = broker;
    self->unchained = unchained;
    assert_ok(
        event_bus_init(&self->wrap.base, &ops,
                       &(struct event_bus_settings){.clock = event_bus_memory_clock(broker)}));
    return self;
}

static void unknown(struct model_message *one)
{
    const struct event_bus_ack_info none = {.sequence = 0};
    struct wb_why why;

    (void)wb_fail(&why, WB_UNKNOWN, "the connection broke");
    if (one->done != NULL)
        one->done(one->ctx, WB_UNKNOWN, &none, &why);
    one->done = NULL;
}

void model_wire_drop(struct model_wire *wire)
{
    while (wire->late != NULL)
        message_free(pop(&wire->late));
}

void model_wire_destroy(struct model_wire *wire)
{
    while (wire->live != NULL) {
        struct model_message *one = pop(&wire->live);
        unknown(one);
        message_free(one);
    }
    model_wire_drop(wire);
    event_bus_destroy(&wire->wrap.base);
}

void model_wire_arrive(struct model_wire *wire, bool late)
{
    struct model_message *one = pop(late ? &wire->late : &wire->live);
    struct event_bus_ack_info ack = {.sequence = 0};
    struct wb_why why = {.text = ""};

    if (wire->unchained)
        one->options.expect_last_seq = false;
    wb_err err = event_bus_publish(wire->wrap.inner, one->message, &one->options, &ack, &why);
    if (one->done != NULL)
        one->done(one->ctx, err, &ack, &why);
    message_free(one);
}

void model_wire_break(struct model_wire *wire)
{
    while (wire->live != NULL) {
        struct model_message *one = pop(&wire->live);
        unknown(one);
        push(&wire->late, one);
    }
    event_bus_notify(&wire->wrap.base, false);
    event_bus_notify(&wire->wrap.base, true);
}
