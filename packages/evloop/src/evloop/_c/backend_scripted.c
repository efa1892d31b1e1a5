/* A backend for tests: descriptors are ready when the test says so, and waiting does not wait. It never looks at a descriptor, so any
 * number will do. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

struct scripted_entry {
    int fd;
    unsigned events;
    ev_token token;
    unsigned ready; /* what the script has said, for the next wait */
};

struct scripted_state {
    struct scripted_entry *entries;
    int count, capacity;
    int has_waker;
};

static int scripted_open(void **state) {
    *state = calloc(1, sizeof(struct scripted_state));
    return *state ? 0 : -ENOMEM;
}

static void scripted_close(void *state) {
    struct scripted_state *s = state;
    free(s->entries);
    free(s);
}

static struct scripted_entry *find(struct scripted_state *s, int fd) {
    for (int i = 0; i < s->count; i++)
        if (s->entries[i].fd == fd)
            return &s->entries[i];
    return NULL;
}

static int scripted_add(void *state, int fd, unsigned events, ev_token token) {
    struct scripted_state *s = state;
    if (!s->has_waker) { /* the loop's own comes first; its number must not get in the way of the script's */
        s->has_waker = 1;
        return 0;
    }
    if (fd < 0)
        return -EBADF;
    if (find(s, fd))
        return -EEXIST;
    if (s->count == s->capacity) {
        int capacity = s->capacity ? s->capacity * 2 : 8;
        struct scripted_entry *entries = realloc(s->entries, (size_t)capacity * sizeof *entries);
        if (!entries)
            return -ENOMEM;
        s->entries = entries;
        s->capacity = capacity;
    }
    s->entries[s->count++] = (struct scripted_entry){.fd = fd, .events = events, .token = token};
    return 0;
}

static int scripted_modify(void *state, int fd, unsigned events, ev_token token) {
    struct scripted_entry *e = find(state, fd);
    if (!e)
        return -ENOENT;
    e->events = events;
    e->token = token;
    return 0;
}

static int scripted_remove(void *state, int fd) {
    struct scripted_state *s = state;
    struct scripted_entry *e = find(s, fd);
    if (!e)
        return -ENOENT;
    for (struct scripted_entry *last = &s->entries[--s->count]; e < last; e++)
        e[0] = e[1]; /* in order: events are reported in the order in which descriptors were added */
    return 0;
}

static int scripted_wait(void *state, struct ev_ready *out, int max, int timeout_ms) {
    struct scripted_state *s = state;
    (void)timeout_ms;
    int n = 0;
    for (int i = 0; i < s->count && n < max; i++) {
        unsigned ready = s->entries[i].ready & (s->entries[i].events | EV_EOF);
        s->entries[i].ready = 0; /* the script spoke of this turn: what nobody waits for now is not kept */
        if (!ready)
            continue;
        out[n++] = (struct ev_ready){.token = s->entries[i].token, .events = ready};
    }
    return n;
}

const struct ev_backend ev__backend_scripted = {
    .name = "scripted",
    .open = scripted_open,
    .close = scripted_close,
    .add = scripted_add,
    .modify = scripted_modify,
    .remove = scripted_remove,
    .wait = scripted_wait,
};

int ev_script(ev_loop *loop, int fd, unsigned ready) {
    if (loop->backend != &ev__backend_scripted)
        return -ENOTSUP;
    struct scripted_entry *e = find(loop->backend_state, fd);
    if (!e)
        return -ENOENT;
    e->ready |= ready;
    return 0;
}
