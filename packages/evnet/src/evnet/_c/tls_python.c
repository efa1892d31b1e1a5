/* The engine that has its keys in Python: everything passes through the rings. It makes the handshake of every stream, and all of TLS where
 * OpenSSL cannot be called from here. */
#include "tls.h"
#include "shim.h"

#include <errno.h>
#include <string.h>

enum { SEALED_AT_ONCE = 4 * NET_TLS_RECORD };

static void received(net_stream *s, const uint8_t *data, size_t len) {
    if (!len)
        return;
    int64_t offset;
    memcpy(ev->arena_reserve(s->loop, len, &offset), data, len);
    ev->arena_commit(s->loop, offset, len);
    net__tls_tell(s, offset, (int64_t)len);
}

static int64_t seal(net_stream *s, const uint8_t **wire, struct net_told *told) {
    (void)wire;
    (void)told;
    struct net_tls *t = s->tls;
    if (t->phase != NET_TLS_OPEN || t->sealing || t->failed)
        return 0;
    int64_t offset;
    uint8_t *room = ev->arena_reserve(s->loop, SEALED_AT_ONCE, &offset);
    const uint8_t *data;
    int64_t len = net__out_peek(s, room, SEALED_AT_ONCE, &data);
    if (len <= 0)
        return len;
    if (data != room)
        memcpy(room, data, (size_t)len);
    ev->arena_commit(s->loop, offset, (size_t)len);
    t->sealing = (size_t)len;
    t->sealing_told = net__out_told(s, (size_t)len);
    net__tls_tell(s, offset, EVNET_TLS_SEAL - len);
    return 0;
}

static void end(net_stream *s) { net__tls_tell(s, 0, EVNET_TLS_END); }
static void cut(net_stream *s) { net__tls_tell(s, 0, EVNET_EOF); }

static void release(net_stream *s) {
    struct net_told told = s->tls->sealing_told;
    if (told.target)
        ev->emit(s->loop, told.target, told.id, 0, 0);
}

const struct net_engine net__tls_by_python = {received, seal, end, cut, release};
