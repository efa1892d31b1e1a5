/*
 * What the two halves of the load client share: connection.c speaks with the server, load.c decides when.
 * Everything belongs to one thread.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "answer.h"
#include "common.h"
#include "options.h"

/* DOWN: to be opened by the sweep. DONE: answered with "close", waits for the server's end of stream. */
enum state { DOWN, CONNECTING, OPEN, DONE };
enum phase { RAMP, WARMUP, MEASURE, DRAIN, FINISHED };
enum trouble { CONNECT, RESET, CLOSED, SHORT, STATUS, BODY, FRAMING, UNEXPECTED, TIMEOUT, NOT_CLOSED, TROUBLES };

struct conn {
    int fd;
    enum state state;
    bool greeted;       /* has had its first answer; the ramp waits for that */
    unsigned in_flight; /* requests not answered */
    uint32_t unsent;    /* bytes of the outgoing batch not sent */
    uint32_t partial_size;
    char *partial;     /* an answer that has come in part; allocated when first needed */
    uint64_t started;  /* when the batch was sent; in rate mode when it was due */
    uint64_t touched;  /* when it was really sent */
    uint64_t next_due; /* rate mode: index of this connection's next request in the schedule */
};

struct load {
    struct options opt;
    struct answer_checker checker;
    struct histogram latency; /* ns */
    struct conn *conns;
    size_t request_size, batch_size;
    int poller;

    enum phase phase;
    unsigned opened, greeted;                            /* how far the ramp is */
    uint64_t schedule_start, measure_start, measure_end; /* measure_end is 0 until known */
    uint64_t requests, late, bytes, reconnects, unfinished, lost_idle; /* late: of requests, in the drain */
    uint64_t troubles[TROUBLES], trouble_count;
    char first_trouble[160];
};

extern struct load load;
extern const char *const trouble_names[TROUBLES];

/* Rate mode: when the index-th request of all is due. */
static inline uint64_t due_at(uint64_t index)
{
    return load.schedule_start + (uint64_t)((double)index * 1e9 / load.opt.rate);
}

/* Fill in what every batch consists of. Call once, after the options are read. */
void conn_prepare(void);

/* Connect, and send the first batch. Failures are counted, never returned: the sweep tries again. */
void conn_open(struct conn *c, uint64_t now);

/* Act on what epoll says about the connection. */
void conn_event(struct conn *c, uint32_t events);

/* Rate mode: send the connection's next request if it is due and its last one is answered. */
void conn_start_if_due(struct conn *c, uint64_t now);

/* Everything that may wait a tenth of a second: what takes too long, and what is to be opened again. */
void conn_sweep(uint64_t now);

#endif
