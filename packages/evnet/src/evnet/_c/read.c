#include "internal.h"
#include "tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    /* One recv for Python. More than 64 KiB, so that a message of that length is a short read, after which there is nothing left to ask
     * for; and less than what malloc would get from the kernel anew each time, for the bytes object that is made of it. */
    PYTHON_ROOM = 96 * 1024,
    PYTHON_MOST = 256 * 1024, /* of a batch: what Python takes soon is still in the processor's cache */
    READS_A_TURN = 4,       /* of up to 64 KiB: a fast peer does not starve the others */
    IN_MOST = 4 << 20,      /* a protocol that consumes nothing of so much has no limits of its own: that is its bug */
    DISCARD_MOST = 1 << 20, /* while lingering */
};

static net_stream *of_again(struct ev_task *t) { return (net_stream *)((char *)t - offsetof(net_stream, again)); }

/* Calls the protocol, and the one it may have put in its place, until the bytes are consumed or one wants more. */
static size_t consume(net_stream *s, const uint8_t *data, size_t len) {
    size_t used = 0;
    const struct net_protocol *called;
    do {
        called = s->protocol;
        used += called->on_bytes(s, data + used, len - used);
    } while (s->protocol != called && used < len && s->phase == NET_OPEN && !(s->tls && s->tls->phase == NET_TLS_WAITING));
    return used;
}

static void free_in(net_stream *s) {
    if (s->in_capacity == EV_BUFFER_SIZE)
        ev->buffer_put(s->loop, s->in);
    else
        free(s->in);
}

void net__drop_in(net_stream *s) {
    if (s->in)
        free_in(s);
    s->in = NULL;
    s->in_len = s->in_capacity = 0;
}

/* Makes room for `needed` bytes: first a buffer of the pool, then memory of its own. */
static int grow_in(net_stream *s, uint32_t needed) {
    if (needed <= s->in_capacity)
        return 1;
    uint32_t capacity = EV_BUFFER_SIZE;
    while (capacity < needed)
        capacity *= 2;
    if (capacity > IN_MOST)
        return 0;
    uint8_t *in = capacity == EV_BUFFER_SIZE ? ev->buffer_get(s->loop) : malloc(capacity);
    if (!in)
        return 0;
    if (s->in) {
        memcpy(in, s->in, s->in_len);
        free_in(s);
    }
    s->in = in;
    s->in_capacity = capacity;
    return 1;
}

/* Presents bytes that lie in scratch memory (nothing was kept before). */
static int deliver(net_stream *s, const uint8_t *data, size_t len) {
    size_t used = consume(s, data, len);
    size_t rest = len - used;
    if (!rest || s->phase != NET_OPEN)
        return 1;
    if (!grow_in(s, (uint32_t)rest))
        return 0;
    memcpy(s->in, data + used, rest);
    s->in_len = (uint32_t)rest;
    return 1;
}

/* Presents the kept bytes again, now that there are more of them or the protocol is ready for more. */
static void deliver_kept(net_stream *s) {
    size_t used = consume(s, s->in, s->in_len);
    if (used == s->in_len) {
        net__drop_in(s);
    } else if (used) {
        memmove(s->in, s->in + used, s->in_len - used);
        s->in_len -= (uint32_t)used;
    }
}

void net__present(net_stream *s, const uint8_t *data, size_t len) {
    if (s->phase != NET_OPEN || !len)
        return;
    int kept = 1;
    if (!s->in_len && !s->paused) {
        kept = deliver(s, data, len);
    } else if (len < IN_MOST && grow_in(s, s->in_len + (uint32_t)len)) {
        memcpy(s->in + s->in_len, data, len);
        s->in_len += (uint32_t)len;
        if (!s->paused)
            deliver_kept(s);
    } else {
        kept = 0;
    }
    if (!kept)
        net__stream_end(s, ENOBUFS);
}

int net__discard(net_stream *s, size_t len) {
    s->discarded += (uint32_t)len;
    if (s->discarded < DISCARD_MOST)
        return 1;
    net__stream_end(s, s->cause);
    return 0;
}

