#include "internal.h"
#include "shim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifndef EV_VERSION
#define EV_VERSION "unknown"
#endif

enum { FIRST_RECORDS = 1024, FIRST_ARENA = 256 * 1024 };

static void loop_op(ev_loop *loop, struct ev_module *m, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    (void)m;
    (void)arg;
    (void)id;
    ev__timers_op(loop, op, payload, len);
}

static struct ev_module loop_module = {.op = loop_op, .close = NULL};

static const struct ev_backend *choose(const char *name) {
    for (const struct ev_backend *const *b = ev__backends; *b; b++)
        if (!name || strcmp(name, (*b)->name) == 0)
            return *b;
    return strcmp(name ? name : "", ev__backend_scripted.name) == 0 ? &ev__backend_scripted : NULL;
}

const char *ev_backend_name(unsigned i) {
    for (unsigned n = 0; ev__backends[n]; n++)
        if (n == i)
            return ev__backends[n]->name;
    return NULL;
}

static void free_memory(ev_loop *loop) {
    free(loop->records);
    free(loop->arena);
    free(loop->slots);
    free(loop->ready);
    free(loop);
}

int ev_loop_open(const char *backend, ev_loop **out) {
    const struct ev_backend *chosen = choose(backend);
    if (!chosen)
        return -ENOSYS;
    ev_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return -ENOMEM;
    loop->backend = chosen;
    loop->slot_free = loop->slot_limbo = EV_NO_SLOT;
    loop->record_capacity = FIRST_RECORDS;
    loop->records = malloc(FIRST_RECORDS * sizeof *loop->records);
    loop->arena_capacity = FIRST_ARENA;
    loop->arena = malloc(FIRST_ARENA);
    loop->ready_capacity = EV_FETCH_LEAST;
    loop->ready = malloc(EV_FETCH_LEAST * sizeof *loop->ready);
    loop->modules[EV_MODULE_LOOP] = &loop_module;
    loop->now_ms = ev__clock_ns() / 1000000;
    ev__wheel_init(&loop->wheel, loop->now_ms);
    ev__tasks_init(&loop->soon);
    ev__tasks_init(&loop->next_turn);
    ev__tasks_init(&loop->batch_end);
    ev__tasks_init(&loop->reap);
    int rc = loop->records && loop->arena && loop->ready ? chosen->open(&loop->backend_state) : -ENOMEM;
    if (rc == 0) {
        rc = ev__waker_open(loop);
        if (rc < 0)
            chosen->close(loop->backend_state);
    }
    if (rc < 0) {
        free_memory(loop);
        return rc;
    }
    *out = loop;
    return 0;
}

void ev_loop_close(ev_loop *loop) {
    for (int i = 0; i < EV_MODULES; i++) /* lower layers first: ending their streams, they call the upper ones once more */
        if (loop->modules[i] && loop->modules[i]->close)
            loop->modules[i]->close(loop, loop->modules[i]);
    ev__tasks_run(&loop->reap, loop);
    ev__waker_close(loop);
    ev__timers_free(&loop->timers);
    ev__pool_free(loop);
    loop->backend->close(loop->backend_state);
    free_memory(loop);
}

void ev_loop_forked(ev_loop *loop) { loop->backend = &ev__backend_forked; }

const char *ev_loop_backend(const ev_loop *loop) { return loop->backend->name; }
void *ev_records(ev_loop *loop) { return loop->records; }
size_t ev_record_capacity(const ev_loop *loop) { return loop->record_capacity; }
void *ev_arena(ev_loop *loop) { return loop->arena; }
size_t ev_arena_capacity(const ev_loop *loop) { return loop->arena_capacity; }
int ev_loop_fd(const ev_loop *loop) { return loop->backend->fd ? loop->backend->fd(loop->backend_state) : -1; }
void ev_wake(ev_loop *loop) { ev__waker_wake(&loop->waker); }

void ev_set_clock(ev_loop *loop, uint64_t now_ns) { loop->manual_ns = now_ns; }

void ev_read_stats(const ev_loop *loop, struct ev_stats *out) {
    *out = loop->stats;
    out->timers_pending = loop->wheel.count;
    out->fetch_capacity = (uint64_t)loop->ready_capacity;
    out->buffers_spare = loop->pool.spare_count;
    out->arena_capacity = loop->arena_capacity;
}

/* Watchers of Python */

