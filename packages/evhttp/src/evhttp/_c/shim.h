/* What Python may call: to set things up and to end them. Requests and answers travel through the loop's rings.
 *
 * A request is a record for `target`: a = where it lies in the arena, b = info (request.c), token = the exchange, that is the
 * stream's token | the request's place in the connection << 48; it goes back with the answer. In the arena lie struct evh_head
 * (request.c), the request target, the method's text where it is none of ours, the field block, and the body. The field block is
 * "\n" name ":" value for each field, and a final "\n": names in lower case, OWS trimmed. Since no field can hold a line feed,
 * searching it for "\nname:" finds fields and nothing else.
 *
 * A request whose body is too large for the arena goes to large_target instead: the body lies at evh_head.large_body until the
 * batch has ended.
 *
 * Records for event_target: b = EVH_EVENT_EMPTY when a closed server has lost its last connection; else b is the status with
 * which a request was refused, and a the place of a struct evh_refused (conn.c) in the arena. */
#ifndef EVH_SHIM_H
#define EVH_SHIM_H

#include "evnet.h"
#include "parser.h"

struct evh_timeouts { /* ms; 0 means none */
    uint32_t head;    /* from the first byte of a request to the end of its head, and from the connection to that byte */
    uint32_t body;    /* for the whole body */
    uint32_t idle;    /* between two requests */
    uint32_t write;   /* without the client taking a byte */
};

struct evh_server;

/* Both C interfaces; 0 or EV_LINK_MISMATCH. */
uint64_t evhttp_link_loop(uint64_t evloop_capi);
uint64_t evhttp_link_net(uint64_t evnet_capi);

/* max_pipeline: requests of one connection that may wait for their answers, at most 64. 0 or -errno. The server lives until
 * evhttp_close and the end of its last connection. */
int evhttp_open(uint64_t loop, uint32_t target, uint32_t large_target, uint32_t event_target, const struct evh_limits *, const struct evh_timeouts *,
                uint32_t max_pipeline, struct evh_server **out);
/* fd: bound, listening, non-blocking, borrowed until evhttp_close. */
int evhttp_listen(struct evh_server *, int fd);
/* Stops listening, closes idle connections, and lets the others end with the answer under way. */
void evhttp_close(struct evh_server *);
/* Ends all connections at once; returns how many there were. */
unsigned evhttp_abort(struct evh_server *);
unsigned evhttp_connections(const struct evh_server *);

const char *evhttp_scan_select(const char *name);

enum { EVH_EVENT_EMPTY = 0 };

/* Operations of EV_MODULE_HTTP. id: the exchange. arg: status | content type << 10 | EVH_ANSWER_*. Header blocks are lines with
 * their CRLF, checked by Python. Content-Length, Date and Connection are written here. */
enum {
    EVH_OP_SEND = 1, /* payload: body */
    EVH_OP_SEND_H,   /* u32 length of the header block, header block, body */
    EVH_OP_SEND_REF, /* u64 address, u64 length, u64 id, u32 target for write_ref (evnet.h), header block */
    EVH_OP_SEND_FILE, /* u64 offset, u64 count, i32 fd (handed over), header block */
    EVH_OP_DROP,     /* ends the connection without an answer */
};
enum { EVH_TYPE_NONE, EVH_TYPE_TEXT, EVH_TYPE_BINARY };
enum { EVH_ANSWER_CLOSE = 1 << 12, EVH_ANSWER_HAS_DATE = 1 << 13 };

#endif
