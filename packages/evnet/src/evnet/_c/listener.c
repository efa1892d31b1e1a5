#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 128, PAUSE_MS = 100 };

static net_listener *of_pause(struct ev_timer *t) { return (net_listener *)((char *)t - offsetof(net_listener, pause)); }
static net_listener *of_reap(struct ev_task *t) { return (net_listener *)((char *)t - offsetof(net_listener, reap)); }

static int reserve(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

static void listen_again(ev_loop *loop, struct ev_timer *t) {
    net_listener *l = of_pause(t);
    if (l->reserve_fd < 0)
        l->reserve_fd = reserve();
    if (ev->watch(loop, &l->watcher, EV_READ) < 0)
        ev->timer_start(loop, &l->pause, PAUSE_MS, listen_again);
}

/* Without descriptors the listening socket would stay readable and the loop spin. One that is kept in reserve lets us accept the
 * client and hang up on it at once: it learns where it stands, and the backlog empties. */
static void shed(net_listener *l) {
    if (l->reserve_fd >= 0) {
        close(l->reserve_fd);
        struct net_address peer;
        int fd = net__accept(l->watcher.fd, &peer);
        if (fd >= 0)
            close(fd);
        l->reserve_fd = reserve();
    }
    if (l->reserve_fd < 0) { /* somebody else took it: wait */
        ev->watch(l->module->loop, &l->watcher, 0);
        ev->timer_start(l->module->loop, &l->pause, PAUSE_MS, listen_again);
    }
}

static void welcome(net_listener *l, int fd, const struct net_address *peer) {
    net_stream *s = net__stream_open(l->module, fd, l->protocol, l->state_size);
    if (!s) {
        close(fd);
        return;
    }
    s->peer = *peer;
    s->listener = l;
    l->accepted(l, s);
    net__stream_begin(s);
}

static void listener_ready(ev_loop *loop, struct ev_watcher *w, unsigned ready) {
    (void)ready;
    net_listener *l = (net_listener *)w;
    for (int i = 0; i < ACCEPTS_A_TURN && w->token; i++) {
        struct net_address peer;
        int fd = net__accept(w->fd, &peer);
        if (fd >= 0) {
            welcome(l, fd, &peer);
        } else if (fd == -EMFILE || fd == -ENFILE) {
            shed(l);
            return;
        } else if (fd == -ENOBUFS || fd == -ENOMEM) {
            ev->watch(loop, w, 0);
            ev->timer_start(loop, &l->pause, PAUSE_MS, listen_again);
            return;
        } else if (fd == -EAGAIN || fd == -EWOULDBLOCK) {
            return;
        } /* else the connection died in the queue, or a signal came: the next one */
    }
}

int net__listen(ev_loop *loop, int fd, const struct net_protocol *protocol, size_t state_size, net_accept_fn accepted, void *owner,
                net_listener **out) {
    struct net_module *m = net__module(loop);
    net_listener *l = m ? calloc(1, sizeof *l) : NULL;
    if (!l)
        return -ENOMEM;
    int rc = ev->attach(loop, &l->watcher, fd, listener_ready);
    if (rc == 0)
        rc = ev->watch(loop, &l->watcher, EV_READ);
    if (rc < 0) {
        ev->detach(loop, &l->watcher, 0);
        free(l);
        return rc;
    }
    l->module = m;
    l->protocol = protocol;
    l->state_size = state_size;
    l->accepted = accepted;
    l->owner = owner;
    l->reserve_fd = reserve();
    l->link = &m->listeners;
    l->next = m->listeners;
    if (l->next)
        l->next->link = &l->next;
    m->listeners = l;
    *out = l;
    return 0;
}

static void release(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_listener *l = of_reap(task);
    if (l->free_owner)
        free(l->owner);
    free(l);
}

void net__unlisten(net_listener *l) {
    struct net_module *m = l->module;
    for (net_stream *s = m->streams; s; s = s->next)
        if (s->listener == l)
            s->listener = NULL;
    ev->detach(m->loop, &l->watcher, 0);
    ev->timer_stop(m->loop, &l->pause);
    if (l->reserve_fd >= 0)
        close(l->reserve_fd);
    *l->link = l->next;
    if (l->next)
        l->next->link = l->link;
    ev->reap(m->loop, &l->reap, release);
}
