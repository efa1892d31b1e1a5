/* What Python may call. */
#ifndef EVWS_SHIM_H
#define EVWS_SHIM_H

#include "evhttp.h"
#include "feeder.h"

/* -- connections (conn.c) -- */

/* The three C interfaces; 0 or EV_LINK_MISMATCH. */
uint64_t evws_link_loop(uint64_t evloop_capi);
uint64_t evws_link_net(uint64_t evnet_capi);
uint64_t evws_link_http(uint64_t evhttp_capi);

/* Makes the loop take the operations below; 0 or -errno. */
int evws_open(uint64_t loop);

/* What a connection keeps to. Python packs it (_limits.py). Times are ms, 0 for none. */
struct evw_options {
    uint64_t max_frame, max_message;
    uint64_t max_queue; /* bytes written and not yet taken by the kernel */
    uint32_t ping_interval, ping_timeout;
    uint32_t idle, close, write;
    uint32_t flags; /* EVW_* below */
};
enum {
    EVW_DROP = 1,      /* a message beyond max_queue is dropped and counted; else it ends the connection */
    EVW_TELL_PING = 2, /* and the like: records that nobody waits for are not made */
    EVW_TELL_PONG = 4,
    EVW_TELL_DRAINED = 8,
    EVW_DEFLATE = 16, /* permessage-deflate (RFC 7692) has been agreed on */
};

/* Operations of EV_MODULE_WS; id is the stream's token, for UPGRADE the exchange (evhttp.h). */
enum {
    EVW_OP_UPGRADE = 1, /* u32 target, struct evw_options, the head of the 101 */
    EVW_OP_SEND,        /* arg: the frame's first byte; its payload */
    EVW_OP_SEND_REF,    /* arg: the same; u64 address, u64 length, u64 id, u32 target for write_ref (evnet.h) */
    EVW_OP_CLOSE,       /* the payload of the Close */
    EVW_OP_ABORT,
    EVW_OP_FAIL, /* the payload of the Close that answers a message whose contents are wrong */
    EVW_OP_ADOPT = 16, /* id: a stream that a Connection has left; u32 target, struct evw_options, bytes that came behind the 101 */
    EVW_OP_BROADCAST,  /* arg: length of the frame's header; struct evw_broadcast, then a u64 token for each receiver */
};

/* One server's frame for many connections; those in the client's role send its payload under masks of their own. */
struct evw_broadcast {
    uint64_t results; /* address of a byte per receiver, which becomes one of EVW_BROADCAST_*; valid during the operation */
    uint64_t frame, size; /* valid during the operation, and until a record with a = pin has come for each EVW_BROADCAST_PINNED */
    uint64_t pin;
    uint32_t target;  /* of those records */
    uint32_t timeout; /* ms: a receiver that has not taken the frame then is aborted; 0: none */
};
enum { EVW_BROADCAST_SENT = 0, EVW_BROADCAST_FAILED = 1, EVW_BROADCAST_PINNED = 2 };

/* Records for the target: b is what | length << 4, where a length belongs to it, and a where it lies in the arena, unless another meaning is
 * given here. */
enum {
    EVW_TEXT_CAME = 0, /* UTF-8, checked */
    EVW_BINARY_CAME,
    EVW_LARGE_TEXT_CAME, /* a: its address, good until the batch has ended */
    EVW_LARGE_BINARY_CAME,
    EVW_PING_CAME,
    EVW_PONG_CAME,
    EVW_CLOSE_CAME, /* u16 code (1005: it had none), and the reason */
    EVW_FAILED,     /* the same, of what we have answered a violation with */
    EVW_DRAINED,    /* the kernel has taken what it had refused */
    EVW_LEAVING,    /* the server is closing, and has sent a Close */
    EVW_CLOSED,     /* a: the cause (evnet.h). The last record. */
    /* Compressed, with the four bytes that RFC 7692 §7.2.2 wants behind it. The last number of a message's record is its opcode; of a large
     * one plus the address of its loan. */
    EVW_DEFLATED_CAME,
    EVW_LARGE_DEFLATED_CAME, /* a: its address, as above */
    EVW_APART_TEXT_CAME, /* as EVW_TEXT_CAME, but not in the `bytes` that Python makes of the arena (evloop.h, arena_reserve) */
    EVW_APART_BINARY_CAME,
};

/* Takes over the memory of a large message, in the batch that its record came in; evws_loan_free gives it back, at any time. */
void *evws_loan_take(uint64_t loan);
void evws_loan_free(void *);

/* Facts about a connection: 0, or -1 when it is gone. */
struct evw_facts {
    uint64_t queued, dropped;
    int64_t latency_ns; /* of the last ping that we sent by ourselves; -1: none has been answered yet */
};
int evws_facts(uint64_t loop, uint64_t token, struct evw_facts *);

#endif
