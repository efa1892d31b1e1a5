#include "udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum {
    BATCHES_A_TURN = 4,
    BATCH_BYTES = 256 * 1024, /* a batch that brought more is followed by a smaller one, so that the arena keeps its limit */
    SMALLEST_BATCH = 4,
    ENTRY = 3 * sizeof(uint32_t), /* of the table for Python: see shim.h */
    NO_PLACE = -1,
};

struct net_datagram_buffers *net__datagram_buffers(struct net_module *m) {
    if (m->datagrams)
        return m->datagrams;
    struct net_datagram_buffers *b = calloc(1, sizeof *b);
    uint8_t *tails = b ? malloc((size_t)NET_DATAGRAMS * NET_DATAGRAM_MOST) : NULL;
    if (!tails) {
        free(b);
        return NULL;
    }
    b->tails = tails;
    for (int i = 0; i < NET_DATAGRAMS; i++) {
        b->iov[i][0].iov_base = b->heads[i];
        b->iov[i][1].iov_base = tails + (size_t)i * NET_DATAGRAM_MOST;
        b->messages[i].head.msg_iov = b->iov[i];
        b->messages[i].head.msg_name = &b->names[i];
        b->messages[i].head.msg_namelen = sizeof b->names[i];
    }
    m->datagrams = b;
    return b;
}

void net__datagram_buffers_free(struct net_module *m) {
    if (m->datagrams)
        free(m->datagrams->tails);
    free(m->datagrams);
    m->datagrams = NULL;
}

static void prepare(struct net_datagram_buffers *b, size_t most) {
    if (b->most == most)
        return;
    size_t first = most < NET_DATAGRAM_HEAD ? most : NET_DATAGRAM_HEAD;
    for (int i = 0; i < NET_DATAGRAMS; i++) {
        b->iov[i][0].iov_len = first;
        b->iov[i][1].iov_len = most - first;
        b->messages[i].head.msg_iovlen = most > first ? 2 : 1;
    }
    b->most = most;
}

struct net_peers *net__peers_new(int family) {
    size_t stride = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (family == AF_UNIX)
        stride = sizeof(struct sockaddr_un);
    struct net_peers *p = calloc(1, sizeof *p + stride * NET_PEER_SETS * NET_PEER_WAYS);
    if (p)
        p->stride = stride;
    return p;
}

static unsigned set_of(const uint8_t *name, size_t len) {
    uint32_t hash = 0;
    for (size_t i = 0; i + 4 <= len; i += 4) {
        uint32_t word;
        memcpy(&word, name + i, 4);
        hash = (hash ^ word) * UINT32_C(0x9E3779B1);
        hash ^= hash >> 15;
    }
    for (size_t i = len & ~(size_t)3; i < len; i++)
        hash = (hash ^ name[i]) * UINT32_C(0x9E3779B1);
    return (hash ^ hash >> 16) % NET_PEER_SETS;
}

/* The place of a name, which `fresh` says was given to it just now; NO_PLACE when this batch speaks of all that it could get. */
static int place_of(struct net_peers *p, const uint8_t *name, size_t len, int *fresh) {
    *fresh = 0;
    if (len > p->stride)
        len = p->stride;
    unsigned set = set_of(name, len), first = set * NET_PEER_WAYS;
    for (unsigned i = first; i < first + NET_PEER_WAYS; i++)
        if (p->len[i] == len + 1 && memcmp(p->names + i * p->stride, name, len) == 0) {
            p->used[i] = p->batch;
            return (int)i;
        }
    for (unsigned tries = 0; tries < NET_PEER_WAYS; tries++) {
        unsigned i = first + p->next[set];
        p->next[set] = (uint8_t)((p->next[set] + 1) % NET_PEER_WAYS);
        if (p->used[i] == p->batch)
            continue;
        memcpy(p->names + i * p->stride, name, len);
        p->len[i] = (uint8_t)(len + 1);
        p->used[i] = p->batch;
        *fresh = 1;
        return (int)i;
    }
    return NO_PLACE;
}

/* Datagrams of a batch that are told by one record. */
struct selection {
    unsigned count, fresh_count;
    size_t bytes;
    uint8_t index[NET_DATAGRAMS];
    uint16_t place[NET_DATAGRAMS];
    uint8_t fresh[NET_DATAGRAMS]; /* whose address Python has to learn: an index */
};

static int truncated(const struct net_message *m, size_t most) { return m->head.msg_flags & MSG_TRUNC || m->len > most; }

static void refuse(struct net_udp *s, const struct net_message *m) {
    s->stats->truncated++;
    size_t size = m->len > s->most ? m->len : 0; /* not every system tells */
    net__udp_report(s, EMSGSIZE, EVNET_UDP_TOO_LONG, size, m->head.msg_name, m->head.msg_namelen);
}

