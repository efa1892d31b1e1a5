/* Write queues: segments of copied memory, borrowed memory and files, sent in order, as much as possible with one system call. */
#include "tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    STANDARD = EV_BUFFER_SIZE - sizeof(struct net_segment),
    IOVECS = 64,
    FLUSH_A_TURN = 1 << 20, /* a peer that reads as fast as we write does not starve the others */
};

static struct net_segment *new_segment(net_stream *s, size_t capacity) {
    struct net_segment *g;
    if (capacity <= STANDARD) {
        capacity = STANDARD;
        g = ev->buffer_get(s->loop);
    } else {
        g = malloc(sizeof *g + capacity);
    }
    if (!g)
        return NULL;
    g->capacity = capacity;
    g->kind = NET_COPY;
    g->next = NULL;
    g->start = g->end = 0;
    g->target = 0;
    g->unsealed = s->tls != NULL;
    return g;
}

static void append(net_stream *s, struct net_segment *g) {
    if (s->out.tail)
        s->out.tail->next = g;
    else
        s->out.head = g;
    s->out.tail = g;
}

static void free_segment(net_stream *s, struct net_segment *g) {
    if (g->kind == NET_FILE)
        close(g->fd);
    if (g->kind == NET_REF || g->target)
        ev->emit(s->loop, g->target, g->id, g->start == g->end, 0);
    if (g->capacity == STANDARD)
        ev->buffer_put(s->loop, g);
    else
        free(g);
}

static void pop(net_stream *s) {
    struct net_segment *g = s->out.head;
    s->out.head = g->next;
    if (!s->out.head)
        s->out.tail = NULL;
    s->out.queued -= (size_t)(g->end - g->start);
    if (g->kind == NET_FILE)
        s->out.files -= (size_t)(g->end - g->start);
    free_segment(s, g);
}

void net__out_clear(net_stream *s) {
    while (s->out.head)
        pop(s);
    if (s->tls)
        s->tls->sealing = 0;
}

static net_stream *of_flush(struct ev_task *t) { return (net_stream *)((char *)t - offsetof(net_stream, flush)); }

static void flush_task(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_stream *s = of_flush(task);
    s->yielding = 0;
    if (s->module->waiting)
        s->module->waiting--;
    net__flush(s);
}

void net__flush_soon(net_stream *s) {
    if (s->phase == NET_CLOSED)
        return;
    if (!s->flush.queued)
        s->module->waiting++;
    ev->soon(s->loop, &s->flush, flush_task);
}

/* Nothing can be sent in part: a connection for which there is no memory is given up. */
static void out_of_memory(net_stream *s) { net__abort(s, ENOMEM); }

void net__limit_queued(net_stream *s, size_t most) { s->out.most = most; }

/* Whether memory can be queued. What is added counts only afterwards, so that one write of any size is possible, but nobody goes on
 * writing to a peer that takes nothing. */
static int accepts(net_stream *s) {
    if (s->phase != NET_OPEN)
        return 0;
    if (!s->out.most || s->out.queued - s->out.files <= s->out.most)
        return 1;
    net__abort(s, NET_TOO_MUCH_QUEUED);
    return 0;
}

void net__write(net_stream *s, const void *data, size_t len) {
    if (!len || !accepts(s))
        return;
    struct net_segment *g = s->out.tail;
    size_t room = g && g->kind == NET_COPY && g->unsealed == (s->tls != NULL) ? g->capacity - (size_t)g->end : 0;
    size_t first = len < room ? len : room;
    if (first) {
        memcpy(g->data + g->end, data, first);
        g->end += first;
    }
    if (first < len) {
        g = new_segment(s, len - first);
        if (!g) {
            out_of_memory(s);
            return;
        }
        memcpy(g->data, (const uint8_t *)data + first, len - first);
        g->end = len - first;
        append(s, g);
    }
    s->out.queued += len;
    net__flush_soon(s);
}

void net__write_ref(net_stream *s, const void *data, size_t len, uint32_t target, int64_t id) {
    struct net_segment *g = len && accepts(s) ? new_segment(s, 0) : NULL;
    if (!g) {
        if (len && s->phase == NET_OPEN)
            out_of_memory(s);
        ev->emit(s->loop, target, id, !len, 0);
        return;
    }
    g->kind = NET_REF;
    g->ref = data;
    g->end = len;
    g->target = target;
    g->id = id;
    append(s, g);
    s->out.queued += len;
    net__flush_soon(s);
}

