/* observe.c - the registry of metrics: series are made under a lock and counted without one. */
#include <waybill/observe.h>

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_LINE 64 /* series counted by different threads must not share one */

enum kind { VOID, COUNTER, GAUGE, HISTOGRAM };

static const struct metric {
    const char *name;
    enum kind kind;
    const char *label; /* "": none */
    const char *help;
} metrics[OBSERVE_METRIC_COUNT] = {
#define X(id, name, kind, label, help) [OBSERVE_##id] = {(name), kind, (label), (help)},
    OBSERVE_METRICS(X)
#undef X
};

/* Upper bounds of the buckets, from a hand-over between threads to a slow network's time-out. */
static const struct bound {
    int64_t ns;
    const char *seconds;
} bounds[] = {
    {10 * WB_US, "0.00001"}, {25 * WB_US, "0.000025"}, {50 * WB_US, "0.00005"},
    {100 * WB_US, "0.0001"}, {250 * WB_US, "0.00025"}, {500 * WB_US, "0.0005"},
    {1 * WB_MS, "0.001"},    {2500 * WB_US, "0.0025"}, {5 * WB_MS, "0.005"},
    {10 * WB_MS, "0.01"},    {25 * WB_MS, "0.025"},    {50 * WB_MS, "0.05"},
    {100 * WB_MS, "0.1"},    {250 * WB_MS, "0.25"},    {500 * WB_MS, "0.5"},
    {1 * WB_SEC, "1"},       {2500 * WB_MS, "2.5"},    {5 * WB_SEC, "5"},
    {10 * WB_SEC, "10"},
};

#define BOUNDS (sizeof(bounds) / sizeof(bounds[0]))

struct observe_series {
    _Alignas(CACHE_LINE) atomic_int_least64_t value; /* counter, gauge; sum of a histogram */
    atomic_int_least64_t buckets[BOUNDS + 1];        /* each for itself; the last is the rest */
    struct observe_series *next; /* of the same metric; guarded by the registry's mutex */
    enum kind kind;              /* this and what follows: constant after create */
    bool is_seconds;             /* value is kept in nanoseconds */
    char label_value[OBSERVE_LABEL_MAX + 1];
};

struct observe {
    pthread_mutex_t mutex; /* guards the lists, not the numbers */
    struct observe_family {
        struct observe_series *first;
        struct observe_series **end; /* where the next one goes */
        size_t count;
    } families[OBSERVE_METRIC_COUNT];
};

/* Where those count who were given no registry. Nothing is ever written to it. */
static struct observe_series void_series = {.kind = VOID};

/* ---- series ---------------------------------------------------------------------------------- */

wb_err observe_create(struct observe **ret_observe)
{
    struct observe *observe = calloc(1, sizeof(*observe));

    if (observe == NULL)
        return WB_NOMEM;
    if (pthread_mutex_init(&observe->mutex, NULL) != 0) {
        free(observe);
        return WB_NOMEM;
    }
    for (size_t i = 0; i < OBSERVE_METRIC_COUNT; i++)
        observe->families[i].end = &observe->families[i].first;
    *ret_observe = observe;
    return WB_OK;
}

void observe_destroy(struct observe *observe)
{
    if (observe == NULL)
        return;
    for (size_t i = 0; i < OBSERVE_METRIC_COUNT; i++) {
        struct observe_series *series = observe->families[i].first;
        while (series != NULL) {
            struct observe_series *next = series->next;
            free(series);
            series = next;
        }
    }
    pthread_mutex_destroy(&observe->mutex);
    free(observe);
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text);
    size_t end_len = strlen(end);

    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static struct observe_series *series_find(const struct observe_family *family, const char *value)
{
    struct observe_series *series = family->first;

    while (series != NULL && strcmp(series->label_value, value) != 0)
        series = series->next;
    return series;
}

static struct observe_series *series_add(struct observe_family *family, const struct metric *metric,
                                         const char *label_value)
{
    struct observe_series *series = aligned_alloc(CACHE_LINE, sizeof(*series));

    if (series == NULL)
        return NULL;
    memset(series, 0, sizeof(*series));
    series->kind = metric->kind;
    series->is_seconds = metric->kind == GAUGE && ends_with(metric->name, "_seconds");
    memcpy(series->label_value, label_value, strlen(label_value) + 1);
    *family->end = series;
    family->end = &series->next;
    family->count++;
    return series;
}

/* The label value as it is kept. */
static const char *accepted(const struct metric *metric, const char *label_value)
{
    if (metric->label[0] == '\0' || label_value == NULL)
        return "";
    struct wb_str value = wb_str(label_value);
    return value.len <= OBSERVE_LABEL_MAX && wb_utf8_valid(value) ? label_value : "other";
}

