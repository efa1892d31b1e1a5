/* One message after the other out of a byte stream, requests or responses, each kept whole: head, body, trailers. No I/O.
 *
 * What a server does with bodies is its own matter (request.c); this is the parser as others use it: through Python (RequestParser,
 * ResponseParser), in tests, under a fuzzer. It owns its memory, which grows with what has come and not with what was announced.
 */
#ifndef EVH_READER_H
#define EVH_READER_H

#include <stddef.h>
#include <stdint.h>

#include "parser.h"

enum evh_phase {
    EVH_PHASE_IDLE,     /* nothing of the message has come */
    EVH_PHASE_HEAD,
    EVH_PHASE_BODY,
    EVH_PHASE_COMPLETE, /* further bytes wait in `rest` */
    EVH_PHASE_FAILED,   /* for good: nobody can say where the next message begins */
};

/* Whether a response has a body depends on what was asked (RFC 9112 6.3). */
enum evh_asked { EVH_ASKED_OTHER, EVH_ASKED_HEAD, EVH_ASKED_CONNECT };

/* The message under way. Pointers are good until the next call with the reader. */
struct evh_message {
    uint8_t phase;
    uint8_t method;     /* of a request: enum evh_method */
    uint8_t version;    /* 10 or 11; 0 while it is not known */
    uint8_t to_the_end; /* a response's body lasts until the connection ends */
    uint16_t status;    /* of a response; of a message that failed: what to answer */
    uint16_t flags;     /* enum evh_flags */
    const char *reason; /* of a message that failed: a static sentence */
    /* From the head's end on: */
    const uint8_t *method_text, *target, *phrase;
    size_t method_len, target_len, path_at, path_len, phrase_len;
    uint64_t content_length; /* 0 without EVH_HAS_LENGTH */
    const uint8_t *body;     /* as far as it has come and was not taken */
    size_t body_len;
    const uint8_t *trailers; /* their lines, each with its CRLF */
    size_t trailers_len;
    const uint8_t *rest; /* what came behind the message; before its end nothing */
    size_t rest_len;
    /* After evh_reader_export(): */
    const char *exported;
    int64_t info;      /* of a request: as in its record (layout.h) */
};

struct evh_reader;

/* NULL without memory. */
struct evh_reader *evh_reader_new(const struct evh_limits *limits, int is_response);
void evh_reader_free(struct evh_reader *r);
const struct evh_message *evh_reader_message(const struct evh_reader *r);

/* Copies the bytes and parses on. A complete message stays as it is, with the bytes in `rest`; a failed one too, without.
 * Returns the phase, or -ENOMEM, or -EPIPE behind evh_reader_eof(): then nothing has changed. */
int evh_reader_feed(struct evh_reader *r, const void *data, size_t len);
/* The stream has ended: completes a body that lasts until then, fails a message that is not complete. */
void evh_reader_eof(struct evh_reader *r);
/* Begins the next message with what is in `rest`, or another stream when the message was not complete. */
void evh_reader_reset(struct evh_reader *r, int asked); /* enum evh_asked */
/* Forgets the body as far as it has come, so that a body can be longer than memory; limits still count it. */
void evh_reader_drop_body(struct evh_reader *r);

/* Lays out a request whose head is complete as the server does (layout.h), with the body behind it. Returns its size, or
 * -ENOMEM; 0 without a head. */
int64_t evh_reader_export(struct evh_reader *r);

/* The field block (shim.h) of the head, or of the trailers; `into` is NULL or has room for what is returned. */
size_t evh_reader_fields(const struct evh_reader *r, int trailers, uint8_t *into);

#endif
