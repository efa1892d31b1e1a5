#include "internal.h"

#include <stdlib.h>

enum { MAX_SLOTS = 1 << 24, LAST_GENERATION = (1 << 24) - 1 };

static uint32_t index_of(ev_token token) { return (uint32_t)(token & (MAX_SLOTS - 1)); }
static uint32_t generation_of(ev_token token) { return (uint32_t)(token >> 24) & LAST_GENERATION; }

static int grow(ev_loop *loop) {
    uint32_t capacity = loop->slot_capacity ? loop->slot_capacity * 2 : 256;
    if (capacity > MAX_SLOTS)
        return 0;
    struct ev_slot *slots = realloc(loop->slots, capacity * sizeof *slots);
    if (!slots)
        return 0;
    loop->slots = slots;
    loop->slot_capacity = capacity;
    return 1;
}

ev_token ev__slot_new(ev_loop *loop, struct ev_watcher *owner) {
    uint32_t index = loop->slot_free;
    if (index != EV_NO_SLOT) {
        loop->slot_free = loop->slots[index].next;
    } else {
        if (loop->slot_count == loop->slot_capacity && !grow(loop))
            return 0;
        index = loop->slot_count++;
        loop->slots[index].generation = 1; /* so that no token is 0 */
    }
    loop->slots[index].owner = owner;
    return index | (uint64_t)loop->slots[index].generation << 24;
}

struct ev_watcher *ev__slot_get(ev_loop *loop, ev_token token) {
    uint32_t index = index_of(token);
    if (index >= loop->slot_count || loop->slots[index].generation != generation_of(token))
        return NULL;
    return loop->slots[index].owner;
}

void ev__slot_release(ev_loop *loop, ev_token token) {
    if (!ev__slot_get(loop, token))
        return;
    struct ev_slot *slot = &loop->slots[index_of(token)];
    slot->owner = NULL;
    /* A slot whose generations are used up is never handed out again: 16 bytes lost for 16 million uses. */
    if (slot->generation == LAST_GENERATION)
        return;
    slot->generation++;
    slot->next = loop->slot_limbo;
    loop->slot_limbo = index_of(token);
}

void ev__slots_settle(ev_loop *loop) {
    while (loop->slot_limbo != EV_NO_SLOT) {
        struct ev_slot *slot = &loop->slots[loop->slot_limbo];
        uint32_t next = slot->next;
        slot->next = loop->slot_free;
        loop->slot_free = loop->slot_limbo;
        loop->slot_limbo = next;
    }
}
