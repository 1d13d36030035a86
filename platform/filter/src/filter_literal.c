/* The values of a filter. */
#include "filter_internal.h"

#include <string.h>

#include <waybill/subject.h>

const char *filter_type_expects(filter_type type)
{
    static const char *const texts[] = {
        [FILTER_TEXT] = "a text, in quotes if it has blanks",
        [FILTER_SUBJECT] = "a subject or pattern, as orders.>",
        [FILTER_NUMBER] = "a whole number",
        [FILTER_AGE] = "a duration, as 90s or 1h30m",
        [FILTER_TIME] = "a time, as 2026-01-31 or 2026-01-31T10:00:00Z",
        [FILTER_ID] = "a number, or for =, != and in a range, as 5..9",
    };
    return texts[type];
}

bool filter_type_allows(filter_type type, enum filter_operator op)
{
    bool textual = type == FILTER_TEXT || type == FILTER_SUBJECT;

    switch (op) {
    case FILTER_EQ:
    case FILTER_NE:
    case FILTER_IN:
        return true;
    case FILTER_CONTAINS:
        return textual;
    case FILTER_LT:
    case FILTER_LE:
    case FILTER_GT:
    case FILTER_GE:
        break;
    }
    return !textual;
}

static bool number_read(struct wb_str text, int64_t *ret_number)
{
    bool negative = text.len > 0 && text.ptr[0] == '-';
    uint64_t number = 0;

    if (negative)
        text = wb_str_n(text.ptr + 1, text.len - 1);
    if (!wb_str_to_u64(text, &number) || number > INT64_MAX)
        return false;
    *ret_number = negative ? -(int64_t)number : (int64_t)number;
    return true;
}

static bool time_read(struct wb_str text, int64_t *ret_wall_ns)
{
    const char midnight[] = "T00:00:00Z";
    char whole[32];

    if (text.len != strlen("2026-01-31"))
        return wb_time_parse(text, ret_wall_ns);
    memcpy(whole, text.ptr, text.len);
    memcpy(whole + text.len, midnight, sizeof(midnight));
    return wb_time_parse(wb_str(whole), ret_wall_ns);
}

/* "5..9", "5..", "..9", "5". */
static bool range_read(struct wb_str text, struct filter_literal *literal)
{
    size_t dots = 0;

    while (dots + 1 < text.len && (text.ptr[dots] != '.' || text.ptr[dots + 1] != '.'))
        dots++;
    if (dots + 1 >= text.len) {
        bool read = number_read(text, &literal->low);
        literal->high = literal->low;
        return read;
    }
    struct wb_str from = wb_str_n(text.ptr, dots);
    struct wb_str to = wb_str_n(text.ptr + dots + 2, text.len - dots - 2);
    literal->low = INT64_MIN;
    literal->high = INT64_MAX;
    return (from.len > 0 || to.len > 0) && (from.len == 0 || number_read(from, &literal->low)) &&
           (to.len == 0 || number_read(to, &literal->high)) && literal->low <= literal->high;
}

bool filter_literal_read(filter_type type, enum filter_operator op, struct wb_str text,
                         struct filter_literal *ret_literal)
{
    struct filter_literal literal = {.text = text};
    bool ordered = op == FILTER_LT || op == FILTER_LE || op == FILTER_GT || op == FILTER_GE;
    bool read = true;

    switch (type) {
    case FILTER_TEXT:
        break;
    case FILTER_SUBJECT:
        read = op == FILTER_CONTAINS || subject_pattern_check(text, NULL) == WB_OK;
        break;
    case FILTER_ID:
        read = ordered ? number_read(text, &literal.low) : range_read(text, &literal);
        break;
    case FILTER_NUMBER:
        read = number_read(text, &literal.low);
        break;
    case FILTER_AGE:
        read = wb_duration_parse(text, &literal.low);
        break;
    case FILTER_TIME:
        read = time_read(text, &literal.low);
        break;
    }
    if (type != FILTER_ID)
        literal.high = literal.low;
    if (read)
        *ret_literal = literal;
    return read;
}
