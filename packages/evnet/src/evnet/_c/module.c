#include "internal.h"
#include "shim.h"

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
    net__python_op(loop, op, arg, id, payload, len);
}

static void module_close(ev_loop *loop, struct ev_module *module) {
    (void)loop;
    struct net_module *m = (struct net_module *)module;
    while (m->listeners)
        net__unlisten(m->listeners);
    for (net_stream *s = m->streams, *next; s; s = next) {
        next = s->next;
        s->reset = 1;
        net__stream_end(s, NET_BY_US);
    }
    free(m);
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
};

const struct net_capi *evnet_capi(void) { return &capi; }

/* Listening for Python protocols */

int evnet_listen(uint64_t loop, int fd, uint32_t target, uint32_t idle_timeout_ms, net_listener **out) {
    return net__python_listen((ev_loop *)(uintptr_t)loop, fd, target, idle_timeout_ms, out);
}

void evnet_unlisten(net_listener *l) { net__unlisten(l); }