struct observe_series *observe_series(struct observe *observe, observe_metric metric,
                                      const char *label_value)
{
    assert((size_t)metric < OBSERVE_METRIC_COUNT);

    if (observe == NULL)
        return &void_series;
    struct observe_family *family = &observe->families[metric];
    const char *value = accepted(&metrics[metric], label_value);

    pthread_mutex_lock(&observe->mutex);
    struct observe_series *series = series_find(family, value);
    if (series == NULL && family->count >= OBSERVE_LABEL_VALUES_MAX) {
        value = "other";
        series = series_find(family, value);
    }
    if (series == NULL)
        series = series_add(family, &metrics[metric], value);
    pthread_mutex_unlock(&observe->mutex);
    return series == NULL ? &void_series : series;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* Numbers are independent of each other and of all other memory: no ordering is needed. */
static void add(atomic_int_least64_t *number, int64_t amount)
{
    atomic_fetch_add_explicit(number, amount, memory_order_relaxed);
}

static int64_t load(const atomic_int_least64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

/* Whole units to what the series keeps. */
static int64_t scaled(const struct observe_series *series, int64_t value)
{
    const int64_t limit = INT64_MAX / WB_SEC;

    if (!series->is_seconds)
        return value;
    return WB_SEC * (value > limit ? limit : value < -limit ? -limit : value);
}

void observe_add(struct observe_series *series, int64_t amount)
{
    assert(series->kind != HISTOGRAM);
    assert(series->kind != COUNTER || amount >= 0);
    if (series->kind != VOID)
        add(&series->value, scaled(series, amount));
}

void observe_set(struct observe_series *series, int64_t value)
{
    assert(series->kind == GAUGE || series->kind == VOID);
    if (series->kind != VOID)
        atomic_store_explicit(&series->value, scaled(series, value), memory_order_relaxed);
}

void observe_set_ns(struct observe_series *series, int64_t ns)
{
    assert(series->is_seconds || series->kind == VOID);
    if (series->kind != VOID)
        atomic_store_explicit(&series->value, ns, memory_order_relaxed);
}

void observe_time(struct observe_series *series, int64_t ns)
{
    assert(series->kind == HISTOGRAM || series->kind == VOID);
    if (series->kind == VOID)
        return;
    size_t at = 0;
    while (at < BOUNDS && ns > bounds[at].ns)
        at++;
    add(&series->buckets[at], 1);
    add(&series->value, ns < 0 ? 0 : ns); /* a clock that stepped must not make the sum shrink */
}

int64_t observe_value(const struct observe_series *series)
{
    if (series->kind != HISTOGRAM)
        return load(&series->value);
    int64_t count = 0;
    for (size_t i = 0; i <= BOUNDS; i++)
        count += load(&series->buckets[i]);
    return count;
}

/* ---- text ------------------------------------------------------------------------------------ */

static void put_label(struct wb_buf *out, const char *label, const char *value)
{
    wb_buf_printf(out, "%s=\"", label);
    for (; *value != '\0'; value++) {
        if (*value == '\\' || *value == '"')
            wb_buf_printf(out, "\\%c", *value);
        else if (*value == '\n')
            wb_buf_str(out, "\\n");
        else
            wb_buf_add(out, value, 1);
    }
    wb_buf_str(out, "\"");
}

/* name{label="value",le="bound"}: either may be missing; the value of le is NULL then. */
static void put_name(struct wb_buf *out, const struct metric *metric, const char *suffix,
                     const struct observe_series *series, const char *le)
{
    bool has_label = metric->label[0] != '\0';

    wb_buf_printf(out, "%s%s", metric->name, suffix);
    if (has_label || le != NULL)
        wb_buf_str(out, "{");
    if (has_label)
        put_label(out, metric->label, series->label_value);
    if (has_label && le != NULL)
        wb_buf_str(out, ",");
    if (le != NULL)
        put_label(out, "le", le);
    wb_buf_str(out, has_label || le != NULL ? "} " : " ");
}

static void put_seconds(struct wb_buf *out, int64_t ns)
{
    uint64_t size = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    uint64_t second = (uint64_t)WB_SEC;

    wb_buf_printf(out, "%s%llu.%09llu\n", ns < 0 ? "-" : "", (unsigned long long)(size / second),
                  (unsigned long long)(size % second));
}

static void put_number(struct wb_buf *out, int64_t number)
{
    wb_buf_printf(out, "%lld\n", (long long)number);
}

/* The count is the sum of the buckets as read here, so that the text agrees with itself. */
static void put_histogram(struct wb_buf *out, const struct metric *metric,
                          const struct observe_series *series)
{
    int64_t count = 0;

    for (size_t i = 0; i <= BOUNDS; i++) {
        count += load(&series->buckets[i]);
        put_name(out, metric, "_bucket", series, i < BOUNDS ? bounds[i].seconds : "+Inf");
        put_number(out, count);
    }
    put_name(out, metric, "_sum", series, NULL);
    put_seconds(out, load(&series->value));
    put_name(out, metric, "_count", series, NULL);
    put_number(out, count);
}

static void put_series(struct wb_buf *out, const struct metric *metric,
                       const struct observe_series *series)
{
    if (series->kind == HISTOGRAM) {
        put_histogram(out, metric, series);
        return;
    }
    put_name(out, metric, "", series, NULL);
    if (series->is_seconds)
        put_seconds(out, load(&series->value));
    else
        put_number(out, load(&series->value));
}

void observe_render(struct observe *observe, struct wb_buf *out)
{
    static const char *const kinds[] = {
        [COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram"};

    pthread_mutex_lock(&observe->mutex);
    for (size_t i = 0; i < OBSERVE_METRIC_COUNT; i++) {
        const struct metric *metric = &metrics[i];
        const struct observe_series *series = observe->families[i].first;
        if (series != NULL)
            wb_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help,
                          metric->name, kinds[metric->kind]);
        for (; series != NULL; series = series->next)
            put_series(out, metric, series);
    }
    pthread_mutex_unlock(&observe->mutex);
}
