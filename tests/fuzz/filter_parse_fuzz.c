/*
 * Any bytes as a filter: it is refused with a reason, or it means something, and its negation the
 * opposite.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/filter.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static const struct filter_field fields[] = {
    {"key", FILTER_TEXT}, {"subject", FILTER_SUBJECT}, {"failures", FILTER_NUMBER},
    {"age", FILTER_AGE},  {"at", FILTER_TIME},         {"id", FILTER_ID},
};

#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

/* A thing made of the input itself, so that some filters meet it. */
static bool get(void *ctx, size_t field, struct filter_value *ret_value)
{
    const struct wb_str *input = ctx;

    MUST(field < FIELD_COUNT);
    if (field == 0)
        ret_value->text = wb_str_n(input->ptr, input->len / 2);
    else if (field == 1)
        ret_value->text = wb_str("orders.eu.created");
    else
        ret_value->number = (int64_t)input->len - 20;
    return input->len % 7 != field;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wb_str input = wb_str_n((const char *)data, size);
    struct filter *filter = NULL;
    struct filter *opposite = NULL;
    struct wb_buf text = {0};
    struct wb_why why = {""};
    wb_err err = filter_parse(input, fields, FIELD_COUNT, &filter, &why);

    MUST((err == WB_OK) == (filter != NULL));
    MUST(err == WB_OK || why.text[0] != '\0');
    for (const char *c = why.text; *c != '\0'; c++)
        MUST(*c >= 0x20 && *c < 0x7f); /* it goes to a terminal */
    if (err != WB_OK)
        return 0;
    wb_buf_str(&text, "not (");
    wb_buf_add(&text, data, size);
    wb_buf_str(&text, ")");
    MUST(!text.failed);
    err = filter_parse(wb_str_n(text.ptr, text.len), fields, FIELD_COUNT, &opposite, &why);
    MUST(err == WB_OK || err == WB_TOO_BIG);
    if (err == WB_OK)
        MUST(filter_matches(filter, get, &input) != filter_matches(opposite, get, &input));
    filter_destroy(opposite);
    filter_destroy(filter);
    wb_buf_free(&text);
    return 0;
}
