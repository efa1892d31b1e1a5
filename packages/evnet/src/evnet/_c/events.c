/* What the streams of Python have to say goes into one record of each batch: a record each would cost Python as much again as what it
 * calls for them. */
#include "internal.h"
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct net_events *of_emit(struct ev_task *t) { return (struct net_events *)((char *)t - offsetof(struct net_events, emit)); }

/* Read from the arena itself, not from what is shown of it: with the bytes that were received that would be copied once more. */
static void emit(ev_loop *loop, struct ev_task *task) {
    struct net_events *events = of_emit(task);
    size_t size = events->count * sizeof *events->list;
    int64_t offset;
    memcpy(ev->arena_reserve(loop, size, &offset), events->list, size);
    ev->arena_commit(loop, offset, size);
    ev->emit(loop, events->target, offset, (int64_t)events->count, 0);
    events->count = 0;
}

static void grow(struct net_events *events) {
    events->capacity = events->capacity ? events->capacity * 2 : 256;
    events->list = realloc(events->list, events->capacity * sizeof *events->list);
    if (!events->list) { /* as evloop does: an event that is lost would leave Python waiting for ever */
        fputs("evnet: out of memory for the events of one turn\n", stderr);
        abort();
    }
}

void net__events_add(struct net_module *m, uint32_t number, int32_t a, int32_t b) {
    struct net_events *events = &m->events;
    if (events->count == events->capacity)
        grow(events);
    if (!events->count)
        ev->batch_end(m->loop, &events->emit, emit);
    events->list[events->count++] = (struct evnet_event){number, a, b};
}

void net__events_free(struct net_module *m) { free(m->events.list); }
