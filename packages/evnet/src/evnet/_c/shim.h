/* What Python may call: only to set things up. What happens to a connection travels through the loop's rings. */
#ifndef EVNET_SHIM_H
#define EVNET_SHIM_H

#include "evnet.h"

/* What a stream for Python begins with. */
struct evnet_options {
    uint32_t idle_timeout_ms;       /* aborted after so long without a byte in either direction; 0: never */
    uint32_t write_timeout_ms;      /* aborted when the peer takes nothing of what is queued for so long; 0: never */
    uint64_t high_water, low_water; /* PAUSE_WRITING above the one, RESUME_WRITING at the other */
    uint64_t max_queued;            /* memory; aborted when more is written while more than this is queued; 0: no limit */
    uint8_t kind;                   /* enum net_descriptor; for adopting only */
    uint8_t one_way;                /* 0, or 1: only reading, or 2: only writing is possible; for adopting only */
};

/* TLS by OpenSSL inside the turn: the addresses of its functions, see tls_openssl.c. 0 or -errno. */
int evnet_openssl(const uint64_t *functions, size_t count);
void evnet_secure_listener(net_listener *, uint32_t target); /* see evnet.h */

/* Takes evloop's table; 0, or EV_LINK_MISMATCH. */
uint64_t evnet_link(uint64_t evloop_capi);
const struct net_capi *evnet_capi(void);

/* Streams accepted on fd (borrowed, listening, non-blocking) are announced to `target`: a = arena offset of its struct net_address, b =
 * descriptor. 0 or -errno. */
int evnet_listen(uint64_t loop, int fd, uint32_t target, const struct evnet_options *, net_listener **out);
void evnet_unlisten(net_listener *);
void evnet_share(net_listener *, const net_listener *with); /* these three: see evnet.h */
void evnet_limit(net_listener *, uint32_t most, int refuse, uint32_t target);
void evnet_listen_stats(const net_listener *, struct net_listen_stats *);
/* Counts a stream that evnet_adopt has made among those of a listener; 0, -ENOENT when it has ended, or -EALREADY. */
int evnet_join(uint64_t token, net_listener *);

/* Makes a stream on a descriptor that is connected and non-blocking, and that the stream owns if this returns 0; else it stays the
 * caller's, and -errno says why. Nothing is read before EVNET_OP_ADOPT. Between turns only, like all of these. */
int evnet_adopt(uint64_t loop, int fd, const struct evnet_options *, uint64_t *token, struct net_address *peer);

/* Sends at once what the kernel takes of the bytes, if nothing comes before them; returns how many these were. For large ones only,
 * beside which a crossing costs nothing: see Connection.write. */
uint64_t evnet_send_now(uint64_t loop, uint64_t token, const char *data, uint64_t len);

/* Of streams that have ended, whose memory is kept for others. */
size_t evnet_spare_streams(uint64_t loop);

/* The descriptor of a stream, or -1 if it has ended; how many bytes it has queued. */
int evnet_descriptor(uint64_t loop, uint64_t token);
uint64_t evnet_queued(uint64_t loop, uint64_t token);
void evnet_traffic(uint64_t loop, uint64_t *received, uint64_t *sent); /* bytes, see net_module */
void evnet_limits(uint64_t loop, uint64_t token, uint64_t *low, uint64_t *high); /* untouched if it has ended */

/* Events of a stream. Received bytes: where in the arena they begin, a, and end, b, which is greater than 0. Else b is one of these, and
 * a the cause (evnet.h) of CLOSED, else 0. Those of a batch come in one record: a = arena offset, b = how many. They are not in the bytes
 * that Python makes of the arena at the beginning of a batch. */
struct evnet_event {
    uint32_t number; /* of the stream, from EVNET_OP_ADOPT */
    int32_t a, b;
};
/* Says to whom that record goes. 0, or -ENOMEM. */
int evnet_events(uint64_t loop, uint32_t target);
enum { EVNET_EOF = 0, EVNET_CLOSED = -1, EVNET_PAUSE_WRITING = -2, EVNET_RESUME_WRITING = -3 };

/* Operations of EV_MODULE_NET; id is the stream's token. Payloads, of native integers without padding:
 *   ADOPT        u32 number
 *   WRITE        the bytes
 *   WRITE_REF    u64 address, u64 length, i64 a, u32 target: see net_capi.write_ref; b = 1 if everything was sent
 *   WRITE_FILE   u64 offset, u64 count, i64 a, u32 target, i32 descriptor; the same, and the descriptor is taken over
 *   CLOSE        nothing, or u32 milliseconds after which what is still queued is given up
 *   LIMITS       u64 high, u64 low
 *   BROADCAST    u64 tokens, as many as id says, and the bytes that each of these streams sends
 * The others have none. */
