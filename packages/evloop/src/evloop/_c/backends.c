#include "backend.h"

extern const struct ev_backend ev__backend_poll;
#ifdef __linux__
extern const struct ev_backend ev__backend_epoll;
#endif

const struct ev_backend *const ev__backends[] = {
#ifdef __linux__
    &ev__backend_epoll,
#endif
    &ev__backend_poll,
    NULL,
};