/* Selects from the `from`th on, and returns where it stopped. */
static unsigned choose(struct net_udp *s, const struct net_datagram_buffers *b, unsigned from, unsigned n, struct selection *chosen) {
    chosen->count = chosen->fresh_count = 0;
    chosen->bytes = 0;
    if (s->peers)
        s->peers->batch++;
    for (; from < n; from++) {
        const struct net_message *m = &b->messages[from];
        if (truncated(m, s->most)) {
            refuse(s, m);
            continue;
        }
        int fresh = 0, place = 0;
        if (s->peers)
            place = place_of(s->peers, m->head.msg_name, m->head.msg_namelen, &fresh);
        if (place == NO_PLACE)
            return from;
        if (fresh)
            chosen->fresh[chosen->fresh_count++] = (uint8_t)chosen->count;
        chosen->index[chosen->count] = (uint8_t)from;
        chosen->place[chosen->count++] = (uint16_t)place;
        chosen->bytes += m->len;
    }
    return from;
}

static uint8_t *put32(uint8_t *to, size_t value) {
    uint32_t v = (uint32_t)value;
    memcpy(to, &v, sizeof v);
    return to + sizeof v;
}

static uint8_t *put_name(uint8_t *to, unsigned place, const struct net_message *m) {
    uint16_t head[2] = {(uint16_t)place, (uint16_t)net__address_pack(to + sizeof head, m->head.msg_name, m->head.msg_namelen)};
    memcpy(to, head, sizeof head);
    return to + sizeof head + head[1];
}

/* The table, the new addresses, the bytes: see shim.h. */
static void tell(struct net_udp *s, const struct net_datagram_buffers *b, const struct selection *chosen) {
    size_t names = chosen->fresh_count * (2 * sizeof(uint16_t) + (size_t)NET_PACKED_MOST);
    int64_t offset;
    uint8_t *start = ev->arena_put(s->module->loop, chosen->count * ENTRY + names + chosen->bytes, &offset);
    uint8_t *entry = start, *to = start + chosen->count * ENTRY;
    for (unsigned i = 0; i < chosen->fresh_count; i++)
        to = put_name(to, chosen->place[chosen->fresh[i]], &b->messages[chosen->index[chosen->fresh[i]]]);
    for (unsigned i = 0; i < chosen->count; i++) {
        unsigned k = chosen->index[i];
        size_t len = b->messages[k].len, first = len < NET_DATAGRAM_HEAD ? len : NET_DATAGRAM_HEAD;
        entry = put32(entry, (size_t)offset + (size_t)(to - start));
        memcpy(to, b->heads[k], first);
        if (len > first)
            memcpy(to + first, b->iov[k][1].iov_base, len - first);
        to += len;
        entry = put32(entry, (size_t)offset + (size_t)(to - start));
        entry = put32(entry, chosen->place[i]);
    }
    s->stats->received += chosen->count;
    s->stats->received_bytes += chosen->bytes;
    ev->emit(s->module->loop, s->target, offset, (int64_t)chosen->count | (int64_t)chosen->fresh_count << 16, s->watcher.token);
}

static void deliver(struct net_udp *s, struct net_datagram_buffers *b, unsigned n) {
    struct selection chosen;
    size_t bytes = 0;
    for (unsigned at = 0; at < n;) {
        at = choose(s, b, at, n, &chosen);
        if (chosen.count)
            tell(s, b, &chosen);
        bytes += chosen.bytes;
    }
    for (unsigned i = 0; i < n; i++) {
        b->messages[i].head.msg_namelen = sizeof b->names[i];
        b->messages[i].head.msg_flags = 0;
    }
    if (bytes > BATCH_BYTES && s->batch > SMALLEST_BATCH)
        s->batch /= 2;
    else if (n == s->batch && bytes < BATCH_BYTES / 2 && s->batch < NET_DATAGRAMS)
        s->batch *= 2;
}

/* Whether to go on. */
static int failed(struct net_udp *s, int error) {
    switch (error) {
    case EINTR:
        return 1;
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
    case ENOBUFS:
    case ENOMEM:
        return 0; /* the poller will say so again */
    case EBADF:
    case ENOTSOCK:
        net__udp_end(s, error); /* somebody has closed the descriptor */
        return 0;
    default:
        if (!net__udp_take_errors(s))
            net__udp_report(s, error, EVNET_UDP_RECEIVING, 0, NULL, 0);
        return 1;
    }
}

void net__udp_receive(struct net_udp *s) {
    struct net_datagram_buffers *b = s->module->datagrams;
    prepare(b, s->most);
    for (int i = 0; i < BATCHES_A_TURN && s->phase == NET_OPEN && !ev->arena_full(s->module->loop); i++) {
        unsigned asked = s->batch;
        int error;
        unsigned n = s->calls->receive(s->watcher.fd, b->messages, asked, &error);
        if (n)
            deliver(s, b, n);
        if (error ? !failed(s, error) : n < asked)
            return;
    }
}
