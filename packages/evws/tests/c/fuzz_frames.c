/* Fuzz target of the frame parser with its UTF-8, close and masking code.
 *
 * Invariant: for every input, role, limit and implementation of the kernels,
 *  - feeding the input whole, byte by byte, or cut in three anywhere gives the same frames and the same violation;
 *  - all implementations agree with the scalar one;
 *  - no byte outside the input is read, and nothing comes out after a violation or a Close;
 *  - what was let through keeps the rules, checked here once more from the frames alone.
 *
 * With clang, in the package's directory (nox -s fuzz does this):
 *   clang -g -O1 -std=c11 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I src/evws/_c \
 *     tests/c/fuzz_frames.c src/evws/_c/{feeder,frame,close,utf8,kernels*}.c -o fuzz_frames
 * With any compiler: -DEVW_STANDALONE gives a main() that mutates the seeds in a file: fuzz_frames ROUNDS SEED CORPUS.
 *
 * The first byte of an input chooses role, limits and compression; the rest is what the peer sends.
 */
#include "codec_driver.c"

#include "close.h"

static const char *const impls[] = {"scalar", "sse2", "avx2", "neon"};

static void check_violation(const struct told *t, const struct evw_event *e) {
    if (e != &t->events[t->count - 1])
        broken("a violation that is not the end");
    if (e->code != EVW_PROTOCOL_ERROR && e->code != EVW_INVALID_DATA && e->code != EVW_TOO_BIG)
        broken("a violation without a code");
    if (!e->length || e->length > EVW_REASON_MOST)
        broken("a violation whose reason fits no Close");
}

static void check_control(const struct told *t, const struct evw_event *e) {
    if (!e->fin || e->rsv1 || e->length > EVW_CONTROL_MOST)
        broken("a control frame that must not be");
    if (e->opcode == EVW_CLOSE && (e != &t->events[t->count - 1] || e->length == 1))
        broken("a Close that must not be");
    if (e->opcode == EVW_CLOSE && e->length && !evw_close_code_ok(e->code))
        broken("a close code that must not be");
}

static void check_told(const struct told *t, const struct rules *r) {
    uint8_t message = 0, compressed = 0, state = EVW_UTF8_START;
    uint64_t size = 0;
    for (const struct evw_event *e = t->events; e < t->events + t->count; e++) {
        if (e->opcode == EVW_VIOLATION) {
            check_violation(t, e);
        } else if (evw_is_control(e->opcode)) {
            check_control(t, e);
        } else {
            if ((e->opcode == EVW_CONTINUATION) != (message != 0) || e->opcode > EVW_BINARY || (e->rsv1 && (message || !r->compression)))
                broken("frames in the wrong order");
            if (!message) {
                message = e->opcode;
                compressed = e->rsv1;
                size = 0;
            }
            size += e->length;
            if (e->length > r->max_frame || size > r->max_message)
                broken("a limit was passed");
            if (message == EVW_TEXT && !compressed && !evw_utf8_feed(&state, t->bytes + e->offset, (size_t)e->length))
                broken("text that is not UTF-8");
            if (e->fin && state != EVW_UTF8_START)
                broken("text that ends within a character");
            if (e->fin)
                message = 0;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len) {
    static struct told first, t;
    static const uint64_t sizes[4] = {1 << 20, 126, 20, INT64_MAX};
    if (!len || len > 4096)
        return 0;
    struct rules r = {in[0] & 1, in[0] >> 1 & 1, sizes[in[0] >> 2 & 3], sizes[in[0] >> 4 & 3]};
    in++;
    len--;
    size_t stride = len > 256 ? len / 64 : 1;
    for (size_t i = 0; i < sizeof impls / sizeof *impls; i++) {
        if (!evw_kernels_select(impls[i]))
            continue;
        if (check_splits(i ? &t : &first, &r, in, len, stride) != -1)
            broken("whole and split differ");
        if (i && !same(&t, &first))
            broken("implementations differ");
    }
    check_told(&first, &r);
    return 0;
}

#ifdef EVW_STANDALONE
static uint64_t random_state;

static uint32_t rnd(uint32_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 16) % below);
}

static size_t mutate(uint8_t *m, size_t len, size_t room) {
    /* What headers, lengths and characters are made of. */
    static const uint8_t bits[] = {0x00, 0x01, 0x02, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xfd, 0xfe, 0xff, 0xc1,
                                   0xe0, 0xed, 0xf0, 0xf4, 0xa0, 0x9f, 0x90, 0x8f, 0x03, 0xe8, 0x09};
    for (uint32_t n = 1 + rnd(4); n && len; n--) {
        size_t at = rnd((uint32_t)len), k = 1 + rnd(8);
        switch (rnd(5)) {
        case 0:
            m[at] = (uint8_t)rnd(256);
            break;
        case 1:
            m[at] ^= (uint8_t)(1u << rnd(8));
            break;
        case 2:
            k = k < len - at ? k : len - at;
            memmove(m + at, m + at + k, len - at - k);
            len -= k;
            break;
        case 3:
            if (len < room) {
                memmove(m + at + 1, m + at, len - at);
                m[at] = bits[rnd(sizeof bits)];
                len++;
            }
            break;
        default:
            m[at] = bits[rnd(sizeof bits)];
        }
    }
    return len;
}

int main(int argc, char **argv) {
    static uint8_t corpus[1 << 20], m[4096];
    static size_t at[65536], size[65536];
    size_t n = 0;
    FILE *f = argc == 4 ? fopen(argv[3], "rb") : NULL;
    if (!f)
        return 2;
    size_t total = fread(corpus, 1, sizeof corpus, f);
    fclose(f);
    for (size_t i = 0; i + 2 <= total && n < 65536; n++) {
        size[n] = (size_t)corpus[i] | (size_t)corpus[i + 1] << 8;
        at[n] = i + 2;
        i += 2 + size[n];
        if (i > total)
            return 2;
    }
    if (!n)
        return 2;
    random_state = strtoull(argv[2], NULL, 10) | 1;
    for (unsigned long round = 0, rounds = strtoul(argv[1], NULL, 10); round < rounds; round++) {
        size_t i = rnd((uint32_t)n), len = size[i] < 2048 ? size[i] : 2048;
        memcpy(m + 1, corpus + at[i], len);
        len = mutate(m + 1, len, sizeof m - 1);
        m[0] = (uint8_t)rnd(256);
        LLVMFuzzerTestOneInput(m, len + 1);
    }
    printf("%s rounds, %zu seeds\n", argv[1], n);
    return 0;
}
#endif
