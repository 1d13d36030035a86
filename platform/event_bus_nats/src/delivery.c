#include "delivery.h"

#include <stdlib.h>
#include <string.h>

#include "api.h"

#define ID_HEADER "Nats-Msg-Id"

/* ---- the reply subject ----------------------------------------------------------------------- */

#define ACK_PREFIX    "$JS.ACK."
#define ACK_TOKENS    7 /* stream, consumer and five numbers */
#define ACK_TOKENS_V2 9 /* with domain and account hash; one more may follow */

static size_t split(const char *text, struct wb_str *tokens, size_t max)
{
    size_t count = 0;

    for (;;) {
        size_t len = strcspn(text, ".");
        if (count == max)
            return max + 1;
        tokens[count++] = wb_str_n(text, len);
        if (text[len] == '\0')
            return count;
        text += len + 1;
    }
}

bool event_bus_nats_ack_subject_parse(const char *reply, struct nats_ack_subject *ret_ack)
{
    struct wb_str tokens[ACK_TOKENS_V2 + 1];
    size_t first = 0;
    uint64_t numbers[5];

    if (reply == NULL || strncmp(reply, ACK_PREFIX, strlen(ACK_PREFIX)) != 0)
        return false;
    size_t count = split(reply + strlen(ACK_PREFIX), tokens, ACK_TOKENS_V2 + 1);
    if (count == ACK_TOKENS_V2 || count == ACK_TOKENS_V2 + 1)
        first = ACK_TOKENS_V2 - ACK_TOKENS;
    else if (count != ACK_TOKENS)
        return false;
    for (size_t i = 0; i < 5; i++)
        if (!wb_str_to_u64(tokens[first + 2 + i], &numbers[i]))
            return false;
    *ret_ack = (struct nats_ack_subject){.stream = tokens[first],
                                         .consumer = tokens[first + 1],
                                         .deliveries = numbers[0],
                                         .stream_seq = numbers[1],
                                         .consumer_seq = numbers[2],
                                         .stored_ns = numbers[3],
                                         .pending = numbers[4]};
    return true;
}

/* ---- from a message -------------------------------------------------------------------------- */

static bool belongs_to_bus(struct wb_str name)
{
    return name.len >= 5 && wb_str_case_eq(wb_str_n(name.ptr, 5), wb_str("nats-"));
}

/* Headers of one message, gathered before it is known how many there are. */
struct gathered {
    struct message_header small[32];
    struct message_header *items; /* small, or on the heap */
    size_t capacity;
    size_t count;
    bool failed;
};

static void gather(struct gathered *g, const char *name, const char *value)
{
    if (g->count == g->capacity) {
        struct message_header *more = calloc(2 * g->capacity, sizeof(*more));
        if (more == NULL) {
            g->failed = true;
            return;
        }
        memcpy(more, g->items, g->count * sizeof(*more));
        if (g->items != g->small)
            free(g->items);
        g->items = more;
        g->capacity *= 2;
    }
    g->items[g->count++] = (struct message_header){.name = wb_str(name), .value = wb_str(value)};
}

static void gather_values(struct gathered *g, natsMsg *msg, const char *name)
{
    const char **values = NULL;
    int count = 0;

    if (natsMsgHeader_Values(msg, name, &values, &count) != NATS_OK)
        return;
    for (int i = 0; i < count; i++)
        gather(g, name, values[i]);
    free(values);
}

static void gather_headers(struct gathered *g, natsMsg *msg)
{
    const char **names = NULL;
    int count = 0;

    g->items = g->small;
    g->capacity = sizeof(g->small) / sizeof(g->small[0]);
    g->count = 0;
    g->failed = false;
    if (natsMsgHeader_Keys(msg, &names, &count) != NATS_OK)
        return; /* it has none */
    for (int i = 0; i < count; i++)
        if (!belongs_to_bus(wb_str(names[i])))
            gather_values(g, msg, names[i]);
    free(names);
}

