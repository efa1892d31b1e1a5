/* Facts about epoll this file relies on (epoll(7), epoll_ctl(2)):
 * - EPOLLERR and EPOLLHUP are always reported; EPOLLRDHUP only when asked for.
 * - Closing the last descriptor of a description takes it out of the set, so a descriptor that we are about to close and that
 *   nobody has duplicated needs no EPOLL_CTL_DEL.
 * - With EPOLLET a read that returns less than was asked for has emptied a stream socket; the next arrival is a new edge. */
#ifdef __linux__

#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct epoll_state {
    int fd;
    struct epoll_event events[EV_FETCH_MOST];
};

static int epoll_open(void **state) {
    struct epoll_state *s = malloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    s->fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->fd < 0) {
        free(s);
        return -errno;
    }
    *state = s;
    return 0;
}

static void epoll_close(void *state) {
    struct epoll_state *s = state;
    close(s->fd);
    free(s);
}

static int control(void *state, int op, int fd, unsigned events, ev_token token) {
    struct epoll_event e = {.data.u64 = token};
    if (events & EV_READ)
        e.events |= EPOLLIN | EPOLLRDHUP;
    if (events & EV_WRITE)
        e.events |= EPOLLOUT;
    if (events & EV_EDGE)
        e.events |= EPOLLET;
    return epoll_ctl(((struct epoll_state *)state)->fd, op, fd, &e) < 0 ? -errno : 0;
}

static int epoll_add(void *state, int fd, unsigned events, ev_token token) { return control(state, EPOLL_CTL_ADD, fd, events, token); }

static int epoll_modify(void *state, int fd, unsigned events, ev_token token) {
    return control(state, EPOLL_CTL_MOD, fd, events, token);
}

static int epoll_remove(void *state, int fd) { return control(state, EPOLL_CTL_DEL, fd, 0, 0); }

static void epoll_forget(void *state, int fd) {
    (void)state;
    (void)fd;
}

static int epoll_fd(const void *state) { return ((const struct epoll_state *)state)->fd; }

static unsigned translate(uint32_t events) {
    unsigned ready = 0;
    if (events & (EPOLLERR | EPOLLHUP))
        ready |= EV_READ | EV_WRITE | EV_EOF;
    if (events & EPOLLRDHUP)
        ready |= EV_READ | EV_EOF;
    if (events & (EPOLLIN | EPOLLPRI))
        ready |= EV_READ;
    if (events & EPOLLOUT)
        ready |= EV_WRITE;
    return ready;
}

static int epoll_wait_ready(void *state, struct ev_ready *out, int max, int timeout_ms) {
    struct epoll_state *s = state;
    int n = epoll_wait(s->fd, s->events, max < EV_FETCH_MOST ? max : EV_FETCH_MOST, timeout_ms);
    if (n < 0)
        return -errno;
    for (int i = 0; i < n; i++) {
        out[i].token = s->events[i].data.u64;
        out[i].events = translate(s->events[i].events);
    }
    return n;
}

const struct ev_backend ev__backend_epoll = {
    .name = "epoll",
    .open = epoll_open,
    .close = epoll_close,
    .add = epoll_add,
    .modify = epoll_modify,
    .remove = epoll_remove,
    .rearm = NULL,
    .forget = epoll_forget,
    .fd = epoll_fd,
    .wait = epoll_wait_ready,
};

#endif
