/* What the programs share: the clock, the limit on files, addresses, and the JSON lines that they speak in. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "histogram.h"

static inline uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t to_ns(double seconds) { return (uint64_t)(seconds * 1e9); }

_Noreturn static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline void raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* "127.0.0.1:8000"; false if it is not that. */
static inline bool parse_address(const char *text, struct sockaddr_in *address)
{
    char host[64], *end;
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        return false;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    long port = strtol(colon + 1, &end, 10);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return end != colon + 1 && !*end && port > 0 && port < 65536 && inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

/* Tell whoever started us: it reads the CPU time of others at these points. */
static inline void say(const char *event)
{
    printf("{\"event\": \"%s\"}\n", event);
    fflush(stdout);
}

static inline double seconds_between(struct timeval a, struct timeval b)
{
    return (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_usec - a.tv_usec) / 1e6;
}

/* Members of a JSON object: percentiles in microseconds. */
static inline void print_latency(const struct histogram *h)
{
    static const double percents[] = {50, 90, 99, 99.9};
    static const char *const names[] = {"p50", "p90", "p99", "p99_9"};
    for (int i = 0; i < 4; i++)
        printf("\"%s\": %.2f, ", names[i], h->count ? (double)hist_percentile(h, percents[i]) / 1e3 : 0.0);
    printf("\"max\": %.2f, ", (double)h->max / 1e3);
}

/* Members of a JSON object: this program's own CPU time between two moments. */
static inline void print_usage(const struct rusage *start, const struct rusage *end)
{
    printf("\"user\": %.6f, \"system\": %.6f, ", seconds_between(start->ru_utime, end->ru_utime),
           seconds_between(start->ru_stime, end->ru_stime));
}

/* What went wrong, counted by kind; the first in words. */
enum { TROUBLE_KINDS = 16 };

struct troubles {
    const char *const *names; /* of the kinds, ended by NULL */
    uint64_t count, kind[TROUBLE_KINDS];
    char first[160];
};

static inline void trouble_add(struct troubles *t, unsigned kind, const char *detail)
{
    t->kind[kind]++;
    if (t->count++ == 0)
        snprintf(t->first, sizeof t->first, "%s: %s", t->names[kind], detail);
}

/* Members of a JSON object, the last ones. */
static inline void trouble_print(const struct troubles *t)
{
    printf("\"errors\": %llu, \"error_kinds\": {", (unsigned long long)t->count);
    for (int i = 0, some = 0; t->names[i]; i++)
        if (t->kind[i])
            printf("%s\"%s\": %llu", some++ ? ", " : "", t->names[i], (unsigned long long)t->kind[i]);
    printf("}, \"first_error\": \"%s\"", t->first);
}

#endif
