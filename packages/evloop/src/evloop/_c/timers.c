/* The timers of Python: started and stopped through the submission ring, so that call_later costs no crossing. Python hands out
 * the indexes, and reuses one only when no record of its predecessor can be under way. */
#include "internal.h"
#include "shim.h"

#include <stdlib.h>
#include <string.h>

static void expired(ev_loop *loop, struct ev_timer *t) {
    struct ev_pytimer *timer = (struct ev_pytimer *)t;
    ev__emit(loop, loop->timer_target, timer->index, 0, 0);
}

static struct ev_pytimer *find(ev_loop *loop, uint64_t index) {
    size_t block = index / EV_TIMER_BLOCK;
    return block < loop->timer_block_count ? &loop->timer_blocks[block][index % EV_TIMER_BLOCK] : NULL;
}

static struct ev_pytimer *find_or_make(ev_loop *loop, uint64_t index) {
    while (index / EV_TIMER_BLOCK >= loop->timer_block_count) {
        struct ev_pytimer **blocks = realloc(loop->timer_blocks, (loop->timer_block_count + 1) * sizeof *blocks);
        if (!blocks)
            return NULL;
        loop->timer_blocks = blocks;
        struct ev_pytimer *block = calloc(EV_TIMER_BLOCK, sizeof *block);
        if (!block)
            return NULL;
        blocks[loop->timer_block_count++] = block;
    }
    struct ev_pytimer *timer = find(loop, index);
    timer->index = (uint32_t)index;
    return timer;
}

void ev__timer_op(ev_loop *loop, unsigned op, uint64_t index, const uint8_t *payload, size_t len) {
    if (op == EV_OP_TIMER_START && len == sizeof(uint64_t)) {
        uint64_t due_ns;
        memcpy(&due_ns, payload, sizeof due_ns);
        struct ev_pytimer *timer = find_or_make(loop, index);
        if (!timer) { /* no memory to wait with: late is wrong, at once is wrong, but at once is noticed */
            ev__emit(loop, loop->timer_target, (int64_t)index, 0, 0);
            return;
        }
        timer->t.fn = expired;
        /* Rounded up: never early. */
        ev__wheel_insert(&loop->wheel, &timer->t, (due_ns + 999999) / 1000000);
    } else if (op == EV_OP_TIMER_STOP) {
        struct ev_pytimer *timer = find(loop, index);
        if (timer)
            ev__wheel_cancel(&loop->wheel, &timer->t);
    }
}

void ev__timers_close(ev_loop *loop) {
    for (size_t i = 0; i < loop->timer_block_count; i++)
        free(loop->timer_blocks[i]);
    free(loop->timer_blocks);
}
