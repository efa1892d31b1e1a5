/* The two rings in shared memory: records and arena go up to Python, submissions come down. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beyond this, streams leave their bytes in the kernel until Python has taken the batch. */
enum { ARENA_SOFT_LIMIT = 1 << 20 };

static void *grown(ev_loop *loop, void *p, size_t size) {
    loop->moved = 1;
    p = realloc(p, size);
    if (!p) {
        fputs("evloop: out of memory for the completions of one turn\n", stderr);
        abort();
    }
    return p;
}

void ev__emit(ev_loop *loop, uint32_t target, int64_t a, int64_t b, uint64_t token) {
    if (loop->record_count == loop->record_capacity) {
        loop->record_capacity *= 2;
        loop->records = grown(loop, loop->records, loop->record_capacity * sizeof *loop->records);
    }
    loop->records[loop->record_count++] = (struct ev_record){target, a, b, token};
}

uint8_t *ev__arena_reserve(ev_loop *loop, size_t len, int64_t *offset) {
    size_t at = (loop->arena_used + 7) & ~(size_t)7;
    if (len > loop->arena_capacity - at || at > loop->arena_capacity) {
        size_t capacity = loop->arena_capacity;
        while (capacity - at < len)
            capacity *= 2;
        loop->arena = grown(loop, loop->arena, capacity);
        loop->arena_capacity = capacity;
    }
    *offset = (int64_t)at;
    return loop->arena + at;
}

void ev__arena_commit(ev_loop *loop, int64_t offset, size_t len) { loop->arena_used = (size_t)offset + len; }

uint8_t *ev__arena_put(ev_loop *loop, size_t len, int64_t *offset) {
    uint8_t *p = ev__arena_reserve(loop, len, offset);
    ev__arena_commit(loop, *offset, len);
    loop->arena_shown = loop->arena_used;
    return p;
}

void ev__emit_many(ev_loop *loop, uint32_t target, const uint32_t *numbers, size_t count) {
    if (count == 1) {
        ev__emit(loop, target, numbers[0], 1, 0);
    } else if (count) {
        int64_t offset;
        memcpy(ev__arena_put(loop, count * sizeof *numbers, &offset), numbers, count * sizeof *numbers);
        ev__emit(loop, target, offset, (int64_t)count, 0);
    }
}

int ev__arena_full(ev_loop *loop) { return loop->arena_used >= ARENA_SOFT_LIMIT; }

/* Records that a flush emitted between two turns are not Python's yet: they go to the front, and the arena they speak of stays. */
void ev__rings_reset(ev_loop *loop) {
    size_t kept = loop->record_count - loop->records_taken;
    if (kept)
        memmove(loop->records, loop->records + loop->records_taken, kept * sizeof *loop->records);
    else
        loop->arena_used = loop->arena_shown = 0;
    loop->record_count = kept;
    loop->records_taken = 0;
}

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static uint32_t get32(const uint8_t *p) { return get16(p) | (uint32_t)get16(p + 2) << 16; }

static uint64_t get64(const uint8_t *p) { return get32(p) | (uint64_t)get32(p + 4) << 32; }

void ev__submit(ev_loop *loop, const uint8_t *p, size_t len) {
    while (len >= EV_SUBMISSION_HEADER) {
        size_t payload = get32(p);
        unsigned op = p[4], module = p[5];
        if (payload > len - EV_SUBMISSION_HEADER)
            return; /* only a bug in a Python module can get here; nothing beyond the ring is read */
        if (module < EV_MODULES && loop->modules[module])
            loop->modules[module]->op(loop, loop->modules[module], op, get16(p + 6), get64(p + 8), p + EV_SUBMISSION_HEADER, payload);
        p += EV_SUBMISSION_HEADER + payload;
        len -= EV_SUBMISSION_HEADER + payload;
    }
    ev__tasks_run(&loop->soon, loop);
}
