#include "tls.h"
#include "shim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ALERT_LINGER_MS = 1000 }; /* so that a reset does not wipe out the alert that tells the peer what is wrong */

struct net_tls_rooms *net__tls_rooms(net_stream *s) { return s->module->tls_rooms; }

void net__tls_tell(net_stream *s, int64_t a, int64_t b) { ev->emit(s->loop, s->tls->target, a, b, s->watcher.token); }

/* -- the protocol of a stream that its own has not seen yet -- */

static size_t unseen_bytes(net_stream *s, const uint8_t *data, size_t len) {
    (void)s;
    (void)data;
    return len;
}

static void unseen(net_stream *s) { (void)s; }

static void unseen_close(net_stream *s, int cause) {
    (void)cause;
    net__forget_unseen(s->listener);
}

static const struct net_protocol unseen_protocol = {
    .name = "tls",
    .on_bytes = unseen_bytes,
    .on_eof = unseen,
    .on_drained = unseen,
    .on_timeout = unseen,
    .on_close = unseen_close,
};

static int begin(net_stream *s, uint32_t target) {
    struct net_module *m = s->module;
    if (!m->tls_rooms)
        m->tls_rooms = calloc(1, sizeof *m->tls_rooms);
    s->tls = m->tls_rooms ? calloc(1, sizeof *s->tls) : NULL;
    if (!s->tls) {
        net__abort(s, ENOMEM);
        return 0;
    }
    s->tls->engine = &net__tls_by_python;
    s->tls->target = target;
    return 1;
}

void net__tls_wait(net_stream *s, uint32_t target) {
    if (!begin(s, target))
        return;
    s->tls->unseen = 1;
    s->listener->unseen++;
    s->protocol = &unseen_protocol;
    net__tls_tell(s, 0, EVNET_TLS_NEW);
}

int net__secure(net_stream *s, uint32_t target) {
    if (s->tls || s->phase != NET_OPEN)
        return -EALREADY;
    if (!begin(s, target))
        return -ENOMEM;
    net__tls_tell(s, 0, EVNET_TLS_NEW);
    return 0;
}

/* -- reading -- */

int net__tls_reads(const net_stream *s) {
    const struct net_tls *t = s->tls;
    if (t->phase == NET_TLS_WAITING || s->phase == NET_CLOSED)
        return 0;
    if (s->phase == NET_LINGERING || t->phase == NET_TLS_SHAKING)
        return 1;
    /* A stream that is closing reads on: its peer may have to be heard for what is queued to be sealed, and may wait for us to read. */
    return !t->peer_end && !(s->paused && s->phase == NET_OPEN);
}

int net__tls_received(net_stream *s, const uint8_t *data, size_t len) {
    struct net_tls *t = s->tls;
    if (s->phase == NET_LINGERING && !net__discard(s, len))
        return 0;
    if (!t->failed && !t->peer_end)
        t->engine->received(s, data, len);
    return s->phase != NET_CLOSED;
}

void net__tls_cut(net_stream *s) {
    if (!s->tls->failed && !s->tls->peer_end)
        s->tls->engine->cut(s);
}

int net__tls_keep(net_stream *s, const uint8_t *data, size_t len) {
    struct net_tls *t = s->tls;
    uint8_t *kept = malloc(t->kept_len + len);
    if (!kept) {
        net__abort(s, ENOMEM);
        return 0;
    }
    if (t->kept_len)
        memcpy(kept, t->kept + t->kept_at, t->kept_len);
    memcpy(kept + t->kept_len, data, len);
    free(t->kept);
    t->kept = kept;
    t->kept_at = 0;
    t->kept_len += len;
    return 1;
}

void net__tls_again(net_stream *s) {
    struct net_tls *t = s->tls;
    if (t->phase != NET_TLS_OPEN || t->failed)
        return;
    if (ev->arena_full(s->loop)) {
        net__read_soon(s);
        return;
    }
    if (t->kept_len && !t->peer_end)
        t->engine->received(s, NULL, 0);
    if (t->eof_due && s->phase == NET_OPEN && !s->paused) {
        t->eof_due = 0;
        s->protocol->on_eof(s);
    }
}

void net__tls_peer_end(net_stream *s) {
    struct net_tls *t = s->tls;
    if (t->peer_end)
        return;
    t->peer_end = 1;
    if (s->phase == NET_LINGERING)
        net__stream_end(s, s->cause);
    else if (s->phase == NET_OPEN && s->paused)
        t->eof_due = 1;
    else if (s->phase == NET_OPEN)
        s->protocol->on_eof(s);
}

/* -- ends -- */

void net__tls_made_end(net_stream *s) { s->tls->our_end = NET_TLS_END_MADE; }

int net__tls_finishes(net_stream *s) {
    struct net_tls *t = s->tls;
    if (t->failed || s->reset || t->phase != NET_TLS_OPEN || t->our_end == NET_TLS_END_MADE)
        return 1;
    if (t->our_end == NET_TLS_NO_END) {
        t->our_end = NET_TLS_END_ASKED;
        t->engine->end(s);
    }
    return 0;
}

