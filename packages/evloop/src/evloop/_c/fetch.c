/* Fetching events: the more are ready, the more are fetched by one call. What one turn does not handle waits for the next, which then
 * needs no call at all. */
#include "internal.h"

#include <stdlib.h>

enum { QUIET_FETCHES = 256 }; /* so many times in a row a quarter would have done: shrink */

static void resize(ev_loop *loop, int capacity) {
    struct ev_ready *ready = realloc(loop->ready, (size_t)capacity * sizeof *ready);
    if (ready) { /* else the old size serves as well */
        loop->ready = ready;
        loop->ready_capacity = capacity;
    }
    loop->quiet_fetches = 0;
}

static void adapt(ev_loop *loop, int count) {
    if (count == loop->ready_capacity && count < EV_FETCH_MOST) {
        resize(loop, count * 2);
    } else if (count > loop->ready_capacity / 4 || loop->ready_capacity == EV_FETCH_LEAST) {
        loop->quiet_fetches = 0;
    } else if (++loop->quiet_fetches == QUIET_FETCHES) {
        resize(loop, loop->ready_capacity / 2);
    }
}

int ev__fetch(ev_loop *loop, int timeout_ms) {
    if (loop->ready_at < loop->ready_count)
        return loop->ready_count - loop->ready_at;
    uint64_t before = timeout_ms ? ev__clock_ns() : 0;
    loop->ready_at = loop->ready_count = 0;
    int count = loop->backend->wait(loop->backend_state, loop->ready, loop->ready_capacity, timeout_ms);
    if (before)
        loop->stats.poll_ns += ev__clock_ns() - before;
    if (count > 0) {
        loop->ready_count = count;
        loop->stats.events += (uint64_t)count;
        adapt(loop, count);
    }
    return count;
}
