#ifndef __linux__

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void woken(ev_loop *loop, struct ev_watcher *w, unsigned ready) {
    char bytes[64];
    ssize_t n;
    (void)ready;
    loop->stats.wakeups++;
    do
        n = read(w->fd, bytes, sizeof bytes);
    while (n == (ssize_t)sizeof bytes || (n < 0 && errno == EINTR));
    ev__rearm(loop, w, EV_READ);
}

int ev__waker_open(ev_loop *loop) {
    int fds[2];
    if (pipe(fds) < 0)
        return -errno;
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
    loop->waker.read_fd = fds[0];
    loop->waker.write_fd = fds[1];
    int rc = ev__attach(loop, &loop->waker.w, fds[0], woken);
    if (rc == 0)
        rc = ev__watch(loop, &loop->waker.w, EV_READ | EV_EDGE);
    if (rc < 0) {
        close(fds[0]);
        close(fds[1]);
    }
    return rc;
}

void ev__waker_close(ev_loop *loop) {
    ev__detach(loop, &loop->waker.w, 1);
    close(loop->waker.read_fd);
    close(loop->waker.write_fd);
}

/* A full pipe means that a wake-up is on its way already. */
void ev__waker_wake(struct ev_waker *waker) {
    while (write(waker->write_fd, "", 1) < 0 && errno == EINTR) {
    }
}

#endif
