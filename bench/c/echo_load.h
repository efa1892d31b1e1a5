/*
 * What the two halves of the echo client share: echo_connection.c speaks with the server, echo_load.c decides when.
 * Everything belongs to one thread.
 */
#ifndef BENCH_ECHO_LOAD_H
#define BENCH_ECHO_LOAD_H

#include "common.h"
#include "wire.h"

/*
 * ECHO: a message, its echo, the next. ONCE: one exchange per connection, which the server then closes. IDLE: one exchange
 * each, then hold. FANOUT: the server greets each with one byte; then it sends what comes from one of them to all.
 */
enum mode { ECHO, ONCE, IDLE, FANOUT };
enum phase { RAMP, WARMUP, MEASURE, FINISHED };

/* DOWN: to be opened by the sweep. ENDING: has its echo, waits for the server's end of stream. */
enum state { DOWN, CONNECTING, WAITING, READY, ENDING };
enum trouble { CONNECT, RESET, CLOSED, WRONG, UNEXPECTED, TIMEOUT, NOT_CLOSED };

struct conn {
    struct wire wire;
    enum state state;
    bool greeted; /* has had its first answer; the ramp waits for that */
    uint32_t index, unsent, awaited;
    uint64_t exchanges;
    uint64_t started; /* when its message was sent */
};

struct options {
    struct sockaddr_in address;
    enum mode mode;
    unsigned connections;
    size_t size;
    double seconds, warmup, timeout;
};

struct echo_load {
    struct options opt;
    struct histogram latency; /* ns */
    struct troubles troubles;
    struct conn *conns;
    int poller;
    enum phase phase;
    unsigned opened, greeted, served; /* served: connections that have this round's message (FANOUT) */
    uint64_t requests, bytes, reconnects, lost_idle;
    uint64_t rounds, round_start; /* FANOUT */
};

extern struct echo_load load;
extern const char *const trouble_names[];

/* Connect, and send the first message. Failures are counted, never returned: the sweep tries again. */
void conn_open(struct conn *c);

/* Act on what epoll says about the connection. */
void conn_event(struct conn *c, uint32_t events);

/* Send a message on one connection, to be awaited on all (FANOUT). */
void conn_start_round(struct conn *c);

/* Everything that may wait a tenth of a second: what takes too long, and what is to be opened again. */
void conn_sweep(uint64_t now);

#endif
