/* Fuzz targets of the head parser, of the chunked decoder, and of the reader that joins them, for requests and responses.
 *
 * Invariant: for every input, every limit and every scanning implementation,
 *  - feeding the input whole, byte by byte, or cut in two anywhere gives the same result, the same error at the same byte, the same
 *    fields, the same decoded body;
 *  - all implementations agree with the scalar one;
 *  - no byte outside the input is read, every call looks at all it was given or has ended, and pos never goes back;
 *  - a head that was accepted has spans inside it, and no control byte in any of them;
 *  - the reader's messages, one after the other, are the same however their stream was cut, and each byte is in one of them or in
 *    what remains.
 *
 * `nox -s fuzz -- TARGET SECONDS` builds and runs them with clang; -DFUZZ_TARGET= says which, REQUEST, RESPONSE or CHUNKED.
 * With any compiler: -DFUZZ_STANDALONE gives a main() that goes through a corpus and mutates it; see there.
 *
 * The first byte of an input chooses limits, what it is fed to, and for responses what was asked; the rest is the message.
 */
#include "parser_driver.c"

static const char *const impls[] = {"scalar", "sse2", "avx2", "neon"};

static void check_span(const uint8_t *in, uint32_t head_len, uint32_t at, uint32_t n, int blank)
{
    if (at > head_len || n > head_len - at)
        broken("a span outside of the head");
    for (uint32_t i = at; i < at + n; i++)
        if (in[i] == 0x7f || (in[i] < 0x20 && !(blank && in[i] == '\t')) || (in[i] == ' ' && !blank))
            broken("a byte in a span that must not be there");
}

static void check_head(const struct evh_parser *ps, const struct evh_limits *l, const uint8_t *in)
{
    check_span(in, ps->head_len, ps->start, ps->method_len, 0);
    check_span(in, ps->head_len, ps->target, ps->target_len, 0);
    check_span(in, ps->head_len, ps->path, ps->path_len, 0);
    check_span(in, ps->head_len, ps->host, ps->host_len, 0);
    if (ps->path < ps->target || ps->path + ps->path_len > ps->target + ps->target_len)
        broken("the path is not in the target");
    if (ps->path_len != 0 && in[ps->path] != '/' && !(ps->flags & EVH_ASTERISK))
        broken("a path that does not begin with a slash");
    if ((ps->flags & EVH_CHUNKED) && (ps->flags & EVH_HAS_LENGTH))
        broken("two framings");
    if (ps->content_length > l->max_body || ps->target_len + ps->method_len + 10 > l->max_request_line)
        broken("a limit was passed");
    for (int i = 0; i < ps->nfields; i++) {
        const struct evh_field *f = &ps->fields[i];
        check_span(in, ps->head_len, f->name, f->name_len, 0);
        check_span(in, ps->head_len, f->value, f->value_len, 1);
        if (f->name_len == 0 || in[f->name + f->name_len] != ':')
            broken("a field name that is empty or not followed by a colon");
        if (f->value_len != 0 && (in[f->value] <= ' ' || in[f->value + f->value_len - 1] == ' '))
            broken("white space around a value");
    }
}

static const struct evh_limits wide = {8192, 32768, 100, 1 << 20, 256, 4096, 0};
static const struct evh_limits narrow = {40, 90, 4, 64, 12, 24, 1};

/* Cuts everywhere where that is quick; test_parser_c.py cuts its cases everywhere. */
static size_t stride_of(size_t len)
{
    return len > 64 ? len / 16 : 1;
}

static void try_stream(const struct evh_limits *l, const uint8_t *in, size_t len, int kind)
{
    if (check_stream(l, in, len, stride_of(len), kind) != -1)
        broken("reader: whole and split differ");
}

static void try_chunked(const struct evh_limits *l, const uint8_t *in, size_t len)
{
    static struct body body, first;
    for (size_t i = 0; i < sizeof impls / sizeof *impls; i++) {
        if (evh_scan_select(impls[i]) == NULL)
            continue;
        if (check_body(l, in, len, stride_of(len), &body) != -1)
            broken("chunked: whole and split differ");
        if (i != 0 && !same_body(&body, &first))
            broken("chunked: implementations differ");
        memcpy(&first, &body, sizeof body);
    }
}

static void try_head(const struct evh_limits *l, const uint8_t *in, size_t len)
{
    static struct evh_parser first, ps;
    int r = EVH_MORE, first_result = EVH_MORE;
    for (size_t i = 0; i < sizeof impls / sizeof *impls; i++) {
        if (evh_scan_select(impls[i]) == NULL)
            continue;
        if (check_splits(l, in, len, stride_of(len), &ps, &r) != -1)
            broken("whole and split differ");
        if (i == 0) {
            memcpy(&first, &ps, sizeof ps);
            first_result = r;
        } else if (!same_head(&first, first_result, &ps, r)) {
            broken("implementations differ");
        }
    }
    if (r == EVH_DONE)
        check_head(&ps, l, in);
}

/* The targets: each takes one byte of choices and a message. */

static void fuzz_request(uint8_t choice, const uint8_t *in, size_t len)
{
    const struct evh_limits *l = choice & 1 ? &narrow : &wide;
    try_head(l, in, len);
    try_stream(l, in, len, 0);
}

static void fuzz_response(uint8_t choice, const uint8_t *in, size_t len)
{
    try_stream(choice & 1 ? &narrow : &wide, in, len, 1 + (choice >> 1) % 3);
}

static void fuzz_chunked(uint8_t choice, const uint8_t *in, size_t len)
{
    try_chunked(choice & 1 ? &narrow : &wide, in, len);
}

enum { REQUEST, RESPONSE, CHUNKED };
static void (*const targets[])(uint8_t, const uint8_t *, size_t) = {fuzz_request, fuzz_response, fuzz_chunked};

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
    if (len > 0 && len <= 8192)
        targets[FUZZ_TARGET](in[0], in + 1, len - 1);
    return 0;
}

#if defined(FUZZ_STANDALONE)
#include "mutations.h"
#endif
