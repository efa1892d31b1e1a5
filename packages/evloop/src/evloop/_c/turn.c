/* The turn. Everything that happens between two batches of handlers stands in ev_turn, in this order. */
#include "internal.h"
#include "shim.h"

#include <errno.h>
#include <limits.h>

/* What the flags of a result mean: see shim.h. */
#define RECORDS_MOVED (UINT64_C(1) << 63)
#define BATCH_WAS_SLOW (UINT64_C(1) << 62)
enum { SLOW_NS = 500000 };

static void update_clock(ev_loop *loop) { loop->now_ms = ev__now_ns(loop) / 1000000; }

/* Milliseconds to sleep: until the caller's limit or the next timer, rounded up so that the wait never ends just before it. */
static int sleep_ms(ev_loop *loop, int64_t timeout_ns) {
    if (timeout_ns == 0 || loop->record_count || loop->next_turn.head || loop->manual_ns)
        return 0;
    uint64_t ms = timeout_ns < 0 ? UINT64_MAX : ((uint64_t)timeout_ns + 999999) / 1000000;
    uint64_t next = ev__wheel_next(&loop->wheel);
    if (next != EV_WHEEL_NEVER) {
        update_clock(loop);
        uint64_t until = next > loop->now_ms ? next - loop->now_ms : 0;
        if (until < ms)
            ms = until;
    }
    if (ms == UINT64_MAX)
        return -1;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* What was read is copied once more when Python takes it, and then sent: while it is still in the processor's cache. So the rest waits for
 * the next turn, which asks the kernel nothing for it. */
enum { READ_A_TURN = 64 * 1024 };

static void dispatch(ev_loop *loop) {
    size_t full = loop->arena_used + READ_A_TURN;
    for (int left = EV_TURN_EVENTS; left && loop->ready_at < loop->ready_count && loop->arena_used < full; left--) {
        struct ev_ready ready = loop->ready[loop->ready_at++];
        /* A watcher that an earlier event took away is not found; nor is its successor on the same fd number. */
        struct ev_watcher *w = ev__slot_get(loop, ready.token);
        if (w)
            w->fn(loop, w, ready.events);
    }
    ev__emit_many(loop, EV_TARGET_READY, loop->callable, loop->callable_count);
    loop->callable_count = 0;
}

static void note_batch(ev_loop *loop, uint64_t took_ns) {
    loop->stats.python_ns += took_ns;
    if (took_ns > loop->stats.longest_batch_ns)
        loop->stats.longest_batch_ns = took_ns;
}

uint64_t ev_turn(ev_loop *loop, const char *submissions, size_t len, int64_t timeout_ns) {
    uint64_t flags = 0;
    loop->stats.turns++;
    update_clock(loop); /* handlers took their time: a deadline set now must not begin before they ran */
    if (loop->returned_ns) {
        uint64_t took = ev__clock_ns() - loop->returned_ns;
        note_batch(loop, took);
        if (took > SLOW_NS)
            flags = BATCH_WAS_SLOW;
    }
    ev__rings_reset(loop);
    struct ev_task_list seen;
    ev__tasks_take(&seen, &loop->reap);
    ev__slots_settle(loop);

    ev__submit(loop, (const uint8_t *)submissions, len);

    int wait_ms = sleep_ms(loop, timeout_ns);
    ev__tasks_run(&loop->next_turn, loop);
    /* Only now: what a flush between the turns has ended may have had a task in that list. */
    ev__tasks_run(&seen, loop);
    int count = ev__fetch(loop, loop->record_count || loop->batch_end.head ? 0 : wait_ms);
    update_clock(loop);
    if (count > 0) /* else a time-out, or -EINTR: the caller runs Python's signal handlers */
        dispatch(loop);
    ev__wheel_advance(&loop->wheel, loop->now_ms, loop);
    ev__timers_tell(loop);
    ev__tasks_run(&loop->soon, loop);
    ev__tasks_run(&loop->batch_end, loop);

    loop->records_taken = loop->record_count;
    loop->returned_ns = 0;
    if (!loop->record_count && !loop->moved)
        return 0;
    if (loop->moved)
        flags |= RECORDS_MOVED;
    loop->moved = 0;
    loop->returned_ns = ev__clock_ns();
    return (uint64_t)loop->record_count | (uint64_t)loop->arena_shown << 24 | flags;
}

int ev_flush(ev_loop *loop, const char *submissions, size_t len) {
    update_clock(loop);
    ev__submit(loop, (const uint8_t *)submissions, len);
    ev__tasks_run(&loop->batch_end, loop);
    int moved = loop->moved;
    loop->moved = 0;
    return moved;
}

int64_t ev_next_timer_ns(ev_loop *loop) {
    if (loop->record_count > loop->records_taken || loop->next_turn.head || loop->ready_at < loop->ready_count)
        return 0;
    uint64_t next = ev__wheel_next(&loop->wheel);
    return next == EV_WHEEL_NEVER || next > INT64_MAX / 1000000 ? -1 : (int64_t)next * 1000000;
}