int net__tls_lingers(const net_stream *s) {
    const struct net_tls *t = s->tls;
    return t->our_end == NET_TLS_END_MADE && !t->peer_end && !t->failed && !s->reset;
}

void net__tls_fail(net_stream *s, int cause) {
    if (s->tls->failed || s->phase == NET_CLOSED)
        return;
    s->tls->failed = 1;
    net__out_drop_unsealed(s);
    if (s->phase == NET_OPEN)
        net__linger(s, cause, ALERT_LINGER_MS);
    else
        net__flush_soon(s);
}

void net__tls_gone(net_stream *s, int cause) {
    if (s->tls->phase != NET_TLS_WAITING)
        net__tls_tell(s, cause, EVNET_CLOSED);
    s->tls->engine->release(s);
}

void net__tls_free(net_stream *s) {
    if (s->tls)
        free(s->tls->kept);
    free(s->tls);
}

/* -- operations -- */

struct start_op {
    uint32_t target, shutdown_ms;
};

static void start(net_stream *s, const uint8_t *payload) {
    struct start_op op;
    memcpy(&op, payload, sizeof op);
    if (!s->tls && !begin(s, op.target))
        return;
    struct net_tls *t = s->tls;
    if (t->phase != NET_TLS_WAITING)
        return;
    t->target = op.target;
    t->shutdown_ms = op.shutdown_ms;
    t->phase = NET_TLS_SHAKING;
    if (s->in_len) { /* read before, and not consumed: it is TLS now */
        t->engine->received(s, s->in, s->in_len);
        net__drop_in(s);
    }
    if (s->eof)
        t->engine->cut(s);
    net__read_soon(s);
}

/* The protocol of a stream that a listener has accepted sees it from here on. */
static void show(net_stream *s) {
    net_listener *l = s->listener;
    s->tls->unseen = 0;
    s->protocol = l->protocol;
    if (l->closed)
        s->listener = NULL;
    l->accepted(l, s);
    net__forget_unseen(l);
}

static void opened(net_stream *s, const uint8_t *payload) {
    uint64_t ssl;
    memcpy(&ssl, payload, sizeof ssl);
    struct net_tls *t = s->tls;
    if (t->phase != NET_TLS_SHAKING || s->phase == NET_CLOSED)
        return;
    t->phase = NET_TLS_OPEN;
    if (ssl && !net__openssl_adopt(s, (void *)(uintptr_t)ssl)) {
        net__abort(s, ENOMEM);
        return;
    }
    if (t->unseen)
        show(s);
    net__read_soon(s);
    net__flush_soon(s);
}

/* Ciphertext that was on its way to Python when an engine in C took over. */
static void feed(net_stream *s, const uint8_t *data, size_t len) {
    if (s->tls->phase != NET_TLS_OPEN || s->phase == NET_CLOSED)
        return;
    if (!len)
        net__tls_cut(s);
    else if (net__tls_keep(s, data, len))
        net__read_soon(s);
}

static void take_wire(net_stream *s, unsigned answers, const uint8_t *data, size_t len) {
    struct net_tls *t = s->tls;
    struct net_told told = {0};
    if (answers == EVNET_TLS_SEALED && t->sealing) {
        told = t->sealing_told;
        net__out_sent(s, t->sealing);
        t->sealing = 0;
        t->sealing_told = (struct net_told){0};
    } else if (answers == EVNET_TLS_ENDED) {
        net__tls_made_end(s);
    }
    net__out_ready(s, data, len, told);
    net__flush_soon(s);
}

static void fail(net_stream *s, unsigned at_once) {
    if (at_once)
        net__abort(s, NET_BY_US);
    else
        net__tls_fail(s, EPROTO);
}

void net__tls_op(ev_loop *loop, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    net_stream *s = net__stream_find(loop, id, NULL);
    if (op == EVNET_OP_TLS_START && len == sizeof(struct start_op)) {
        if (s) {
            start(s, payload);
        } else { /* it has ended before anybody could be told */
            uint32_t target;
            memcpy(&target, payload, sizeof target);
            ev->emit(loop, target, ECONNABORTED, EVNET_CLOSED, id);
        }
        return;
    }
    if (!s || !s->tls)
        return;
    switch (op) {
    case EVNET_OP_TLS_SEND:
        take_wire(s, arg, payload, len);
        break;
    case EVNET_OP_TLS_OPEN:
        if (len == sizeof(uint64_t))
            opened(s, payload);
        break;
    case EVNET_OP_TLS_FEED:
        feed(s, payload, len);
        break;
    case EVNET_OP_TLS_PLAIN:
        net__present(s, payload, len);
        break;
    case EVNET_OP_TLS_EOF:
        net__tls_peer_end(s);
        break;
    case EVNET_OP_TLS_FAIL:
        fail(s, arg);
        break;
    default:
        break;
    }
}
