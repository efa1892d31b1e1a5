/* What Python may call: only to set things up. What happens to a connection travels through the loop's rings. */
#ifndef EVNET_SHIM_H
#define EVNET_SHIM_H

#include "evnet.h"

/* Takes evloop's table; 0, or EV_LINK_MISMATCH. */
uint64_t evnet_link(uint64_t evloop_capi);
const struct net_capi *evnet_capi(void);

/* Streams accepted on fd (borrowed, listening, non-blocking) are announced as targets[target]((target, token, arena offset of a struct
 * net_address, fd)). 0 or -errno. */
int evnet_listen(uint64_t loop, int fd, uint32_t target, uint32_t idle_timeout_ms, net_listener **out);
void evnet_unlisten(net_listener *);

/* Records of a stream: targets[target]((target, kind, b, c)). DATA: arena offset, length. CLOSED: cause (evnet.h). PAUSE: bytes queued. */
enum { EVNET_DATA, EVNET_EOF, EVNET_CLOSED, EVNET_PAUSE_WRITING, EVNET_RESUME_WRITING };

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
