/* TLS: what stands between a stream and its protocol. Protocols, native and Python's, see and write plain bytes as ever.
 *
 * The handshake is always Python's (`_tls.py`): what the peer sends goes up as records for `target`, what it is to get comes down by
 * EVNET_OP_TLS_SEND. After it an engine has the keys: OpenSSL in the turn, on the `SSL *` of Python's own object (tls_openssl.c), or
 * Python again (tls_python.c), where that is not possible.
 *
 * The write queue of a stream with TLS begins with segments that go on the wire as they are (what was written before TLS began, and
 * ciphertext); behind them stand those that an engine has yet to seal. So nothing overtakes anything, and what is queued is counted, and
 * limited, in one place.
 */
#ifndef EVNET_TLS_H
#define EVNET_TLS_H

#include "internal.h"

/* Who is to be told when the kernel has the last byte of a file. */
struct net_told {
    uint32_t target;
    int64_t id;
};

struct net_engine {
    /* Ciphertext from the peer, in order; len 0: only what was kept. */
    void (*received)(net_stream *, const uint8_t *, size_t len);
    /* Makes ciphertext of what stands at the head of the queue: its length, 0 when that has to wait, or -errno. It lies in the engine's
     * memory until its next call. */
    int64_t (*seal)(net_stream *, const uint8_t **wire, struct net_told *);
    /* Makes a close_notify, now or soon: net__tls_made_end. */
    void (*end)(net_stream *);
    /* The peer's side was shut down without one. */
    void (*cut)(net_stream *);
    /* The stream is going. */
    void (*release)(net_stream *);
};

enum net_tls_phase {
    NET_TLS_WAITING, /* Python was told and has not answered: nothing is read */
    NET_TLS_SHAKING,
    NET_TLS_OPEN,
};
enum net_tls_end { NET_TLS_NO_END, NET_TLS_END_ASKED, NET_TLS_END_MADE };

struct net_tls {
    const struct net_engine *engine;
    uint32_t target;      /* the session in Python; while WAITING whoever makes one */
    uint32_t shutdown_ms; /* for the peer's answer to our close_notify */
    uint8_t phase, our_end;
    uint8_t unseen;   /* accepted, and not yet shown to its protocol */
    uint8_t peer_end; /* close_notify has come, or the connection was cut */
    uint8_t eof_due;  /* and the protocol is to hear of it when it reads again */
    uint8_t failed;   /* nothing more is received or sealed */
    uint8_t *kept;    /* ciphertext that has come by way of Python */
    size_t kept_at, kept_len;
    size_t sealing;   /* Python: bytes at the head of the queue that it is encrypting */
    struct net_told sealing_told;
    void *ssl, *bio;  /* OpenSSL */
    const uint8_t *in;
    size_t in_len;
    uint8_t *wire;    /* where records are put while there is a batch of them, else NULL */
    size_t wire_len;
    uint8_t stuck;    /* nothing can be sealed before something has come: renegotiation */
    uint32_t warm;    /* its place among those with buffers, from 1 on, or 0 */
};

/* Memory for what is on its way, one for each loop that has TLS: nothing in it outlives a call. */
enum {
    NET_TLS_CIPHER = 96 * 1024, /* one recv; see PYTHON_ROOM of read.c */
    NET_TLS_RECORD = 16 * 1024, /* RFC 8446 §5.1: the most that is sealed in one */
    NET_TLS_RECORD_ROOM = NET_TLS_RECORD + 1024,
    NET_TLS_PLAIN = NET_TLS_CIPHER + NET_TLS_RECORD_ROOM,
    NET_TLS_WIRE = 8 * NET_TLS_RECORD_ROOM,
    /* Streams whose OpenSSL keeps its buffers, of 34 KiB. All others have none; to make them for each record costs 4%. */
    NET_TLS_WARM = 256,
};
struct net_tls_rooms {
    struct net_tls *warm[NET_TLS_WARM]; /* a ring */
    uint32_t warm_next;
    uint8_t cipher[NET_TLS_CIPHER], plain[NET_TLS_PLAIN], wire[NET_TLS_WIRE], gather[NET_TLS_RECORD];
};
struct net_tls_rooms *net__tls_rooms(net_stream *);

extern const struct net_engine net__tls_by_python, net__tls_by_openssl;

/* tls.c */
void net__tls_wait(net_stream *, uint32_t target); /* a stream with TLS from its first byte, shown to its protocol when it is open */
void net__tls_op(ev_loop *, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len);
int net__tls_reads(const net_stream *);
int net__tls_received(net_stream *, const uint8_t *, size_t); /* 0: it has ended */
void net__tls_cut(net_stream *);
void net__tls_again(net_stream *); /* the protocol reads again */
int net__tls_finishes(net_stream *); /* everything is sent: 1 if nothing is missing at our end, else it will be sent */
int net__tls_lingers(const net_stream *); /* the peer's close_notify is waited for */
void net__tls_gone(net_stream *, int cause);
void net__tls_free(net_stream *);

/* for engines */
void net__tls_tell(net_stream *, int64_t a, int64_t b);
int net__tls_keep(net_stream *, const uint8_t *, size_t);
void net__tls_made_end(net_stream *);
void net__tls_peer_end(net_stream *);
void net__tls_fail(net_stream *, int cause); /* what is ready is still sent: the alert that says why */

/* tls_openssl.c */
int net__openssl_adopt(net_stream *, void *ssl);
size_t net__openssl_send_now(net_stream *, const uint8_t *, size_t);

#endif
