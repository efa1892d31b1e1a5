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

/* One entry of a write queue. */
struct net_segment {
    struct net_segment *next;
    enum net_segment_kind kind;
    uint32_t target; /* NET_REF: whom to tell */
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
};

/* What evnet keeps for one loop. */
struct net_module {
    struct ev_module module;
    ev_loop *loop;
    struct net_stream *streams; /* all that live, for the end of the loop */
    struct net_listener *listeners;
};

struct net_stream {
    struct ev_watcher watcher; /* first: a token finds it */
    ev_loop *loop;
    struct net_module *module;
    const struct net_protocol *protocol;
    net_listener *listener;
    struct net_stream *next, **link;
    struct net_out out;
    uint8_t *in; /* received, not consumed; NULL when there is nothing */
    uint32_t in_len, in_capacity;
    struct ev_timer timer; /* for the earlier of the two deadlines, or earlier than both: see deadlines.c */
    uint64_t deadline, stall; /* ms on the loop's clock, or 0 */
    uint64_t moved;           /* when the kernel last took bytes */
    uint32_t write_timeout_ms, linger_ms;
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
    uint8_t refused;  /* it has, since the queue was last empty */
    uint8_t finish;   /* shut down our side when all is sent */
    uint8_t reset;    /* close with RST */
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
    struct ev_timer pause;
    struct ev_task reap;
    int reserve_fd;
    int free_owner; /* the owner was made by malloc for this listener */
};

/* stream.c */
net_stream *net__stream_open(struct net_module *, int fd, const struct net_protocol *, size_t state_size);
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

/* deadlines.c */
void net__deadline(net_stream *, uint64_t ms);
void net__write_timeout(net_stream *, uint32_t ms);
void net__stalled(net_stream *);  /* the kernel refused bytes */
void net__progress(net_stream *); /* it took some */

/* out.c */
void net__write(net_stream *, const void *, size_t);
void net__write_ref(net_stream *, const void *, size_t, uint32_t target, int64_t id);
void net__write_file(net_stream *, int fd, uint64_t offset, uint64_t count);
void net__flush_soon(net_stream *);
void net__flush(net_stream *);
void net__out_clear(net_stream *);

/* listener.c */
int net__listen(ev_loop *, int fd, const struct net_protocol *, size_t, net_accept_fn, void *, net_listener **);
void net__unlisten(net_listener *);

/* module.c */
struct net_module *net__module(ev_loop *);

/* pystream.c: the protocol that hands its bytes to Python */
extern const struct net_protocol net__python_protocol;
int net__python_listen(ev_loop *, int fd, uint32_t target, uint32_t idle_timeout_ms, net_listener **);
void net__python_op(ev_loop *, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len);

#endif