static void destroy(struct event_bus_delivery_impl *impl)
{
    struct nats_delivery *d = (struct nats_delivery *)impl;

    natsMsg_Destroy(d->msg);
    free(d);
}

/* One block: the delivery, its headers, then room for the texts they point to. */
static struct nats_delivery *create(size_t headers, size_t text_size, char **ret_text)
{
    size_t before = sizeof(struct nats_delivery) + headers * sizeof(struct message_header);
    struct nats_delivery *d = calloc(1, before + text_size);

    if (d == NULL)
        return NULL;
    event_bus_delivery_init(&d->impl);
    d->impl.destroy = destroy;
    d->impl.view.message.headers = d->headers;
    if (ret_text != NULL)
        *ret_text = (char *)d + before;
    return d;
}

static void fill_in(struct nats_delivery *d, natsMsg *msg, const struct nats_ack_subject *ack)
{
    struct event_bus_delivery *view = &d->impl.view;
    const char *id = NULL;

    d->msg = msg;
    d->reply = natsMsg_GetReply(msg);
    if (natsMsgHeader_Get(msg, ID_HEADER, &id) == NATS_OK)
        view->message.msg_id = wb_str(id);
    view->message.subject = wb_str(natsMsg_GetSubject(msg));
    view->message.payload =
        (struct wb_bytes){natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg)};
    view->stream = ack->stream;
    view->sequence = ack->stream_seq;
    view->deliveries = (uint32_t)ack->deliveries;
    view->stored_wall_ns = (int64_t)ack->stored_ns;
}

struct nats_delivery *event_bus_nats_delivery_create(natsMsg *msg,
                                                     const struct nats_ack_subject *ack)
{
    struct gathered g;

    gather_headers(&g, msg);
    struct nats_delivery *d = g.failed ? NULL : create(g.count, 0, NULL);
    if (d != NULL) {
        memcpy(d->headers, g.items, g.count * sizeof(d->headers[0]));
        d->impl.view.message.header_count = g.count;
        fill_in(d, msg, ack);
    } else {
        natsMsg_Destroy(msg);
    }
    if (g.items != g.small)
        free(g.items);
    return d;
}

/* ---- from the answer of a read --------------------------------------------------------------- */

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool event_bus_nats_base64_decode(struct wb_str text, char *out, size_t *ret_len)
{
    size_t len = 0;
    unsigned bits = 0;
    unsigned held = 0;

    if (text.len % 4 != 0)
        return false;
    for (size_t pad = 0; pad < 2 && text.len > 0 && text.ptr[text.len - 1] == '='; pad++)
        text.len--;
    for (size_t i = 0; i < text.len; i++) {
        int value = base64_value(text.ptr[i]);
        if (value < 0)
            return false;
        held = (held << 6 | (unsigned)value) & 0xffffU;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[len++] = (char)(held >> bits & 0xffU);
        }
    }
    *ret_len = len;
    return true;
}

