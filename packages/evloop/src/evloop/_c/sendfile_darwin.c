#ifdef __APPLE__

#include "sendfile.h"

#include <errno.h>
#include <stddef.h>
#include <sys/types.h>

#include <sys/socket.h>
#include <sys/uio.h>

int64_t ev__sendfile_kernel(int out_fd, int in_fd, int64_t offset, uint64_t count) {
    off_t length = count > INT64_MAX ? INT64_MAX : (off_t)count; /* in: what to send, 0 for all; out: what was sent, errors or not */
    if (sendfile(in_fd, out_fd, (off_t)offset, &length, NULL, 0) == 0)
        return length;
    int error = errno;
    /* Only these two leave a count that means something. */
    return (error == EAGAIN || error == EINTR) && length > 0 ? length : -error;
}

#endif
