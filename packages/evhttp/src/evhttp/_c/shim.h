/* What Python may call: to set things up and to end them. Requests and answers travel through the loop's rings.
 *
 * A request is a record for `target`: a = where it lies in the arena, b = info (request.c), token = the exchange, that is the
 * stream's token | the request's place in the connection << 48; it goes back with the answer. In the arena lie struct evh_head
 * (request.c), the request target, the method's text where it is none of ours, the field block, and the body. The field block is
 * "\n" name ":" value for each field, and a final "\n": names in lower case, OWS trimmed. Since no field can hold a line feed,
 * searching it for "\nname:" finds fields and nothing else.
 *
 * Several requests of one turn come as one record for batch_target, if there is one: a = where they lie in the arena, b = how many;
 * each lies there as its record would (struct ev_record).
 *
 * A request whose body is too large for the arena goes to large_target instead: the body lies at evh_head.large_body until the
 * batch has ended.
 *
 * Records for event_target: b = EVH_EVENT_EMPTY when a closed server has lost its last connection; else b is the status with
 * which a request was refused, and a the place of a struct evh_refused (conn.c) in the arena. */
#ifndef EVH_SHIM_H
#define EVH_SHIM_H

#include "evhttp.h"
#include "evnet.h"
#include "parser.h"
#include "reader.h"

struct evh_timeouts { /* ms; 0 means none */
    uint32_t head;    /* from the first byte of a request to the end of its head, and from the connection to that byte */
    uint32_t body;    /* for the whole body */
    uint32_t idle;    /* between two requests */
    uint32_t write;   /* without the client taking a byte */
    uint32_t answer;  /* from when a request is the oldest unanswered one, told of whole or at the head, to the end of its answer */
};

struct evh_network {
    uint8_t family, prefix; /* as of struct net_address: 4, 6, or 0 for unix sockets; the bits that count */
    uint8_t ip[16];
};

struct evh_options {
    uint32_t target, batch_target, large_target, event_target; /* see above; batch_target: 0 for none */
    uint32_t end_target;   /* 0, or told of the end of each connection: b = EVH_END_*, a = struct evh_end (conn.c) in the arena, token: the stream's */
    uint32_t max_pipeline; /* requests of one connection that may wait for their answers, at most 64 */
    uint32_t max_requests; /* of one connection, 0: any number */
    uint32_t short_target; /* told, with a = errno and b = how many so far, when clients had to be hung up on (evnet.h) */
    uint32_t max_connections; /* at a time, 0: any number */
    uint32_t max_handshakes;  /* of those that were not upgraded, the same */
    uint32_t max_queued;      /* bytes: see limit_queued of evnet.h */
    uint8_t refuse_connections; /* those above are reset; else they wait */
    uint8_t measure;            /* count answers and how long they took */
    uint32_t network_count;
    const struct evh_network *networks; /* whose word about their clients counts */
    uint8_t stream_bodies; /* requests are told of at the head, unless their bodies have come with it, and Python asks for the body */
};
enum { EVH_END_BY_US, EVH_END_BY_CLIENT, EVH_END_TIMED_OUT, EVH_END_PROTOCOL_VIOLATED, EVH_END_LOST, EVH_END_TOO_MUCH_QUEUED };

struct evh_counts {
    uint64_t accepted, refused, shed; /* connections; see struct net_listen_stats */
    uint64_t requests;
    uint64_t ends[6];      /* of connections, by EVH_END_* */
    uint64_t answers[4];   /* with `measure`: by class, 200 to 500 */
    uint64_t buckets[16];  /* with `measure`: answers by how long they took, see evhttp_bucket_ns; the last is for those that took longer */
    uint64_t sum_ns;
};
/* Answers of the bucket took at most so long; 0 for the last one. */
uint64_t evhttp_bucket_ns(unsigned bucket);

struct evh_server;

/* Both C interfaces; 0 or EV_LINK_MISMATCH. */
uint64_t evhttp_link_loop(uint64_t evloop_capi);
uint64_t evhttp_link_net(uint64_t evnet_capi);

const struct evh_capi *evhttp_capi(void); /* evhttp.h */

