/* evloop's C interface, for packages that put native code inside the turn of the loop.
 *
 * Everything here runs on the loop's own thread, inside ev_turn(), with the GIL released: no function may touch a Python
 * object. What Python must hear of is emitted as a record; what Python wants done arrives as an operation of a module.
 *
 * A package obtains the table `struct ev_capi` once, at import, as an address through Python, and checks it with
 * EV_CAPI_COMPATIBLE. The major number changes when a member changes its meaning or its place, the minor one when members
 * are added at the end.
 *
 * Ownership: watchers, timers and tasks are embedded in the structures of their users, who allocate them, keep them alive
 * while they are active, and free them from a task given to `reap`, never from inside a callback.
 */
#ifndef EVLOOP_H
#define EVLOOP_H

#include <stddef.h>
#include <stdint.h>

#define EV_CAPI_MAJOR 1
#define EV_CAPI_MINOR 2
#define EV_CAPI_COMPATIBLE(api) ((api)->major == EV_CAPI_MAJOR && (api)->minor + 1 > EV_CAPI_MINOR)

typedef struct ev_loop ev_loop;

/* Readiness. EV_EOF says that the peer will send no more: read until 0 even after a short read. */
enum { EV_READ = 1, EV_WRITE = 2, EV_EOF = 4, EV_EDGE = 8 };

/* A token names a slot and its generation in 48 bits: slot | generation << 24. It is never 0, and once its slot is released
 * it finds nothing, for as long as the loop lives (a slot whose generations are used up is retired). */
typedef uint64_t ev_token;
#define EV_TOKEN_BITS 48
#define EV_TOKEN_MASK ((UINT64_C(1) << EV_TOKEN_BITS) - 1)

struct ev_watcher;
typedef void (*ev_watch_fn)(ev_loop *, struct ev_watcher *, unsigned ready);
struct ev_watcher {
    ev_watch_fn fn; /* also tells what kind of structure the watcher is embedded in */
    ev_token token; /* 0 while detached */
    int fd;         /* borrowed: the user closes it, after detach */
    unsigned events; /* 0 while not watched */
};

struct ev_timer;
typedef void (*ev_timer_fn)(ev_loop *, struct ev_timer *);
struct ev_timer {
    struct ev_timer *next, *prev; /* both NULL while not pending */
    uint64_t due;                 /* tick, in ms on the loop's clock */
    ev_timer_fn fn;
};

struct ev_task;
typedef void (*ev_task_fn)(ev_loop *, struct ev_task *);
struct ev_task {
    struct ev_task *next;
    ev_task_fn fn;
    int queued; /* queueing a queued task does nothing */
};

/* What Python submitted, for one module. `payload` is valid during the call and not aligned; unknown or stale ids are ignored. */
struct ev_module;
typedef void (*ev_op_fn)(ev_loop *, struct ev_module *, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len);
struct ev_module {
    ev_op_fn op;
    void (*close)(ev_loop *, struct ev_module *); /* the loop is closing: release everything, then the module itself */
};
enum { EV_MODULE_LOOP, EV_MODULE_NET, EV_MODULE_HTTP, EV_MODULE_WS, EV_MODULE_USER, EV_MODULES = 8 };

/* The 16 bytes before each payload in the submission ring, little-endian: payload length, op | module << 8, arg, id. */
#define EV_SUBMISSION_HEADER 16

struct ev_capi {
    uint32_t major, minor;
    const char *version; /* of the evloop distribution */

    /* Modules. module_set returns 0 or -EEXIST. */
    int (*module_set)(ev_loop *, unsigned id, struct ev_module *);
    struct ev_module *(*module_get)(ev_loop *, unsigned id);

    /* Watchers. attach gives the watcher a slot and a token, watch starts or changes what is waited for, detach ends both; each
     * returns 0 or -errno. find returns NULL for a stale token. With EV_EDGE the user calls rearm once it has seen EAGAIN or a
     * short count; that costs nothing where the kernel is edge-triggered. detach may be called from any callback, and twice;
     * after it fn is not called again and the token finds nothing, and the slot is used again only after Python has seen the
     * batch. `closing` says that the fd is closed right afterwards, which spares a system call; nobody else may then hold the
     * description. */
    int (*attach)(ev_loop *, struct ev_watcher *, int fd, ev_watch_fn);
    int (*watch)(ev_loop *, struct ev_watcher *, unsigned events);
    void (*rearm)(ev_loop *, struct ev_watcher *, unsigned events);
    void (*detach)(ev_loop *, struct ev_watcher *, int closing);
    struct ev_watcher *(*find)(ev_loop *, ev_token);

    /* Timers, 1 ms ticks on now_ms. timer_start moves a pending timer. Never early; equal deadlines in order of insertion. */
    uint64_t (*now_ms)(ev_loop *);
    void (*timer_start)(ev_loop *, struct ev_timer *, uint64_t delay_ms, ev_timer_fn);
    void (*timer_stop)(ev_loop *, struct ev_timer *);

    /* Tasks. soon: after the operations or events now being executed (write queues are flushed there). next_turn: after the
     * submissions of the next turn, which will not sleep. reap: when Python has seen this batch and the tasks of
     * next_turn have run. */
    void (*soon)(ev_loop *, struct ev_task *, ev_task_fn);
    void (*next_turn)(ev_loop *, struct ev_task *, ev_task_fn);
    void (*reap)(ev_loop *, struct ev_task *, ev_task_fn);

    /* Completions. emit appends one record, (target, a, b, token), for the receiver that Python has registered as `target`; the
     * token comes back as the id of what Python submits in answer to it. arena_put reserves len bytes, 8-aligned, and
     * returns them with their offset; the pointer is valid until the next arena_put. Both abort the process when the machine
     * has no memory at all, because an event that is lost would leave Python waiting for ever. arena_full says that reading
     * should wait for the next turn. */
    void (*emit)(ev_loop *, uint32_t target, int64_t a, int64_t b, uint64_t token);
    uint8_t *(*arena_put)(ev_loop *, size_t len, int64_t *offset);
    int (*arena_full)(ev_loop *);

    /* 64 KiB for whoever reads: what lies there is valid until the next watcher, timer or task is called. */
    uint8_t *(*scratch)(ev_loop *);

    /* Buffers of EV_BUFFER_SIZE bytes from the loop's pool, which keeps a bounded number of them. get returns NULL when memory is
     * short; whoever got one puts it back to the same loop. */
    void *(*buffer_get)(ev_loop *);
    void (*buffer_put)(ev_loop *, void *);

    /* Since 1.1. To read to where Python finds it: reserve returns room for `most` bytes at the end of the arena, 8-aligned, and commit
     * takes the first len of them, if nothing was put or reserved in between. What lies there is not in the `bytes` that Python makes
     * of the arena at the beginning of a batch: it takes each from the arena itself. */
    uint8_t *(*arena_reserve)(ev_loop *, size_t most, int64_t *offset);
    void (*arena_commit)(ev_loop *, int64_t offset, size_t len);

    /* Since 1.2. batch_end: when everything of this turn, or of a flush, has happened. Who makes one record of all that he has to say
     * emits it there, behind the others. */
    void (*batch_end)(ev_loop *, struct ev_task *, ev_task_fn);
};
#define EV_SCRATCH_SIZE 65536
#define EV_BUFFER_SIZE 4096

#endif
