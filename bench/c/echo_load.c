/*
 * A load client for echo servers that weighs little beside any server it measures: one thread, edge-triggered epoll, every
 * byte compared. Built twice: over TCP as it is (wire_plain.c) and over TLS (wire_tls.c).
 *
 * It prints JSON lines: {"event": "measuring"} and {"event": "measured"} when the measured time begins and ends, {"event":
 * "idle"} when --idle has opened its connections, and the result as the last line. It ends with 1 when the connections could
 * not be opened or a round of --fanout was not completed.
 */
#define _GNU_SOURCE
#include "echo_load.h"

#include <getopt.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "pattern.h"

enum {
    MAX_EVENTS = 256,
    MAX_CONNECTIONS = 60000,
    RAMP_WINDOW = 48, /* connections opened but not answered yet: small listen queues overflow, and a lost SYN costs 1 s */
    SWEEP_NS = 100 * 1000 * 1000,
};

struct echo_load load = {.troubles = {.names = trouble_names}};

static uint64_t phase_end, ramp_end, measure_start, measure_end;
static struct rusage usage_start, usage_end;

static const char usage_text[] =
    "usage: echo_load HOST:PORT [options]\n"
    "  --size N             bytes of a message (1024)\n"
    "  --connections N      connections at a time (64)\n"
    "  --seconds S          measure for this long (4); with --idle, hold no longer than this\n"
    "  --warmup S           load without measuring before that (1)\n"
    "  --once               one exchange per connection, which the server then closes\n"
    "  --idle               one exchange on each connection, then hold them until stdin ends\n"
    "  --fanout             await a byte on each connection, then again and again: send a message on the first, and await\n"
    "                       it on all of them\n"
    "  --timeout S          an answer that takes longer is an error (5)\n";

_Noreturn static void usage(const char *complaint, const char *what)
{
    fprintf(stderr, "echo_load: %s: %s\n%s", complaint, what, usage_text);
    exit(2);
}

static double number(const char *name, double low, double high)
{
    char *end;
    double value = strtod(optarg, &end);
    if (end == optarg || *end || !(value >= low && value <= high)) {
        char complaint[128];
        snprintf(complaint, sizeof complaint, "--%s must be a number from %g to %g", name, low, high);
        usage(complaint, optarg);
    }
    return value;
}

static void parse_options(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"size", 1, NULL, 'b'},   {"connections", 1, NULL, 'c'}, {"seconds", 1, NULL, 's'},      {"warmup", 1, NULL, 'w'},
        {"once", 0, NULL, 'o'},   {"idle", 0, NULL, 'i'},        {"fanout", 0, NULL, 'f'},       {"timeout", 1, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    *o = (struct options){.connections = 64, .size = 1024, .seconds = 4, .warmup = 1, .timeout = 5};
    for (int letter, index = 0; (letter = getopt_long(argc, argv, "", names, &index)) != -1;) {
        switch (letter) {
        case 'b': o->size = (size_t)number("size", 1, PATTERN_LIMIT); break;
        case 'c': o->connections = (unsigned)number("connections", 1, MAX_CONNECTIONS); break;
        case 's': o->seconds = number("seconds", 0.01, 600); break;
        case 'w': o->warmup = number("warmup", 0, 600); break;
        case 't': o->timeout = number("timeout", 0.05, 60); break;
        case 'o': o->mode = ONCE; break;
        case 'i': o->mode = IDLE; break;
        case 'f': o->mode = FANOUT; break;
        default: usage("bad option", argv[optind - 1]);
        }
    }
    if (optind != argc - 1 || !parse_address(argv[optind], &o->address))
        usage("expected one HOST:PORT with an IPv4 address", optind < argc ? argv[optind] : "nothing");
}

/* Open some more. The ramp is over for good when nothing has been answered for longer than --timeout allows. */
static void ramp_up(uint64_t now)
{
    static unsigned seen;
    if (!ramp_end || load.greeted > seen) {
        seen = load.greeted;
        ramp_end = now + to_ns(load.opt.timeout + 1);
    }
    while (load.opened < load.opt.connections && load.opened - load.greeted < RAMP_WINDOW)
        conn_open(&load.conns[load.opened++]);
}

