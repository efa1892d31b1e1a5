/* For compilers without libFuzzer: a main() that gives a fuzz target each input of a corpus, and then mutations of them.
 *
 * usage: PROGRAM ROUNDS SEED CORPUS
 * CORPUS holds records: a length in four bytes, little end first, and the input. A round takes a record, mutates it, tests it. Every
 * fourth has another first byte, which is where targets have their choices.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        "Connection: close\r\n", "Expect: 100-continue\r\n", "Upgrade: x\r\n", "PROXY TCP4 ", "\r\n\r\n\0\r\nQUIT\n"};
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
    static uint8_t corpus[1 << 22], m[8192];
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
        LLVMFuzzerTestOneInput(corpus + at[n], size[n]);
    }
    if (n == 0)
        return 2;
    random_state = strtoull(argv[2], NULL, 10) | 1;
    for (unsigned long round = 0, rounds = strtoul(argv[1], NULL, 10); round < rounds; round++) {
        size_t i = rnd((uint32_t)n), len = size[i] < 4096 ? size[i] : 4096;
        memcpy(m, corpus + at[i], len);
        if (rnd(4) == 0)
            m[0] = (uint8_t)rnd(256);
        len = len > 1 ? 1 + mutate(m + 1, len - 1, sizeof m - 1) : len;
        LLVMFuzzerTestOneInput(m, len);
    }
    printf("%s rounds, %zu seeds\n", argv[1], n);
    return 0;
}
