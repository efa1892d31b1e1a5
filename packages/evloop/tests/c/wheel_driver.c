/* The timer wheel against an array that is searched: random operations, ev__wheel_check after each.
 *
 * Invariants: a timer fires at the first tick >= its due tick that the clock reaches, once; those of one advance in order of due
 * tick, equal ones in order of insertion; ev__wheel_next is never later than the earliest due tick and always in the future.
 * A timer that fires may cancel, insert and move any other, itself included.
 *
 *   wheel_driver SEED ROUNDS        prints "ok FIRED" or the first rule that was broken */
#include "wheel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMERS = 300 };

struct model {
    struct ev_timer t;
    int pending;
    uint64_t due, order;
};

static struct model models[TIMERS];
static struct ev_wheel wheel;
static uint64_t state, order, fired, last_due, last_order, limit;
static int in_advance, depth;

static uint64_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void fail(const char *what, uint64_t a, uint64_t b) {
    printf("%s: %llu %llu\n", what, (unsigned long long)a, (unsigned long long)b);
    exit(1);
}

/* Delays of every size: within a block, on its edges, on each level, beyond the horizon of 2^32. */
static uint64_t random_delay(void) {
    unsigned bits = (unsigned)(next_random() % 36);
    uint64_t delay = next_random() & ((UINT64_C(1) << bits) - 1);
    switch (next_random() % 4) {
    case 0:
        return UINT64_C(1) << bits;
    case 1:
        return (UINT64_C(1) << bits) - 1;
    default:
        return delay;
    }
}

static void on_fire(ev_loop *, struct ev_timer *);

static void insert(struct model *m, uint64_t due) {
    m->t.fn = on_fire;
    ev__wheel_insert(&wheel, &m->t, due);
    m->pending = 1;
    m->due = due > wheel.now ? due : wheel.now + 1;
    m->order = order++;
    if (m->t.due != m->due)
        fail("due", m->t.due, m->due);
}

static void cancel(struct model *m) {
    ev__wheel_cancel(&wheel, &m->t);
    m->pending = 0;
    if (m->t.next)
        fail("cancelled and still linked", 0, 0);
}

static void one_operation(void) {
    struct model *m = &models[next_random() % TIMERS];
    switch (next_random() % 5) {
    case 0:
        cancel(m);
        break;
    case 1: /* one of the same tick as another */
        insert(m, models[next_random() % TIMERS].due);
        break;
    case 2: /* already past */
        insert(m, wheel.now - (wheel.now ? next_random() % 3 : 0));
        break;
    default:
        insert(m, wheel.now + random_delay());
    }
}

static void on_fire(ev_loop *loop, struct ev_timer *t) {
    struct model *m = (struct model *)t;
    (void)loop;
    if (!m->pending)
        fail("fired and was not pending", m->due, 0);
    if (t->next || t->prev)
        fail("fired and still linked", m->due, 0);
    if (wheel.now != m->due)
        fail("fired at the wrong tick (now, due)", wheel.now, m->due);
    if (m->due > limit)
        fail("fired beyond the clock", m->due, limit);
    if (m->due < last_due || (m->due == last_due && m->order < last_order))
        fail("fired out of order", m->due, last_due);
    last_due = m->due;
    last_order = m->order;
    m->pending = 0;
    fired++;
    if (depth < 3 * TIMERS) { /* so that a clock that jumps far ends */
        for (uint64_t n = next_random() % 4; n; n--, depth++)
            one_operation();
    }
}

static void check(void) {
    int rule = ev__wheel_check(&wheel);
    if (rule)
        fail("ev__wheel_check", (uint64_t)rule, wheel.now);
    uint64_t earliest = EV_WHEEL_NEVER, count = 0;
    for (int i = 0; i < TIMERS; i++) {
        if (!models[i].pending != !models[i].t.next)
            fail("pending differs", (uint64_t)i, 0);
        if (models[i].pending) {
            count++;
            if (models[i].due < earliest)
                earliest = models[i].due;
        }
    }
    if (count != wheel.count)
        fail("count", wheel.count, count);
    uint64_t next = ev__wheel_next(&wheel);
    if (next > earliest || next <= wheel.now)
        fail("ev__wheel_next (next, earliest)", next, earliest);
}

static void advance(uint64_t to) {
    limit = to;
    last_due = last_order = 0;
    depth = 0;
    in_advance = 1;
    ev__wheel_advance(&wheel, to, NULL);
    in_advance = 0;
    if (to > wheel.now)
        fail("the clock stands behind", wheel.now, to);
    for (int i = 0; i < TIMERS; i++)
        if (models[i].pending && models[i].due <= wheel.now)
            fail("due and not fired", models[i].due, wheel.now);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    state = strtoull(argv[1], NULL, 10) * UINT64_C(0x9E3779B97F4A7C15) + 1;
    uint64_t rounds = strtoull(argv[2], NULL, 10);
    /* At the start of the clock, just before each level's edges, and at a common uptime. */
    static const uint64_t starts[] = {0, 255, 256, 65535, 0xFFFFFF, 0xFFFFFFFF, UINT64_C(0x1FFFFFF00), 123456789};
    ev__wheel_init(&wheel, starts[next_random() % (sizeof starts / sizeof *starts)]);
    check();
    for (uint64_t i = 0; i < rounds; i++) {
        if (next_random() % 3) {
            one_operation();
        } else if (next_random() % 8 == 0) {
            advance(wheel.now + random_delay());
        } else if (next_random() % 4 == 0 && ev__wheel_next(&wheel) != EV_WHEEL_NEVER) {
            advance(ev__wheel_next(&wheel)); /* as the loop does */
        } else {
            advance(wheel.now + next_random() % 300);
        }
        check();
    }
    for (int i = 0; i < TIMERS; i++) {
        cancel(&models[i]);
        check();
    }
    if (ev__wheel_next(&wheel) != EV_WHEEL_NEVER)
        fail("an empty wheel has a next tick", 0, 0);
    printf("ok %llu\n", (unsigned long long)fired);
    return 0;
}
