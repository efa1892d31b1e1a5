/* Our side when it was we who connected: what we send is masked, and it is the server that closes first. */
#include "internal.h"
#include "kernels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { ON_STACK_MOST = 512, PIECE = EV_SCRATCH_SIZE - 16 };

/* RFC 6455 §5.3: "The masking key needs to be unpredictable; thus, the masking key MUST be derived from a strong source of entropy". The
 * kernel's costs a system call, so that it is asked for many keys at once. Returns 0 or -errno. */
static int next_key(ev_loop *loop, uint32_t *key) {
    struct evw_module *m = (struct evw_module *)evw_ev->module_get(loop, EV_MODULE_WS);
    if (!m->keys_left) {
        if (getentropy(m->keys, sizeof m->keys) < 0)
            return -errno;
        m->keys_left = sizeof m->keys / sizeof *m->keys;
    }
    *key = m->keys[--m->keys_left];
    m->keys[m->keys_left] = 0;
    return 0;
}

void evw_write_masked(struct evw_conn *c, unsigned first, const void *payload, size_t len) {
    uint8_t small[EVW_HEADER_MOST + ON_STACK_MOST];
    uint32_t key;
    int rc = next_key(c->loop, &key);
    if (rc < 0) {
        evw_net->abort(c->stream, -rc);
        return;
    }
    uint8_t *frame = len <= ON_STACK_MOST ? small : evw_ev->scratch(c->loop);
    size_t header = evw_header_write(frame, first, len, &key);
    c->written += header + len;
    const uint8_t *from = payload;
    uint8_t *into = frame + header;
    do { /* PIECE is a multiple of 4: the key stands as it stood */
        size_t part = len < PIECE ? len : PIECE;
        if (part)
            evw_kernels->mask(into, from, part, key);
        evw_net->write(c->stream, frame, (size_t)(into - frame) + part);
        from += part;
        len -= part;
        into = frame;
    } while (len);
}

/* RFC 6455 §7.1.1: a client "SHOULD wait for the server to close" the connection. */
void evw_client_await_end(struct evw_conn *c) { evw_net->deadline(c->stream, c->options.close); }

static void free_conn(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    free((char *)task - offsetof(struct evw_conn, reap));
}

void evw_client_left(struct evw_conn *c) { evw_ev->reap(c->loop, &c->reap, free_conn); }

/* A stream for whose connection there was no memory, on its way to the end. */
static size_t drop_bytes(net_stream *s, const uint8_t *data, size_t len) {
    (void)s, (void)data;
    return len;
}
static void ignore(net_stream *s) { (void)s; }
static void ignore_close(net_stream *s, int cause) { (void)s, (void)cause; }
static const struct net_protocol forsaken = {
    .name = "forsaken",
    .on_bytes = drop_bytes,
    .on_eof = ignore,
    .on_drained = ignore,
    .on_timeout = ignore,
    .on_close = ignore_close,
};

void evw_adopt_op(ev_loop *loop, uint64_t token, const uint8_t *p, size_t len) {
    struct evw_options options;
    const size_t used = 4 + sizeof options;
    if (len < used)
        return; /* only a bug of ours can make it so short */
    memcpy(&options, p + 4, sizeof options);
    struct evw_conn *c = calloc(1, sizeof *c);
    net_stream *s = evw_net->take(loop, token, c ? evw_guest.protocol : &forsaken, p + used, len - used);
    if (!c || !s) {
        if (s)
            evw_net->abort(s, ENOMEM);
        free(c);
        evw_ev->emit(loop, evw_get32(p), c ? NET_BY_PEER : ENOMEM, EVW_CLOSED, 0);
        return;
    }
    *(struct evw_conn **)evw_net->state(s) = c;
    evw_conn_begin(s, &options, evw_get32(p));
    c->client = 1;
    c->rules.masked = 0;
}
