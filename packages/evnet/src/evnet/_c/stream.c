#include "internal.h"
#include "tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WATCHED = EV_READ | EV_WRITE | EV_EDGE };
enum { SPARE_MOST = 64 }; /* kept for streams to come, of each size */

/* Who uses one that is kept uses one that is gone: the address sanitizer is to see it. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, size) ((void)(p), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(p, size) ((void)(p), (void)(size))
#endif

static net_stream *of_again(struct ev_task *t) { return (net_stream *)((char *)t - offsetof(net_stream, again)); }
static net_stream *of_reap(struct ev_task *t) { return (net_stream *)((char *)t - offsetof(net_stream, reap)); }

static void stream_ready(ev_loop *loop, struct ev_watcher *w, unsigned ready) {
    (void)loop;
    net_stream *s = (net_stream *)w;
    if (ready & EV_EOF)
        s->ending = 1;
    if (ready & EV_EOF && s->one_way == EV_WRITE) { /* nobody reads any more */
        net__stream_end(s, s->out.head ? EPIPE : NET_BY_PEER);
        return;
    }
    if (ready & EV_WRITE && s->blocked) {
        s->blocked = 0;
        net__flush(s);
    }
    if (ready & EV_READ && s->phase != NET_CLOSED) {
        s->readable = 1;
        net__read(s);
    }
}

/* -- memory -- */

static net_stream *allocate(struct net_module *m, size_t state_size) {
    size_t size = sizeof(net_stream) + state_size, steps = (size + NET_SPARE_STEP - 1) / NET_SPARE_STEP;
    struct net_spare *spare = steps <= NET_SPARE_SIZES ? &m->spare[steps - 1] : NULL;
    net_stream *s;
    if (spare && spare->streams) {
        s = spare->streams;
        ASAN_UNPOISON_MEMORY_REGION(s, steps * NET_SPARE_STEP);
        spare->streams = s->next;
        spare->count--;
        memset(s, 0, size);
    } else {
        s = calloc(steps, NET_SPARE_STEP);
        if (!s)
            return NULL;
    }
    s->module = m;
    s->size = spare ? (uint8_t)steps : 0;
    return s;
}

static void put_back(net_stream *s) {
    struct net_spare *spare = s->size ? &s->module->spare[s->size - 1] : NULL;
    if (!spare || spare->count >= SPARE_MOST) {
        free(s);
        return;
    }
    size_t size = (size_t)s->size * NET_SPARE_STEP;
    s->next = spare->streams;
    spare->streams = s;
    spare->count++;
    ASAN_POISON_MEMORY_REGION(s, size);
}

void net__free_spare(struct net_module *m) {
    for (int i = 0; i < NET_SPARE_SIZES; i++)
        for (net_stream *s = m->spare[i].streams, *next; s; s = next) {
            ASAN_UNPOISON_MEMORY_REGION(s, (size_t)(i + 1) * NET_SPARE_STEP);
            next = s->next;
            free(s);
        }
}

/* -- opening -- */

net_stream *net__stream_open(struct net_module *m, int fd, const struct net_protocol *protocol, size_t state_size) {
    net_stream *s = allocate(m, state_size);
    if (!s)
        return NULL;
    if (ev->attach(m->loop, &s->watcher, fd, stream_ready) < 0) {
        put_back(s);
        return NULL;
    }
    net__prepare(fd);
    s->loop = m->loop;
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
    return !protocol || s->protocol == protocol ? s : NULL;
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

static void unlink_stream(net_stream *s) {
    *s->link = s->next;
    if (s->next)
        s->next->link = s->link;
}

int net__open_on(ev_loop *loop, int fd, const struct net_protocol *protocol, size_t state_size, unsigned kind, unsigned one_way,
                 net_stream **out) {
    struct net_module *m = net__module(loop);
    net_stream *s = m ? net__stream_open(m, fd, protocol, state_size) : NULL;
    if (!s)
        return -ENOMEM;
    s->kind = (uint8_t)kind;
    s->one_way = (uint8_t)one_way;
    int rc = ev->watch(loop, &s->watcher, WATCHED);
    if (rc < 0) {
        ev->detach(loop, &s->watcher, 0);
        unlink_stream(s);
        put_back(s);
        return rc;
    }
    struct sockaddr_storage from = {0};
    socklen_t len = sizeof from;
    if (kind == NET_SOCKET && getpeername(fd, (struct sockaddr *)&from, &len) == 0)
        net__set_address(&s->peer, &from);
    int on = 1;
    if (s->peer.family)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    s->readable = 1;
    net__read_soon(s);
    *out = s;
    return 0;
}

int net__adopt(ev_loop *loop, int fd, const struct net_protocol *protocol, size_t state_size, net_stream **out) {
    return net__open_on(loop, fd, protocol, state_size, NET_SOCKET, 0, out);
}

/* A client's first bytes have mostly arrived by the time it is accepted, so they are read before the descriptor is given to the
 * poller; and a connection that is answered and closed in the next turn never needs to be given to it at all. That saves
 * epoll_ctl and its undoing per connection. */
static void begin(net_stream *s) {
    s->readable = 1;
    net__read(s);
    if (s->phase == NET_CLOSED)
        return;
    if (s->readable || s->again.queued || s->in_len || s->paused)
        watch(s);
    else
        ev->next_turn(s->loop, &s->again, watch_later);
}

static void begin_later(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_stream *s = of_again(task);
    if (s->phase == NET_CLOSED)
        return;
    if (s->tls) { /* it has begun meanwhile, and may have asked for a turn of its own */
        s->readable = 1;
        net__read_soon(s);
        watch(s);
    } else {
        begin(s);
    }
}

void net__stream_begin(net_stream *s) {
    if (s->protocol == &net__python_protocol && !s->tls) /* paused until Python has heard of it, which has answered then */
        ev->next_turn(s->loop, &s->again, begin_later);
    else
        begin(s);
}

static void release(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_stream *s = of_reap(task);
    net__drop_in(s);
    net__tls_free(s);
    put_back(s);
}

void net__stream_end(net_stream *s, int cause) {
    if (s->phase == NET_CLOSED)
        return;
    s->phase = NET_CLOSED;
    if (s->reset) {
        struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        setsockopt(s->watcher.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    net__out_clear(s);
    if (s->tls)
        net__tls_gone(s, cause);
    s->protocol->on_close(s, cause);
    /* A pipe or a terminal is often shared, with a child or with our own standard streams. */
    ev->detach(s->loop, &s->watcher, s->kind == NET_SOCKET);
    close(s->watcher.fd);
    ev->timer_stop(s->loop, &s->timer);
    unlink_stream(s);
    if (s->group)
        net__group_left(s);
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
    unsigned linger_ms = s->tls && !s->linger_ms && net__tls_lingers(s) ? s->tls->shutdown_ms : s->linger_ms;
    if (s->phase == NET_CLOSING && linger_ms && !s->eof) {
        /* RFC 9112 §9.6: closing with unread bytes makes the kernel send a reset, which can wipe out the answer before the peer has
         * read it. So only our side is closed, and what still comes is thrown away for a while. */
        s->phase = NET_LINGERING;
        shutdown(s->watcher.fd, SHUT_WR);
        net__deadline(s, linger_ms);
        s->paused = 0;
        net__read_soon(s);
    } else if (s->phase == NET_CLOSING) {
        net__stream_end(s, s->cause);
    } else if (s->finish && s->phase == NET_OPEN) {
        s->finish = 0;
        shutdown(s->watcher.fd, SHUT_WR);
    }
}
