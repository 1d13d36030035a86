/* Any bytes as a configuration file: accepted, or refused with a reason and without a trace. */
#include <stdint.h>
#include <stdlib.h>

#include <waybill/config.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct config_key keys[] = {
    {"bus", CONFIG_CHOICE, "memory", "memory|nats|dual", 0, 0, NULL, false, ""},
    {"verbose", CONFIG_BOOL, "false", NULL, 0, 0, NULL, false, ""},
    {"nats.url", CONFIG_STRING, NULL, NULL, 0, 0, NULL, false, ""},
    {"nats.timeout", CONFIG_DURATION, "5s", NULL, WB_SEC, 60 * WB_SEC, NULL, false, ""},
    {"nats.replicas", CONFIG_INT, "1", NULL, 1, 5, NULL, false, ""},
    {"http.max_body", CONFIG_SIZE, "1MiB", NULL, 0, 1 << 24, NULL, true, ""},
    {"stream.*.subjects", CONFIG_STRING, NULL, NULL, 0, 0, NULL, false, ""},
};

/* The settings as text, to compare before and after. */
static void show(const struct config *config, struct wb_buf *out)
{
    struct config_entry entry;
    struct wb_str name;

    for (size_t i = 0; config_entry(config, i, &entry); i++)
        wb_buf_printf(out, "%s=%s (%s)\n", entry.name, entry.value == NULL ? "-" : entry.value,
                      entry.origin);
    for (size_t i = 0; config_section(config, "stream.*", i, &name); i++)
        wb_buf_printf(out, "[%.*s]\n", (int)name.len, name.ptr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config = NULL;
    struct wb_buf before = {0}, after = {0};
    struct wb_why why = {""};

    if (config_create(keys, sizeof(keys) / sizeof(keys[0]), &config) != WB_OK)
        return 0;
    show(config, &before);
    if (config_load_text(config, "fuzz", wb_str_n((const char *)data, size), &why) != WB_OK) {
        show(config, &after);
        if (why.text[0] == '\0' ||
            !wb_str_eq(wb_str_n(before.ptr, before.len), wb_str_n(after.ptr, after.len)))
            abort();
    } else if (config_duration(config, "nats.timeout") < WB_SEC ||
               config_int(config, "nats.replicas") > 5) {
        abort();
    }
    wb_buf_free(&before);
    wb_buf_free(&after);
    config_destroy(config);
    return 0;
}
