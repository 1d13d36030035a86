/*
 * waybill/base.h - what every room needs: results, views, buffers, clock, chance, ids, log.
 *
 * Threads   Everything here may be called from any thread, unless a line says otherwise.
 * Errors    Calls that can fail return wb_err and leave their outputs untouched when they fail.
 *           Those that can say more take a struct wb_why last; NULL is allowed and means "the code
 *           is enough for me".
 */
#ifndef WAYBILL_BASE_H
#define WAYBILL_BASE_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define WB_PRINTF(format_index, first_arg) __attribute__((format(printf, format_index, first_arg)))
#else
#define WB_PRINTF(format_index, first_arg)
#endif

/* ---- results --------------------------------------------------------------------------------- */

/*
 * What a caller does about an error follows from its class:
 *   RETRY      may work later, unchanged: wait and try again.
 *   PERMANENT  will fail again until somebody changes the input or the world.
 *   MISUSE     the caller broke the documented rules: a bug to mend, not a state to handle.
 *   ENDED      the thing is over; let go of it.
 */
typedef enum wb_class { WB_CLASS_OK, WB_RETRY, WB_PERMANENT, WB_MISUSE_CLASS, WB_ENDED } wb_class;

/* The one list of results: name, class, text. Append only; the numbers appear in logs. */
#define WB_ERR_MAP(X)                                                                              \
    X(OK, WB_CLASS_OK, "no error")                                                                 \
    X(NOMEM, WB_RETRY, "out of memory")                                                            \
    X(INVALID, WB_PERMANENT, "invalid input")                                                      \
    X(TOO_BIG, WB_PERMANENT, "larger than the limit")                                              \
    X(NOT_FOUND, WB_PERMANENT, "not found")                                                        \
    X(EXISTS, WB_PERMANENT, "exists already")                                                      \
    X(CONFLICT, WB_PERMANENT, "the state is not the expected one")                                 \
    X(FULL, WB_RETRY, "a limit is reached; nothing was taken")                                     \
    X(BUSY, WB_RETRY, "somebody else holds it")                                                    \
    X(TIMEOUT, WB_RETRY, "the deadline passed")                                                    \
    X(UNKNOWN, WB_RETRY, "the outcome is unknown: it may or may not have happened")                \
    X(UNREACHABLE, WB_RETRY, "the server cannot be reached")                                       \
    X(DENIED, WB_PERMANENT, "permission denied")                                                   \
    X(NO_STREAM, WB_RETRY, "no stream covers the subject")                                         \
    X(NO_JETSTREAM, WB_RETRY, "the server runs without JetStream")                                 \
    X(IO, WB_RETRY, "input/output error")                                                          \
    X(DISK_FULL, WB_RETRY, "the disk is full")                                                     \
    X(READ_ONLY, WB_PERMANENT, "read only")                                                        \
    X(CORRUPT, WB_PERMANENT, "the file is damaged or not of the expected kind")                    \
    X(UNSUPPORTED, WB_PERMANENT, "not supported here")                                             \
    X(MISUSE, WB_MISUSE_CLASS, "called against the documented rules")                              \
    X(CLOSED, WB_ENDED, "closed")                                                                  \
    X(INTERNAL, WB_PERMANENT, "internal error")

typedef enum wb_err {
#define X(name, class, text) WB_##name,
    WB_ERR_MAP(X)
#undef X
} wb_err;

/** Text of an error, for people. Never NULL; static storage. */
const char *wb_err_text(wb_err err);

/** Name of an error, for machines: "NO_STREAM". Never NULL; static storage. */
const char *wb_err_name(wb_err err);

/** Class of an error: what to do about it. */
wb_class wb_err_class(wb_err err);

/* Why something failed: what was attempted, on what, what was expected, what to do next. */
struct wb_why {
    char text[512]; /* NUL-terminated; cut at the end if it does not fit */
};

/**
 * Fill in why and return err, so that a failing function ends in one line:
 *     return wb_fail(why, WB_INVALID, "subject '%s': empty token at byte %zu", text, at);
 * why may be NULL.
 */
wb_err wb_fail(struct wb_why *why, wb_err err, const char *format, ...) WB_PRINTF(3, 4);

/* ---- views: borrowed, by value --------------------------------------------------------------- */

/* Text of known length, not necessarily NUL-terminated. {NULL, 0} is "none". */
struct wb_str {
    const char *ptr;
    size_t len;
};

/* Bytes of known length. {NULL, 0} is empty. */
struct wb_bytes {
    const void *ptr;
    size_t len;
};

