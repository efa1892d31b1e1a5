#ifdef __linux__

#include "sendfile.h"

#include <errno.h>
#include <sys/sendfile.h>

int64_t ev__sendfile_kernel(int out_fd, int in_fd, int64_t offset, uint64_t count) {
    off_t at = (off_t)offset;
    /* The kernel sends 2 GiB - 4 KiB at most and says so by a short count. */
    ssize_t sent = sendfile(out_fd, in_fd, &at, count > SIZE_MAX ? SIZE_MAX : (size_t)count);
    return sent < 0 ? -errno : sent;
}

#endif
