/* sendfile(2), whose three versions have one name, three signatures and their own lists of what they refuse.
 *
 * The functions send up to count (> 0) bytes of in_fd from offset on, leave in_fd's position alone, and return the bytes sent, 0
 * at the end of the file, or -errno. What was sent before an error is returned as a success; the error comes with the next call.
 * Any thread. */
#ifndef EV_SENDFILE_H
#define EV_SENDFILE_H

#include <stdint.h>

/* sendfile_linux.c, sendfile_bsd.c, sendfile_darwin.c: the kernel's. Else, in sendfile_copy.c, one that returns -ENOSYS. */
int64_t ev__sendfile_kernel(int out_fd, int in_fd, int64_t offset, uint64_t count);

/* sendfile_copy.c: the same with pread(2) and write(2). Python may call it, so that it can be tested where the kernel refuses nothing. */
int64_t ev_sendfile_copy(int out_fd, int in_fd, int64_t offset, uint64_t count);

/* sendfile_copy.c: the kernel's, and the copy for descriptors of a kind that the kernel's does not take. */
int64_t ev_sendfile(int out_fd, int in_fd, int64_t offset, uint64_t count);

#endif