static int64_t send_iov(net_stream *s, struct iovec *iov, int count, int more) {
    int64_t n = s->kind == NET_SOCKET ? net__send(s->watcher.fd, iov, count, more) : net__pipe_write(s->watcher.fd, iov, count);
    if (n > 0)
        s->module->sent += (uint64_t)n;
    return n;
}

size_t net__out_transmit(net_stream *s, const uint8_t *data, size_t len) {
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    int64_t n = len ? send_iov(s, &iov, 1, 0) : 0;
    if (n <= 0) /* what is wrong, the flush of what is queued now will find */
        return 0;
    net__progress(s);
    return (size_t)n;
}

size_t net__send_now(net_stream *s, const void *data, size_t len) {
    if (s->phase != NET_OPEN || s->out.head || s->blocked || s->yielding || s->finish || s->kind != NET_SOCKET)
        return 0;
    if (len > FLUSH_A_TURN)
        len = FLUSH_A_TURN;
    return s->tls ? net__openssl_send_now(s, data, len) : net__out_transmit(s, data, len);
}

void net__write_file(net_stream *s, int fd, uint64_t offset, uint64_t count) { net__write_file_told(s, fd, offset, count, 0, 0); }

void net__write_file_told(net_stream *s, int fd, uint64_t offset, uint64_t count, uint32_t target, int64_t id) {
    struct net_segment *g = s->phase == NET_OPEN && count ? new_segment(s, 0) : NULL;
    if (!g) {
        close(fd);
        if (s->phase == NET_OPEN && count)
            out_of_memory(s);
        if (target)
            ev->emit(s->loop, target, id, !count && s->phase == NET_OPEN, 0);
        return;
    }
    g->kind = NET_FILE;
    g->target = target;
    g->id = id;
    g->fd = fd;
    g->start = offset;
    g->end = offset + count;
    append(s, g);
    s->out.queued += (size_t)count;
    s->out.files += (size_t)count;
    net__flush_soon(s);
}

static const uint8_t *memory_of(const struct net_segment *g) { return g->kind == NET_COPY ? g->data : g->ref; }

void net__out_sent(net_stream *s, size_t n) {
    while (n) {
        struct net_segment *g = s->out.head;
        size_t left = (size_t)(g->end - g->start);
        size_t part = n < left ? n : left;
        g->start += part;
        s->out.queued -= part;
        if (g->kind == NET_FILE)
            s->out.files -= part;
        n -= part;
        if (part == left)
            pop(s);
    }
}

/* Sends the memory segments at the head of the queue, so much of them: while the peer reads, one call takes any amount. */
static int64_t send_memory(net_stream *s, size_t most) {
    struct iovec iov[IOVECS];
    int count = 0;
    struct net_segment *g = s->out.head;
    for (; g && g->kind != NET_FILE && !g->unsealed && count < IOVECS && most; g = g->next) {
        size_t left = (size_t)(g->end - g->start);
        iov[count].iov_base = (void *)(memory_of(g) + g->start);
        iov[count].iov_len = left < most ? left : most;
        most -= iov[count].iov_len;
        count++;
    }
    return send_iov(s, iov, count, g && !g->unsealed);
}

static int64_t send_file(net_stream *s, size_t most) {
    struct net_segment *g = s->out.head;
    uint64_t left = g->end - g->start;
    uint64_t count = left < most ? left : most;
    int64_t n = s->kind == NET_SOCKET
                    ? net__sendfile(s->watcher.fd, g->fd, g->start, count)
                    : net__pipe_sendfile(s->watcher.fd, g->fd, g->start, count, ev->scratch(s->loop), EV_SCRATCH_SIZE);
    if (n > 0)
        s->module->sent += (uint64_t)n;
    return n ? n : -EIO; /* the file has become shorter than what was promised */
}

/* -- for TLS -- */

static int64_t peek_file(const struct net_segment *g, uint8_t *room, size_t most) {
    ssize_t n;
    do
        n = pread(g->fd, room, most, (off_t)g->start);
    while (n < 0 && errno == EINTR);
    return n > 0 ? n : n < 0 ? -errno : -EIO; /* see send_file */
}

int64_t net__out_peek(net_stream *s, uint8_t *room, size_t most, const uint8_t **data) {
    const struct net_segment *g = s->out.head;
    size_t left = (size_t)(g->end - g->start), len = 0;
    *data = room;
    if (g->kind == NET_FILE)
        return peek_file(g, room, left < most ? left : most);
    if (left >= most || !g->next || g->next->kind == NET_FILE) {
        *data = memory_of(g) + g->start;
        return (int64_t)(left < most ? left : most);
    }
    for (; g && g->kind != NET_FILE && len < most; g = g->next) {
        left = (size_t)(g->end - g->start);
        size_t part = left < most - len ? left : most - len;
        memcpy(room + len, memory_of(g) + g->start, part);
        len += part;
    }
    return (int64_t)len;
}

