/* The timers of Python: started and stopped through the submission ring, so that call_later costs no crossing. Python hands out
 * the indexes, and reuses one only when no record of its predecessor can be under way. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct ev_pytimer *ev__timer_find(struct ev_timer_table *table, uint64_t index) {
    size_t block = index / EV_TIMER_BLOCK;
    return block < table->count ? &table->blocks[block][index % EV_TIMER_BLOCK] : NULL;
}

static int grow(struct ev_timer_table *table) {
    size_t timers = (table->count + 1) * EV_TIMER_BLOCK;
    struct ev_pytimer **blocks = realloc(table->blocks, (table->count + 1) * sizeof *blocks);
    if (!blocks)
        return 0;
    table->blocks = blocks;
    if (timers > table->fired_capacity) { /* so that noting an expired timer cannot fail */
        uint32_t *fired = realloc(table->fired, 2 * timers * sizeof *fired);
        if (!fired)
            return 0;
        table->fired = fired;
        table->fired_capacity = 2 * timers;
    }
    struct ev_pytimer *block = calloc(EV_TIMER_BLOCK, sizeof *block);
    if (!block)
        return 0;
    blocks[table->count++] = block;
    return 1;
}

struct ev_pytimer *ev__timer_make(struct ev_timer_table *table, uint64_t index) {
    while (index / EV_TIMER_BLOCK >= table->count)
        if (!grow(table))
            return NULL;
    struct ev_pytimer *timer = ev__timer_find(table, index);
    timer->index = (uint32_t)index;
    return timer;
}

void ev__timer_fired(struct ev_timer_table *table, struct ev_timer *t) {
    table->fired[table->fired_count++] = ((struct ev_pytimer *)t)->index;
}

void ev__timers_free(struct ev_timer_table *table) {
    for (size_t i = 0; i < table->count; i++)
        free(table->blocks[i]);
    free(table->blocks);
    free(table->fired);
}

uint64_t ev__timer_tick(double seconds) {
    double ms = seconds * 1000;
    if (!(ms > 0))
        return 0;
    if (ms >= 9e18)
        return (uint64_t)9e18;
    uint64_t tick = (uint64_t)ms;
    return (double)tick < ms ? tick + 1 : tick;
}

static void expired(ev_loop *loop, struct ev_timer *t) { ev__timer_fired(&loop->timers, t); }

void ev__timers_tell(ev_loop *loop) {
    struct ev_timer_table *table = &loop->timers;
    size_t count = table->fired_count;
    table->fired_count = 0;
    loop->stats.timers += count;
    ev__emit_many(loop, EV_TARGET_TIMER, table->fired, count);
}

static void start(ev_loop *loop, uint32_t index, double when) {
    struct ev_pytimer *timer = ev__timer_make(&loop->timers, index);
    if (!timer) { /* no memory to wait with: late is wrong, at once is wrong, but at once is noticed */
        ev__emit(loop, EV_TARGET_TIMER, (int64_t)index, 1, 0);
        return;
    }
    timer->t.fn = expired;
    ev__wheel_insert(&loop->wheel, &timer->t, ev__timer_tick(when));
}

static void stop(ev_loop *loop, uint32_t index) {
    struct ev_pytimer *timer = ev__timer_find(&loop->timers, index);
    if (timer)
        ev__wheel_cancel(&loop->wheel, &timer->t);
}

static uint32_t index_at(const uint8_t *indexes, size_t i) {
    uint32_t index;
    memcpy(&index, indexes + i * sizeof index, sizeof index);
    return index;
}

void ev__timers_op(ev_loop *loop, unsigned op, const uint8_t *payload, size_t len) {
    if (op == EV_OP_TIMERS_START) {
        size_t count = len / (sizeof(double) + sizeof(uint32_t));
        for (size_t i = 0; i < count; i++) {
            double when;
            memcpy(&when, payload + i * sizeof when, sizeof when);
            start(loop, index_at(payload + count * sizeof when, i), when);
        }
    } else if (op == EV_OP_TIMERS_STOP) {
        for (size_t i = 0; i < len / sizeof(uint32_t); i++)
            stop(loop, index_at(payload, i));
    }
}
