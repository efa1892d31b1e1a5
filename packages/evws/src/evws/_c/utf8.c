#include "utf8.h"

#include "kernels.h"

/* The automaton of RFC 3629 §4. What a state waits for:
 *   START        the first byte of a character
 *   ONE to THREE that many more bytes, 80..BF each
 *   AFTER_E0     A0..BF (else it would be overlong), then one more          AFTER_ED   80..9F (else a surrogate), then one more
 *   AFTER_F0     90..BF (else it would be overlong), then two more          AFTER_F4   80..8F (else above U+10FFFF), then two more
 *   BAD          nothing: it is left no more
 *
 * A state is the place, in bits, where each row of the table keeps its successor. So a step is one shift, with no branch:
 * state = row[byte] >> state. */
enum { START = EVW_UTF8_START, BAD = 6, ONE = 12, TWO = 18, THREE = 24, AFTER_E0 = 30, AFTER_ED = 36, AFTER_F0 = 42, AFTER_F4 = 48 };

#define ROW(start, one, two, three, e0, ed, f0, f4)                                                                                  \
    ((uint64_t)(start) << START | (uint64_t)BAD << BAD | (uint64_t)(one) << ONE | (uint64_t)(two) << TWO | (uint64_t)(three) << THREE | \
     (uint64_t)(e0) << AFTER_E0 | (uint64_t)(ed) << AFTER_ED | (uint64_t)(f0) << AFTER_F0 | (uint64_t)(f4) << AFTER_F4)
#define FIRST(next) ROW(next, BAD, BAD, BAD, BAD, BAD, BAD, BAD)
#define ASCII FIRST(START)
#define CONT_8 ROW(BAD, START, ONE, TWO, BAD, ONE, BAD, TWO)
#define CONT_9 ROW(BAD, START, ONE, TWO, BAD, ONE, TWO, BAD)
#define CONT_AB ROW(BAD, START, ONE, TWO, ONE, BAD, TWO, BAD)
#define NEVER FIRST(BAD)

#define X4(row) row, row, row, row
#define X16(row) X4(row), X4(row), X4(row), X4(row)

static const uint64_t rows[256] = {
    X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), /* 00..7F */
    X16(CONT_8), X16(CONT_9), X16(CONT_AB), X16(CONT_AB),                                           /* 80..BF */
    NEVER, NEVER, FIRST(ONE), FIRST(ONE), X4(FIRST(ONE)), X4(FIRST(ONE)), X4(FIRST(ONE)),           /* C0..CF */
    X16(FIRST(ONE)),                                                                                /* D0..DF */
    FIRST(AFTER_E0), FIRST(TWO), FIRST(TWO), FIRST(TWO), X4(FIRST(TWO)), X4(FIRST(TWO)),            /* E0..EB */
    FIRST(TWO), FIRST(AFTER_ED), FIRST(TWO), FIRST(TWO),                                            /* EC..EF */
    FIRST(AFTER_F0), FIRST(THREE), FIRST(THREE), FIRST(THREE), FIRST(AFTER_F4), NEVER, NEVER, NEVER, /* F0..F7 */
    X4(NEVER), X4(NEVER),                                                                           /* F8..FF */
};

enum { STRIDE = 16 }; /* bytes between two looks at the state */

int evw_utf8_feed(uint8_t *state, const uint8_t *p, size_t len) {
    const uint8_t *end = p + len;
    uint64_t s = *state;
    while (p < end) {
        if (s == START)
            p += evw_kernels->ascii(p, (size_t)(end - p));
        const uint8_t *stop = end - p > STRIDE ? p + STRIDE : end;
        while (p < stop)
            s = rows[*p++] >> (s & 63);
        s &= 63;
        if (s == BAD)
            break;
    }
    *state = (uint8_t)s;
    return s != BAD;
}
