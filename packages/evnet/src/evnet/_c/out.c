/* Write queues: segments of copied memory, borrowed memory and files, sent in order, as much as possible with one system call. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STANDARD = EV_BUFFER_SIZE - sizeof(struct net_segment), IOVECS = 64, FILE_CHUNK = 1 << 20 };

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
    if (g->kind == NET_REF)
        ev->emit(s->loop, g->target, g->id, 0, 0);
    else if (g->kind == NET_FILE)
        close(g->fd);
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
    free_segment(s, g);
}

void net__out_clear(net_stream *s) {
    while (s->out.head)
        pop(s);
}

static net_stream *of_flush(struct ev_task *t) { return (net_stream *)((char *)t - offsetof(net_stream, flush)); }

static void flush_task(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net__flush(of_flush(task));
}

void net__flush_soon(net_stream *s) {
    if (s->phase != NET_CLOSED)
        ev->soon(s->loop, &s->flush, flush_task);
}

/* Nothing can be sent in part: a connection for which there is no memory is given up. */
static void out_of_memory(net_stream *s) { net__abort(s, ENOMEM); }

void net__write(net_stream *s, const void *data, size_t len) {
    if (s->phase != NET_OPEN || !len)
        return;
    struct net_segment *g = s->out.tail;
    size_t room = g && g->kind == NET_COPY ? g->capacity - (size_t)g->end : 0;
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
    struct net_segment *g = s->phase == NET_OPEN ? new_segment(s, 0) : NULL;
    if (!g) {
        if (s->phase == NET_OPEN)
            out_of_memory(s);
        ev->emit(s->loop, target, id, 0, 0);
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

void net__write_file(net_stream *s, int fd, uint64_t offset, uint64_t count) {
    struct net_segment *g = s->phase == NET_OPEN && count ? new_segment(s, 0) : NULL;
    if (!g) {
        close(fd);
        if (s->phase == NET_OPEN && count)
            out_of_memory(s);
        return;
    }
    g->kind = NET_FILE;
    g->fd = fd;
    g->start = offset;
    g->end = offset + count;
    append(s, g);
    s->out.queued += (size_t)count;
    net__flush_soon(s);
}

static const uint8_t *memory_of(const struct net_segment *g) { return g->kind == NET_COPY ? g->data : g->ref; }

static void sent(net_stream *s, size_t n) {
    while (n) {
        struct net_segment *g = s->out.head;
        size_t left = (size_t)(g->end - g->start);
        size_t part = n < left ? n : left;
        g->start += part;
        s->out.queued -= part;
        n -= part;
        if (part == left)
            pop(s);
    }
}

/* Sends the memory segments at the head of the queue. */
static int64_t send_memory(net_stream *s) {
    struct iovec iov[IOVECS];
    int count = 0;
    struct net_segment *g = s->out.head;
    for (; g && g->kind != NET_FILE && count < IOVECS; g = g->next) {
        iov[count].iov_base = (void *)(memory_of(g) + g->start);
        iov[count].iov_len = (size_t)(g->end - g->start);
        count++;
    }
    return net__send(s->watcher.fd, iov, count, g != NULL);
}

static int64_t send_file(net_stream *s) {
    struct net_segment *g = s->out.head;
    uint64_t left = g->end - g->start;
    int64_t n = net__sendfile(s->watcher.fd, g->fd, g->start, left < FILE_CHUNK ? left : FILE_CHUNK);
    return n ? n : -EIO; /* the file has become shorter than what was promised */
}

void net__flush(net_stream *s) {
    if (s->phase == NET_CLOSED || s->blocked)
        return;
    while (s->out.head) {
        int64_t n = s->out.head->kind == NET_FILE ? send_file(s) : send_memory(s);
        if (n > 0) {
            sent(s, (size_t)n);
            net__progress(s);
        } else if (n == -EINTR) {
            continue;
        } else if (n == -EAGAIN || n == -EWOULDBLOCK) {
            s->blocked = s->refused = 1;
            ev->rearm(s->loop, &s->watcher, EV_WRITE);
            net__stalled(s);
            return;
        } else {
            net__stream_end(s, n < 0 ? (int)-n : EIO);
            return;
        }
    }
    if ((s->refused || s->paused) && s->phase == NET_OPEN) {
        s->refused = 0;
        s->protocol->on_drained(s);
    }
    net__stream_drained(s);
}
