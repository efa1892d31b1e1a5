#ifdef __linux__

#include "internal.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Edge-triggered: each write is a new edge, so the counter is never read on the way and waking costs one system call, not two.
 * Should it ever fill (2^64 - 2 wakes), a write fails with EAGAIN, and the descriptor is then readable anyway. */
static void woken(ev_loop *loop, struct ev_watcher *w, unsigned ready) {
    (void)ready;
    loop->stats.wakeups++;
    if (loop->backend->rearm) { /* emulated edges: empty it, or it stays readable */
        uint64_t count;
        if (read(w->fd, &count, sizeof count) < 0 && errno == EINTR)
            woken(loop, w, ready);
        ev__rearm(loop, w, EV_READ);
    }
}

int ev__waker_open(ev_loop *loop) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    loop->waker.read_fd = loop->waker.write_fd = fd;
    int rc = ev__attach(loop, &loop->waker.w, fd, woken);
    if (rc == 0)
        rc = ev__watch(loop, &loop->waker.w, EV_READ | EV_EDGE);
    if (rc < 0)
        close(fd);
    return rc;
}

void ev__waker_close(ev_loop *loop) {
    ev__detach(loop, &loop->waker.w, 1);
    close(loop->waker.read_fd);
}

void ev__waker_wake(struct ev_waker *waker) {
    uint64_t one = 1;
    while (write(waker->write_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

#endif
