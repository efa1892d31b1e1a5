/* Datagram sockets as their own files see them.
 *
 * Receiving: whenever the poller says so (level-triggered, so nothing that is left behind is forgotten), a batch is received into the
 * buffers of the module and copied, packed, into the arena; one record tells Python of the whole batch. So a flood costs each turn a
 * bounded number of batches, and goes on in the next one.
 * Sending: what Python submits is queued, and sent at the end of the submissions, many datagrams in one system call. What the kernel
 * refuses waits for an event, within a bound; what exceeds the bound is dropped and counted.
 *
 * States: OPEN, CLOSING (receives nothing; sends what is queued), CLOSED (the memory goes when Python has seen the batch). */
#ifndef EVNET_UDP_H
#define EVNET_UDP_H

#include "internal.h"
#include "shim.h"

#include <sys/socket.h>
#include <sys/un.h>

enum {
    NET_DATAGRAMS = 64,       /* received or sent by one system call */
    NET_DATAGRAM_HEAD = 2048, /* a datagram that fits is received into memory that is close to its neighbour's */
    NET_DATAGRAM_MOST = 65536,
    NET_PEER_SETS = 64,
    NET_PEER_WAYS = 4,
};

/* The layout of Linux's struct mmsghdr, which other systems lack. */
struct net_message {
    struct msghdr head;
    unsigned len; /* received: bytes of the datagram, even of those that did not fit where the system tells */
};

/* How datagrams pass into and out of the kernel: in batches where there are system calls for that (udp_mmsg.c), else one by one
 * (udp_msg.c). */
struct net_datagram_calls {
    /* Receive or send up to `count` datagrams, at most NET_DATAGRAMS, without waiting, and return how many. `error` is the errno of what
     * ended the batch, 0 where the system will tell it at the next call. Those to be sent have one iovec each, which lie side by side in
     * memory. `merge` says whether the kernel may be given several of one size for one address as one, to be cut up on their way; it
     * is cleared when the kernel cannot. */
    unsigned (*receive)(int fd, struct net_message *, unsigned count, int *error);
    unsigned (*send)(int fd, struct net_message *, unsigned count, int *error, uint8_t *merge);
    /* Asks the kernel to keep what the network says of datagrams that were sent, on an unconnected socket, too; whether it does. */
    int (*keep_errors)(int fd, int family);
    int (*can_merge)(int fd, int family);
    /* Takes the oldest of those errors: its errno and where the datagram was sent to, or 0. */
    int (*next_error)(int fd, struct sockaddr_storage *to, socklen_t *len);
};
extern const struct net_datagram_calls net__datagrams_one_by_one;
const struct net_datagram_calls *net__datagrams_in_batches(void); /* NULL where there are none */

/* One for each loop, made with its first datagram socket: what a batch is received into. */
struct net_datagram_buffers {
    struct net_message messages[NET_DATAGRAMS];
    struct iovec iov[NET_DATAGRAMS][2];
    struct sockaddr_storage names[NET_DATAGRAMS];
    size_t most; /* what the iovecs are prepared for */
    uint8_t *tails; /* what does not fit in a head; of its pages only those are touched that are used */
    /* Not a power of two apart: the heads of a batch shall not fight for the same lines of the cache. */
    uint8_t heads[NET_DATAGRAMS][NET_DATAGRAM_HEAD + 64];
};

struct net_chunk;

/* The last senders, by their raw address: Python has a list of the tuples that belong to these places. */
struct net_peers {
    size_t stride;   /* bytes of a name */
    uint64_t batch;  /* counts; a place that this batch speaks of is not given to another */
    uint64_t used[NET_PEER_SETS * NET_PEER_WAYS];
    uint8_t len[NET_PEER_SETS * NET_PEER_WAYS]; /* plus 1; 0 is an empty place */
    uint8_t next[NET_PEER_SETS];
    uint8_t names[];
};

struct net_udp {
    struct ev_watcher watcher; /* first: a token finds it */
    struct net_module *module;
    const struct net_datagram_calls *calls;
    struct net_udp *next, **link;
    struct net_peers *peers; /* NULL when connected */
    struct net_chunk *head, *tail;
    unsigned count;      /* datagrams queued */
    unsigned batch;      /* to be received by one call: fewer when they are large */
    size_t high, low, limit; /* bytes queued: where Python is told to pause and to resume, and where datagrams are dropped */
    size_t most;         /* bytes of a datagram that is received */
    uint32_t target;
    int family;
    int second_try; /* errno of the first */
    struct ev_task flush, reap;
    struct ev_timer retry;
    struct evnet_udp_stats *stats; /* Python's memory; ->queued is the size of the queue */
    uint8_t connected;
    uint8_t keeps_errors; /* the kernel does, for next_error */
    uint8_t merge;
    uint8_t blocked;
    uint8_t told_to_pause;
    uint8_t phase; /* enum net_phase */
};

/* udp.c */
void net__udp_end(struct net_udp *, int cause);
/* Tells Python of an error. `size` is that of the datagram where one is concerned, else 0; `name` may be NULL. */
void net__udp_report(struct net_udp *, int error, unsigned what, size_t size, const void *name, socklen_t len);
unsigned net__udp_take_errors(struct net_udp *); /* those that the kernel has kept: how many */
void net__udp_watch(struct net_udp *);

/* udp_receive.c */
struct net_datagram_buffers *net__datagram_buffers(struct net_module *); /* NULL when memory is short */
void net__datagram_buffers_free(struct net_module *);
struct net_peers *net__peers_new(int family);
void net__udp_receive(struct net_udp *);

/* udp_send.c */
void net__udp_send(struct net_udp *, const uint8_t *payload, size_t len, size_t name_len);
void net__udp_flush_soon(struct net_udp *);
void net__udp_flush(struct net_udp *);
void net__udp_drop_queue(struct net_udp *);
void net__udp_limits(struct net_udp *, size_t high, size_t low);

/* udp_address.c: addresses as Python packs them (shim.h), the same on every system. */
enum { NET_PACKED_IP = 28, NET_PACKED_UNIX = 4, NET_PACKED_MOST = NET_PACKED_UNIX + sizeof(((struct sockaddr_un *)0)->sun_path) };
size_t net__address_pack(uint8_t *out, const void *name, socklen_t len); /* bytes written, at most NET_PACKED_MOST */
socklen_t net__address_unpack(struct sockaddr_storage *, int family, const uint8_t *packed, size_t len); /* 0: not of this family */

#endif
