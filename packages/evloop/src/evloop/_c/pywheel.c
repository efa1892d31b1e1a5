/* A timer wheel for Python alone, without a loop and without a clock. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

struct ev_pywheel {
    struct ev_wheel wheel;
    struct ev_timer_table timers;
    uint32_t *fired; /* indexes, of one tick */
    size_t fired_count, fired_capacity;
};

struct ev_pywheel *ev_pywheel_new(uint64_t now) {
    struct ev_pywheel *w = calloc(1, sizeof *w);
    if (w)
        ev__wheel_init(&w->wheel, now);
    return w;
}

void ev_pywheel_free(struct ev_pywheel *w) {
    ev__timers_free(&w->timers);
    free(w->fired);
    free(w);
}

/* The wheel hands its caller's pointer to each timer that fires: here it is the struct ev_pywheel. */
static void collect(ev_loop *context, struct ev_timer *t) {
    struct ev_pywheel *w = (struct ev_pywheel *)(void *)context;
    /* ev_pywheel_insert has made room for every timer that there is. */
    w->fired[w->fired_count++] = ((struct ev_pytimer *)t)->index;
}

int ev_pywheel_insert(struct ev_pywheel *w, uint32_t index, uint64_t due) {
    struct ev_pytimer *timer = ev__timer_make(&w->timers, index);
    if (!timer)
        return -ENOMEM;
    size_t needed = w->timers.count * EV_TIMER_BLOCK;
    if (needed > w->fired_capacity) {
        uint32_t *fired = realloc(w->fired, needed * sizeof *fired);
        if (!fired)
            return -ENOMEM;
        w->fired = fired;
        w->fired_capacity = needed;
    }
    timer->t.fn = collect;
    ev__wheel_insert(&w->wheel, &timer->t, due);
    return 0;
}

void ev_pywheel_cancel(struct ev_pywheel *w, uint32_t index) {
    struct ev_pytimer *timer = ev__timer_find(&w->timers, index);
    if (timer)
        ev__wheel_cancel(&w->wheel, &timer->t);
}

size_t ev_pywheel_step(struct ev_pywheel *w, uint64_t now, const uint32_t **fired) {
    w->fired_count = 0;
    while (!w->fired_count && w->wheel.now < now) {
        uint64_t next = ev__wheel_next(&w->wheel);
        ev__wheel_advance(&w->wheel, next < now ? next : now, (ev_loop *)(void *)w);
    }
    *fired = w->fired;
    return w->fired_count;
}

uint64_t ev_pywheel_next(const struct ev_pywheel *w) { return ev__wheel_next(&w->wheel); }
uint64_t ev_pywheel_now(const struct ev_pywheel *w) { return w->wheel.now; }
uint64_t ev_pywheel_count(const struct ev_pywheel *w) { return w->wheel.count; }
int ev_pywheel_check(const struct ev_pywheel *w) { return ev__wheel_check(&w->wheel); }