static void ready_for_python(ev_loop *loop, struct ev_watcher *w, unsigned ready) {
    const struct ev_pywatcher *watcher = (struct ev_pywatcher *)w;
    ready &= w->events & (EV_READ | EV_WRITE); /* a hang-up comes as both; and what was asked for may have changed since */
    if (watcher->read_target == watcher->write_target) {
        if (ready)
            ev__emit(loop, watcher->read_target, ready, 0, 0);
        return;
    }
    if (ready & EV_READ)
        loop->callable[loop->callable_count++] = watcher->read_target;
    if (ready & EV_WRITE)
        loop->callable[loop->callable_count++] = watcher->write_target;
}

int ev_fd_watch(ev_loop *loop, int fd, unsigned events, uint32_t read_target, uint32_t write_target, struct ev_pywatcher **out) {
    struct ev_pywatcher *watcher = calloc(1, sizeof *watcher);
    if (!watcher)
        return -ENOMEM;
    watcher->read_target = read_target;
    watcher->write_target = write_target;
    int rc = ev__attach(loop, &watcher->w, fd, ready_for_python);
    if (rc == 0)
        rc = ev__watch(loop, &watcher->w, events);
    if (rc < 0) {
        ev__detach(loop, &watcher->w, 0);
        free(watcher);
        return rc;
    }
    *out = watcher;
    return 0;
}

int ev_fd_modify(ev_loop *loop, struct ev_pywatcher *watcher, unsigned events) { return ev__watch(loop, &watcher->w, events); }
void ev_fd_rearm(ev_loop *loop, struct ev_pywatcher *watcher, unsigned events) { ev__rearm(loop, &watcher->w, events); }

void ev_fd_unwatch(ev_loop *loop, struct ev_pywatcher *watcher) {
    ev__detach(loop, &watcher->w, 0);
    free(watcher); /* called from Python, so no event of this watcher is being dispatched in C */
}

/* The table for the layers above */

static int module_set(ev_loop *loop, unsigned id, struct ev_module *module) {
    if (id >= EV_MODULES || loop->modules[id])
        return -EEXIST;
    loop->modules[id] = module;
    return 0;
}

static struct ev_module *module_get(ev_loop *loop, unsigned id) { return id < EV_MODULES ? loop->modules[id] : NULL; }

static uint64_t now_ms(ev_loop *loop) { return loop->now_ms; }

static void timer_start(ev_loop *loop, struct ev_timer *t, uint64_t delay_ms, ev_timer_fn fn) {
    t->fn = fn;
    /* now_ms is rounded down, so one tick more keeps the promise never to be early. */
    ev__wheel_insert(&loop->wheel, t, loop->now_ms + delay_ms + 1);
}

static void timer_stop(ev_loop *loop, struct ev_timer *t) { ev__wheel_cancel(&loop->wheel, t); }
static void soon(ev_loop *loop, struct ev_task *task, ev_task_fn fn) { ev__tasks_add(&loop->soon, task, fn); }
static void next_turn(ev_loop *loop, struct ev_task *task, ev_task_fn fn) { ev__tasks_add(&loop->next_turn, task, fn); }
static void batch_end(ev_loop *loop, struct ev_task *task, ev_task_fn fn) { ev__tasks_add(&loop->batch_end, task, fn); }
static void reap(ev_loop *loop, struct ev_task *task, ev_task_fn fn) { ev__tasks_add(&loop->reap, task, fn); }
static uint8_t *scratch(ev_loop *loop) { return loop->scratch; }

static const struct ev_capi capi = {
    .major = EV_CAPI_MAJOR,
    .minor = EV_CAPI_MINOR,
    .version = EV_VERSION,
    .module_set = module_set,
    .module_get = module_get,
    .attach = ev__attach,
    .watch = ev__watch,
    .rearm = ev__rearm,
    .detach = ev__detach,
    .find = ev__slot_get,
    .now_ms = now_ms,
    .timer_start = timer_start,
    .timer_stop = timer_stop,
    .soon = soon,
    .next_turn = next_turn,
    .reap = reap,
    .emit = ev__emit,
    .arena_put = ev__arena_put,
    .arena_full = ev__arena_full,
    .scratch = scratch,
    .buffer_get = ev__buffer_get,
    .buffer_put = ev__buffer_put,
    .arena_reserve = ev__arena_reserve,
    .arena_commit = ev__arena_commit,
    .batch_end = batch_end,
};

const struct ev_capi *ev_capi(void) { return &capi; }
