/* CLOCK_MONOTONIC, because Python's time.monotonic() reads the same one: loop.time() needs no crossing. */
#include "internal.h"

#include <time.h>

uint64_t ev__clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t ev__now_ns(const ev_loop *loop) { return loop->manual_ns ? loop->manual_ns : ev__clock_ns(); }
