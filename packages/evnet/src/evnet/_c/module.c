#include "internal.h"
#include "tls.h"
#include "shim.h"

#include <errno.h>
#include <stdlib.h>

#ifndef EV_VERSION
#define EV_VERSION "unknown"
#endif

const struct ev_capi *ev;

uint64_t evnet_link(uint64_t evloop_capi) {
    const struct ev_capi *api = (const struct ev_capi *)(uintptr_t)evloop_capi;
    if (!EV_CAPI_COMPATIBLE(api))
        return EV_LINK_MISMATCH(EV_CAPI_MAJOR, EV_CAPI_MINOR, api);
    ev = api;
    return 0;
}

static void module_op(ev_loop *loop, struct ev_module *m, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    (void)m;
    if (op >= EVNET_OP_TLS_START)
        net__tls_op(loop, op, arg, id, payload, len);
    else if (op >= EVNET_OP_UDP_SEND)
        net__udp_op(loop, op, arg, id, payload, len);
    else
        net__python_op(loop, op, arg, id, payload, len);
}

static void release(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    struct net_module *m = (struct net_module *)((char *)task - offsetof(struct net_module, reap));
    net__free_spare(m);
    net__events_free(m);
    free(m->tls_rooms);
    free(m);
}

static void module_close(ev_loop *loop, struct ev_module *module) {
    struct net_module *m = (struct net_module *)module;
    while (m->listeners)
        net__unlisten(m->listeners);
    for (net_stream *s = m->streams, *next; s; s = next) {
        next = s->next;
        s->reset = 1;
        net__stream_end(s, NET_BY_US);
    }
    net__udp_close_all(m);
    ev->reap(loop, &m->reap, release); /* behind those of the streams */
}

struct net_module *net__module(ev_loop *loop) {
    struct net_module *m = (struct net_module *)ev->module_get(loop, EV_MODULE_NET);
    if (m)
        return m;
    m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->module.op = module_op;
    m->module.close = module_close;
    m->loop = loop;
    if (ev->module_set(loop, EV_MODULE_NET, &m->module) < 0) {
        free(m);
        return NULL;
    }
    return m;
}

static void *listener_owner(const net_listener *l) { return l->owner; }
static void *stream_state(net_stream *s) { return s->state; }
static ev_loop *stream_loop(const net_stream *s) { return s->loop; }
static net_listener *stream_listener(const net_stream *s) { return s->listener; }
static ev_token stream_token(const net_stream *s) { return s->watcher.token; }
static const struct net_address *stream_peer(const net_stream *s) { return &s->peer; }
static void stream_swap(net_stream *s, const struct net_protocol *protocol) { s->protocol = protocol; }
static size_t stream_queued(const net_stream *s) { return s->out.queued; }

static const struct net_capi capi = {
    .major = EVNET_CAPI_MAJOR,
    .minor = EVNET_CAPI_MINOR,
    .version = EV_VERSION,
    .listen = net__listen,
    .unlisten = net__unlisten,
    .owner = listener_owner,
    .state = stream_state,
    .loop = stream_loop,
    .listener = stream_listener,
    .token = stream_token,
    .peer = stream_peer,
    .find = net__stream_find,
    .swap = stream_swap,
    .write = net__write,
    .write_ref = net__write_ref,
    .write_file = net__write_file,
    .queued = stream_queued,
    .close = net__close,
    .linger = net__linger,
    .abort = net__abort,
    .finish = net__finish,
    .pause = net__pause,
    .resume = net__resume,
    .write_timeout = net__write_timeout,
    .deadline = net__deadline,
    .adopt = net__adopt,
    .limit_queued = net__limit_queued,
    .share = net__share,
    .limit = net__limit,
    .limit_new = net__limit_new,
    .settled = net__settled,
    .listen_stats = net__listen_stats,
    .flush = net__flush,
    .secure_listener = net__secure_listener,
    .secure = net__secure,
    .take = net__python_take,
    .send_now = net__send_now,
};

const struct net_capi *evnet_capi(void) { return &capi; }

/* Streams of Python */

int evnet_events(uint64_t loop, uint32_t target) {
    struct net_module *m = net__module((ev_loop *)(uintptr_t)loop);
    if (!m)
        return -ENOMEM;
    m->events.target = target;
    return 0;
}

int evnet_listen(uint64_t loop, int fd, uint32_t target, const struct evnet_options *options, net_listener **out) {
    return net__python_listen((ev_loop *)(uintptr_t)loop, fd, target, options, out);
}

void evnet_secure_listener(net_listener *l, uint32_t target) { net__secure_listener(l, target); }
void evnet_unlisten(net_listener *l) { net__unlisten(l); }
void evnet_share(net_listener *l, const net_listener *with) { net__share(l, with); }
void evnet_limit(net_listener *l, uint32_t most, int refuse, uint32_t target) { net__limit(l, most, refuse, target); }
void evnet_listen_stats(const net_listener *l, struct net_listen_stats *out) { net__listen_stats(l, out); }

int evnet_join(uint64_t token, net_listener *l) {
    net_stream *s = net__stream_find(l->module->loop, token, &net__python_protocol);
    return s ? net__group_adopt(l, s) : -ENOENT;
}

int evnet_adopt(uint64_t loop, int fd, const struct evnet_options *options, uint64_t *token, struct net_address *peer) {
    return net__python_adopt((ev_loop *)(uintptr_t)loop, fd, options, token, peer);
}

size_t evnet_spare_streams(uint64_t loop) {
    const struct net_module *m = net__module((ev_loop *)(uintptr_t)loop);
    size_t count = 0;
    for (int i = 0; m && i < NET_SPARE_SIZES; i++)
        count += m->spare[i].count;
    return count;
}

int evnet_descriptor(uint64_t loop, uint64_t token) {
    const net_stream *s = net__stream_find((ev_loop *)(uintptr_t)loop, token, &net__python_protocol);
    return s ? s->watcher.fd : -1;
}

uint64_t evnet_send_now(uint64_t loop, uint64_t token, const char *data, uint64_t len) {
    net_stream *s = net__stream_find((ev_loop *)(uintptr_t)loop, token, &net__python_protocol);
    return s ? net__send_now(s, data, len) : 0;
}

void evnet_traffic(uint64_t loop, uint64_t *received, uint64_t *sent) {
    const struct net_module *m = (const struct net_module *)ev->module_get((ev_loop *)(uintptr_t)loop, EV_MODULE_NET);
    *received = m ? m->received : 0;
    *sent = m ? m->sent : 0;
}

uint64_t evnet_queued(uint64_t loop, uint64_t token) {
    const net_stream *s = net__stream_find((ev_loop *)(uintptr_t)loop, token, &net__python_protocol);
    return s ? s->out.queued : 0;
}

void evnet_limits(uint64_t loop, uint64_t token, uint64_t *low, uint64_t *high) {
    net_stream *s = net__stream_find((ev_loop *)(uintptr_t)loop, token, &net__python_protocol);
    if (s) {
        *low = s->out.low_water;
        *high = net__python_high_water(s);
    }
}