/** View of a C string; NULL gives the empty view. */
struct wb_str wb_str(const char *text);

/** View of len characters at ptr. */
struct wb_str wb_str_n(const char *ptr, size_t len);

/** Same length, same bytes. */
bool wb_str_eq(struct wb_str a, struct wb_str b);

/** Same text but for the case of ASCII letters. */
bool wb_str_case_eq(struct wb_str a, struct wb_str b);

/** A NUL-terminated copy, owned by the caller (free). NULL when out of memory. */
char *wb_str_dup(struct wb_str text);

/** Whole text is one decimal number from 0 to UINT64_MAX. */
bool wb_str_to_u64(struct wb_str text, uint64_t *ret_value);

/** Valid UTF-8: no overlong form, no surrogate, nothing beyond U+10FFFF. */
bool wb_utf8_valid(struct wb_str text);

/** Equal bytes, in a time that depends on len only. For secrets. */
bool wb_equal_constant_time(const void *a, const void *b, size_t len);

/** The edit distance of two names, for "did you mean"; at most 99. */
unsigned wb_str_distance(struct wb_str a, struct wb_str b);

/* ---- a buffer that grows, up to a limit ------------------------------------------------------ */

/* Start with a zeroed struct; end with wb_buf_free(). Always NUL-terminated once it has data. */
struct wb_buf {
    char *ptr;
    size_t len;
    size_t capacity;
    bool failed; /* an append ran out of memory or over 1 GiB; the rest was dropped */
};

/** Append. A failure is remembered in ->failed, so a chain of appends is checked once. */
void wb_buf_add(struct wb_buf *buf, const void *data, size_t len);
/** The same with a NUL-terminated text. */
void wb_buf_str(struct wb_buf *buf, const char *text);
/** The same with what printf() would print. */
void wb_buf_printf(struct wb_buf *buf, const char *format, ...) WB_PRINTF(2, 3);

/** Append text as a JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
void wb_buf_json_str(struct wb_buf *buf, struct wb_str text);

/** Append text for a terminal or a log: control bytes escaped as \xNN, so nothing is injected. */
void wb_buf_printable(struct wb_buf *buf, struct wb_str text);

/** Length 0; the memory stays. */
void wb_buf_clear(struct wb_buf *buf);

/** Free the memory and zero the struct. */
void wb_buf_free(struct wb_buf *buf);

/* ---- time ------------------------------------------------------------------------------------ */

#define WB_US  INT64_C(1000)
#define WB_MS  INT64_C(1000000)
#define WB_SEC INT64_C(1000000000)

/* Where time comes from. Code that depends on time takes a clock; tests give it a virtual one. */
struct wb_clock {
    int64_t (*mono_ns)(const struct wb_clock *self); /* never steps back */
    int64_t (*wall_ns)(const struct wb_clock *self); /* Unix time; may step */
};

/** The clocks of the system. Static. */
const struct wb_clock *wb_clock_system(void);

/* A clock that moves only when told to. Both times start where wb_clock_virtual_init() says. */
struct wb_clock_virtual {
    struct wb_clock clock; /* first: a pointer to one is a pointer to the other */
    _Atomic(int64_t) mono_ns;
    _Atomic(int64_t) wall_ns;
};

/** Start both times where told. */
void wb_clock_virtual_init(struct wb_clock_virtual *clock, int64_t mono_ns, int64_t wall_ns);
/** Move both times on. */
void wb_clock_virtual_advance(struct wb_clock_virtual *clock, int64_t ns);

static inline int64_t wb_mono_ns(const struct wb_clock *clock)
{
    return clock->mono_ns(clock);
}
static inline int64_t wb_wall_ns(const struct wb_clock *clock)
{
    return clock->wall_ns(clock);
}

/** A condition variable that measures its time-outs by the monotonic clock; 0, or an errno. */
int wb_cond_init(pthread_cond_t *cond);
/** Wait until that time of the system's monotonic clock; false when it has come. mutex is held. */
bool wb_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t mono_ns);

/** "1h30m", "2m", "500ms", "10us", "1.5s" -> nanoseconds. A number without unit is refused. */
bool wb_duration_parse(struct wb_str text, int64_t *ret_ns);

/** "64", "4KiB", "2MB", "128B" -> bytes. Decimal units are powers of 1000, Ki/Mi/Gi of 1024. */
bool wb_size_parse(struct wb_str text, uint64_t *ret_bytes);

/** RFC 3339 in UTC with milliseconds: "2026-01-02T03:04:05.678Z". out holds 32 bytes. */
void wb_time_format(int64_t wall_ns, char out[32]);

