#include "backend.h"

extern const struct ev_backend ev__backend_poll;
#ifdef EV_HAVE_KQUEUE
extern const struct ev_backend ev__backend_kqueue;
#endif
#ifdef __linux__
extern const struct ev_backend ev__backend_epoll;
#endif

const struct ev_backend *const ev__backends[] = {
#ifdef __linux__
    &ev__backend_epoll,
#endif
#ifdef EV_HAVE_KQUEUE
    &ev__backend_kqueue,
#endif
    &ev__backend_poll,
    NULL,
};
