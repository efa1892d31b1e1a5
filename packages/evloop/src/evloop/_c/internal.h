/* The loop as its own files see it. Who owns what: the loop owns its backend state, tables and buffers; watchers, timers, tasks
 * and modules belong to their users (evloop.h). */
#ifndef EV_INTERNAL_H
#define EV_INTERNAL_H

#include "backend.h"
#include "evloop.h"
#include "shim.h"
#include "wheel.h"

#include <stdint.h>

/* One completion. Python reads it as a tuple (target, a, b, token), the token as 8 bytes, since all that it does with a token is to
 * send it back, and calls targets[target] with the tuple. */
struct ev_record {
    int64_t target, a, b;
    uint64_t token;
};
_Static_assert(sizeof(struct ev_record) == 32, "Python knows this layout");

struct ev_slot {
    struct ev_watcher *owner; /* NULL while free */
    uint32_t generation;
    uint32_t next; /* in the free list or the list of slots released during this batch */
};

struct ev_task_list {
    struct ev_task *head, **tail;
};

/* What Python asked for and is told of by record: a descriptor watched, a timer. Kept in tables indexed by small integers that
 * Python hands out, in blocks that never move, because watchers and timers are linked by address. */
struct ev_pywatcher {
    struct ev_watcher w;
    uint32_t read_target, write_target; /* the same, or one each */
};

struct ev_pytimer {
    struct ev_timer t;
    uint32_t index;
};

/* Timers by index, in blocks that never move, because they are linked by address. */
struct ev_timer_table {
    struct ev_pytimer **blocks;
    size_t count;
    uint32_t *fired; /* indexes, those of one advance */
    size_t fired_count, fired_capacity;
};
enum { EV_TIMER_BLOCK = 512 };

/* Buffers of EV_BUFFER_SIZE, the last returned first: it is in the cache. */
struct ev_pool {
    void *spare; /* linked through their first bytes */
    unsigned spare_count;
};
enum { EV_POOL_MOST = 256 };

/* A turn first reads from all its sockets and then writes to all: with 1,000 busy connections on a core with 1 MiB of L2, 64 events a
 * turn answer 20% more HTTP requests/s than 1,024, because a socket is still in the cache when its answer is sent; with 64
 * connections there is no difference. */
enum { EV_TURN_EVENTS = 64 };

struct ev_waker {
    struct ev_watcher w;
    int read_fd, write_fd; /* the same descriptor for an eventfd */
};

struct ev_loop {
    const struct ev_backend *backend;
    void *backend_state;

    struct ev_record *records;
    size_t record_count, record_capacity;
    size_t records_taken; /* by Python, at the end of the last turn */
    uint8_t *arena;
    size_t arena_used, arena_capacity;
    size_t arena_shown; /* so much of it Python takes as one object */
    uint8_t moved; /* the records or the arena, since the end of the last turn */

    struct ev_slot *slots;
    uint32_t slot_count, slot_capacity, slot_free, slot_limbo;

    uint64_t now_ms;
    uint64_t returned_ns; /* when the last turn gave its batch to Python, or 0 when that was empty */
    struct ev_wheel wheel;
    struct ev_task_list soon, next_turn, batch_end, reap;
    struct ev_waker waker;
    struct ev_module *modules[EV_MODULES];

    struct ev_timer_table timers;
    struct ev_pool pool;
    struct ev_stats stats;
    uint64_t manual_ns; /* the time, for tests that set it; 0 means the system's clock */

    /* Events are fetched many at a time and handled EV_TURN_EVENTS a turn. */
    struct ev_ready *ready;
    int ready_capacity, ready_at, ready_count, quiet_fetches;
    /* Targets of the readers and writers of Python that are ready in this turn, at most two for an event. */
    uint32_t callable[2 * EV_TURN_EVENTS];
    size_t callable_count;
    uint8_t scratch[EV_SCRATCH_SIZE];
};

/* slots.c */
#define EV_NO_SLOT UINT32_MAX
ev_token ev__slot_new(ev_loop *, struct ev_watcher *owner); /* 0 when memory is short */
struct ev_watcher *ev__slot_get(ev_loop *, ev_token);
void ev__slot_release(ev_loop *, ev_token);
void ev__slots_settle(ev_loop *); /* what was released before this batch may be used again */

/* rings.c */
void ev__emit(ev_loop *, uint32_t target, int64_t a, int64_t b, uint64_t token);
/* One record for many numbers: b = how many; a = the only one, or where in the arena they lie. A record each would cost Python as
 * much again as what it calls for them. */
void ev__emit_many(ev_loop *, uint32_t target, const uint32_t *numbers, size_t count);
uint8_t *ev__arena_put(ev_loop *, size_t len, int64_t *offset);
uint8_t *ev__arena_reserve(ev_loop *, size_t most, int64_t *offset);
void ev__arena_commit(ev_loop *, int64_t offset, size_t len);
int ev__arena_full(ev_loop *);
void ev__rings_reset(ev_loop *);
void ev__submit(ev_loop *, const uint8_t *submissions, size_t len);

/* watch.c */
int ev__attach(ev_loop *, struct ev_watcher *, int fd, ev_watch_fn);
int ev__watch(ev_loop *, struct ev_watcher *, unsigned events);
void ev__rearm(ev_loop *, struct ev_watcher *, unsigned events);
void ev__detach(ev_loop *, struct ev_watcher *, int closing);

/* tasks.c */
void ev__tasks_init(struct ev_task_list *);
void ev__tasks_add(struct ev_task_list *, struct ev_task *, ev_task_fn);
void ev__tasks_run(struct ev_task_list *, ev_loop *);
void ev__tasks_take(struct ev_task_list *into, struct ev_task_list *from); /* `into` is not initialised, `from` is empty then */

/* timers.c: the timers of Python */
void ev__timers_op(ev_loop *, unsigned op, const uint8_t *payload, size_t len);
struct ev_pytimer *ev__timer_find(struct ev_timer_table *, uint64_t index); /* NULL when it was never made */
struct ev_pytimer *ev__timer_make(struct ev_timer_table *, uint64_t index); /* NULL when memory is short */
uint64_t ev__timer_tick(double seconds);                                     /* rounded up: never early */
void ev__timer_fired(struct ev_timer_table *, struct ev_timer *); /* notes its index in `fired` */
void ev__timers_tell(ev_loop *);                                  /* makes one record of what is noted */
void ev__timers_free(struct ev_timer_table *);

/* pool.c */
void *ev__buffer_get(ev_loop *); /* NULL when memory is short */
void ev__buffer_put(ev_loop *, void *);
void ev__pool_free(ev_loop *);

/* fetch.c: events from the backend */
int ev__fetch(ev_loop *, int timeout_ms); /* events waiting to be handled, or -errno */

/* waker_eventfd.c, waker_pipe.c */
int ev__waker_open(ev_loop *);
void ev__waker_close(ev_loop *);
void ev__waker_wake(struct ev_waker *); /* any thread */

/* clock.c */
uint64_t ev__clock_ns(void);
uint64_t ev__now_ns(const ev_loop *); /* the same, or what a test has set */

#endif
