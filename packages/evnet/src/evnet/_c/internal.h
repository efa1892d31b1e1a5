/* The stream as its own files see it.
 *
 * States of a stream, in this order only:
 *   OPEN      reads and writes
 *   CLOSING   reads nothing more; sends what is queued
 *   LINGERING everything is sent and our side shut down; what comes is discarded until the end or the deadline
 *   CLOSED    the descriptor is gone and on_close was called; the memory goes when Python has seen the batch
 */
#ifndef EVNET_INTERNAL_H
#define EVNET_INTERNAL_H

#include "evnet.h"
#include "sys.h"

extern const struct ev_capi *ev; /* set once, by evnet_link */

enum net_phase { NET_OPEN, NET_CLOSING, NET_LINGERING, NET_CLOSED };
enum net_segment_kind { NET_COPY, NET_REF, NET_FILE };
enum net_descriptor { NET_SOCKET, NET_PIPE }; /* the latter: whatever is read with read(2): pipes, terminals */

/* One entry of a write queue. */
struct net_segment {
    struct net_segment *next;
    enum net_segment_kind kind;
    uint8_t unsealed; /* not to be sent before TLS has made ciphertext of it: tls.h */
    uint32_t target; /* NET_REF, and others if it is not 0: whom to tell */
    int64_t id;
    int fd; /* NET_FILE */
    size_t capacity;
    uint64_t start, end; /* bytes not yet sent: of data, of ref, or of the file */
    const uint8_t *ref;
    uint8_t data[];
};

struct net_out {
    struct net_segment *head, *tail;
    size_t queued;
    size_t files;      /* of these, bytes that lie in files */
    size_t low_water;  /* on_drained is called when no more than so much is left */
    size_t most;       /* memory; 0: no limit */
};

struct evnet_event;

/* What Python is to hear of its streams, collected for one record a turn. */
struct net_events {
    struct evnet_event *list;
    size_t count, capacity;
    uint32_t target;
    struct ev_task emit;
};

/* Streams come and go by the thousand: the memory of one that has ended serves the next. By size, in steps; larger ones, and what is
 * more than so many, are malloc's. */
enum { NET_SPARE_STEP = 64, NET_SPARE_SIZES = 32 };
struct net_spare {
    struct net_stream *streams; /* linked by `next` */
    unsigned count;
};

/* What evnet keeps for one loop. */
struct net_module {
    struct ev_module module;
    ev_loop *loop;
    struct net_stream *streams; /* all that live, for the end of the loop */
    struct net_listener *listeners;
    struct net_events events;
    uint64_t received, sent; /* bytes of all its streams, as the kernel has counted them: with TLS, what was encrypted */
    uint32_t waiting; /* streams that wait for their flush, about */
    struct net_udp *udp;
    struct net_tls_rooms *tls_rooms; /* NULL until there is a stream with TLS */
    struct net_datagram_buffers *datagrams; /* NULL until there is a datagram socket */
    struct net_spare spare[NET_SPARE_SIZES];
    struct ev_task reap;
};

struct net_stream {
    struct ev_watcher watcher; /* first: a token finds it */
    ev_loop *loop;
    struct net_module *module;
    const struct net_protocol *protocol;
    struct net_tls *tls; /* between the two, or NULL */
    net_listener *listener;
    struct net_group *group; /* that counts it, or NULL */
    struct net_stream *next, **link;
    struct net_out out;
    uint8_t *in; /* received, not consumed; NULL when there is nothing */
    uint32_t in_len, in_capacity;
    struct ev_timer timer; /* for the earliest of the deadlines, or earlier than all: see deadlines.c */
    uint64_t deadline, stall, close_by; /* ms on the loop's clock, or 0 */
    uint64_t moved;                     /* when the kernel last took bytes */
    uint32_t write_timeout_ms, linger_ms;
    uint32_t unsent; /* what the kernel still held when it was last asked */
    struct ev_task flush, again, reap;
    struct net_address peer;
    int cause;
    uint32_t discarded; /* while lingering */
    uint8_t phase;
    uint8_t paused;
    uint8_t ending;   /* the peer has shut down its side: read until 0 */
    uint8_t eof;      /* on_eof was called */
    uint8_t readable; /* bytes may wait that no event will tell of */
    uint8_t blocked;  /* the kernel has refused bytes: an event will tell when it takes more */
    uint8_t refused;  /* it has, or the turn's budget was used up, since the queue was last empty */
    uint8_t yielding; /* it has sent enough in this turn */
    uint8_t finish;   /* shut down our side when all is sent */
    uint8_t reset;    /* close with RST */
    uint8_t kind;     /* enum net_descriptor */
    uint8_t settled;  /* its group does not count it as new any more */
    uint8_t one_way;  /* 0, or EV_READ or EV_WRITE: the descriptor allows nothing else */
    uint8_t size;     /* of its memory, in steps of NET_SPARE_STEP */
    _Alignas(16) uint8_t state[];
};

struct net_listener {
    struct ev_watcher watcher;
    struct net_module *module;
    const struct net_protocol *protocol;
    size_t state_size;
    net_accept_fn accepted;
    void *owner;
    struct net_listener *next, **link;
    struct net_group *group; /* what it shares with others of the same server: never NULL while it listens */
    struct net_listener *sibling;
    struct ev_timer pause;
    struct ev_task resume, reap;
    int reserve_fd;
    uint32_t tls_target; /* of whoever makes the handshakes; 0: no TLS */
    uint32_t unseen;     /* streams whose handshake is under way: the listener outlives its end for them */
    uint8_t held;   /* not watched, because the group has as many streams as it may */
    uint8_t closed;
    int free_owner; /* the owner was made by malloc for this listener */
};

