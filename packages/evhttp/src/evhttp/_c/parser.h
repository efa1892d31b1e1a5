/* HTTP/1.1 request head parser (RFC 9110, RFC 9112): incremental, strict, no I/O, no allocation, no state but the struct.
 *
 * All positions are offsets from the first byte of the message, so the buffer may move between calls. The policy choices are
 * listed at the top of parser.c.
 */
#ifndef EVH_PARSER_H
#define EVH_PARSER_H

#include <stddef.h>
#include <stdint.h>

#define EVH_MAX_FIELDS 256 /* upper bound for evh_limits.max_headers; a greater limit counts as this one */

/* Every limit is an exact bound: n is served, n + 1 is refused, however the bytes were cut into packets. */
struct evh_limits {
    uint32_t max_request_line;   /* bytes without the CRLF and without blank lines before it: 414 */
    uint32_t max_header_section; /* bytes after the request line, final CRLF included: 431 */
    uint32_t max_headers;        /* field lines: 431 */
    uint64_t max_body;           /* Content-Length, or decoded chunked body: 413 */
    uint32_t max_chunk_ext;      /* bytes of one chunk line (size and extensions) without its CRLF: 400 */
    uint32_t max_trailers;       /* bytes of the trailer lines with their CRLFs, without the final CRLF; 0 refuses trailers: 431 */
    uint8_t any_method;          /* 0: a method in no table of ours is 501; 1: any token in capitals reaches the handler */
};

/* One field line. OWS around the value is not counted. */
struct evh_field {
    uint32_t name, name_len, value, value_len;
};

enum evh_result {
    EVH_MORE = 0, /* needs more bytes */
    EVH_DONE = 1, /* the head is complete */
    EVH_BAD = -1, /* status and reason are set; the connection has to be closed after the answer */
};

enum evh_method {
    EVH_GET,
    EVH_HEAD,
    EVH_POST,
    EVH_PUT,
    EVH_DELETE,
    EVH_OPTIONS,
    EVH_PATCH,
    EVH_CONNECT,
    EVH_TRACE,
    EVH_OTHER, /* the text is at start, method_len long */
};

enum evh_flags {
    EVH_KEEP_ALIVE = 1,       /* the connection may serve another request; settled at EVH_DONE */
    EVH_CHUNKED = 2,          /* the body is chunked */
    EVH_HAS_LENGTH = 4,       /* a Content-Length was sent (it may be 0) */
    EVH_EXPECT_CONTINUE = 8,  /* HTTP/1.1, Expect: 100-continue, and a body that is not empty */
    EVH_UPGRADE = 16,         /* HTTP/1.1 with Connection: upgrade and an Upgrade field */
    EVH_HAS_HOST = 32,        /* a Host field was sent (it may be empty) */
    EVH_ABSOLUTE = 64,        /* absolute-form: host is the target's authority; path_len 0 means "/" */
    EVH_AUTHORITY_FORM = 128, /* CONNECT: no path */
    EVH_ASTERISK = 256,       /* OPTIONS *: the path is "*" */
};

struct evh_parser {
    /* resume state */
    uint32_t state;   /* enum in parser_run.h */
    uint32_t pos;     /* first byte not looked at yet */
    uint32_t line;    /* start of the HTTP version, then of the header section */
    uint16_t seen;    /* fields met so far, enum in fields.h */
    uint16_t nfields; /* also a result */
    /* results */
    uint32_t start;      /* bytes of blank lines skipped; the method starts here */
    uint32_t method_len;
    uint32_t target, target_len; /* of a response: the reason phrase */
    uint32_t path, path_len; /* path_len ends before '?'; the query, if any, is from path + path_len + 1 to the target's end */
    uint32_t host, host_len; /* "host[:port]" without userinfo: the Host field's value, or the authority of the target */
    uint32_t head_len;       /* from byte 0 to behind the final CRLFCRLF */
    uint16_t flags;          /* enum evh_flags */
    uint16_t status;         /* with EVH_BAD: 400, 404, 413, 414, 417, 421, 431, 501 or 505; of a response always 502 */
    uint16_t code;           /* of a response: its status code */
    uint8_t method;          /* enum evh_method */
    uint8_t version;         /* 10 or 11; 0 while it is not known */
    uint64_t content_length; /* 0 without EVH_HAS_LENGTH */
    const char *reason;      /* with EVH_BAD: a static sentence for the log */
    struct evh_field fields[EVH_MAX_FIELDS]; /* the last member, so that the hot part is small */
};

/* Makes the parser ready for a new message. Cheap: fields[] is left as it is. */
void evh_parser_init(struct evh_parser *ps);

/* Parses on. buf[0 .. len) is everything received of this message from its first byte on, and may go on with its body or with the
 * next request; nothing behind the head is looked at. After EVH_DONE or EVH_BAD a further call returns the same again. */
int evh_parser_feed(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *buf, size_t len);

/* The same for the head of a response (response.c). max_request_line is the status line's; of max_body nothing is refused here,
 * because it takes the request to know whether a body follows (RFC 9112 6.3). */
void evh_response_init(struct evh_parser *ps);
int evh_response_feed(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *buf, size_t len);

#endif
