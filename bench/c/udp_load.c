/*
 * A load client for UDP echo servers: some sockets, on each a window of datagrams in flight, read and sent in batches. Every
 * datagram carries a number of its own, and every byte of its echo is compared; what does not come back in time is lost, is
 * counted, and another one is sent for it.
 *
 * It prints JSON lines: {"event": "measuring"} and {"event": "measured"} when the measured time begins and ends, and the
 * result as the last line. It ends with 1 when nothing was echoed at all.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pattern.h"

enum { MAX_SOCKETS = 256, MAX_WINDOW = 128, NUMBER_SIZE = 8, SIZE_LIMIT = 1472, SWEEP_NS = 20 * 1000 * 1000 };
enum trouble { SEND, RECEIVE, WRONG, UNEXPECTED };

static const char *const trouble_names[] = {"send", "receive", "wrong", "unexpected", NULL};

struct slot {
    uint64_t number; /* number % window is the slot */
    uint64_t started;
    bool in_flight;
};

struct flow {
    int fd;
    unsigned index;
    struct slot slots[MAX_WINDOW];
};

static struct {
    struct sockaddr_in address;
    unsigned sockets, window;
    size_t size;
    double seconds, warmup, timeout;
} opt = {.sockets = 8, .window = 16, .size = 64, .seconds = 4, .warmup = 1, .timeout = 0.25};

static struct flow flows[MAX_SOCKETS];
static uint8_t boxes[MAX_WINDOW][SIZE_LIMIT + 1];
static struct mmsghdr messages[MAX_WINDOW];
static struct iovec pieces[MAX_WINDOW][2];
static uint64_t numbers[MAX_WINDOW];
static struct histogram latency;
static struct troubles troubles = {.names = trouble_names};
static uint64_t requests, lost, stale;
static bool measuring;

static const char usage_text[] =
    "usage: udp_load HOST:PORT [options]\n"
    "  --size N      bytes of a datagram, 8 to 1472 (64)\n"
    "  --sockets N   sockets, each with a port of its own (8)\n"
    "  --window N    datagrams in flight on each (16)\n"
    "  --seconds S   measure for this long (4)\n"
    "  --warmup S    load without measuring before that (1)\n"
    "  --timeout S   a datagram that takes longer is lost (0.25)\n";

_Noreturn static void usage(const char *complaint, const char *what)
{
    fprintf(stderr, "udp_load: %s: %s\n%s", complaint, what, usage_text);
    exit(2);
}

static double number_option(const char *name, double low, double high)
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

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"size", 1, NULL, 'b'},    {"sockets", 1, NULL, 'c'}, {"window", 1, NULL, 'n'}, {"seconds", 1, NULL, 's'},
        {"warmup", 1, NULL, 'w'}, {"timeout", 1, NULL, 't'}, {NULL, 0, NULL, 0},
    };
    for (int letter; (letter = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (letter) {
        case 'b': opt.size = (size_t)number_option("size", NUMBER_SIZE, SIZE_LIMIT); break;
        case 'c': opt.sockets = (unsigned)number_option("sockets", 1, MAX_SOCKETS); break;
        case 'n': opt.window = (unsigned)number_option("window", 1, MAX_WINDOW); break;
        case 's': opt.seconds = number_option("seconds", 0.01, 600); break;
        case 'w': opt.warmup = number_option("warmup", 0, 600); break;
        case 't': opt.timeout = number_option("timeout", 0.01, 10); break;
        default: usage("bad option", argv[optind - 1]);
        }
    }
    if (optind != argc - 1 || !parse_address(argv[optind], &opt.address))
        usage("expected one HOST:PORT with an IPv4 address", optind < argc ? argv[optind] : "nothing");
}

/* Send a new datagram in each slot that has none in flight. */
static void fill(struct flow *f, uint64_t now)
{
    unsigned count = 0;
    for (unsigned i = 0; i < opt.window; i++) {
        struct slot *slot = &f->slots[i];
        if (slot->in_flight)
            continue;
        slot->number += opt.window;
        slot->started = now;
        slot->in_flight = true;
        numbers[count] = slot->number;
        pieces[count][0] = (struct iovec){&numbers[count], NUMBER_SIZE};
        pieces[count][1] = (struct iovec){(void *)pattern_at(f->index, slot->number), opt.size - NUMBER_SIZE};
        messages[count].msg_hdr = (struct msghdr){.msg_iov = pieces[count], .msg_iovlen = 2};
        count++;
    }
    for (unsigned sent = 0; sent < count;) {
        int done = sendmmsg(f->fd, messages + sent, count - sent, 0);
        if (done < 0 && errno == ECONNREFUSED)
            continue; /* what an earlier one met; this call has sent nothing */
        if (done < 0) {
            if (errno != EAGAIN)
                trouble_add(&troubles, SEND, strerror(errno));
            return; /* those in flight that never left are found by the sweep */
        }
        sent += (unsigned)done;
    }
}