/* "Name: value" -> its two halves, trimmed as nats.c does. */
static bool split_line(char *line, size_t len, struct message_header *ret_header)
{
    char *colon = memchr(line, ':', len);

    if (colon == NULL || colon == line)
        return false;
    char *begin = colon + 1;
    char *end = line + len;
    while (begin < end && (*begin == ' ' || *begin == '\t'))
        begin++;
    while (end > begin && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    ret_header->name = wb_str_n(line, (size_t)(colon - line));
    ret_header->value = wb_str_n(begin, (size_t)(end - begin));
    return true;
}

size_t event_bus_nats_headers_parse(char *block, size_t len, struct message_header *headers,
                                    size_t max, struct wb_str *ret_msg_id)
{
    struct message_header header;
    size_t count = 0;
    bool first = true; /* the line "NATS/1.0" */

    while (len > 0) {
        char *end = memchr(block, '\n', len);
        size_t line = end != NULL ? (size_t)(end - block) : len;
        size_t text = line > 0 && block[line - 1] == '\r' ? line - 1 : line;
        if (!first && split_line(block, text, &header)) {
            if (wb_str_eq(header.name, wb_str(ID_HEADER)) && ret_msg_id->len == 0)
                *ret_msg_id = header.value;
            else if (!belongs_to_bus(header.name) && count < max)
                headers[count++] = header;
        }
        first = false;
        size_t step = end != NULL ? line + 1 : line;
        block += step;
        len -= step;
    }
    return count;
}

static size_t count_lines(const char *block, size_t len)
{
    size_t lines = 0;

    for (size_t i = 0; i < len; i++)
        lines += block[i] == '\n';
    return lines;
}

/* What a text takes when it is kept, with a NUL. */
static char *keep(char **room, struct wb_str text)
{
    char *copy = *room;

    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    *room += text.len + 1;
    return copy;
}

static struct wb_str member(json_t *message, const char *name)
{
    json_t *value = json_object_get(message, name);

    return wb_str_n(json_string_value(value), json_string_length(value));
}

static void fill_in_read(struct nats_delivery *d, json_t *json, const char *stream,
                         struct wb_str block, char *text)
{
    struct event_bus_delivery *view = &d->impl.view;
    size_t lines = count_lines(block.ptr, block.len);

    view->message.subject = wb_str(keep(&text, member(json, "subject")));
    view->stream = wb_str(keep(&text, wb_str(stream)));
    char *kept = keep(&text, block);
    view->message.header_count =
        event_bus_nats_headers_parse(kept, block.len, d->headers, lines, &view->message.msg_id);
    view->sequence = event_bus_nats_json_u64(json, "seq");
    view->stored_wall_ns = event_bus_nats_time_parse(event_bus_nats_json_str(json, "time"));
    view->message.payload.ptr = text;
    if (!event_bus_nats_base64_decode(member(json, "data"), text, &view->message.payload.len))
        view->sequence = 0; /* sequences begin with 1: marks what could not be read */
}

struct nats_delivery *event_bus_nats_delivery_from_json(const char *stream, json_t *answer)
{
    json_t *json = json_object_get(answer, "message");
    struct wb_str subject = member(json, "subject");
    struct wb_str coded = member(json, "hdrs");
    struct nats_delivery *d = NULL;
    size_t block_len = 0;
    char *text;

    if (subject.len == 0)
        return NULL;
    char *block = malloc(coded.len + 1);
    if (block == NULL || !event_bus_nats_base64_decode(coded, block, &block_len))
        goto free_block;
    d = create(count_lines(block, block_len),
               subject.len + strlen(stream) + block_len + 3 + member(json, "data").len, &text);
    if (d == NULL)
        goto free_block;
    fill_in_read(d, json, stream, wb_str_n(block, block_len), text);
    if (d->impl.view.sequence == 0) {
        event_bus_release(&d->impl.view);
        d = NULL;
    }
free_block:
    free(block);
    return d;
}

int64_t event_bus_nats_time_parse(const char *text)
{
    char whole[64];
    int64_t seconds_ns;
    int64_t fraction_ns = 0;
    int64_t digit_ns = WB_SEC / 10;

    if (text == NULL || strlen(text) >= sizeof(whole))
        return 0;
    /* The fraction is taken out and read apart: nine digits are more than a float holds. */
    const char *dot = strchr(text, '.');
    size_t head = dot != NULL ? (size_t)(dot - text) : strcspn(text, "Z+");
    const char *rest = text + head;
    if (dot != NULL)
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, digit_ns /= 10)
            fraction_ns += (*rest - '0') * digit_ns;
    memcpy(whole, text, head);
    memcpy(whole + head, rest, strlen(rest) + 1);
    return wb_time_parse(wb_str(whole), &seconds_ns) ? seconds_ns + fraction_ns : 0;
}
