/* Frames of RFC 6455 §5: a parser that is fed pieces of any size, a writer of headers. No I/O, no clock, no memory of its own.
 *
 * The parser alternates between two calls. evw_header takes a frame's header, over as many pieces as it comes in; then evw_payload takes
 * the frame's `left` bytes of payload, over as many pieces, wherever the caller wants them. Every rule about a frame and about the order of
 * frames is checked here, at the first byte that breaks it; what the payload of a Close says is in close.h.
 */
#ifndef EVW_FRAME_H
#define EVW_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum evw_opcode { EVW_CONTINUATION = 0, EVW_TEXT = 1, EVW_BINARY = 2, EVW_CLOSE = 8, EVW_PING = 9, EVW_PONG = 10 };
enum { EVW_FIN = 0x80, EVW_RSV1 = 0x40 }; /* in the first byte, beside the opcode */

enum { EVW_HEADER_MOST = 14, EVW_CONTROL_MOST = 125, EVW_REASON_MOST = 123 };

/* What a peer may send. */
struct evw_rules {
    uint64_t max_frame;   /* bytes of payload of a data frame */
    uint64_t max_message; /* of all frames of a message together */
    uint8_t masked;       /* 1: frames must be masked, as a client's are; 0: they must not */
    uint8_t compression;  /* 1: RSV1 may be set on the first frame of a message (RFC 7692 §6) */
    uint64_t excess;      /* bytes by which a compressed message, or a frame of one, may be larger: what does not compress grows a little */
};

/* All zero at the beginning. */
struct evw_frames {
    uint64_t left;        /* payload of this frame that has not come */
    uint64_t message_len; /* payload announced so far of the message under way */
    const char *reason;   /* after EVW_BAD: what was wrong, at most EVW_REASON_MOST bytes */
    uint32_t key;         /* for the next byte of payload; 0 for an unmasked frame */
    uint16_t code;        /* and the close code for it, RFC 6455 §7.4.1 */
    uint8_t opcode, fin, rsv1;
    uint8_t kind;         /* the message's opcode, in continuations too; a control frame's own */
    uint8_t message;      /* EVW_TEXT or EVW_BINARY while further fragments must come, else 0 */
    uint8_t compressed;   /* the message is */
    uint8_t utf8;
    uint8_t header_len;
    uint8_t header[EVW_HEADER_MOST]; /* one that has not come whole */
};

enum { EVW_BAD = -1, EVW_MORE = 0, EVW_DONE = 1 };

/* Takes header bytes; *used says how many of `len`. EVW_DONE: opcode, fin, rsv1, kind and left are those of a new frame. EVW_MORE: it has
 * taken all. EVW_BAD: code and reason are set, and the parser must not be used again. */
int evw_header(struct evw_frames *, const struct evw_rules *, const uint8_t *data, size_t len, size_t *used);

/* Takes `len` <= left bytes of payload and puts them, unmasked, to dst, which is src or does not overlap it; with left == 0 it is called
 * once, too. Text that is not compressed is checked to be UTF-8. EVW_DONE: that was the frame. EVW_MORE and EVW_BAD as above. */
int evw_payload(struct evw_frames *, uint8_t *dst, const uint8_t *src, size_t len);

/* Records an error that the caller has found; returns EVW_BAD. */
int evw_bad(struct evw_frames *, uint16_t code, const char *reason);

static inline int evw_is_control(unsigned opcode) { return (opcode & 8) != 0; }

/* Writes a frame's header to `into`, which has room for EVW_HEADER_MOST bytes: `first` is opcode, EVW_FIN and EVW_RSV1; `key` the mask of a
 * client's frame or NULL. Returns its length. */
size_t evw_header_write(uint8_t *into, unsigned first, uint64_t len, const uint32_t *key);

#endif
