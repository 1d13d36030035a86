/* time.c - clocks, durations, sizes, time stamps. */
#include <waybill/base.h>

#include <stdio.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec now;
    (void)clock_gettime(id, &now);
    return (int64_t)now.tv_sec * WB_SEC + now.tv_nsec;
}

static int64_t system_mono(const struct wb_clock *self)
{
    (void)self;
    return read_clock(CLOCK_MONOTONIC);
}

static int64_t system_wall(const struct wb_clock *self)
{
    (void)self;
    return read_clock(CLOCK_REALTIME);
}

const struct wb_clock *wb_clock_system(void)
{
    static const struct wb_clock clock = {system_mono, system_wall};
    return &clock;
}

static int64_t virtual_mono(const struct wb_clock *self)
{
    return ((const struct wb_clock_virtual *)self)->mono_ns;
}

static int64_t virtual_wall(const struct wb_clock *self)
{
    return ((const struct wb_clock_virtual *)self)->wall_ns;
}

void wb_clock_virtual_init(struct wb_clock_virtual *clock, int64_t mono_ns, int64_t wall_ns)
{
    clock->clock = (struct wb_clock){virtual_mono, virtual_wall};
    clock->mono_ns = mono_ns;
    clock->wall_ns = wall_ns;
}

void wb_clock_virtual_advance(struct wb_clock_virtual *clock, int64_t ns)
{
    clock->mono_ns += ns;
    clock->wall_ns += ns;
}

struct unit {
    const char *name;
    int64_t factor;
};

/* The unit that text begins with, the longest name first; NULL: none. */
static const struct unit *unit_of(struct wb_str text, const struct unit *units, size_t count)
{
    size_t len = 0;

    while (len < text.len && (text.ptr[len] < '0' || text.ptr[len] > '9') && text.ptr[len] != '.')
        len++;
    for (size_t i = 0; i < count; i++)
        if (wb_str_eq(wb_str(units[i].name), wb_str_n(text.ptr, len)))
            return &units[i];
    return NULL;
}

/* Digits with up to nine decimals, times a factor, exactly. *ret_used: characters taken. */
static bool decimal(struct wb_str text, size_t *ret_used, int64_t *ret_whole,
                    int64_t *ret_billionths)
{
    int64_t whole = 0;
    int64_t fraction = 0;
    int64_t scale = WB_SEC;
    size_t at = 0;

    for (; at < text.len && text.ptr[at] >= '0' && text.ptr[at] <= '9'; at++) {
        if (whole > (INT64_MAX - 9) / 10)
            return false;
        whole = whole * 10 + (text.ptr[at] - '0');
    }
    if (at == 0)
        return false;
    if (at < text.len && text.ptr[at] == '.') {
        size_t first = ++at;
        for (; at < text.len && text.ptr[at] >= '0' && text.ptr[at] <= '9' && scale > 1; at++) {
            scale /= 10;
            fraction += (text.ptr[at] - '0') * scale;
        }
        if (at == first)
            return false;
    }
    *ret_used = at;
    *ret_whole = whole;
    *ret_billionths = fraction;
    return true;
}

/* billionths / 1e9 * factor, without leaving 64 bits. */
static int64_t share(int64_t billionths, int64_t factor)
{
    return factor / WB_SEC * billionths + factor % WB_SEC * billionths / WB_SEC;
}

/* number unit [number unit ...]; optional: a bare number counts plain_factor (0: refused). */
static bool quantity(struct wb_str text, const struct unit *units, size_t count,
                     int64_t plain_factor, int64_t *ret_value)
{
    int64_t sum = 0;

    if (text.len == 0)
        return false;
    while (text.len > 0) {
        size_t used;
        int64_t whole;
        int64_t billionths;
        if (!decimal(text, &used, &whole, &billionths))
            return false;
        text = wb_str_n(text.ptr + used, text.len - used);
        int64_t factor = plain_factor;
        if (text.len > 0) {
            const struct unit *unit = unit_of(text, units, count);
            if (unit == NULL)
                return false;
            factor = unit->factor;
            size_t name = wb_str(unit->name).len;
            text = wb_str_n(text.ptr + name, text.len - name);
        }
        int64_t part;
        if (factor == 0 || __builtin_mul_overflow(whole, factor, &part) ||
            __builtin_add_overflow(part, share(billionths, factor), &part) ||
            __builtin_add_overflow(sum, part, &sum))
            return false;
    }
    *ret_value = sum;
    return true;
}