static void next_phase(uint64_t now)
{
    bool fanout = load.opt.mode == FANOUT;
    if (load.phase == RAMP) {
        if (load.greeted < load.opt.connections)
            return;
        load.phase = WARMUP;
        phase_end = now + to_ns(load.opt.warmup);
        if (fanout)
            conn_start_round(&load.conns[0]);
        return;
    }
    if (fanout) {
        if (load.served < load.opt.connections)
            return; /* a round belongs to one phase */
        if (load.phase == MEASURE) {
            load.requests++;
            hist_add(&load.latency, now - load.round_start);
        }
    }
    if (load.phase == WARMUP && now >= phase_end) {
        load.phase = MEASURE;
        say("measuring");
        getrusage(RUSAGE_SELF, &usage_start);
        measure_start = clock_ns();
        phase_end = measure_start + to_ns(load.opt.seconds);
    } else if (load.phase == MEASURE && now >= phase_end) {
        load.phase = FINISHED;
        measure_end = now;
        getrusage(RUSAGE_SELF, &usage_end);
        say("measured");
    }
    if (fanout && load.phase != FINISHED)
        conn_start_round(&load.conns[0]);
}

static bool hopeless(uint64_t now)
{
    return load.phase == RAMP ? ramp_end && now > ramp_end : load.opt.mode == FANOUT && load.troubles.count;
}

static void run(void)
{
    struct epoll_event events[MAX_EVENTS];
    uint64_t now = clock_ns(), swept = now;

    while (load.phase != FINISHED && !hopeless(now)) {
        if (load.phase == RAMP)
            ramp_up(now);
        int count = epoll_wait(load.poller, events, MAX_EVENTS, 5);
        for (int i = 0; i < count; i++)
            conn_event(events[i].data.ptr, events[i].events);
        now = clock_ns();
        next_phase(now);
        if (now - swept > SWEEP_NS) {
            conn_sweep(now);
            swept = now;
        }
    }
}

/* --idle: open, exchange once each, say so, and hold until whoever started us has read what it wanted to read. */
static void hold(void)
{
    struct epoll_event events[MAX_EVENTS], input = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = NULL};
    uint64_t now = clock_ns(), swept = now, end = 0;
    bool more = true;

    while (more && !(end ? now > end : ramp_end && now > ramp_end)) {
        if (!end)
            ramp_up(now);
        if (load.greeted == load.opt.connections && !end) {
            end = now + to_ns(load.opt.seconds);
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
    double seconds = (double)(measure_end - measure_start) / 1e9;
    printf("{\"connections\": %u, \"answered\": %u, \"size\": %zu, ", load.opt.connections, load.greeted, load.opt.size);
    printf("\"requests\": %llu, \"seconds\": %.6f, \"rps\": %.3f, ", (unsigned long long)load.requests, seconds,
           seconds > 0 ? (double)load.requests / seconds : 0.0);
    print_latency(&load.latency);
    print_usage(&usage_start, &usage_end);
    printf("\"bytes\": %llu, \"reconnects\": %llu, \"lost_idle\": %llu, ", (unsigned long long)load.bytes,
           (unsigned long long)load.reconnects, (unsigned long long)load.lost_idle);
    trouble_print(&load.troubles);
    printf("}\n");
}

int main(int argc, char **argv)
{
    pattern_fill();
    parse_options(&load.opt, argc, argv);
    raise_file_limit();
    wire_setup();
    load.conns = calloc(load.opt.connections, sizeof *load.conns);
    load.poller = epoll_create1(0);
    if (!load.conns || load.poller < 0)
        die("echo_load");
    for (unsigned i = 0; i < load.opt.connections; i++) {
        load.conns[i].index = i;
        load.conns[i].wire.fd = -1;
    }
    if (load.opt.mode == IDLE)
        hold();
    else
        run();
    report();
    bool whole = load.opt.mode != FANOUT || load.phase == FINISHED;
    return load.greeted == load.opt.connections && whole ? 0 : 1;
}
