#include "internal.h"

#include <errno.h>

int ev__attach(ev_loop *loop, struct ev_watcher *w, int fd, ev_watch_fn fn) {
    w->fn = fn;
    w->fd = fd;
    w->events = 0;
    w->token = ev__slot_new(loop, w);
    return w->token ? 0 : -ENOMEM;
}

/* A descriptor that was closed, which takes it out of some backends, and opened again under the same number is put in again. */
static int change(ev_loop *loop, struct ev_watcher *w, unsigned events) {
    int rc = loop->backend->modify(loop->backend_state, w->fd, events, w->token);
    return rc == -ENOENT ? loop->backend->add(loop->backend_state, w->fd, events, w->token) : rc;
}

int ev__watch(ev_loop *loop, struct ev_watcher *w, unsigned events) {
    if (events == w->events)
        return 0;
    int rc = 0;
    if (!w->events)
        rc = loop->backend->add(loop->backend_state, w->fd, events, w->token);
    else if (events)
        rc = change(loop, w, events);
    else
        loop->backend->remove(loop->backend_state, w->fd);
    if (rc == 0)
        w->events = events;
    return rc;
}

void ev__rearm(ev_loop *loop, struct ev_watcher *w, unsigned events) {
    if (loop->backend->rearm && w->events)
        loop->backend->rearm(loop->backend_state, w->fd, events);
}

void ev__detach(ev_loop *loop, struct ev_watcher *w, int closing) {
    if (!w->token)
        return;
    if (w->events && closing && loop->backend->forget)
        loop->backend->forget(loop->backend_state, w->fd);
    else if (w->events)
        loop->backend->remove(loop->backend_state, w->fd);
    ev__slot_release(loop, w->token);
    w->events = 0;
    w->token = 0;
}
