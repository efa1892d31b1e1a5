/* Reading and writing what is no socket. Plain POSIX, so there is one file for all systems. */
#include "sys.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

int64_t net__pipe_read(int fd, void *into, size_t size) {
    ssize_t n = read(fd, into, size);
    if (n >= 0)
        return n;
    /* Linux says EIO at a pseudo-terminal that nobody has open on the other side any more; that is its end of file. */
    return errno == EIO && isatty(fd) ? 0 : -errno;
}

/* write(2) has no MSG_NOSIGNAL. Python ignores SIGPIPE, and then there is nothing to do; but a program may have restored the default,
 * so the signal is held back from this thread, where a write that fails raises it, and taken from what is pending. */
static ssize_t quietly(int fd, const struct iovec *iov, int count) {
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigemptyset(&pending);
    sigpending(&pending);
    int was_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t n = writev(fd, iov, count);
    int error = errno;
    if (n < 0 && error == EPIPE && !was_pending) {
        int number;
        sigpending(&pending);
        if (sigismember(&pending, SIGPIPE))
            sigwait(&pipe_signal, &number);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return n;
}

int64_t net__pipe_write(int fd, const struct iovec *iov, int count) {
    struct sigaction action;
    int ignored = sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
    ssize_t n = ignored ? writev(fd, iov, count) : quietly(fd, iov, count);
    return n < 0 ? -errno : n;
}

/* Through memory: sendfile(2) takes only sockets on some systems, and no terminals on any. */
int64_t net__pipe_sendfile(int out_fd, int in_fd, uint64_t offset, uint64_t count, uint8_t *scratch, size_t size) {
    ssize_t n = pread(in_fd, scratch, count < size ? (size_t)count : size, (off_t)offset);
    if (n <= 0)
        return n < 0 ? -errno : 0;
    struct iovec iov = {.iov_base = scratch, .iov_len = (size_t)n};
    return net__pipe_write(out_fd, &iov, 1);
}
