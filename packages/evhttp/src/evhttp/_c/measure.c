/* How long answers take, for servers that want to know. */
#include "internal.h"

#include <time.h>

#define MS UINT64_C(1000000)
static const uint64_t bounds[] = {
    MS / 10,  MS / 4,   MS / 2,   MS,        5 * MS / 2, 5 * MS,    10 * MS,   25 * MS,
    50 * MS, 100 * MS, 250 * MS, 500 * MS, 1000 * MS,  2500 * MS, 5000 * MS, 0,
};
enum { BUCKETS = sizeof ((struct evh_counts *)0)->buckets / sizeof *bounds };
_Static_assert(sizeof bounds / sizeof *bounds == BUCKETS, "a bound for each bucket");
_Static_assert(sizeof ((struct evh_counts *)0)->ends / sizeof(uint64_t) == EVH_END_TOO_MUCH_QUEUED + 1, "a count for each end");

uint64_t evhttp_bucket_ns(unsigned bucket) { return bucket < BUCKETS ? bounds[bucket] : 0; }

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

size_t evh_conn_size(const struct evh_server *server) {
    return sizeof(struct evh_conn) + (server->options.measure ? EVH_PIPELINE_MOST * sizeof(uint64_t) : 0);
}

void evh_measure_begin(struct evh_conn *c) { c->begun[c->asked % EVH_PIPELINE_MOST] = now_ns(); }

void evh_measure_end(struct evh_conn *c, unsigned status) {
    struct evh_counts *counts = &c->server->counts;
    uint64_t took = now_ns() - c->begun[c->answered % EVH_PIPELINE_MOST];
    unsigned bucket = 0;
    while (bucket < BUCKETS - 1 && took > bounds[bucket])
        bucket++;
    counts->buckets[bucket]++;
    counts->sum_ns += took;
    counts->answers[status / 100 - 2]++;
}

void evhttp_counts(struct evh_server *server, struct evh_counts *into) {
    evh_count_listeners(server);
    *into = server->counts;
    for (const struct evh_conn *c = server->conns; c; c = c->next)
        into->requests += c->taken;
}
