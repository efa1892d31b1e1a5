/* What a loop has in a forked child. The kernel's side of the real backend is the parent's too: what the child took out of it would be
 * gone there. So nothing is put in or taken out any more, whoever asks, and nothing is waited for. */
#include "backend.h"

#include <errno.h>

static int forked_open(void **state) {
    (void)state;
    return -ENOSYS;
}

static void forked_close(void *state) { (void)state; }

static int forked_change(void *state, int fd, unsigned events, ev_token token) {
    (void)state;
    (void)fd;
    (void)events;
    (void)token;
    return -ENOSYS;
}

static int forked_remove(void *state, int fd) {
    (void)state;
    (void)fd;
    return 0;
}

static int forked_wait(void *state, struct ev_ready *out, int max, int timeout_ms) {
    (void)state;
    (void)out;
    (void)max;
    (void)timeout_ms;
    return 0;
}

const struct ev_backend ev__backend_forked = {
    .name = "forked",
    .open = forked_open,
    .close = forked_close,
    .add = forked_change,
    .modify = forked_change,
    .remove = forked_remove,
    .wait = forked_wait,
};