struct net_told net__out_told(net_stream *s, size_t n) {
    struct net_segment *g = s->out.head;
    if (g->kind != NET_FILE || !g->target || n < g->end - g->start)
        return (struct net_told){0};
    struct net_told told = {.target = g->target, .id = g->id};
    g->target = 0;
    return told;
}

void net__out_ready(net_stream *s, const void *data, size_t len, struct net_told told) {
    struct net_segment **link = &s->out.head, *last = NULL;
    if (!len || s->reset || s->phase == NET_CLOSED) {
        if (told.target)
            ev->emit(s->loop, told.target, told.id, !s->reset && s->phase != NET_CLOSED, 0);
        return;
    }
    for (; *link && !(*link)->unsealed; link = &last->next)
        last = *link;
    struct net_segment *g = new_segment(s, len);
    if (!g) {
        if (told.target)
            ev->emit(s->loop, told.target, told.id, 0, 0);
        out_of_memory(s);
        return;
    }
    memcpy(g->data, data, len);
    g->end = len;
    g->unsealed = 0;
    g->target = told.target;
    g->id = told.id;
    g->next = *link;
    *link = g;
    if (!g->next)
        s->out.tail = g;
    s->out.queued += len;
}

void net__out_drop_unsealed(net_stream *s) {
    struct net_segment *ready = NULL, **link = &ready, *g;
    while ((g = s->out.head) && !g->unsealed) {
        s->out.head = g->next;
        *link = g;
        link = &g->next;
    }
    *link = NULL;
    struct net_segment *last = NULL;
    for (g = ready; g; g = g->next)
        last = g;
    while (s->out.head)
        pop(s);
    s->out.head = ready;
    s->out.tail = last;
    s->tls->sealing = 0;
}

/* Makes ciphertext of what stands at the head, and sends it: as send_memory does, or 0 when that has to wait. */
static int64_t send_sealed(net_stream *s) {
    const uint8_t *wire = NULL;
    struct net_told told = {0};
    int64_t len = s->tls->engine->seal(s, &wire, &told);
    if (len <= 0)
        return len;
    struct iovec iov = {.iov_base = (void *)wire, .iov_len = (size_t)len};
    int64_t n = send_iov(s, &iov, 1, 0);
    size_t took = n > 0 ? (size_t)n : 0;
    net__out_ready(s, wire + took, (size_t)len - took, told);
    return n;
}

/* The queue has shrunk to where its owner may write again. */
static void drained(net_stream *s) {
    if (s->phase == NET_OPEN && s->out.queued <= s->out.low_water)
        s->protocol->on_drained(s);
}

void net__flush(net_stream *s) {
    if (s->phase == NET_CLOSED || s->blocked || s->yielding)
        return;
    size_t budget = FLUSH_A_TURN;
    while (s->out.head) {
        int sealed = s->out.head->unsealed;
        int64_t n = sealed ? send_sealed(s) : s->out.head->kind == NET_FILE ? send_file(s, budget) : send_memory(s, budget);
        if (n == 0 && sealed) /* it waits for the handshake, or for Python */
            return;
        if (n > 0) {
            if (!sealed)
                net__out_sent(s, (size_t)n);
            net__progress(s);
            budget -= (size_t)n < budget ? (size_t)n : budget;
            if (!budget && s->out.head) {
                s->yielding = s->refused = 1;
                if (s->out.low_water)
                    drained(s);
                ev->next_turn(s->loop, &s->flush, flush_task);
                return;
            }
        } else if (n == -EINTR) {
            continue;
        } else if (n == -EAGAIN || n == -EWOULDBLOCK) {
            s->blocked = s->refused = 1;
            ev->rearm(s->loop, &s->watcher, EV_WRITE);
            net__stalled(s);
            if (s->out.low_water)
                drained(s);
            return;
        } else {
            net__stream_end(s, n < 0 ? (int)-n : EIO);
            return;
        }
    }
    if (s->tls && (s->phase == NET_CLOSING || s->finish) && !net__tls_finishes(s)) {
        if (s->out.head) /* our close_notify */
            net__flush(s);
        return;
    }
    if (s->refused || s->paused) {
        s->refused = 0;
        drained(s);
    }
    net__stream_drained(s);
}