bool wb_duration_parse(struct wb_str text, int64_t *ret_ns)
{
    static const struct unit units[] = {
        {"ns", 1},          {"us", WB_US},        {"ms", WB_MS},         {"s", WB_SEC},
        {"m", 60 * WB_SEC}, {"h", 3600 * WB_SEC}, {"d", 86400 * WB_SEC},
    };
    if (wb_str_eq(text, wb_str("0"))) {
        *ret_ns = 0;
        return true;
    }
    return quantity(text, units, sizeof(units) / sizeof(units[0]), 0, ret_ns);
}

bool wb_size_parse(struct wb_str text, uint64_t *ret_bytes)
{
    static const struct unit units[] = {
        {"B", 1},           {"KB", 1000},     {"kB", 1000},     {"MB", 1000000},
        {"GB", 1000000000}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
    };
    int64_t bytes;
    if (!quantity(text, units, sizeof(units) / sizeof(units[0]), 1, &bytes))
        return false;
    *ret_bytes = (uint64_t)bytes;
    return true;
}

/* Seconds and nanoseconds of the second, also before 1970. */
static time_t split_second(int64_t wall_ns, int64_t *ret_ns)
{
    int64_t seconds = wall_ns / WB_SEC;
    int64_t ns = wall_ns % WB_SEC;
    if (ns < 0) {
        seconds--;
        ns += WB_SEC;
    }
    *ret_ns = ns;
    return (time_t)seconds;
}

void wb_time_format(int64_t wall_ns, char out[32])
{
    int64_t ns;
    time_t seconds = split_second(wall_ns, &ns);
    struct tm tm;

    (void)gmtime_r(&seconds, &tm);
    size_t len = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out + len, 32 - len, ".%03uZ", (unsigned)(ns / WB_MS) % 1000);
}

/* Fixed number of digits at p. */
static bool digits(const char **p, const char *end, int count, int *ret_value)
{
    int value = 0;
    for (int i = 0; i < count; i++, (*p)++) {
        if (*p == end || **p < '0' || **p > '9')
            return false;
        value = value * 10 + (**p - '0');
    }
    *ret_value = value;
    return true;
}

static bool literal(const char **p, const char *end, char wanted)
{
    if (*p == end || **p != wanted)
        return false;
    (*p)++;
    return true;
}

static bool parse_fraction(const char **p, const char *end, int64_t *ret_ns)
{
    int64_t scale = WB_SEC;
    const char *first;

    *ret_ns = 0;
    if (*p == end || **p != '.')
        return true;
    for (first = ++*p; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        scale /= 10;
        *ret_ns += (**p - '0') * scale;
    }
    return *p > first;
}

static bool parse_offset(const char **p, const char *end, int64_t *ret_seconds)
{
    int hours;
    int minutes;

    *ret_seconds = 0;
    if (literal(p, end, 'Z'))
        return true;
    int sign = *p < end && **p == '-' ? -1 : 1;
    if (!literal(p, end, '+') && !literal(p, end, '-'))
        return false;
    if (!digits(p, end, 2, &hours) || !literal(p, end, ':') || !digits(p, end, 2, &minutes) ||
        hours > 23 || minutes > 59)
        return false;
    *ret_seconds = (int64_t)sign * (hours * 3600 + minutes * 60);
    return true;
}

bool wb_time_parse(struct wb_str text, int64_t *ret_wall_ns)
{
    const char *p = text.ptr;
    const char *end = text.ptr + text.len;
    struct tm tm = {0};
    int64_t ns;
    int64_t offset;

    if (!digits(&p, end, 4, &tm.tm_year) || !literal(&p, end, '-') ||
        !digits(&p, end, 2, &tm.tm_mon) || !literal(&p, end, '-') ||
        !digits(&p, end, 2, &tm.tm_mday) || !literal(&p, end, 'T') ||
        !digits(&p, end, 2, &tm.tm_hour) || !literal(&p, end, ':') ||
        !digits(&p, end, 2, &tm.tm_min) || !literal(&p, end, ':') ||
        !digits(&p, end, 2, &tm.tm_sec) || !parse_fraction(&p, end, &ns) ||
        !parse_offset(&p, end, &offset) || p != end)
        return false;
    if (tm.tm_year < 1678 || tm.tm_year > 2261) /* what 64 bits of nanoseconds hold */
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    struct tm normal = tm;
    time_t seconds = timegm(&normal);
    if (normal.tm_mon != tm.tm_mon || normal.tm_mday != tm.tm_mday ||
        normal.tm_hour != tm.tm_hour || normal.tm_min != tm.tm_min || normal.tm_sec != tm.tm_sec)
        return false; /* no such date */
    *ret_wall_ns = ((int64_t)seconds - offset) * WB_SEC + ns;
    return true;
}
