/* Timer wheel: four levels of 256 slots, one tick a slot on the lowest. It reads no clock and allocates nothing: timers are
 * embedded in their users' structures (32 bytes each), the caller says what time it is.
 *
 * Insert, cancel and fire are O(1). A timer lies on the level of the highest byte in which its due tick differs from `now`, so
 * timers of one tick always lie in one list, in order of insertion, however early they were inserted. */
#ifndef EV_WHEEL_H
#define EV_WHEEL_H

#include "evloop.h"

enum { EV_WHEEL_LEVELS = 4, EV_WHEEL_SLOTS = 256 };
#define EV_WHEEL_NEVER UINT64_MAX

struct ev_wheel {
    uint64_t now;   /* the last tick that has been fired */
    uint64_t count; /* pending timers */
    uint64_t occupied[EV_WHEEL_LEVELS][EV_WHEEL_SLOTS / 64];
    struct ev_timer slot[EV_WHEEL_LEVELS][EV_WHEEL_SLOTS]; /* list heads: only next and prev are used */
    struct ev_timer beyond;                                /* due more than 2^32 ticks away */
};

void ev__wheel_init(struct ev_wheel *, uint64_t now);

/* Inserts, or moves, a timer. A due tick that has passed fires at the next one. */
void ev__wheel_insert(struct ev_wheel *, struct ev_timer *, uint64_t due);

/* Cancels; a timer that is not pending is left alone. May be called from a firing timer, for any timer. */
void ev__wheel_cancel(struct ev_wheel *, struct ev_timer *);

/* The next tick at which ev__wheel_advance has something to do (perhaps only to move timers down), or EV_WHEEL_NEVER. */
uint64_t ev__wheel_next(const struct ev_wheel *);

/* Fires what is due at or before `now`, in order of due tick. */
void ev__wheel_advance(struct ev_wheel *, uint64_t now, ev_loop *);

/* 0, or the number of the first rule broken (see wheel.c). For tests. */
int ev__wheel_check(const struct ev_wheel *);

#endif
