/* service_classes.c - the [class.NAME] sections of the configuration. */
#include "service_classes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/subject.h>

#define NAME_MAX_BYTES 64
#define CLASSES_MAX    64
#define PATTERNS_MAX   64 /* of one class */

const struct config_key service_class_keys[] = {
    {.name = "class.*.subjects",
     .type = CONFIG_STRING,
     .help = "Patterns of the events it is about, separated by blanks; the first class counts"},
    {.name = "class.*.on_poison",
     .type = CONFIG_CHOICE,
     .choices = "block-key|park|latest-wins",
     .help = "When an event is refused for good, younger ones of its key wait, go on, or replace "
             "it (block-key)"},
    {.name = "class.*.max_pending_rows",
     .type = CONFIG_INT,
     .min = 1,
     .max = INT64_MAX,
     .help = "How many rows of the outbox may wait to be published (no limit)"},
    {.name = "class.*.max_pending_bytes",
     .type = CONFIG_SIZE,
     .min = 1,
     .max = INT64_MAX,
     .help = "How many bytes may wait (no limit)"},
    {.name = "class.*.max_pending_age",
     .type = CONFIG_DURATION,
     .min = WB_MS,
     .max = WB_SEC * 86400 * 3650,
     .help = "How long the oldest may have waited (no limit)"},
    {.name = "class.*.pending",
     .type = CONFIG_CHOICE,
     .choices = "refuse|warn",
     .help = "Past such a limit new events of the class are refused, or taken with a warning "
             "(refuse)"},
    {.name = "class.*.keep_age",
     .type = CONFIG_DURATION,
     .min = WB_SEC,
     .max = WB_SEC * 86400 * 3650,
     .help = "How long rows are kept that are known to be stored (24h)"},
    {.name = "class.*.keep_bytes",
     .type = CONFIG_SIZE,
     .min = 1,
     .max = INT64_MAX,
     .help = "The oldest of them go earlier while the class has more bytes (no limit)"},
    {.name = "class.*.keep_rows",
     .type = CONFIG_INT,
     .min = 1,
     .max = INT64_MAX,
     .help = "The oldest of them go earlier while the class has more rows (no limit)"},
    {.name = "class.*.archive",
     .type = CONFIG_BOOL,
     .help = "Copy rows to the archive file before they go (false)"},
};
const size_t service_class_key_count = sizeof(service_class_keys) / sizeof(service_class_keys[0]);

/* What one class points to. */
struct texts {
    char *name, *subjects;
    const char *patterns[PATTERNS_MAX];
};

struct service_classes {
    struct outbox_class *list;
    struct texts *texts; /* one for each */
    size_t count;
};

/* class.NAME.KEY; NULL when it is not set. */
static const char *setting(const struct config *config, const char *class_name, const char *key,
                           char name[160])
{
    (void)snprintf(name, 160, "class.%s.%s", class_name, key);
    return config_str(config, name);
}

/* "waybill.conf:7: ", or "" when nobody set it. */
static void origin_of(const struct config *config, const char *name, char out[300])
{
    struct config_entry entry;

    out[0] = '\0';
    for (size_t i = 0; config_entry(config, i, &entry); i++)
        if (strcmp(entry.name, name) == 0)
            (void)snprintf(
                out, 300,
                "%s: ", strncmp(entry.origin, "file ", 5) == 0 ? entry.origin + 5 : entry.origin);
}

static wb_err read_patterns(const struct config *config, struct outbox_class *class,
                            struct texts *texts, struct wb_why *why)
{
    char name[160], origin[300];
    const char *text = setting(config, class->name, "subjects", name);
    char *rest = NULL;

    origin_of(config, name, origin);
    if (text == NULL || text[strspn(text, " \t")] == '\0')
        return wb_fail(why, WB_INVALID, "%s[class.%s]: no subjects; add  subjects = \"orders.>\"",
                       origin, class->name);
    texts->subjects = wb_str_dup(wb_str(text));
    if (texts->subjects == NULL)
        return WB_NOMEM;
    for (char *word = strtok_r(texts->subjects, " \t", &rest); word != NULL;
         word = strtok_r(NULL, " \t", &rest)) {
        struct wb_why reason = {""};
        if (class->pattern_count == PATTERNS_MAX)
            return wb_fail(why, WB_TOO_BIG, "%s%s: more than %d patterns; make it two classes",
                           origin, name, PATTERNS_MAX);
        if (subject_pattern_check(wb_str(word), &reason) != WB_OK)
            return wb_fail(why, WB_INVALID, "%s%s: %s", origin, name, reason.text);
        texts->patterns[class->pattern_count++] = word;
    }
    class->patterns = texts->patterns;
    return WB_OK;
}

