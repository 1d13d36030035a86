#include "puback.h"

#include <string.h>

/* Answers are flat but for "error"; what nests deeper is no answer we know. */
#define DEPTH_MAX 3

struct cursor {
    const char *at;
    const char *end;
};

static void skip_blanks(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

static bool take(struct cursor *c, char expected)
{
    skip_blanks(c);
    if (c->at == c->end || *c->at != expected)
        return false;
    c->at++;
    return true;
}

/* What is between the quotes, escapes as they are. */
static bool take_string(struct cursor *c, struct wb_str *ret_text)
{
    if (!take(c, '"'))
        return false;
    const char *begin = c->at;
    while (c->at < c->end && *c->at != '"')
        c->at += *c->at == '\\' && c->at + 1 < c->end ? 2 : 1;
    if (c->at >= c->end)
        return false;
    *ret_text = wb_str_n(begin, (size_t)(c->at - begin));
    c->at++;
    return true;
}

/* A number, true, false or null. */
static bool take_word(struct cursor *c, struct wb_str *ret_text)
{
    const char *begin = c->at;

    while (c->at < c->end && strchr(",}] \t\r\n", *c->at) == NULL)
        c->at++;
    *ret_text = wb_str_n(begin, (size_t)(c->at - begin));
    return ret_text->len > 0;
}

static bool take_object(struct cursor *c, struct nats_puback *ack, unsigned depth);

static bool is(struct wb_str key, const char *name)
{
    return wb_str_eq(key, wb_str(name));
}

static void set_text(struct nats_puback *ack, struct wb_str key, struct wb_str text, unsigned depth)
{
    if (depth == 1 && is(key, "stream"))
        ack->stream = text;
    else if (depth == 2 && is(key, "description"))
        ack->description = text;
}

static bool set_word(struct nats_puback *ack, struct wb_str key, struct wb_str word, unsigned depth)
{
    uint64_t number = 0;

    if (depth == 1 && is(key, "duplicate")) {
        ack->duplicate = is(word, "true");
        return true;
    }
    bool wanted = depth == 1 ? is(key, "seq") : is(key, "code") || is(key, "err_code");
    if (!wanted)
        return true;
    if (!wb_str_to_u64(word, &number))
        return false;
    if (depth == 1)
        ack->seq = number;
    else if (is(key, "code"))
        ack->code = (unsigned)number;
    else
        ack->err_code = (unsigned)number;
    return true;
}

static bool take_member(struct cursor *c, struct nats_puback *ack, unsigned depth)
{
    struct wb_str key;
    struct wb_str value;

    if (!take_string(c, &key) || !take(c, ':'))
        return false;
    skip_blanks(c);
    if (c->at == c->end)
        return false;
    if (*c->at == '{') {
        ack->error |= depth == 1 && is(key, "error");
        return take_object(c, ack, depth + 1);
    }
    if (*c->at == '"') {
        if (!take_string(c, &value))
            return false;
        set_text(ack, key, value, depth);
        return true;
    }
    return take_word(c, &value) && set_word(ack, key, value, depth);
}

static bool take_object(struct cursor *c, struct nats_puback *ack, unsigned depth)
{
    if (depth > DEPTH_MAX || !take(c, '{'))
        return false;
    if (take(c, '}'))
        return true;
    do {
        if (!take_member(c, ack, depth))
            return false;
    } while (take(c, ','));
    return take(c, '}');
}

bool event_bus_nats_puback_parse(struct wb_str text, struct nats_puback *ret_ack)
{
    struct cursor c = {text.ptr, text.ptr + text.len};
    struct nats_puback ack = {0};

    if (text.len == 0 || !take_object(&c, &ack, 1))
        return false;
    skip_blanks(&c);
    if (c.at != c.end || (!ack.error && (ack.stream.len == 0 || ack.seq == 0)))
        return false;
    *ret_ack = ack;
    return true;
}

uint64_t event_bus_nats_puback_actual_sequence(struct wb_str description)
{
    size_t begin = description.len;
    uint64_t number = 0;

    while (begin > 0 && description.ptr[begin - 1] >= '0' && description.ptr[begin - 1] <= '9')
        begin--;
    if (!wb_str_to_u64(wb_str_n(description.ptr + begin, description.len - begin), &number))
        return 0;
    return number;
}
