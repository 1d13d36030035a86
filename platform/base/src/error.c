/* error.c - results: their names, texts and classes, and the words that go with one. */
#include <waybill/base.h>

#include <stdio.h>

static const struct {
    const char *name;
    const char *text;
    wb_class class;
} results[] = {
#define X(name, class, text) [WB_##name] = {#name, (text), (class)},
    WB_ERR_MAP(X)
#undef X
};

static bool known(wb_err err)
{
    return (size_t)err < sizeof(results) / sizeof(results[0]);
}

const char *wb_err_text(wb_err err)
{
    return known(err) ? results[err].text : "unknown error";
}

const char *wb_err_name(wb_err err)
{
    return known(err) ? results[err].name : "UNLISTED";
}

wb_class wb_err_class(wb_err err)
{
    return known(err) ? results[err].class : WB_PERMANENT;
}

wb_err wb_fail(struct wb_why *why, wb_err err, const char *format, ...)
{
    if (why != NULL) {
        /* The arguments may point into why itself, so the text is made aside. */
        char text[sizeof(why->text)];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        (void)snprintf(why->text, sizeof(why->text), "%s", text);
    }
    return err;
}