static void check(struct flow *f, const uint8_t *data, size_t size, uint64_t now)
{
    uint64_t number;
    if (size != opt.size) {
        trouble_add(&troubles, WRONG, "a datagram of another size");
        return;
    }
    memcpy(&number, data, sizeof number);
    struct slot *slot = &f->slots[number % opt.window];
    if (number > slot->number)
        trouble_add(&troubles, UNEXPECTED, "a number that was not sent");
    else if (memcmp(data + NUMBER_SIZE, pattern_at(f->index, number), opt.size - NUMBER_SIZE) != 0)
        trouble_add(&troubles, WRONG, "bytes differ from those that were sent");
    else if (number < slot->number)
        stale++; /* was given up */
    else if (!slot->in_flight)
        trouble_add(&troubles, UNEXPECTED, "a datagram came back twice");
    else {
        slot->in_flight = false;
        if (measuring) {
            requests++;
            hist_add(&latency, now - slot->started);
        }
    }
}

static void receive(struct flow *f)
{
    for (unsigned i = 0; i < opt.window; i++) {
        pieces[i][0] = (struct iovec){boxes[i], sizeof boxes[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = pieces[i], .msg_iovlen = 1};
    }
    int got = recvmmsg(f->fd, messages, opt.window, 0, NULL);
    uint64_t now = clock_ns();
    if (got < 0 && errno != EAGAIN)
        trouble_add(&troubles, RECEIVE, strerror(errno));
    for (int i = 0; i < got; i++)
        check(f, boxes[i], messages[i].msg_len, now);
    if (got > 0)
        fill(f, now);
}

static void sweep(uint64_t now)
{
    uint64_t limit = to_ns(opt.timeout);
    for (unsigned i = 0; i < opt.sockets; i++) {
        bool some = false;
        for (unsigned k = 0; k < opt.window; k++) {
            struct slot *slot = &flows[i].slots[k];
            if (slot->in_flight && now - slot->started > limit) {
                slot->in_flight = false;
                lost += measuring;
                some = true;
            }
        }
        if (some)
            fill(&flows[i], now);
    }
}

static void open_flows(int poller)
{
    for (unsigned i = 0; i < opt.sockets; i++) {
        struct flow *f = &flows[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = f};
        f->index = i;
        f->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (f->fd < 0 || connect(f->fd, (struct sockaddr *)&opt.address, sizeof opt.address) < 0 ||
            epoll_ctl(poller, EPOLL_CTL_ADD, f->fd, &event) < 0)
            die("socket");
        for (unsigned k = 0; k < opt.window; k++)
            f->slots[k].number = k;
    }
}

/* Load for some time. */
static uint64_t run(int poller, double seconds)
{
    struct epoll_event events[MAX_SOCKETS];
    uint64_t now = clock_ns(), swept = now, end = now + to_ns(seconds);
    for (; now < end; now = clock_ns()) {
        int count = epoll_wait(poller, events, MAX_SOCKETS, 5);
        for (int i = 0; i < count; i++)
            receive(events[i].data.ptr);
        if (now - swept > SWEEP_NS) {
            sweep(clock_ns()); /* not `now`: some were sent since */
            swept = now;
        }
    }
    return now;
}

int main(int argc, char **argv)
{
    struct rusage usage_start, usage_end;
    int poller = epoll_create1(0);

    parse_options(argc, argv);
    pattern_fill();
    open_flows(poller);
    for (unsigned i = 0; i < opt.sockets; i++)
        fill(&flows[i], clock_ns());
    run(poller, opt.warmup);
    say("measuring");
    measuring = true;
    getrusage(RUSAGE_SELF, &usage_start);
    uint64_t start = clock_ns();
    double seconds = (double)(run(poller, opt.seconds) - start) / 1e9;
    getrusage(RUSAGE_SELF, &usage_end);
    say("measured");

    printf("{\"sockets\": %u, \"window\": %u, \"size\": %zu, \"requests\": %llu, \"seconds\": %.6f, \"rps\": %.1f, ", opt.sockets,
           opt.window, opt.size, (unsigned long long)requests, seconds, (double)requests / seconds);
    print_latency(&latency);
    print_usage(&usage_start, &usage_end);
    printf("\"lost\": %llu, \"stale\": %llu, ", (unsigned long long)lost, (unsigned long long)stale);
    trouble_print(&troubles);
    printf("}\n");
    return requests ? 0 : 1;
}
