#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WATCHED = EV_READ | EV_WRITE | EV_EDGE };

static net_stream *of_again(struct ev_task *t) { return (net_stream *)((char *)t - offsetof(net_stream, again)); }
static net_stream *of_reap(struct ev_task *t) { return (net_stream *)((char *)t - offsetof(net_stream, reap)); }

static void stream_ready(ev_loop *loop, struct ev_watcher *w, unsigned ready) {
    (void)loop;
    net_stream *s = (net_stream *)w;
    if (ready & EV_EOF)
        s->ending = 1;
    if (ready & EV_WRITE && s->blocked) {
        s->blocked = 0;
        net__flush(s);
    }
    if (ready & EV_READ && s->phase != NET_CLOSED) {
        s->readable = 1;
        net__read(s);
    }
}

net_stream *net__stream_open(struct net_module *m, int fd, const struct net_protocol *protocol, size_t state_size) {
    net_stream *s = calloc(1, sizeof *s + state_size);
    if (!s)
        return NULL;
    if (ev->attach(m->loop, &s->watcher, fd, stream_ready) < 0) {
        free(s);
        return NULL;
    }
    net__prepare(fd);
    s->loop = m->loop;
    s->module = m;
    s->protocol = protocol;
    s->link = &m->streams;
    s->next = m->streams;
    if (s->next)
        s->next->link = &s->next;
    m->streams = s;
    return s;
}

net_stream *net__stream_find(ev_loop *loop, ev_token token, const struct net_protocol *protocol) {
    struct ev_watcher *w = ev->find(loop, token & EV_TOKEN_MASK);
    if (!w || w->fn != stream_ready)
        return NULL;
    net_stream *s = (net_stream *)w;
    return s->protocol == protocol ? s : NULL;
}

static void watch(net_stream *s) {
    int rc = ev->watch(s->loop, &s->watcher, WATCHED);
    if (rc < 0)
        net__stream_end(s, -rc);
}

static void watch_later(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_stream *s = of_again(task);
    if (s->phase != NET_CLOSED)
        watch(s);
}

/* A client's first bytes have mostly arrived by the time it is accepted, so they are read before the descriptor is given to the
 * poller; and a connection that is answered and closed in the next turn never needs to be given to it at all. That saves
 * epoll_ctl and its undoing per connection. */
void net__stream_begin(net_stream *s) {
    s->readable = 1;
    net__read(s);
    if (s->phase == NET_CLOSED)
        return;
    if (s->readable || s->again.queued || s->in_len || s->paused)
        watch(s);
    else
        ev->next_turn(s->loop, &s->again, watch_later);
}

static void release(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_stream *s = of_reap(task);
    net__drop_in(s);
    free(s);
}

void net__stream_end(net_stream *s, int cause) {
    if (s->phase == NET_CLOSED)
        return;
    s->phase = NET_CLOSED;
    if (s->reset) {
        struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        setsockopt(s->watcher.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    s->protocol->on_close(s, cause);
    ev->detach(s->loop, &s->watcher, 1);
    close(s->watcher.fd);
    ev->timer_stop(s->loop, &s->timer);
    net__out_clear(s);
    *s->link = s->next;
    if (s->next)
        s->next->link = s->link;
    ev->reap(s->loop, &s->reap, release);
}

/* Closing is never immediate: it happens in the flush, so that no protocol is called back from inside its own call. */

void net__close(net_stream *s, int cause) {
    if (s->phase != NET_OPEN)
        return;
    s->phase = NET_CLOSING;
    s->cause = cause;
    net__flush_soon(s);
}

void net__linger(net_stream *s, int cause, unsigned ms) {
    if (s->phase == NET_OPEN)
        s->linger_ms = ms;
    net__close(s, cause);
}

void net__abort(net_stream *s, int cause) {
    if (s->phase == NET_CLOSED)
        return;
    s->phase = NET_CLOSING;
    s->cause = cause;
    s->reset = 1;
    s->linger_ms = 0;
    s->blocked = 0;
    net__out_clear(s);
    net__flush_soon(s);
}

void net__finish(net_stream *s) {
    s->finish = 1;
    net__flush_soon(s);
}

void net__stream_drained(net_stream *s) {
    if (s->phase == NET_CLOSING && s->linger_ms && !s->eof) {
        /* RFC 9112 §9.6: closing with unread bytes makes the kernel send a reset, which can wipe out the answer before the peer has
         * read it. So only our side is closed, and what still comes is thrown away for a while. */
        s->phase = NET_LINGERING;
        shutdown(s->watcher.fd, SHUT_WR);
        net__deadline(s, s->linger_ms);
        s->paused = 0;
        net__read_soon(s);
    } else if (s->phase == NET_CLOSING) {
        net__stream_end(s, s->cause);
    } else if (s->finish && s->phase == NET_OPEN) {
        s->finish = 0;
        shutdown(s->watcher.fd, SHUT_WR);
    }
}