/* Takes what `receive` returned: 1 to go on reading, 0 to stop. */
static int received(net_stream *s, uint8_t *into, int64_t n, size_t room) {
    if (n == -EINTR)
        return 1;
    if (n == -EAGAIN || n == -EWOULDBLOCK) {
        s->readable = 0;
        ev->rearm(s->loop, &s->watcher, EV_READ);
        return 0;
    }
    if (n < 0) {
        net__stream_end(s, (int)-n);
        return 0;
    }
    if (n == 0) {
        s->readable = 0;
        s->eof = 1;
        if (s->phase == NET_LINGERING)
            net__stream_end(s, s->cause);
        else if (s->tls)
            net__tls_cut(s);
        else
            s->protocol->on_eof(s);
        return 0;
    }
    if (s->tls) {
        if (!net__tls_received(s, into, (size_t)n))
            return 0;
    } else if (s->phase == NET_LINGERING) {
        if (!net__discard(s, (size_t)n))
            return 0;
    } else if (!s->in_len) {
        if (!deliver(s, into, (size_t)n)) {
            net__stream_end(s, ENOBUFS);
            return 0;
        }
    } else {
        s->in_len += (uint32_t)n;
        deliver_kept(s);
    }
    if ((size_t)n < room && !s->ending && s->kind == NET_SOCKET) {
        s->readable = 0; /* a short read has emptied the socket; but a terminal gives line by line */
        ev->rearm(s->loop, &s->watcher, EV_READ);
        return 0;
    }
    return 1;
}

static int64_t receive(net_stream *s, uint8_t *into, size_t room) {
    ssize_t n = s->kind == NET_SOCKET ? recv(s->watcher.fd, into, room, 0) : net__pipe_read(s->watcher.fd, into, room);
    if (n > 0)
        s->module->received += (uint64_t)n;
    return n < 0 && s->kind == NET_SOCKET ? -errno : n;
}

static uint8_t *ciphertext(net_stream *s, size_t *room) {
    *room = NET_TLS_CIPHER;
    return net__tls_rooms(s)->cipher;
}

/* Where bytes are read to when none are kept, or NULL: not in this turn. What goes to Python is read to where Python finds it. */
static uint8_t *fresh(net_stream *s, size_t *room) {
    if (s->protocol != &net__python_protocol) {
        *room = EV_SCRATCH_SIZE;
        return s->tls ? ciphertext(s, room) : ev->scratch(s->loop);
    }
    int64_t offset;
    uint8_t *into = ev->arena_reserve(s->loop, PYTHON_ROOM, &offset);
    *room = PYTHON_ROOM;
    if (offset >= PYTHON_MOST)
        return NULL;
    return s->tls ? ciphertext(s, room) : into;
}

static int reads(const net_stream *s) {
    if (s->eof)
        return 0;
    if (s->tls)
        return net__tls_reads(s);
    return (s->phase == NET_OPEN || s->phase == NET_LINGERING) && !s->paused;
}

void net__read(net_stream *s) {
    if (s->one_way == EV_WRITE)
        return;
    for (int i = 0; i < READS_A_TURN; i++) {
        if (!reads(s))
            return;
        if (ev->arena_full(s->loop))
            break;
        uint8_t *into;
        size_t room;
        if (!s->in_len || s->tls) {
            into = fresh(s, &room);
            if (!into)
                break;
        } else {
            if (s->in_len == s->in_capacity && !grow_in(s, s->in_len + 1)) {
                net__stream_end(s, ENOBUFS);
                return;
            }
            into = s->in + s->in_len;
            room = s->in_capacity - s->in_len;
        }
        if (!received(s, into, receive(s, into, room), room))
            return;
    }
    net__read_soon(s);
}

static void again(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_stream *s = of_again(task);
    if (s->phase == NET_CLOSED || (!s->tls && (s->paused || s->phase == NET_CLOSING)))
        return;
    if (s->in_len && s->phase == NET_OPEN && !s->paused && !(s->tls && s->tls->phase != NET_TLS_OPEN))
        deliver_kept(s);
    if (s->tls && !s->paused)
        net__tls_again(s);
    if (s->readable || s->phase == NET_LINGERING)
        net__read(s);
}

void net__read_soon(net_stream *s) { ev->next_turn(s->loop, &s->again, again); }

int net__keep(net_stream *s, const void *data, size_t len) {
    if (len && (len > IN_MOST || !grow_in(s, (uint32_t)len)))
        return 0;
    if (len)
        memcpy(s->in, data, len);
    s->in_len = (uint32_t)len;
    net__read_soon(s);
    return 1;
}

void net__pause(net_stream *s) { s->paused = 1; }

void net__resume(net_stream *s) {
    if (!s->paused)
        return;
    s->paused = 0;
    net__read_soon(s);
}