/* 0 or -errno. The server lives until evhttp_close and the end of its last connection. */
int evhttp_open(uint64_t loop, const struct evh_options *, const struct evh_limits *, const struct evh_timeouts *, struct evh_server **out);
enum { EVH_LISTEN_PROXIED = 1 }; /* each connection begins with a header of the PROXY protocol, and comes from a trusted network */
/* fd: bound, listening, non-blocking, borrowed until evhttp_close. flags: EVH_LISTEN_*. tls_target: of an evnet.TlsAcceptor, or 0; not both. */
int evhttp_listen(struct evh_server *, int fd, unsigned flags, uint32_t tls_target);
/* What was counted since evhttp_open; it goes on being readable after evhttp_close. */
void evhttp_counts(struct evh_server *, struct evh_counts *);
/* fd: connected, non-blocking, accepted by somebody else. flags and tls_target as for evhttp_listen. If it returns 0 the connection
 * owns it, also after evhttp_close, and *token is its stream's. */
int evhttp_adopt(struct evh_server *, int fd, unsigned flags, uint32_t tls_target, uint64_t *token);
/* Stops listening, closes idle connections, and lets the others end with the answer under way. With keep_idle an idle connection may
 * ask once more, until this is called without. */
void evhttp_close(struct evh_server *, int keep_idle);
/* Ends all connections at once; returns how many there were. */
unsigned evhttp_abort(struct evh_server *);
/* From now on the ends of connections are told of, also of those that there are. */
void evhttp_tell_ends(struct evh_server *, uint32_t end_target);
unsigned evhttp_connections(const struct evh_server *);

const char *evhttp_scan_select(const char *name);
/* The phrase of a status, "" for one without. Static memory. */
const char *evhttp_reason(unsigned status);

enum { EVH_EVENT_EMPTY = 0 };

/* Operations of EV_MODULE_HTTP. id: the exchange. arg: status | content type << 10 | EVH_ANSWER_*. Header blocks are lines with
 * their CRLF, checked by Python. Content-Length, Date and Connection are written here. */
enum {
    EVH_OP_SEND = 1, /* payload: body */
    EVH_OP_SEND_H,   /* u32 length of the header block, header block, body */
    EVH_OP_SEND_REF, /* u64 address, u64 length, u64 id, u32 target for write_ref (evnet.h), header block */
    EVH_OP_SEND_FILE, /* u64 offset, u64 count, i32 fd (handed over), header block */
    EVH_OP_DROP,     /* ends the connection without an answer */
    /* An answer in pieces: HEAD, any number of PIECEs, END. */
    EVH_OP_HEAD,      /* u64 length of the body or EVH_LENGTH_*, header block */
    EVH_OP_PIECE,     /* part of the body. arg: EVH_PIECE_* */
    EVH_OP_PIECE_REF, /* the same, from where it lies: u64 address, u64 length, u64 id, u32 target for write_ref */
    EVH_OP_END,       /* trailer lines, for a chunked body */
    EVH_OP_INFO,      /* an informational answer before the final one; arg: 1xx; payload: header block */
    EVH_OP_WATCH,     /* u32 target, for the records of this exchange: see EVH_TELL_* */
    EVH_OP_BODY,      /* of a streamed request; arg: EVH_BODY_READ with the u32 target of its records, PAUSE, RESUME */
    EVH_OP_CLOSE,     /* ends the connection, after the answers that it waits for; any exchange of it, or its stream's token */
};
enum { EVH_BODY_READ = 1, EVH_BODY_PAUSE, EVH_BODY_RESUME };
/* b of a body's records: > 0, so many bytes at a in the arena; else the last one: the end; not to be had, because the client is
 * gone or the body has been read; refused (a: in the arena u32 status, u32 length, reason); being read by somebody else. */
enum { EVH_BODY_END = 0, EVH_BODY_LOST = -1, EVH_BODY_REFUSED = -2, EVH_BODY_TAKEN = -3 };
enum { EVH_TYPE_NONE, EVH_TYPE_TEXT, EVH_TYPE_BINARY };
enum { EVH_ANSWER_CLOSE = 1 << 12, EVH_ANSWER_HAS_DATE = 1 << 13 };
#define EVH_LENGTH_CHUNKED UINT64_MAX
#define EVH_LENGTH_UNTIL_CLOSE (UINT64_MAX - 1) /* for clients that know no chunks */
enum { EVH_PIECE_TELL = 1 }; /* a record TAKEN is wanted, once the client's socket has taken everything up to here */

/* b of the records of a watched exchange. The last one is DONE (everything is queued; the answer is out of Python's hands) or LOST (a:
 * cause, evnet.h), and nothing comes after it. EOF: the client will send no more; it may be gone. */
enum { EVH_TELL_TAKEN = 1, EVH_TELL_DONE = 2, EVH_TELL_LOST = 3, EVH_TELL_EOF = 4 };

#endif
