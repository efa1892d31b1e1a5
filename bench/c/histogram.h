/*
 * A log-linear latency histogram: 128 linear steps per power of two, so that every value is kept to better than 1%
 * from a nanosecond to centuries, in fixed memory and with a handful of instructions per value.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <string.h>

#define HIST_BITS 7
#define HIST_STEPS (1u << HIST_BITS)
#define HIST_SLOTS ((64u - HIST_BITS + 1u) * HIST_STEPS)

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t slot[HIST_SLOTS];
};

static inline void hist_reset(struct histogram *h) { memset(h, 0, sizeof *h); }

static inline unsigned hist_index(uint64_t value)
{
    if (value < HIST_STEPS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HIST_BITS;
    return (shift + 1u) * HIST_STEPS + (unsigned)((value >> shift) - HIST_STEPS);
}

/* The highest value that falls into a slot: a percentile must never be reported better than it was. */
static inline uint64_t hist_slot_top(unsigned index)
{
    if (index < HIST_STEPS)
        return index;
    unsigned shift = index / HIST_STEPS - 1u;
    uint64_t step = index % HIST_STEPS + HIST_STEPS;
    return ((step + 1u) << shift) - 1u;
}

static inline void hist_add(struct histogram *h, uint64_t value)
{
    h->count++;
    if (value > h->max)
        h->max = value;
    h->slot[hist_index(value)]++;
}

static inline uint64_t hist_percentile(const struct histogram *h, double percent)
{
    double exact = (double)h->count * percent / 100.0;
    uint64_t wanted = (uint64_t)exact;
    if ((double)wanted < exact || wanted == 0)
        wanted++;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HIST_SLOTS; i++) {
        seen += h->slot[i];
        if (seen >= wanted)
            return hist_slot_top(i) < h->max ? hist_slot_top(i) : h->max;
    }
    return h->max;
}

#endif
