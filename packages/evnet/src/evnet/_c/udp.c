#include "udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ERRORS_AT_ONCE = 64 };

static struct net_udp *of_reap(struct ev_task *t) { return (struct net_udp *)((char *)t - offsetof(struct net_udp, reap)); }

static void udp_ready(ev_loop *loop, struct ev_watcher *w, unsigned ready) {
    (void)loop;
    struct net_udp *s = (struct net_udp *)w;
    if (ready & EV_EOF)
        net__udp_take_errors(s);
    if (ready & EV_WRITE && w->events & EV_WRITE) {
        s->blocked = 0;
        net__udp_flush(s);
        net__udp_watch(s);
    }
    if (ready & EV_READ && s->phase == NET_OPEN)
        net__udp_receive(s);
}

/* What the state asks for: level-triggered, reading while open, writing while the kernel refuses (and no timer asks again). */
void net__udp_watch(struct net_udp *s) {
    if (s->phase == NET_CLOSED)
        return;
    unsigned events = s->phase == NET_OPEN ? EV_READ : 0;
    if (s->blocked && !s->retry.next)
        events |= EV_WRITE;
    int rc = ev->watch(s->module->loop, &s->watcher, events);
    if (rc < 0)
        net__udp_end(s, -rc);
}

static const struct net_datagram_calls *calls_for(unsigned options) {
    const struct net_datagram_calls *calls = options & EVNET_UDP_ONE_BY_ONE ? NULL : net__datagrams_in_batches();
    return calls ? calls : &net__datagrams_one_by_one;
}

static void release(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    struct net_udp *s = of_reap(task);
    free(s->peers);
    free(s);
}

static struct net_udp *make(struct net_module *m, const struct evnet_udp_options *o) {
    struct net_udp *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->connected = (o->options & EVNET_UDP_CONNECTED) != 0;
    if (!s->connected && !(s->peers = net__peers_new(o->family))) {
        free(s);
        return NULL;
    }
    s->module = m;
    s->calls = calls_for(o->options);
    s->target = o->target;
    s->stats = o->stats;
    s->family = o->family;
    s->batch = NET_DATAGRAMS;
    s->most = o->most < NET_DATAGRAM_MOST ? o->most : NET_DATAGRAM_MOST;
    s->high = o->high;
    s->low = o->low;
    s->limit = o->limit;
    return s;
}

int evnet_udp_open(uint64_t loop, int fd, const struct evnet_udp_options *options, uint64_t *token) {
    struct net_module *m = net__module((ev_loop *)(uintptr_t)loop);
    struct net_udp *s = m && net__datagram_buffers(m) ? make(m, options) : NULL;
    if (!s)
        return -ENOMEM;
    int rc = ev->attach(m->loop, &s->watcher, fd, udp_ready);
    if (rc == 0)
        rc = ev->watch(m->loop, &s->watcher, EV_READ);
    if (rc < 0) {
        ev->detach(m->loop, &s->watcher, 0);
        free(s->peers);
        free(s);
        return rc;
    }
    net__prepare(fd);
    s->keeps_errors = s->calls->keep_errors(fd, s->family) != 0;
    s->merge = s->calls->can_merge(fd, s->family) != 0;
    s->link = &m->udp;
    s->next = m->udp;
    if (s->next)
        s->next->link = &s->next;
    m->udp = s;
    *token = s->watcher.token;
    return 0;
}

void net__udp_end(struct net_udp *s, int cause) {
    if (s->phase == NET_CLOSED)
        return;
    s->phase = NET_CLOSED;
    ev_loop *loop = s->module->loop;
    s->stats->dropped += s->count;
    net__udp_drop_queue(s);
    ev->emit(loop, s->target, cause, EVNET_UDP_CLOSED, s->watcher.token);
    /* Not as `closing`: Python may have given out a duplicate of the descriptor. */
    ev->detach(loop, &s->watcher, 0);
    close(s->watcher.fd);
    ev->timer_stop(loop, &s->retry);
    *s->link = s->next;
    if (s->next)
        s->next->link = s->link;
    ev->reap(loop, &s->reap, release);
}

void net__udp_close_all(struct net_module *m) {
    while (m->udp)
        net__udp_end(m->udp, NET_BY_US);
    net__datagram_buffers_free(m);
}

void net__udp_report(struct net_udp *s, int error, unsigned what, size_t size, const void *name, socklen_t len) {
    uint8_t packed[NET_PACKED_MOST];
    size_t packed_len = name && len ? net__address_pack(packed, name, len) : 0;
    uint32_t head[4] = {(uint32_t)error, what, (uint32_t)size, (uint32_t)packed_len};
    int64_t offset;
    uint8_t *to = ev->arena_put(s->module->loop, sizeof head + packed_len, &offset);
    memcpy(to, head, sizeof head);
    memcpy(to + sizeof head, packed, packed_len);
    s->stats->errors++;
    ev->emit(s->module->loop, s->target, offset, EVNET_UDP_ERROR, s->watcher.token);
}

unsigned net__udp_take_errors(struct net_udp *s) {
    unsigned count = 0;
    struct sockaddr_storage to;
    socklen_t len;
    int error;
    while (s->keeps_errors && count < ERRORS_AT_ONCE && (error = s->calls->next_error(s->watcher.fd, &to, &len)) != 0) {
        net__udp_report(s, error, EVNET_UDP_NETWORK, 0, &to, len);
        count++;
    }
    return count;
}

static struct net_udp *find(ev_loop *loop, ev_token token) {
    struct ev_watcher *w = ev->find(loop, token & EV_TOKEN_MASK);
    return w && w->fn == udp_ready ? (struct net_udp *)w : NULL;
}

static void begin_close(struct net_udp *s) {
    if (s->phase != NET_OPEN)
        return;
    s->phase = NET_CLOSING;
    net__udp_watch(s);
    net__udp_flush_soon(s);
}

void net__udp_op(ev_loop *loop, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    struct net_udp *s = find(loop, id);
    if (!s)
        return;
    uint64_t limits[2];
    switch (op) {
    case EVNET_OP_UDP_SEND:
        if (s->phase == NET_OPEN)
            net__udp_send(s, payload, len, arg);
        break;
    case EVNET_OP_UDP_CLOSE:
        begin_close(s);
        break;
    case EVNET_OP_UDP_ABORT:
        s->stats->dropped += s->count;
        net__udp_drop_queue(s);
        s->blocked = 0;
        begin_close(s);
        net__udp_flush_soon(s);
        break;
    case EVNET_OP_UDP_LIMITS:
        if (len == sizeof limits) {
            memcpy(limits, payload, sizeof limits);
            net__udp_limits(s, (size_t)limits[0], (size_t)limits[1]);
        }
        break;
    default:
        break;
    }
}
