/* event_bus_factory.c - from settings to a bus, and to the streams on it. */
#include <waybill/event_bus_factory.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/event_bus_memory.h>
#ifdef WAYBILL_HAVE_NATS
#include <waybill/event_bus_nats.h>
#endif

#define SUBJECTS_MAX 64 /* patterns of one stream */

/* ---- the bus --------------------------------------------------------------------------------- */

#ifdef WAYBILL_HAVE_NATS
static wb_err create_nats(const struct config *config, struct observe *observe, bool wait_connected,
                          struct event_bus **ret_bus, struct wb_why *why)
{
    const struct event_bus_nats_options options = {
        .url = config_str(config, "nats.url"),
        .user = config_str(config, "nats.user"),
        .password = config_str(config, "nats.password"),
        .token = config_str(config, "nats.token"),
        .creds_file = config_str(config, "nats.creds"),
        .nkey_seed_file = config_str(config, "nats.nkey"),
        .tls_ca_file = config_str(config, "nats.ca"),
        .tls_cert_file = config_str(config, "nats.cert"),
        .tls_key_file = config_str(config, "nats.key"),
        .connect_timeout_ns = config_duration(config, "nats.connect_timeout"),
        .observe = observe,
    };
    return event_bus_nats_create(&options, wait_connected, ret_bus, why);
}
#else
static wb_err create_nats(const struct config *config, struct observe *observe, bool wait_connected,
                          struct event_bus **ret_bus, struct wb_why *why)
{
    (void)config;
    (void)observe;
    (void)wait_connected;
    (void)ret_bus;
    return wb_fail(why, WB_UNSUPPORTED,
                   "bus = \"nats\": this program was built without libnats; build it where "
                   "libnats-dev is installed, or use bus = \"memory\"");
}
#endif

wb_err event_bus_factory_create(const struct config *config, struct observe *observe,
                                bool wait_connected, struct event_bus **ret_bus, struct wb_why *why)
{
    const char *kind = config_str(config, "bus");

    if (strcmp(kind, "nats") == 0)
        return create_nats(config, observe, wait_connected, ret_bus, why);
    if (strcmp(kind, "memory") == 0) {
        const struct event_bus_memory_options options = {.observe = observe};
        return event_bus_memory_create(&options, ret_bus);
    }
    return wb_fail(why, WB_UNSUPPORTED,
                   "bus = \"%s\": not in this version; use \"memory\" or \"nats\"", kind);
}

/* ---- its streams ----------------------------------------------------------------------------- */

/* stream.NAME.KEY; NULL when it is not set. */
static const char *stream_setting(const struct config *config, const char *stream, const char *key,
                                  char name[160])
{
    (void)snprintf(name, 160, "stream.%s.%s", stream, key);
    return config_str(config, name);
}

static void read_limits(const struct config *config, struct event_bus_stream_options *options)
{
    char name[160];

    if (stream_setting(config, options->name, "duplicate_window", name) != NULL)
        options->duplicate_window_ns = config_duration(config, name);
    if (stream_setting(config, options->name, "max_age", name) != NULL)
        options->max_age_ns = config_duration(config, name);
    if (stream_setting(config, options->name, "max_bytes", name) != NULL)
        options->max_bytes = config_size(config, name);
    if (stream_setting(config, options->name, "max_messages", name) != NULL)
        options->max_messages = (uint64_t)config_int(config, name);
    if (stream_setting(config, options->name, "replicas", name) != NULL)
        options->replicas = (uint32_t)config_int(config, name);
    const char *discard = stream_setting(config, options->name, "discard", name);
    options->discard_old = discard != NULL && strcmp(discard, "old") == 0;
}

/* Cuts text at its blanks; the words stay in it. */
static wb_err split_subjects(char *text, struct event_bus_stream_options *options,
                             const char **subjects, struct wb_why *why)
{
    char *rest = NULL;

    for (char *word = strtok_r(text, " \t", &rest); word != NULL;
         word = strtok_r(NULL, " \t", &rest)) {
        if (options->subject_count == SUBJECTS_MAX)
            return wb_fail(why, WB_TOO_BIG, "[stream.%s] subjects: more than %d patterns",
                           options->name, SUBJECTS_MAX);
        subjects[options->subject_count++] = word;
    }
    options->subjects = subjects;
    return WB_OK;
}

static wb_err declare_one(const struct config *config, struct event_bus *bus, const char *stream,
                          event_bus_provision mode, struct wb_why *why)
{
    struct event_bus_stream_options options = {.name = stream};
    const char *subjects[SUBJECTS_MAX];
    char name[160];
    const char *text = stream_setting(config, stream, "subjects", name);

    if (text == NULL)
        return wb_fail(why, WB_INVALID,
                       "[stream.%s]: no subjects; add  subjects = \"orders.>\"  or the like",
                       stream);
    char *words = wb_str_dup(wb_str(text));
    if (words == NULL)
        return WB_NOMEM;
    wb_err err = split_subjects(words, &options, subjects, why);
    if (err == WB_OK) {
        read_limits(config, &options);
        err = event_bus_declare_stream(bus, &options, mode, why);
    }
    free(words);
    return err;
}

wb_err event_bus_factory_declare(const struct config *config, struct event_bus *bus,
                                 event_bus_provision mode, struct wb_why *why)
{
    struct wb_str section;
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && config_section(config, "stream.*", i, &section); i++) {
        char stream[EVENT_BUS_NAME_MAX + 1];
        if (section.len > EVENT_BUS_NAME_MAX)
            return wb_fail(why, WB_INVALID, "[stream.%.*s]: the name is longer than %d bytes",
                           (int)section.len, section.ptr, EVENT_BUS_NAME_MAX);
        memcpy(stream, section.ptr, section.len);
        stream[section.len] = '\0';
        err = declare_one(config, bus, stream, mode, why);
    }
    return err;
}
