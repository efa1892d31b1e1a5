/* Fuzz target of the PROXY protocol's parser.
 *
 * Invariant: for every input and each beginning of it, which is how it comes from the network,
 *  - a header that is complete stays so, with the same length and the same client, whatever follows it;
 *  - what is refused stays refused, and what waits for more has not used up the room that a header has;
 *  - no byte outside the input is read.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy.h"

static void broken(const char *what)
{
    fprintf(stderr, "proxy invariant broken: %s\n", what);
    abort();
}

/* Of a copy that ends where the heap's block does, so that AddressSanitizer sees what is read behind it. */
static int parse(const uint8_t *in, size_t len, struct evh_proxied *p)
{
    uint8_t *copy = malloc(len + 1);
    if (copy == NULL)
        abort();
    memcpy(copy + 1, in, len);
    memset(p, 0, sizeof *p);
    int r = evh_proxy_parse(copy + 1, len, p);
    free(copy);
    return r;
}

static int same(const struct evh_proxied *a, const struct evh_proxied *b)
{
    return a->is_told == b->is_told && a->is_secure == b->is_secure &&
           (!a->is_told || memcmp(&a->client, &b->client, sizeof a->client) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
    struct evh_proxied last = {0}, p;
    int before = EVH_PROXY_MORE;
    if (len > EVH_PROXY_BINARY_MOST + 64)
        return 0;
    /* Each beginning at first, then some: a long header is copied as often. */
    for (size_t n = 1; n <= len; n = n < 300 ? n + 1 : n == len ? n + 1 : n + 97 < len ? n + 97 : len) {
        int r = parse(in, n, &p);
        if (before != EVH_PROXY_MORE && (r != before || (r > 0 && !same(&p, &last))))
            broken("another answer when more had come");
        if (r > 0 && (size_t)r > n)
            broken("a header longer than what is there");
        if (r == EVH_PROXY_BAD && p.reason == NULL)
            broken("a refusal without a reason");
        if (r == EVH_PROXY_MORE && n >= (in[0] == 'P' ? (size_t)EVH_PROXY_TEXT_MOST : (size_t)EVH_PROXY_BINARY_MOST))
            broken("more is wanted beyond what a header may have");
        before = r;
        last = p;
    }
    return 0;
}

#if defined(FUZZ_STANDALONE)
#include "mutations.h"
#endif
