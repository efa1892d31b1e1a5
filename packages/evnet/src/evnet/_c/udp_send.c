/* The queue: datagrams packed one behind the other in chunks, each with its address, sent in order. */
#include "udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { STANDARD = EV_BUFFER_SIZE, RETRY_MS = 1 };

struct net_chunk {
    struct net_chunk *next;
    size_t capacity, start, end; /* of what lies in data */
    _Alignas(8) uint8_t data[];
};

/* In front of each datagram; behind it its address, then its bytes, each filled up to 8. */
struct queued {
    uint32_t len, name_len;
};

static size_t filled(size_t len) { return (len + 7) & ~(size_t)7; }
static size_t size_of(size_t len, size_t name_len) { return sizeof(struct queued) + filled(name_len) + filled(len); }
static struct queued *first_of(const struct net_chunk *c) { return (struct queued *)(c->data + c->start); }

static struct net_chunk *chunk_for(struct net_udp *s, size_t size) {
    if (s->tail && s->tail->capacity - s->tail->end >= size)
        return s->tail;
    size_t standard = STANDARD - sizeof(struct net_chunk);
    struct net_chunk *c = size <= standard ? ev->buffer_get(s->module->loop) : malloc(sizeof *c + size);
    if (!c)
        return NULL;
    c->next = NULL;
    c->capacity = size <= standard ? standard : size;
    c->start = c->end = 0;
    if (s->tail)
        s->tail->next = c;
    else
        s->head = c;
    s->tail = c;
    return c;
}

static void free_first_chunk(struct net_udp *s) {
    struct net_chunk *c = s->head;
    s->head = c->next;
    if (!s->head)
        s->tail = NULL;
    if (c->capacity == STANDARD - sizeof *c)
        ev->buffer_put(s->module->loop, c);
    else
        free(c);
}

static void pop(struct net_udp *s, unsigned count) {
    for (; count; count--) {
        const struct queued *q = first_of(s->head);
        size_t size = size_of(q->len, q->name_len);
        s->head->start += size;
        s->stats->queued -= size;
        s->count--;
        if (s->head->start == s->head->end)
            free_first_chunk(s);
    }
}

void net__udp_drop_queue(struct net_udp *s) { pop(s, s->count); }

static struct net_udp *of_flush(struct ev_task *t) { return (struct net_udp *)((char *)t - offsetof(struct net_udp, flush)); }
static struct net_udp *of_retry(struct ev_timer *t) { return (struct net_udp *)((char *)t - offsetof(struct net_udp, retry)); }

static void flush_task(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net__udp_flush(of_flush(task));
}

void net__udp_flush_soon(struct net_udp *s) {
    if (s->phase != NET_CLOSED)
        ev->soon(s->module->loop, &s->flush, flush_task);
}

void net__udp_send(struct net_udp *s, const uint8_t *payload, size_t len, size_t name_len) {
    struct sockaddr_storage to;
    socklen_t to_len = 0;
    if (name_len > len || (name_len != 0) == s->connected)
        return;
    if (name_len && !(to_len = net__address_unpack(&to, s->family, payload, name_len)))
        return; /* Python packs nothing else */
    payload += name_len;
    len -= name_len;
    size_t size = size_of(len, to_len);
    if (len > UINT32_MAX / 2 || size > s->limit) {
        s->stats->dropped++;
        net__udp_report(s, EMSGSIZE, EVNET_UDP_SENDING, len, &to, to_len);
        return;
    }
    /* As long as the kernel takes datagrams there is room for one more. */
    if (s->count >= NET_DATAGRAMS || s->stats->queued + size > s->limit)
        net__udp_flush(s);
    struct net_chunk *c = s->stats->queued + size <= s->limit && s->phase == NET_OPEN ? chunk_for(s, size) : NULL;
    if (!c) {
        s->stats->dropped++;
        return;
    }
    struct queued *q = (struct queued *)(c->data + c->end);
    *q = (struct queued){(uint32_t)len, (uint32_t)to_len};
    memcpy(q + 1, &to, to_len);
    memcpy((uint8_t *)(q + 1) + filled(to_len), payload, len);
    c->end += size;
    s->stats->queued += size;
    s->count++;
    net__udp_flush_soon(s);
}

