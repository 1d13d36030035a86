/* message_text.h - the rules for one header, shared by the check of messages and the text form. */
#ifndef MESSAGE_TEXT_H
#define MESSAGE_TEXT_H

#include <waybill/message.h>

static inline bool message_is_printable(char c)
{
    return c > 0x20 && c < 0x7f;
}

/* What NATS clients cut off at the ends of a value: the blanks of isspace() in the C locale. */
static inline bool message_is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/** Printable ASCII without ':', and not the bus's own "Nats-...". WB_INVALID. */
wb_err message_check_name(struct wb_str name, struct wb_why *why);

/** The value of a header whose name is valid. WB_INVALID. */
wb_err message_check_value(struct message_header header, struct wb_why *why);

#endif /* MESSAGE_TEXT_H */