/* stream.c */
net_stream *net__stream_open(struct net_module *, int fd, const struct net_protocol *, size_t state_size);
void net__free_spare(struct net_module *);
int net__open_on(ev_loop *, int fd, const struct net_protocol *, size_t state_size, unsigned kind, unsigned one_way, net_stream **out);
int net__adopt(ev_loop *, int fd, const struct net_protocol *, size_t state_size, net_stream **out);
void net__stream_begin(net_stream *);          /* after the accept callback: read what is there, then watch */
void net__stream_end(net_stream *, int cause); /* at once; never from inside a callback of the stream's protocol */
void net__stream_drained(net_stream *);        /* everything queued was sent */
net_stream *net__stream_find(ev_loop *, ev_token, const struct net_protocol *);
void net__close(net_stream *, int cause);
void net__linger(net_stream *, int cause, unsigned ms);
void net__abort(net_stream *, int cause);
void net__finish(net_stream *);

/* read.c */
void net__read(net_stream *);
void net__read_soon(net_stream *);
void net__pause(net_stream *);
void net__resume(net_stream *);
void net__drop_in(net_stream *); /* the kept bytes */
int net__keep(net_stream *, const void *, size_t); /* to be presented in the next turn, before what is read then; 0: no memory */
void net__present(net_stream *, const uint8_t *, size_t); /* bytes that TLS has deciphered */
int net__discard(net_stream *, size_t);                   /* counts while lingering; 0: too many, it has ended */

/* deadlines.c */
void net__deadline(net_stream *, uint64_t ms);
void net__write_timeout(net_stream *, uint32_t ms);
void net__close_by(net_stream *, uint32_t ms); /* the queue is given up after so long */
int net__moved_quietly(net_stream *);          /* the peer has taken bytes since the last time this was asked, or may have */
void net__stalled(net_stream *);  /* the kernel refused bytes */
void net__progress(net_stream *); /* it took some */

/* out.c */
void net__write(net_stream *, const void *, size_t);
void net__write_ref(net_stream *, const void *, size_t, uint32_t target, int64_t id);
void net__write_file(net_stream *, int fd, uint64_t offset, uint64_t count);
/* The same, and tells `target` like write_ref, with b = 1 if everything was sent. */
void net__write_file_told(net_stream *, int fd, uint64_t offset, uint64_t count, uint32_t target, int64_t id);
/* Sends at once, if nothing is queued that comes before; returns how much the kernel took. Calls no protocol. */
size_t net__send_now(net_stream *, const void *, size_t);
void net__limit_queued(net_stream *, size_t most);
void net__flush_soon(net_stream *);
void net__flush(net_stream *);
void net__out_clear(net_stream *);

/* out.c, for TLS. peek: up to so many of the bytes at the head of the queue, where they lie or gathered in `room`; 0 or -errno. told: whom to
 * tell, from now on instead of the queue, if so many bytes from there end a file. sent: they need not be kept any more. ready: copied to
 * where the unsealed ones begin. transmit: sends at once, and returns how much the kernel took. */
struct net_told;
int64_t net__out_peek(net_stream *, uint8_t *room, size_t most, const uint8_t **data);
struct net_told net__out_told(net_stream *, size_t);
void net__out_sent(net_stream *, size_t);
void net__out_ready(net_stream *, const void *, size_t, struct net_told);
void net__out_drop_unsealed(net_stream *);
size_t net__out_transmit(net_stream *, const uint8_t *, size_t);

/* listener.c */
int net__listen(ev_loop *, int fd, const struct net_protocol *, size_t, net_accept_fn, void *, net_listener **);
void net__unlisten(net_listener *);
void net__forget_unseen(net_listener *); /* a stream of it is unseen no more */
void net__share(net_listener *, const net_listener *with);
void net__limit(net_listener *, uint32_t most, int refuse, uint32_t notice);
void net__limit_new(net_listener *, uint32_t most);
void net__listen_stats(const net_listener *, struct net_listen_stats *);
void net__secure_listener(net_listener *, uint32_t target);
int net__group_adopt(net_listener *, net_stream *); /* counts a stream that was not accepted here; 0 or -EALREADY */
void net__group_left(net_stream *);                 /* the stream, which has a group, has ended */
void net__settled(net_stream *);

/* udp.c: datagram sockets, see udp.h */
void net__udp_op(ev_loop *, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len);
void net__udp_close_all(struct net_module *);

/* tls.c, see tls.h */
int net__secure(net_stream *, uint32_t target);

/* module.c */
struct net_module *net__module(ev_loop *);

/* events.c */
void net__events_add(struct net_module *, uint32_t number, int32_t a, int32_t b);
void net__events_free(struct net_module *);

/* pystream.c: the protocol that hands its bytes to Python */
extern const struct net_protocol net__python_protocol;
struct evnet_options;
size_t net__python_high_water(net_stream *);
int net__python_listen(ev_loop *, int fd, uint32_t target, const struct evnet_options *, net_listener **);
int net__python_adopt(ev_loop *, int fd, const struct evnet_options *, uint64_t *token, struct net_address *peer);
net_stream *net__python_take(ev_loop *, ev_token, const struct net_protocol *, const void *rest, size_t len); /* evnet.h */
void net__python_op(ev_loop *, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len);

#endif
