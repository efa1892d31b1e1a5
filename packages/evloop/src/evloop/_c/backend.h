/* The seam between the loop and the kernel's readiness call: one file per backend, this header is the contract.
 *
 * A backend translates to and from the loop's own mask (EV_READ, EV_WRITE, EV_EOF, EV_EDGE); an error or a hang-up is reported
 * in both directions, so that whoever waits learns of it from the call that fails. All functions are called on the loop's
 * thread only and return 0 (or a count) or -errno. */
#ifndef EV_BACKEND_H
#define EV_BACKEND_H

#include "evloop.h"

/* Events fetched by one call, and so handled in one turn. More would amortise the call better, but a turn first reads from all its
 * sockets and then writes to all: with 1,000 busy connections on a core with 1 MiB of L2, 64 a turn answer 20% more requests/s than
 * 1,024 a turn, because a socket is still in the cache when its answer is sent; with 64 connections there is no difference. */
enum { EV_READY_MAX = 64 };

struct ev_ready {
    ev_token token;
    unsigned events;
};

struct ev_backend {
    const char *name;
    int (*open)(void **state); /* *state is owned by the loop until close() */
    void (*close)(void *state);
    int (*add)(void *state, int fd, unsigned events, ev_token token);
    int (*modify)(void *state, int fd, unsigned events, ev_token token);
    int (*remove)(void *state, int fd);
    /* Arms one direction of an EV_EDGE descriptor again; NULL where the kernel does that. */
    void (*rearm)(void *state, int fd, unsigned events);
    /* Whether close(2) takes the descriptor out, so that remove() may be spared. */
    int forgets_closed;
    /* Waits at most timeout_ms (-1: for ever) and fills at most `max` entries. -EINTR when a signal came. */
    int (*wait)(void *state, struct ev_ready *out, int max, int timeout_ms);
};

/* NULL-terminated, best first. */
extern const struct ev_backend *const ev__backends[];

#endif
