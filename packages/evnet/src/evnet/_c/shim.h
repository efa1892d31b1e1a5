/* What Python may call: only to set things up. What happens to a connection travels through the loop's rings. */
#ifndef EVNET_SHIM_H
#define EVNET_SHIM_H

#include "evnet.h"

/* Takes evloop's table; 0, or EV_LINK_MISMATCH. */
uint64_t evnet_link(uint64_t evloop_capi);
const struct net_capi *evnet_capi(void);

/* Streams accepted on fd (borrowed, listening, non-blocking) are announced to `target`: a = arena offset of its struct net_address, b =
 * descriptor. 0 or -errno. */
int evnet_listen(uint64_t loop, int fd, uint32_t target, uint32_t idle_timeout_ms, net_listener **out);
void evnet_unlisten(net_listener *);

/* Records of a stream. Received bytes: a = arena offset, b = length, which is greater than 0. Else b is one of these, and a the cause
 * (evnet.h) of CLOSED, or how many bytes are queued at PAUSE_WRITING. */
enum { EVNET_EOF = 0, EVNET_CLOSED = -1, EVNET_PAUSE_WRITING = -2, EVNET_RESUME_WRITING = -3 };

/* Operations of EV_MODULE_NET; id is the stream's token. The payload of ADOPT is the target, 4 bytes. */
enum {
    EVNET_OP_ADOPT = 1,
    EVNET_OP_WRITE,
    EVNET_OP_CLOSE,
    EVNET_OP_ABORT,
    EVNET_OP_FINISH,
    EVNET_OP_PAUSE,
    EVNET_OP_RESUME,
};

#endif
