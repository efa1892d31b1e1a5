/* The codec for Python, without connections and what they stand on: the tests and the fuzz target compile it alone. */
#ifndef EVW_FEEDER_H
#define EVW_FEEDER_H

#include <stddef.h>
#include <stdint.h>

enum { EVW_VIOLATION = 255 };

/* A whole frame, or, with this "opcode", what was wrong with the last one. Python knows this layout (_frames.py). */
struct evw_event {
    uint64_t offset, length; /* of the payload, or of the violation's text, in evws_feeder_bytes */
    uint8_t opcode, fin, rsv1, reserved;
    uint16_t code; /* of a Close or of the violation */
    uint16_t reserved2;
};

struct evw_feeder;
struct evw_feeder *evws_feeder_new(int masked, int compression, uint64_t max_frame, uint64_t max_message); /* NULL: no memory */
void evws_feeder_free(struct evw_feeder *);
/* Returns how many events there are, or -ENOMEM. They and their bytes are valid until the next call. */
int64_t evws_feeder_feed(struct evw_feeder *, const char *data, size_t len);
const struct evw_event *evws_feeder_events(const struct evw_feeder *);
const uint8_t *evws_feeder_bytes(const struct evw_feeder *);
int evws_feeder_ended(const struct evw_feeder *);

/* Writes a frame to `into`, which has room for it (14 bytes more than the payload); returns its length. `mask` is 4 bytes or NULL. */
size_t evws_frame(char *into, unsigned first, const char *payload, size_t len, const char *mask);
int evws_close_code_ok(unsigned code);
const char *evws_kernels_select(const char *name); /* see kernels.h */

#endif
