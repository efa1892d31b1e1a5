/*
 * An HTTP/1.1 load client that weighs little beside any server it measures: one thread, edge-triggered epoll, one send
 * and one recv per exchange, every answer checked.
 *
 * It prints JSON lines: {"event": "measuring"} and {"event": "measured"} when the measured time begins and ends (so
 * that whoever started it can read the server's CPU time at these points), {"event": "idle"} when --idle has opened its
 * connections, and the result as the last line. It ends with 1 when the connections could not be opened.
 */
#define _GNU_SOURCE
#include "load.h"

#include <sys/epoll.h>
#include <unistd.h>

enum {
    MAX_EVENTS = 256,
    RAMP_WINDOW = 48, /* connections opened but not answered yet: small listen queues overflow, and a lost SYN costs 1 s */
    SWEEP_NS = 100 * 1000 * 1000,
    DRAIN_NS = 1000 * 1000 * 1000,
    NOT_CLOSED_NS = 500 * 1000 * 1000,
};

struct load load;

static uint64_t phase_end, schedule_next, ramp_end;
static struct rusage usage_start, usage_end;

/* Open some more. The ramp is over for good when nothing has been answered for longer than --timeout allows. */
static void ramp_up(uint64_t now)
{
    static unsigned seen;
    if (!ramp_end || load.greeted > seen) {
        seen = load.greeted;
        ramp_end = now + (uint64_t)((load.opt.timeout + 1) * 1e9);
    }
    while (load.opened < load.opt.connections && load.opened - load.greeted < RAMP_WINDOW)
        conn_open(&load.conns[load.opened++], now);
}

/* Count what was due and never answered with the time it has waited: leaving it out would flatter a stalled server. */
static void count_unfinished(uint64_t now)
{
    for (unsigned i = 0; load.opt.rate > 0 && i < load.opened; i++) {
        struct conn *c = &load.conns[i];
        if (c->in_flight && c->started >= load.measure_start) {
            load.unfinished++;
            hist_add(&load.latency, now - c->started);
        }
        for (; due_at(c->next_due) < load.measure_end; c->next_due += load.opt.connections) {
            load.unfinished++;
            hist_add(&load.latency, now - due_at(c->next_due));
        }
    }
}

/* With --close, a connection that waits for its end at the end of the run is an error only if it has waited long. */
static void count_not_closed(uint64_t now)
{
    for (unsigned i = 0; i < load.opened; i++)
        if (load.conns[i].state == DONE && now - load.conns[i].touched > NOT_CLOSED_NS) {
            load.troubles[NOT_CLOSED]++;
            if (load.trouble_count++ == 0)
                snprintf(load.first_trouble, sizeof load.first_trouble, "%s: at the end of the run",
                         trouble_names[NOT_CLOSED]);
        }
}

static bool drained(void)
{
    for (unsigned i = 0; load.opt.rate > 0 && i < load.opened; i++)
        if (load.conns[i].in_flight || due_at(load.conns[i].next_due) < load.measure_end)
            return false;
    return true;
}

static void next_phase(uint64_t now)
{
    if (load.phase == RAMP && load.greeted == load.opt.connections) {
        load.phase = WARMUP;
        phase_end = now + (uint64_t)(load.opt.warmup * 1e9);
        load.schedule_start = now;
        for (unsigned i = 0; i < load.opt.connections; i++)
            load.conns[i].next_due = i;
    }
    if (load.phase == WARMUP && now >= phase_end) {
        load.phase = MEASURE;
        load.measure_start = now;
        phase_end = now + (uint64_t)(load.opt.seconds * 1e9);
        load.measure_end = load.opt.rate > 0 ? phase_end : 0;
        getrusage(RUSAGE_SELF, &usage_start);
        say("measuring");
    }
    if (load.phase == MEASURE && now >= phase_end) {
        load.phase = DRAIN;
        load.measure_end = load.opt.rate > 0 ? phase_end : now;
        phase_end = now + DRAIN_NS;
        getrusage(RUSAGE_SELF, &usage_end);
        say("measured");
    }
    if (load.phase == DRAIN && (drained() || now >= phase_end)) {
        count_unfinished(now);
        count_not_closed(now);
        load.phase = FINISHED;
    }
}