/** RFC 3339 with Z or an offset, to Unix nanoseconds. */
bool wb_time_parse(struct wb_str text, int64_t *ret_wall_ns);

/* ---- chance and ids -------------------------------------------------------------------------- */

/** Fill with random bytes from the kernel. Ends the process if the kernel has none. */
void wb_random_fill(void *out, size_t len);

/* A seeded generator (xoshiro256**), for reproducible choices. Not for secrets. One thread. */
struct wb_rng {
    uint64_t state[4];
};

/** The same seed gives the same numbers. */
void wb_rng_seed(struct wb_rng *rng, uint64_t seed);
/** The next 64 bits. */
uint64_t wb_rng_next(struct wb_rng *rng);

/** A number in [0, bound). bound > 0. */
uint64_t wb_rng_below(struct wb_rng *rng, uint64_t bound);

#define WB_ID_SIZE 16 /* bytes of an id */
#define WB_ID_TEXT 33 /* its 32 hex digits and a NUL */

/** A new UUIDv7 (RFC 9562, section 5.7): 48 bits of wall milliseconds, the rest random. */
void wb_id_new(const struct wb_clock *clock, uint8_t ret_id[WB_ID_SIZE]);

/*
 * For those who need many ids: draws random bytes a page at a time. One thread. A child of fork()
 * does not inherit what was drawn, so no id is given out twice.
 */
struct wb_id_source;

/** NULL when there is no memory: wb_id_source_next() of NULL is wb_id_new(). */
struct wb_id_source *wb_id_source_create(void);
void wb_id_source_destroy(struct wb_id_source *source);
/** As wb_id_new(). */
void wb_id_source_next(struct wb_id_source *source, const struct wb_clock *clock,
                       uint8_t ret_id[WB_ID_SIZE]);

/** len bytes -> 2 * len lower-case hex digits and a NUL. */
void wb_hex_encode(const void *data, size_t len, char *out);

/** Exactly 2 * len hex digits of either case -> len bytes. */
bool wb_hex_decode(struct wb_str hex, void *ret_data, size_t len);

/** Exponential backoff with full jitter: a random time in [0, min(max_ns, base_ns * 2^attempt)]. */
int64_t wb_backoff_ns(struct wb_rng *rng, unsigned attempt, int64_t base_ns, int64_t max_ns);

/** FNV-1a, 64 bits. For tables; not against an attacker. */
uint64_t wb_hash(const void *data, size_t len);

#define WB_FINGERPRINT_TEXT 17 /* 16 hex digits and a NUL */

/**
 * What the text of an error has in common with others of its kind: numbers, hex runs, UUIDs and
 * quoted text make no difference, nor does anything behind the first 4096 bytes.
 */
void wb_fingerprint(struct wb_str text, char ret_hex[WB_FINGERPRINT_TEXT]);

/* ---- log ------------------------------------------------------------------------------------- */

typedef enum wb_log_level { WB_LOG_DEBUG, WB_LOG_INFO, WB_LOG_WARN, WB_LOG_ERROR } wb_log_level;

typedef enum wb_log_format { WB_LOG_LOGFMT, WB_LOG_JSON } wb_log_format;

/** Where and how lines are written: to fd (default 2), from level upwards. Call before threads. */
void wb_log_setup(int fd, wb_log_format format, wb_log_level level);

/** "debug" "info" "warn" "error". */
bool wb_log_level_parse(struct wb_str text, wb_log_level *ret_level);

/**
 * Write one line with time, level, component and message, in one write(2). Control bytes are
 * escaped. Payloads are never logged; event ids are.
 */
void wb_log(wb_log_level level, const char *component, const char *format, ...) WB_PRINTF(3, 4);

/* ---- crash points ---------------------------------------------------------------------------- */

/*
 * A named place where a fault test ends the process: WAYBILL_CRASH="outbox_publisher.sent:3" calls
 * _exit(137) at the third passage. Compiled in only with -DWAYBILL_CRASHPOINTS=ON; otherwise the
 * line costs nothing. The fault campaign runs into each of them.
 */
#ifdef WAYBILL_CRASHPOINTS
void wb_crash_point(const char *name);
/* Called at each passage of any point, for tests that end less than a process; NULL: nobody. */
void wb_crash_hook(void (*hook)(const char *name));
#define WB_CRASH_POINT(name) wb_crash_point(name)
#else
#define WB_CRASH_POINT(name) ((void)0)
#endif

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_BASE_H */
