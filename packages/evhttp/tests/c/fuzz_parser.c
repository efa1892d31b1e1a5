/* Fuzz target of the request head parser and of the chunked decoder.
 *
 * Invariant: for every input, every limit and every scanning implementation,
 *  - feeding the input whole, byte by byte, or cut in two anywhere gives the same result, the same error at the same byte, the same
 *    fields, the same decoded body;
 *  - all implementations agree with the scalar one;
 *  - no byte outside the input is read, every call looks at all it was given or has ended, and pos never goes back;
 *  - a head that was accepted has spans inside it, and no control byte in any of them.
 *
 * With clang, in the package's directory:
 *   clang -g -O1 -std=c11 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I src/evhttp/_c \
 *     tests/c/fuzz_parser.c src/evhttp/_c/{parser,fields,target,chunked,scan}.c -o fuzz_parser
 * With any compiler: -DEVH_STANDALONE gives a main() that mutates the files named on its command line; see there.
 *
 * The first byte of an input chooses limits and what it is fed to; the rest is the message.
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

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
    static struct evh_parser first, ps;
    static struct body body, first_body;
    static const struct evh_limits wide = {8192, 32768, 100, 1 << 20, 256, 4096, 0};
    static const struct evh_limits narrow = {40, 90, 4, 64, 12, 24, 1};
    const struct evh_limits *l;
    size_t stride;
    int r, first_result = 0;

    if (len == 0 || len > 8192)
        return 0;
    l = in[0] & 1 ? &narrow : &wide;
    r = in[0] >> 1 & 1;
    in++;
    len--;
    stride = len > 512 ? len / 128 : 1;
    if (r) {
        for (size_t i = 0; i < sizeof impls / sizeof *impls; i++) {
            if (evh_scan_select(impls[i]) == NULL)
                continue;
            if (check_body(l, in, len, stride, &body) != -1)
                broken("chunked: whole and split differ");
            if (i != 0 && !same_body(&body, &first_body))
                broken("chunked: implementations differ");
            memcpy(&first_body, &body, sizeof body);
        }
        return 0;
    }
    for (size_t i = 0; i < sizeof impls / sizeof *impls; i++) {
        if (evh_scan_select(impls[i]) == NULL)
            continue;
        if (check_splits(l, in, len, stride, &ps, &r) != -1)
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
    return 0;
}

#if defined(EVH_STANDALONE)
/* usage: fuzz_parser ROUNDS SEED CORPUS
 * CORPUS holds records: a length in four bytes, little end first, and the message. A round takes a record, mutates it, tests it. */
static uint64_t random_state;

static uint32_t rnd(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32) % below;
}

static size_t mutate(uint8_t *m, size_t len, size_t room)
{
    static const char *const bits[] = {
        "\r\n", "\n", "\r", " ", "\t", ":", ",", ";", "\"", "\\", "#", "?", "@", "\x7f", "\x80", "[::1]", "http://", "HTTP/1.0",
        "Host: a\r\n", "Transfer-Encoding: ", "Content-Length: ", "chunked", "99999999999999999999", "0\r\n\r\n",
        "Connection: close\r\n", "Expect: 100-continue\r\n", "Upgrade: x\r\n"};
    for (uint32_t n = 1 + rnd(4); n > 0 && len > 0; n--) {
        size_t at = rnd((uint32_t)len), k;
        const char *s;
        switch (rnd(5)) {
        case 0:
            m[at] = (uint8_t)rnd(256);
            break;
        case 1:
            m[at] ^= (uint8_t)(1u << rnd(8));
            break;
        case 2:
            k = 1 + rnd(8);
            k = k < len - at ? k : len - at;
            memmove(m + at, m + at + k, len - at - k);
            len -= k;
            break;
        default:
            s = bits[rnd(sizeof bits / sizeof *bits)];
            k = strlen(s);
            if (len + k > room)
                break;
            memmove(m + at + k, m + at, len - at);
            memcpy(m + at, s, k);
            len += k;
        }
    }
    return len;
}

int main(int argc, char **argv)
{
    static uint8_t corpus[1 << 22], m[4096];
    static size_t at[65536], size[65536];
    size_t total, n = 0;
    FILE *f = argc == 4 ? fopen(argv[3], "rb") : NULL;
    if (f == NULL)
        return 2;
    total = fread(corpus, 1, sizeof corpus, f);
    fclose(f);
    for (size_t i = 0; i + 4 <= total && n < 65536; n++) {
        size[n] = (size_t)corpus[i] | (size_t)corpus[i + 1] << 8 | (size_t)corpus[i + 2] << 16;
        at[n] = i + 4;
        i += 4 + size[n];
        if (i > total)
            return 2;
    }
    if (n == 0)
        return 2;
    random_state = strtoull(argv[2], NULL, 10) | 1;
    for (unsigned long round = 0, rounds = strtoul(argv[1], NULL, 10); round < rounds; round++) {
        size_t i = rnd((uint32_t)n), len = size[i] < 2048 ? size[i] : 2048;
        memcpy(m + 1, corpus + at[i], len);
        len = mutate(m + 1, len, sizeof m - 1);
        m[0] = (uint8_t)rnd(4);
        LLVMFuzzerTestOneInput(m, len + 1);
    }
    printf("%s rounds, %zu seeds\n", argv[1], n);
    return 0;
}
#endif
