/*
 * How fast evws masks, beside memcpy of as much: one block after the other, which stay in the cache.
 *
 * usage: ws_mask {mask|memcpy} SIZE SECONDS WARMUP
 *
 * Prints as the load clients do: {"event": "measuring"}, {"event": "measured"}, the result.
 */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIZE_MOST = 1 << 24, BATCH = 64 };

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Through a pointer, as in the server: the compiler must not see that nobody looks at the result. */
static int copy(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    (void)key;
    memcpy(dst, src, len);
    return 0;
}

static int (*volatile work)(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key);

static unsigned long long run(uint8_t *dst, const uint8_t *src, size_t size, double seconds, double *spent)
{
    unsigned long long count = 0;
    double begin = now();
    do {
        for (int i = 0; i < BATCH; i++)
            work(dst, src, size, 0x9a3f1c57);
        count += BATCH;
        *spent = now() - begin;
    } while (*spent < seconds);
    return count;
}

static void say(const char *event)
{
    printf("{\"event\": \"%s\"}\n", event);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    size_t size = argc == 5 ? strtoul(argv[2], NULL, 10) : 0;
    if (!size || size > SIZE_MOST || (strcmp(argv[1], "mask") && strcmp(argv[1], "memcpy"))) {
        fprintf(stderr, "usage: ws_mask {mask|memcpy} SIZE SECONDS WARMUP\n");
        return 2;
    }
    /* At the distance from a cache line that payload has behind a header of 14 bytes. */
    uint8_t *src = malloc(size + 14), *dst = malloc(size);
    if (!src || !dst)
        return 1;
    memset(src, 'x', size + 14);
    evw_kernels_select(NULL);
    work = strcmp(argv[1], "mask") ? copy : evw_kernels->mask;
    double seconds;
    run(dst, src + 14, size, strtod(argv[4], NULL), &seconds);
    say("measuring");
    unsigned long long count = run(dst, src + 14, size, strtod(argv[3], NULL), &seconds);
    say("measured");
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"rps\": %.1f, \"errors\": 0, \"first_error\": \"\"}\n", count, seconds,
           (double)count / seconds);
    free(src);
    free(dst);
    return 0;
}
