/* histogram.h - latencies of a run of any length, in bounded space: 3 % wide buckets. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdio.h>
#include <stdlib.h>

#include <waybill/base.h>

#define BUCKETS 1280 /* 32 in each power of two of nanoseconds */

static inline int64_t now(void)
{
    return wb_mono_ns(wb_clock_system());
}

static inline void must_ok(wb_err err, const char *what, const struct wb_why *why)
{
    if (err == WB_OK)
        return;
    (void)fprintf(stderr, "bench: %s: %s: %s\n", what, wb_err_name(err), why->text);
    exit(1);
}

/* ---- latencies ------------------------------------------------------------------------------- */

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total;
    int64_t longest;
};

static inline size_t bucket_of(int64_t ns)
{
    unsigned power = 63U - (unsigned)__builtin_clzll((uint64_t)ns | 32);

    return ((size_t)(power - 5) << 5) + (((uint64_t)ns >> (power - 5)) & 31);
}

static inline void add(struct histogram *self, int64_t ns)
{
    size_t at = bucket_of(ns);

    self->counts[at < BUCKETS ? at : BUCKETS - 1]++;
    self->total++;
    self->longest = ns > self->longest ? ns : self->longest;
}

static inline void merge(struct histogram *to, const struct histogram *from)
{
    for (size_t i = 0; i < BUCKETS; i++)
        to->counts[i] += from->counts[i];
    to->total += from->total;
    to->longest = from->longest > to->longest ? from->longest : to->longest;
}

/* The upper edge of the bucket, in microseconds. */
static inline double quantile(const struct histogram *self, double q)
{
    uint64_t wanted = (uint64_t)((double)self->total * q), seen = 0;

    for (size_t i = 0; i < BUCKETS; i++) {
        seen += self->counts[i];
        if (seen > wanted)
            return (double)((33 + (i & 31)) << (i >> 5)) / 1000.0;
    }
    return (double)self->longest / 1000.0;
}

static inline void print(const char *name, const struct histogram *self)
{
    (void)printf("%-22s p50 %8.0f us  p99 %8.0f us  p99.9 %8.0f us  max %8.0f us  (%llu)\n", name,
                 quantile(self, 0.5), quantile(self, 0.99), quantile(self, 0.999),
                 (double)self->longest / 1000.0, (unsigned long long)self->total);
}

#endif /* BENCH_HISTOGRAM_H */
