#include "wheel.h"

/* A list is a ring through its head, so that unlinking needs no head. */
static void ring_init(struct ev_timer *head) { head->next = head->prev = head; }

static int ring_empty(const struct ev_timer *head) { return head->next == head; }

static void ring_append(struct ev_timer *head, struct ev_timer *t) {
    t->prev = head->prev;
    t->next = head;
    head->prev->next = t;
    head->prev = t;
}

static void ring_unlink(struct ev_timer *t) {
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = t->prev = NULL;
}

/* Moves all of `from`, which must not be empty, to the empty ring `to`. */
static void ring_take(struct ev_timer *to, struct ev_timer *from) {
    to->next = from->next;
    to->prev = from->prev;
    to->next->prev = to;
    to->prev->next = to;
    ring_init(from);
}

static unsigned slot_of(uint64_t tick, int level) { return (unsigned)(tick >> (8 * level)) & 255; }

static void mark(struct ev_wheel *w, int level, unsigned slot) { w->occupied[level][slot / 64] |= UINT64_C(1) << (slot % 64); }

static void unmark(struct ev_wheel *w, int level, unsigned slot) { w->occupied[level][slot / 64] &= ~(UINT64_C(1) << (slot % 64)); }

/* The first occupied slot after `slot`, or -1. */
static int occupied_after(const uint64_t map[EV_WHEEL_SLOTS / 64], unsigned slot) {
    unsigned from = slot + 1;
    for (unsigned i = from / 64; i < EV_WHEEL_SLOTS / 64; i++) {
        uint64_t bits = map[i];
        if (i == from / 64)
            bits &= ~UINT64_C(0) << (from % 64);
        if (bits)
            return (int)(i * 64) + __builtin_ctzll(bits);
    }
    return -1;
}

void ev__wheel_init(struct ev_wheel *w, uint64_t now) {
    w->now = now;
    w->count = 0;
    ring_init(&w->beyond);
    for (int level = 0; level < EV_WHEEL_LEVELS; level++) {
        for (int i = 0; i < EV_WHEEL_SLOTS / 64; i++)
            w->occupied[level][i] = 0;
        for (int i = 0; i < EV_WHEEL_SLOTS; i++)
            ring_init(&w->slot[level][i]);
    }
}

static int level_of(uint64_t due, uint64_t now) {
    uint64_t differ = due ^ now;
    if (differ >> 32)
        return EV_WHEEL_LEVELS;
    return differ < 256 ? 0 : (63 - __builtin_clzll(differ)) / 8;
}

static void place(struct ev_wheel *w, struct ev_timer *t) {
    int level = level_of(t->due, w->now);
    if (level == EV_WHEEL_LEVELS) {
        ring_append(&w->beyond, t);
        return;
    }
    unsigned slot = slot_of(t->due, level);
    ring_append(&w->slot[level][slot], t);
    mark(w, level, slot);
}

void ev__wheel_insert(struct ev_wheel *w, struct ev_timer *t, uint64_t due) {
    if (t->next)
        ev__wheel_cancel(w, t);
    t->due = due > w->now ? due : w->now + 1;
    place(w, t);
    w->count++;
}

void ev__wheel_cancel(struct ev_wheel *w, struct ev_timer *t) {
    if (!t->next)
        return;
    struct ev_timer *neighbour = t->next;
    ring_unlink(t);
    w->count--;
    /* A ring that has only its head left belongs to a slot that is now empty, unless it is the list being fired. */
    if (ring_empty(neighbour) && neighbour >= &w->slot[0][0] && neighbour <= &w->slot[EV_WHEEL_LEVELS - 1][EV_WHEEL_SLOTS - 1]) {
        ptrdiff_t index = neighbour - &w->slot[0][0];
        unmark(w, (int)(index / EV_WHEEL_SLOTS), (unsigned)(index % EV_WHEEL_SLOTS));
    }
}

uint64_t ev__wheel_next(const struct ev_wheel *w) {
    if (!w->count)
        return EV_WHEEL_NEVER;
    /* Ascending levels: whatever is left of this block of 256 comes before the next block. */
    for (int level = 0; level < EV_WHEEL_LEVELS; level++) {
        int slot = occupied_after(w->occupied[level], slot_of(w->now, level));
        if (slot >= 0) {
            uint64_t above = w->now >> (8 * (level + 1)) << (8 * (level + 1));
            return above | (uint64_t)slot << (8 * level);
        }
    }
    return ((w->now >> 32) + 1) << 32;
}

static void replace_all(struct ev_wheel *w, struct ev_timer *from) {
    if (ring_empty(from))
        return;
    struct ev_timer list;
    ring_take(&list, from);
    while (!ring_empty(&list)) {
        struct ev_timer *t = list.next;
        ring_unlink(t);
        place(w, t);
    }
}

/* On entering a block, what lies on the upper levels for it moves down, from the top, so that order of insertion is kept. */
static void cascade(struct ev_wheel *w) {
    if ((w->now & 0xffffffff) == 0)
        replace_all(w, &w->beyond);
    for (int level = EV_WHEEL_LEVELS - 1; level > 0; level--) {
        if (w->now & ((UINT64_C(1) << (8 * level)) - 1))
            continue;
        unsigned slot = slot_of(w->now, level);
        unmark(w, level, slot);
        replace_all(w, &w->slot[level][slot]);
    }
}

static void fire(struct ev_wheel *w, ev_loop *loop) {
    unsigned slot = slot_of(w->now, 0);
    if (ring_empty(&w->slot[0][slot]))
        return;
    struct ev_timer list;
    ring_take(&list, &w->slot[0][slot]);
    unmark(w, 0, slot);
    while (!ring_empty(&list)) {
        struct ev_timer *t = list.next;
        ring_unlink(t);
        w->count--;
        t->fn(loop, t);
    }
}

void ev__wheel_advance(struct ev_wheel *w, uint64_t now, ev_loop *loop) {
    while (w->now < now) {
        uint64_t tick = ev__wheel_next(w);
        if (tick > now) {
            w->now = now;
            return;
        }
        w->now = tick;
        if ((tick & 255) == 0)
            cascade(w);
        fire(w, loop);
    }
}

int ev__wheel_check(const struct ev_wheel *w) {
    uint64_t count = 0;
    for (int level = 0; level < EV_WHEEL_LEVELS; level++)
        for (unsigned slot = 0; slot < EV_WHEEL_SLOTS; slot++) {
            const struct ev_timer *head = &w->slot[level][slot];
            int marked = (int)(w->occupied[level][slot / 64] >> (slot % 64)) & 1;
            if (marked == ring_empty(head))
                return 1; /* the map says which slots hold timers */
            for (const struct ev_timer *t = head->next; t != head; t = t->next) {
                if (t->next->prev != t || t->prev->next != t)
                    return 2; /* rings are whole */
                if (t->due <= w->now)
                    return 3; /* nothing that is due is left behind */
                if (level_of(t->due, w->now) != level || slot_of(t->due, level) != slot)
                    return 4; /* each timer lies where its due tick says */
                count++;
            }
        }
    for (const struct ev_timer *t = w->beyond.next; t != &w->beyond; t = t->next) {
        if (level_of(t->due, w->now) != EV_WHEEL_LEVELS)
            return 5; /* only what is out of reach lies beyond */
        count++;
    }
    return count == w->count ? 0 : 6; /* the count is right */
}
