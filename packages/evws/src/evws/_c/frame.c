#include "frame.h"

#include "close.h"
#include "kernels.h"
#include "utf8.h"

int evw_bad(struct evw_frames *f, uint16_t code, const char *reason) {
    f->code = code;
    f->reason = reason;
    return EVW_BAD;
}

static int violation(struct evw_frames *f, const char *reason) { return evw_bad(f, EVW_PROTOCOL_ERROR, reason); }

/* FIN, RSV1 to RSV3, opcode. */
static int check_first(struct evw_frames *f, const struct evw_rules *rules, unsigned byte) {
    unsigned opcode = byte & 15;
    int control = evw_is_control(opcode);
    if (byte & 0x30)
        return violation(f, "RSV2 or RSV3 is set");
    if (opcode > (control ? EVW_PONG : EVW_BINARY))
        return violation(f, "unknown opcode");
    if (byte & EVW_RSV1 && (!rules->compression || control || opcode == EVW_CONTINUATION))
        return violation(f, "RSV1 is set where it means nothing");
    if (control)
        return byte & EVW_FIN ? EVW_DONE : violation(f, "fragmented control frame");
    if (opcode == EVW_CONTINUATION && !f->message)
        return violation(f, "continuation frame without a message");
    if (opcode != EVW_CONTINUATION && f->message)
        return violation(f, "new message before the end of the last");
    return EVW_DONE;
}

/* MASK, and the length's first seven bits. */
static int check_second(struct evw_frames *f, const struct evw_rules *rules, unsigned opcode, unsigned byte) {
    if ((byte >> 7) != rules->masked)
        return violation(f, rules->masked ? "frame of a client without a mask" : "frame of a server with a mask");
    if (evw_is_control(opcode) && (byte & 127) > EVW_CONTROL_MOST)
        return violation(f, "control frame longer than 125 bytes");
    return EVW_DONE;
}

static unsigned extended_len(unsigned second) {
    unsigned len = second & 127;
    return len < 126 ? 0 : len == 126 ? 2 : 8;
}

static uint64_t big_endian(const uint8_t *p, unsigned n) {
    uint64_t value = 0;
    for (unsigned i = 0; i < n; i++)
        value = value << 8 | p[i];
    return value;
}

/* RFC 6455 §5.2: "the minimal number of bytes MUST be used to encode the length", and of 64 bits the first is 0. */
static int check_length(struct evw_frames *f, unsigned extended, uint64_t length) {
    if (length >> 63)
        return violation(f, "frame length of 64 bits");
    if ((extended == 2 && length < 126) || (extended == 8 && length <= 0xffff))
        return violation(f, "frame length not in its shortest form");
    return EVW_DONE;
}

/* A data frame: its place in the message, and the limits. */
static int begin_data(struct evw_frames *f, const struct evw_rules *rules) {
    if (f->opcode != EVW_CONTINUATION) {
        f->message = f->opcode;
        f->message_len = 0;
        f->compressed = f->rsv1;
        f->utf8 = EVW_UTF8_START;
    }
    f->kind = f->message;
    uint64_t excess = f->compressed ? rules->excess : 0;
    if (f->left > rules->max_frame + excess)
        return evw_bad(f, EVW_TOO_BIG, "frame larger than the limit");
    if (f->left > rules->max_message + excess - f->message_len)
        return evw_bad(f, EVW_TOO_BIG, "message larger than the limit");
    f->message_len += f->left;
    if (f->fin)
        f->message = 0;
    return EVW_DONE;
}

/* `h` is the whole header. */
static int begin(struct evw_frames *f, const struct evw_rules *rules, const uint8_t *h, unsigned extended) {
    f->opcode = h[0] & 15;
    f->fin = h[0] >> 7;
    f->rsv1 = (h[0] & EVW_RSV1) != 0;
    f->left = extended ? big_endian(h + 2, extended) : h[1] & 127u;
    if (check_length(f, extended, f->left) == EVW_BAD)
        return EVW_BAD;
    f->key = 0;
    if (rules->masked)
        memcpy(&f->key, h + 2 + extended, sizeof f->key);
    if (!evw_is_control(f->opcode))
        return begin_data(f, rules);
    f->kind = f->opcode;
    return EVW_DONE;
}

int evw_header(struct evw_frames *f, const struct evw_rules *rules, const uint8_t *data, size_t len, size_t *used) {
    const uint8_t *h = data;
    size_t kept = f->header_len, have = len;
    if (kept) { /* it began in an earlier piece */
        size_t part = len < sizeof f->header - kept ? len : sizeof f->header - kept;
        memcpy(f->header + kept, data, part);
        h = f->header;
        have = kept + part;
    }
    *used = len;
    size_t need = 2;
    if (have >= 1 && check_first(f, rules, h[0]) == EVW_BAD)
        return EVW_BAD;
    if (have >= 2) {
        if (check_second(f, rules, h[0] & 15, h[1]) == EVW_BAD)
            return EVW_BAD;
        need += extended_len(h[1]) + (rules->masked ? 4 : 0);
    }
    if (have < need) {
        if (!kept && len) /* else it is there already */
            memcpy(f->header, data, len);
        f->header_len = (uint8_t)have;
        return EVW_MORE;
    }
    f->header_len = 0;
    *used = need - kept;
    return begin(f, rules, h, extended_len(h[1]));
}

int evw_payload(struct evw_frames *f, uint8_t *dst, const uint8_t *src, size_t len) {
    int beyond_ascii = evw_kernels->mask(dst, src, len, f->key);
    f->key = evw_key_at(f->key, len);
    f->left -= len;
    if (f->kind == EVW_TEXT && !f->compressed) {
        /* ASCII after whole characters is the usual case, and has been looked at while it was unmasked. */
        if ((beyond_ascii || f->utf8 != EVW_UTF8_START) && !evw_utf8_feed(&f->utf8, dst, len))
            return evw_bad(f, EVW_INVALID_DATA, "text is not UTF-8");
        if (!f->left && f->fin && f->utf8 != EVW_UTF8_START)
            return evw_bad(f, EVW_INVALID_DATA, "text ends within a character");
    }
    return f->left ? EVW_MORE : EVW_DONE;
}

size_t evw_header_write(uint8_t *into, unsigned first, uint64_t len, const uint32_t *key) {
    unsigned extended = len < 126 ? 0 : len <= 0xffff ? 2 : 8;
    into[0] = (uint8_t)first;
    into[1] = (uint8_t)((extended == 0 ? len : extended == 2 ? 126 : 127) | (key ? 0x80u : 0));
    for (unsigned i = 0; i < extended; i++)
        into[2 + i] = (uint8_t)(len >> 8 * (extended - 1 - i));
    if (!key)
        return 2 + extended;
    memcpy(into + 2 + extended, key, sizeof *key);
    return 2 + extended + sizeof *key;
}