static outbox_policy policy_of(const char *text)
{
    if (text == NULL || strcmp(text, "block-key") == 0)
        return OUTBOX_BLOCK_KEY;
    return strcmp(text, "park") == 0 ? OUTBOX_PARK : OUTBOX_LATEST_WINS;
}

/* The configuration has checked type and range of each. */
static void read_numbers(const struct config *config, struct outbox_class *class)
{
    char name[160];

    class->policy = policy_of(setting(config, class->name, "on_poison", name));
    if (setting(config, class->name, "max_pending_rows", name) != NULL)
        class->max_pending_rows = (uint64_t)config_int(config, name);
    if (setting(config, class->name, "max_pending_bytes", name) != NULL)
        class->max_pending_bytes = config_size(config, name);
    if (setting(config, class->name, "max_pending_age", name) != NULL)
        class->max_pending_age_ns = config_duration(config, name);
    const char *pending = setting(config, class->name, "pending", name);
    class->warn = pending != NULL && strcmp(pending, "warn") == 0;
    if (setting(config, class->name, "keep_age", name) != NULL)
        class->keep_age_ns = config_duration(config, name);
    if (setting(config, class->name, "keep_bytes", name) != NULL)
        class->keep_bytes = config_size(config, name);
    if (setting(config, class->name, "keep_rows", name) != NULL)
        class->keep_rows = (uint64_t)config_int(config, name);
    if (setting(config, class->name, "archive", name) != NULL)
        class->archive = config_bool(config, name);
}

static wb_err read_one(const struct config *config, struct wb_str section,
                       struct service_classes *self, struct wb_why *why)
{
    struct outbox_class *class = &self->list[self->count];
    struct texts *texts = &self->texts[self->count];

    if (section.len > NAME_MAX_BYTES)
        return wb_fail(why, WB_INVALID, "[class.%.*s]: the name is longer than %d bytes",
                       (int)section.len, section.ptr, NAME_MAX_BYTES);
    texts->name = wb_str_dup(section);
    if (texts->name == NULL)
        return WB_NOMEM;
    self->count++;
    class->name = texts->name;
    wb_err err = read_patterns(config, class, texts, why);
    if (err == WB_OK)
        read_numbers(config, class);
    return err;
}

wb_err service_classes_read(const struct config *config, struct service_classes **ret_classes,
                            struct wb_why *why)
{
    struct service_classes *self = calloc(1, sizeof(*self));
    struct wb_str section;
    size_t count = 0;
    wb_err err = WB_OK;

    while (config_section(config, "class.*", count, &section))
        count++;
    if (self != NULL) {
        self->list = calloc(count + 1, sizeof(*self->list));
        self->texts = calloc(count + 1, sizeof(*self->texts));
    }
    if (self == NULL || self->list == NULL || self->texts == NULL)
        err = WB_NOMEM;
    else if (count > CLASSES_MAX)
        err = wb_fail(why, WB_TOO_BIG, "%zu sections [class.NAME]: at most %d are allowed", count,
                      CLASSES_MAX);
    for (size_t i = 0; err == WB_OK && config_section(config, "class.*", i, &section); i++)
        err = read_one(config, section, self, why);
    if (err == WB_NOMEM)
        err = wb_fail(why, WB_NOMEM, "read the classes of the configuration: out of memory");
    if (err != WB_OK) {
        service_classes_free(self);
        return err;
    }
    *ret_classes = self;
    return WB_OK;
}

void service_classes_free(struct service_classes *classes)
{
    if (classes == NULL)
        return;
    for (size_t i = 0; i < classes->count; i++) {
        free(classes->texts[i].name);
        free(classes->texts[i].subjects);
    }
    free(classes->texts);
    free(classes->list);
    free(classes);
}

const struct outbox_class *service_classes_list(const struct service_classes *classes,
                                                size_t *ret_count)
{
    *ret_count = classes->count;
    return classes->list;
}

void service_classes_use(const struct service_classes *classes, struct outbox *outbox)
{
    if (classes != NULL)
        outbox_use_classes(outbox, classes->list, classes->count);
}