/* Lays the first datagrams of the queue out for the kernel. */
static unsigned lay_out(const struct net_udp *s, struct net_message *messages, struct iovec *iov) {
    unsigned n = 0;
    for (const struct net_chunk *c = s->head; c && n < NET_DATAGRAMS; c = c->next)
        for (size_t at = c->start; at < c->end && n < NET_DATAGRAMS; n++) {
            struct queued *q = (struct queued *)(c->data + at);
            uint8_t *name = (uint8_t *)(q + 1);
            iov[n] = (struct iovec){name + filled(q->name_len), q->len};
            messages[n].head = (struct msghdr){
                .msg_name = q->name_len ? name : NULL, .msg_namelen = q->name_len, .msg_iov = &iov[n], .msg_iovlen = 1};
            at += size_of(q->len, q->name_len);
        }
    return n;
}

static void retry(ev_loop *loop, struct ev_timer *t) {
    (void)loop;
    struct net_udp *s = of_retry(t);
    s->blocked = 0;
    net__udp_flush(s);
}

/* A full queue of the interface, and that of a unix socket that we are not connected to, cause no event when they have room again. */
static void wait_for_room(struct net_udp *s, int error) {
    s->blocked = 1;
    if (error == ENOBUFS || error == ENOMEM || (s->family == AF_UNIX && !s->connected))
        ev->timer_start(s->module->loop, &s->retry, RETRY_MS, retry);
    else
        net__udp_watch(s);
}

static void report_first(struct net_udp *s, int error) {
    const struct queued *q = first_of(s->head);
    net__udp_report(s, error, EVNET_UDP_SENDING, q->len, q + 1, q->name_len);
}

static void settle_first_try(struct net_udp *s) {
    int error = s->second_try;
    s->second_try = 0;
    if (!net__udp_take_errors(s))
        net__udp_report(s, error, EVNET_UDP_NETWORK, 0, NULL, 0);
}

/* An error may be that of an earlier datagram, which has waited on the socket for the next call: so the datagram that it befell is
 * tried once more, and only if it is refused again was it meant. Whether to go on. */
static int failed(struct net_udp *s, int error) {
    if (error == EINTR)
        return 1;
    if (error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS || error == ENOMEM) {
        wait_for_room(s, error);
        return 0;
    }
    if (error == EBADF || error == ENOTSOCK) { /* somebody has closed the descriptor */
        net__udp_end(s, error);
        return 0;
    }
    if (!s->second_try) {
        s->second_try = error;
        return 1;
    }
    if (s->second_try != error)
        settle_first_try(s);
    s->second_try = 0;
    report_first(s, error);
    s->stats->dropped++;
    pop(s, 1);
    return 1;
}

static void tell_room(struct net_udp *s) {
    if (s->phase != NET_OPEN)
        return;
    if (!s->told_to_pause && s->stats->queued > s->high) {
        s->told_to_pause = 1;
        ev->emit(s->module->loop, s->target, (int64_t)s->stats->queued, EVNET_UDP_PAUSE_WRITING, s->watcher.token);
    } else if (s->told_to_pause && s->stats->queued <= s->low) {
        s->told_to_pause = 0;
        ev->emit(s->module->loop, s->target, 0, EVNET_UDP_RESUME_WRITING, s->watcher.token);
    }
}

static void count_sent(struct net_udp *s, const struct iovec *iov, unsigned count) {
    s->stats->sent += count;
    for (unsigned i = 0; i < count; i++)
        s->stats->sent_bytes += iov[i].iov_len;
    pop(s, count);
}

void net__udp_flush(struct net_udp *s) {
    struct net_message messages[NET_DATAGRAMS];
    struct iovec iov[NET_DATAGRAMS];
    while (s->count && !s->blocked) {
        int error;
        unsigned sent = s->calls->send(s->watcher.fd, messages, lay_out(s, messages, iov), &error, &s->merge);
        if (sent) {
            count_sent(s, iov, sent);
            if (s->second_try)
                settle_first_try(s);
        }
        if (error && !failed(s, error))
            break;
    }
    if (s->phase == NET_CLOSED)
        return;
    tell_room(s);
    if (s->phase == NET_CLOSING && !s->count)
        net__udp_end(s, NET_BY_US);
}

void net__udp_limits(struct net_udp *s, size_t high, size_t low) {
    s->high = high;
    s->low = low < high ? low : high;
    tell_room(s);
}
