#if defined(__FreeBSD__) || defined(__DragonFly__)

#include "sendfile.h"

#include <errno.h>
#include <stddef.h>
#include <sys/types.h>

#include <sys/socket.h>
#include <sys/uio.h>

int64_t ev__sendfile_kernel(int out_fd, int in_fd, int64_t offset, uint64_t count) {
    off_t sent = 0;
    /* An error may come with bytes sent before it: EAGAIN of a full socket buffer, EINTR. A count of 0 would mean all. */
    if (sendfile(in_fd, out_fd, (off_t)offset, count > SIZE_MAX ? SIZE_MAX : (size_t)count, NULL, &sent, 0) < 0 && sent == 0)
        return -errno;
    return sent;
}

#endif