enum {
    EVNET_OP_ADOPT = 1,
    EVNET_OP_WRITE,
    EVNET_OP_CLOSE,
    EVNET_OP_ABORT,
    EVNET_OP_FINISH,
    EVNET_OP_PAUSE,
    EVNET_OP_RESUME,
    EVNET_OP_WRITE_REF,
    EVNET_OP_WRITE_FILE,
    EVNET_OP_LIMITS,
    EVNET_OP_BROADCAST,
};

/* Datagram sockets. Addresses are packed for Python in the same way on every system: family (4, 6, or 0 for a unix socket), a zero, port
 * (of a unix socket: length of the path), 2 bytes each from here on in the order of the machine; then for 4 and 6 flow label and scope, 4
 * bytes each, and 16 bytes of address; else the path. */
struct evnet_udp_stats {
    uint64_t received, received_bytes, sent, sent_bytes, queued, dropped, truncated, errors;
};
struct evnet_udp_options {
    int32_t family;
    uint32_t options;
    uint32_t target;
    uint64_t most;             /* bytes of a datagram that is received; at most 65536 */
    uint64_t high, low, limit; /* bytes queued: pause, resume, drop; each datagram counts with its address and up to 22 bytes more */
    struct evnet_udp_stats *stats; /* kept up to date; Python keeps it alive until the record CLOSED or the end of the loop */
};
enum {
    EVNET_UDP_CONNECTED = 1,
    EVNET_UDP_ONE_BY_ONE = 2, /* one system call for each datagram even where there are better ones: for tests */
};

/* Takes over fd, which is bound, non-blocking, and belongs to C until the record of its end or the end of the loop. Returns 0, or -errno,
 * and then fd stays the caller's. `token` names the socket in operations. */
int evnet_udp_open(uint64_t loop, int fd, const struct evnet_udp_options *, uint64_t *token);

/* Records of a datagram socket. With b > 0 a batch of datagrams: b = how many | new addresses << 16, a = arena offset of a table with three
 * uint32_t for each, where it begins and ends in the arena and the place of its sender's address; behind the table, for each new
 * address, its place and its length, 2 bytes each, and the packed address. A connected socket has one place, 0. Else b is one of these:
 * ERROR, a = arena offset of four uint32_t, errno, what, size of the datagram or 0, length of the packed address behind them;
 * PAUSE_WRITING, a = bytes queued; RESUME_WRITING; or CLOSED, the last one, a = errno, 0 when we closed it. */
enum { EVNET_UDP_ERROR = 0, EVNET_UDP_PAUSE_WRITING = -1, EVNET_UDP_RESUME_WRITING = -2, EVNET_UDP_CLOSED = -3 };
/* What: a datagram could not be sent; the network says that one did not arrive; one came that was too long; receiving failed. */
enum { EVNET_UDP_SENDING, EVNET_UDP_NETWORK, EVNET_UDP_TOO_LONG, EVNET_UDP_RECEIVING };

/* Operations on datagram sockets. SEND: arg = length of the packed address before the datagram, 0 when connected. LIMITS: high and low,
 * 8 bytes each. */
enum { EVNET_OP_UDP_SEND = 64, EVNET_OP_UDP_CLOSE, EVNET_OP_UDP_ABORT, EVNET_OP_UDP_LIMITS };

/* TLS (tls.h). What the peer has sent goes to a session as received bytes do to a connection; EVNET_EOF and EVNET_CLOSED are as of a stream.
 * Other records have in b one of these:
 *   NEW      to whoever makes sessions: a stream, the token, waits for EVNET_OP_TLS_START
 *   END      make a close_notify, and answer with EVNET_OP_TLS_SEND, arg ENDED
 *   BROKEN   what the peer has sent is no TLS: a = arena offset of the reason, which ends with a zero. CLOSED follows
 *   SEAL - n n bytes from arena offset a on are to be encrypted: the answer is EVNET_OP_TLS_SEND, arg SEALED */
enum { EVNET_TLS_NEW = -4, EVNET_TLS_END = -5, EVNET_TLS_BROKEN = -6, EVNET_TLS_SEAL = -16 };

/* Operations; id is the stream's token:
 *   START  u32 target, u32 milliseconds for the peer's close_notify: from now on what comes is for TLS
 *   SEND   ciphertext for the peer; arg: what it answers, or 0
 *   OPEN   u64 address of an SSL, or 0 if Python goes on: the handshake is done
 *   FEED   ciphertext that had been received when OPEN was submitted; nothing: its end
 *   PLAIN  what Python has decrypted
 *   EOF    the peer's close_notify, or its end without one
 *   FAIL   sends what is ready and ends; arg 1: ends at once */
enum { EVNET_TLS_SEALED = 1, EVNET_TLS_ENDED = 2 };
enum {
    EVNET_OP_TLS_START = 96,
    EVNET_OP_TLS_SEND,
    EVNET_OP_TLS_OPEN,
    EVNET_OP_TLS_FEED,
    EVNET_OP_TLS_PLAIN,
    EVNET_OP_TLS_EOF,
    EVNET_OP_TLS_FAIL,
};

#endif
