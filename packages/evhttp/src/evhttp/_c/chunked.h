/* Decoder of the chunked transfer coding (RFC 9112 7.1): incremental and strict. Its input is not presented twice. */
#ifndef EVH_CHUNKED_H
#define EVH_CHUNKED_H

#include <stddef.h>
#include <stdint.h>

#include "parser.h"

struct evh_chunked {
    uint8_t state;    /* enum in chunked.c */
    uint8_t name_len; /* of the trailer name so far, at most sizeof name */
    uint8_t name[18]; /* in lower case: just long enough to tell the names that a trailer must not have */
    uint16_t status;  /* with EVH_BAD: 400, 413 or 431 */
    uint32_t line;    /* bytes of the current chunk line */
    uint32_t trailer; /* bytes of the trailer section */
    uint64_t left;    /* bytes to come of the current chunk */
    uint64_t total;   /* decoded bytes, those to come of the current chunk included */
    const char *reason;
    /* Of the last input: where the bytes of trailer lines lie, CRLFs included, without the empty line at the end. */
    size_t trailer_off, trailer_run;
};

void evh_chunked_init(struct evh_chunked *ck);

/* Consumes from in[0 .. len). *used: bytes consumed. One run of data at most is reported, in[*data_off .. *data_off + *data_len),
 * which the caller copies before it feeds again; *data_len is 0 when there is none. While it returns EVH_MORE and *used < len,
 * call again with the rest. After EVH_DONE the bytes from *used on belong to the next message. Trailers are checked like header
 * fields, and left to the caller, who must not merge them (RFC 9110 6.5.1). */
int evh_chunked_feed(struct evh_chunked *ck, const struct evh_limits *limits, const uint8_t *in, size_t len, size_t *used,
                     size_t *data_off, size_t *data_len);

#endif
