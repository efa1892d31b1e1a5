/* A timer wheel for Python alone, without a loop and without a clock. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

struct ev_pywheel {
    struct ev_wheel wheel;
    struct ev_timer_table timers;
};

struct ev_pywheel *ev_pywheel_new(uint64_t now) {
    struct ev_pywheel *w = calloc(1, sizeof *w);
    if (w)
        ev__wheel_init(&w->wheel, now);
    return w;
}

void ev_pywheel_free(struct ev_pywheel *w) {
    ev__timers_free(&w->timers);
    free(w);
}

/* The wheel hands its caller's pointer to each timer that fires: here it is the struct ev_pywheel. */
static void collect(ev_loop *context, struct ev_timer *t) { ev__timer_fired(&((struct ev_pywheel *)(void *)context)->timers, t); }

int ev_pywheel_insert(struct ev_pywheel *w, uint32_t index, uint64_t due) {
    struct ev_pytimer *timer = ev__timer_make(&w->timers, index);
    if (!timer)
        return -ENOMEM;
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
    w->timers.fired_count = 0;
    while (!w->timers.fired_count && w->wheel.now < now) {
        uint64_t next = ev__wheel_next(&w->wheel);
        ev__wheel_advance(&w->wheel, next < now ? next : now, (ev_loop *)(void *)w);
    }
    *fired = w->timers.fired;
    return w->timers.fired_count;
}

uint64_t ev_pywheel_next(const struct ev_pywheel *w) { return ev__wheel_next(&w->wheel); }
uint64_t ev_pywheel_now(const struct ev_pywheel *w) { return w->wheel.now; }
uint64_t ev_pywheel_count(const struct ev_pywheel *w) { return w->wheel.count; }
int ev_pywheel_check(const struct ev_pywheel *w) { return ev__wheel_check(&w->wheel); }
