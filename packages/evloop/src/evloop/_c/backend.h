/* The seam between the loop and the kernel's readiness call: one file per backend, this header is the contract.
 *
 * A backend translates to and from the loop's own mask (EV_READ, EV_WRITE, EV_EOF, EV_EDGE); an error or a hang-up is reported
 * in both directions, so that whoever waits learns of it from the call that fails. All functions are called on the loop's
 * thread only and return 0 (or a count) or -errno. */
#ifndef EV_BACKEND_H
#define EV_BACKEND_H

#include "evloop.h"

/* On Linux shimbuild.py defines it when EVLOOP_KQUEUE_PREFIX names a library that offers kevent. */
#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__DragonFly__) || defined(__NetBSD__) || defined(__OpenBSD__)
#define EV_HAVE_KQUEUE 1
#endif

/* Events fetched by one call: as many as were ready lately, within these bounds. */
enum { EV_FETCH_LEAST = 64, EV_FETCH_MOST = 4096 };

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
    /* Instead of remove() when close(2) follows at once; NULL where that does not take the descriptor out by itself. */
    void (*forget)(void *state, int fd);
    /* A descriptor that is readable when wait() would return at once; NULL where there is none. */
    int (*fd)(const void *state);
    /* Waits at most timeout_ms (-1: for ever) and fills at most `max` entries. -EINTR when a signal came. */
    int (*wait)(void *state, struct ev_ready *out, int max, int timeout_ms);
};

/* NULL-terminated, best first. */
extern const struct ev_backend *const ev__backends[];

/* For tests; chosen only by its name. */
extern const struct ev_backend ev__backend_scripted;

/* In the place of another one, in a forked child. */
extern const struct ev_backend ev__backend_forked;

#endif
