/* What Python may call. The only function on the hot path is ev_turn. Every function but ev_wake belongs to the loop's thread. */
#ifndef EV_SHIM_H
#define EV_SHIM_H

#include "evloop.h"
#include "fswatch.h"
#include "sendfile.h"

/* Opens a loop; `backend` is a name or NULL for the best. Returns 0 or -errno (-ENOSYS: no such backend). */
int ev_loop_open(const char *backend, ev_loop **out);
void ev_loop_close(ev_loop *);
const char *ev_loop_backend(const ev_loop *);
/* In a forked child, for each loop that is not being closed: it touches nothing of the kernel's any more that it shares with the parent. */
void ev_loop_forked(ev_loop *);
/* The name of backend i, best first, or NULL. */
const char *ev_backend_name(unsigned i);

/* One turn: executes the submissions, waits at most timeout_ns (-1: for ever) unless records are waiting already, lets native
 * protocols read and parse, expires timers. Returns records | arena bytes << 24, or 0 for no record, with two
 * flags: bit 63 says that ev_records and ev_arena and their capacities are to be read anew, bit 62 that Python took more than half
 * a millisecond for the last batch. A signal ends the wait early. */
uint64_t ev_turn(ev_loop *, const char *submissions, size_t len, int64_t timeout_ns);
/* Executes submissions and flushes write queues, without reading anything. */
int ev_flush(ev_loop *, const char *submissions, size_t len);
void *ev_records(ev_loop *);
size_t ev_record_capacity(const ev_loop *);
void *ev_arena(ev_loop *);
size_t ev_arena_capacity(const ev_loop *);

/* The backend's own descriptor, readable when a turn would not wait for an event; -1 where there is none. */
int ev_loop_fd(const ev_loop *);
/* When a turn has something to do without an event, in ns on the loop's clock: the next timer, or 0 when work was left over by the
 * last turn, which the descriptor does not tell of; -1 when there is nothing. */
int64_t ev_next_timer_ns(ev_loop *);
/* Tests: sets the time; from then on turns do not sleep, and the system's clock is not read for timers. 0 goes back to it. */
void ev_set_clock(ev_loop *, uint64_t now_ns);

/* Tests, with the backend "scripted": makes fd ready for `ready` at the next turn. -ENOENT when it is not watched. */
int ev_script(ev_loop *, int fd, unsigned ready);

struct ev_stats { /* counted since the loop was opened, but for the second half, which is the present state */
    uint64_t turns, events, timers, wakeups;
    uint64_t poll_ns, python_ns, longest_batch_ns;
    uint64_t pool_hits, pool_misses;
    uint64_t timers_pending, fetch_capacity, buffers_spare, arena_capacity;
};
void ev_read_stats(const ev_loop *, struct ev_stats *out);

/* Any thread: makes a turn that waits, or the next one that would, return. */
void ev_wake(ev_loop *);

/* Watches fd for Python. When the targets of both directions are the same there is a record for each event, and its a = what it is
 * ready for; else the turn has one record for all that are ready, see EV_TARGET_READY. The watcher is freed by ev_fd_unwatch, which may be called once. */
struct ev_pywatcher;
int ev_fd_watch(ev_loop *, int fd, unsigned events, uint32_t read_target, uint32_t write_target, struct ev_pywatcher **out);
int ev_fd_modify(ev_loop *, struct ev_pywatcher *, unsigned events);
void ev_fd_rearm(ev_loop *, struct ev_pywatcher *, unsigned events);
void ev_fd_unwatch(ev_loop *, struct ev_pywatcher *);

/* Operations of EV_MODULE_LOOP, each for any number of timers; numbers are in the machine's own order. The payload of a start
 * are the deadlines in seconds, a double each, and after them the indexes of the timers, 32 bits each; that of a stop are indexes. */
enum { EV_OP_TIMERS_START = 1, EV_OP_TIMERS_STOP = 2 };
/* Records of expired timers: b = how many; a = the index of the only one, or where in the arena their indexes lie, 32 bits each.
 * Records of readers and writers that are ready are the same with the targets that ev_fd_watch was given. */
enum { EV_TARGET_TIMER = 1, EV_TARGET_READY = 2 };

const struct ev_capi *ev_capi(void);

/* A timer wheel without a loop; times are ticks. Indexes are small numbers that the caller hands out. */
struct ev_pywheel;
struct ev_pywheel *ev_pywheel_new(uint64_t now); /* NULL when memory is short */
void ev_pywheel_free(struct ev_pywheel *);
int ev_pywheel_insert(struct ev_pywheel *, uint32_t index, uint64_t due); /* moves a pending one; 0 or -ENOMEM */
void ev_pywheel_cancel(struct ev_pywheel *, uint32_t index);
/* Goes on to the next tick at which timers fire, at most to `now`. Returns how many fired, their indexes in *fired until the next
 * call; 0 when `now` is reached. */
size_t ev_pywheel_step(struct ev_pywheel *, uint64_t now, const uint32_t **fired);
uint64_t ev_pywheel_next(const struct ev_pywheel *); /* UINT64_MAX when there is none */
uint64_t ev_pywheel_now(const struct ev_pywheel *);
uint64_t ev_pywheel_count(const struct ev_pywheel *);
int ev_pywheel_check(const struct ev_pywheel *); /* 0, or the number of the rule broken: see wheel.c */

#endif
