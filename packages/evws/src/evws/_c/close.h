/* The payload of a Close frame: RFC 6455 §5.5.1 and §7.4. */
#ifndef EVW_CLOSE_H
#define EVW_CLOSE_H

#include "frame.h"

enum {
    EVW_NORMAL = 1000,
    EVW_GOING_AWAY = 1001,
    EVW_PROTOCOL_ERROR = 1002,
    EVW_NO_CODE = 1005,  /* never in a frame: the Close had none */
    EVW_ABNORMAL = 1006, /* never in a frame: there was no Close */
    EVW_INVALID_DATA = 1007,
    EVW_POLICY = 1008,
    EVW_TOO_BIG = 1009,
    EVW_INTERNAL_ERROR = 1011,
};

/* Whether a code may stand in a Close frame. §7.4.2: below 1000 there are none; to 2999 those that the protocol or its registry at IANA
 * defines, without 1004 to 1006 and 1015; 3000 to 3999 are registered by libraries and 4000 to 4999 free for private use. */
int evw_close_code_ok(unsigned code);

/* Reads a Close's payload: *code is EVW_NO_CODE where there is none; the reason is what follows the first two bytes. EVW_DONE, or EVW_BAD with
 * the parser's code and reason set. */
int evw_close_read(struct evw_frames *, const uint8_t *payload, size_t len, uint16_t *code);

#endif
