#include "sendfile.h"

#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

enum { CHUNK = 65536 };

int64_t ev_sendfile_copy(int out_fd, int in_fd, int64_t offset, uint64_t count) {
    uint8_t chunk[CHUNK];
    int64_t sent = 0;
    while (count > 0) {
        ssize_t got = pread(in_fd, chunk, count < CHUNK ? (size_t)count : CHUNK, (off_t)(offset + sent));
        if (got == 0)
            break;
        ssize_t written = got < 0 ? -1 : write(out_fd, chunk, (size_t)got);
        if (written < 0)
            return sent ? sent : -errno;
        sent += written;
        count -= (uint64_t)written;
        /* A short count: a non-blocking descriptor is full, or a signal has come that Python wants to hear of. */
        if (written < got)
            break;
    }
    return sent;
}

/* What the manual pages give as reasons why these two descriptors cannot be served, as opposed to why not now. */
static int refused(int64_t result) {
    return result == -EINVAL || result == -ENOSYS || result == -ENOTSOCK || result == -EOPNOTSUPP || result == -ENOTSUP;
}

int64_t ev_sendfile(int out_fd, int in_fd, int64_t offset, uint64_t count) {
    if (count == 0)
        return 0;
    int64_t sent = ev__sendfile_kernel(out_fd, in_fd, offset, count);
    return refused(sent) ? ev_sendfile_copy(out_fd, in_fd, offset, count) : sent;
}

#if !defined(__linux__) && !defined(__FreeBSD__) && !defined(__DragonFly__) && !defined(__APPLE__)
int64_t ev__sendfile_kernel(int out_fd, int in_fd, int64_t offset, uint64_t count) {
    (void)out_fd;
    (void)in_fd;
    (void)offset;
    (void)count;
    return -ENOSYS;
}
#endif