/* How long epoll may sleep. Timers are too coarse for a schedule of microseconds: then the client spins, on its core. */
static int patience(uint64_t now)
{
    if (load.opt.rate == 0 || load.phase == RAMP || load.phase == DRAIN)
        return 5;
    uint64_t due = due_at(schedule_next);
    return due > now + 3000000 ? 2 : 0;
}

static void run(void)
{
    struct epoll_event events[MAX_EVENTS];
    uint64_t now = clock_ns(), swept = now;

    while (load.phase != FINISHED && !(load.phase == RAMP && ramp_end && now > ramp_end)) {
        if (load.phase == RAMP)
            ramp_up(now);
        int count = epoll_wait(load.poller, events, MAX_EVENTS, patience(now));
        for (int i = 0; i < count; i++)
            conn_event(events[i].data.ptr, events[i].events);
        now = clock_ns();
        next_phase(now);
        for (; load.opt.rate > 0 && (load.phase == WARMUP || load.phase == MEASURE) && due_at(schedule_next) <= now; schedule_next++)
            conn_start_if_due(&load.conns[schedule_next % load.opt.connections], now);
        if (now - swept > SWEEP_NS) {
            conn_sweep(now);
            swept = now;
        }
    }
}

/* --idle: open, ask once each, say so, and hold until whoever started us has read what it wanted to read. */
static void hold(void)
{
    struct epoll_event events[MAX_EVENTS], input = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = NULL};
    uint64_t now = clock_ns(), swept = now, end = 0;
    bool more = true;

    while (more && !(end ? now > end : ramp_end && now > ramp_end)) {
        if (!end)
            ramp_up(now);
        if (load.greeted == load.opt.connections && !end) {
            end = now + (uint64_t)(load.opt.seconds * 1e9);
            /* A file or /dev/null cannot be waited for: it ends at once. */
            if (epoll_ctl(load.poller, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
                more = false;
            say("idle");
        }
        int count = epoll_wait(load.poller, events, MAX_EVENTS, 5);
        for (int i = 0; i < count; i++) {
            char scrap[256];
            if (events[i].data.ptr)
                conn_event(events[i].data.ptr, events[i].events);
            else if (read(STDIN_FILENO, scrap, sizeof scrap) <= 0)
                more = false;
        }
        now = clock_ns();
        if (now - swept > SWEEP_NS) {
            conn_sweep(now);
            swept = now;
        }
    }
}

static void report(void)
{
    double seconds = (double)(load.measure_end - load.measure_start) / 1e9;

    printf("{\"connections\": %u, \"answered\": %u, \"pipeline\": %u, \"request_bytes\": %zu, ", load.opt.connections, load.greeted,
           load.opt.pipeline, load.request_size);
    printf("\"requests\": %llu, \"seconds\": %.6f, \"rps\": %.1f, \"rate\": %.1f, ", (unsigned long long)load.requests, seconds,
           seconds > 0 ? (double)load.requests / seconds : 0.0, load.opt.rate);
    print_latency(&load.latency);
    print_usage(&usage_start, &usage_end);
    printf("\"bytes\": %llu, ", (unsigned long long)load.bytes);
    printf("\"reconnects\": %llu, \"late\": %llu, \"unfinished\": %llu, \"lost_idle\": %llu, \"errors\": %llu, \"error_kinds\": {",
           (unsigned long long)load.reconnects, (unsigned long long)load.late, (unsigned long long)load.unfinished, (unsigned long long)load.lost_idle,
           (unsigned long long)load.trouble_count);
    for (int i = 0, some = 0; i < TROUBLES; i++)
        if (load.troubles[i])
            printf("%s\"%s\": %llu", some++ ? ", " : "", trouble_names[i], (unsigned long long)load.troubles[i]);
    printf("}, \"first_error\": \"%s\"}\n", load.first_trouble);
}

int main(int argc, char **argv)
{
    options_parse(&load.opt, argc, argv);
    raise_file_limit();
    load.checker.expect = load.opt.expect;
    load.checker.expect_size = load.opt.expect ? strlen(load.opt.expect) : 0;
    conn_prepare();
    load.conns = calloc(load.opt.connections, sizeof *load.conns);
    load.poller = epoll_create1(0);
    if (!load.conns || load.poller < 0) {
        perror("load");
        return 1;
    }
    for (unsigned i = 0; i < load.opt.connections; i++)
        load.conns[i].fd = -1;

    if (load.opt.idle)
        hold();
    else
        run();
    report();
    return load.greeted == load.opt.connections ? 0 : 1;
}
