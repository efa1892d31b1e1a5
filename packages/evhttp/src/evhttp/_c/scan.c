#include "scan.h"

#include "scan_kernels.h"

/* One row for 16 bytes; the sums of EVH_C_* bits. tests/test_parser_c.py derives each bit from the grammar again and compares. */
const uint8_t evh_class[256] = {
      0,   0,   0,   0,   0,   0,   0,   0,   0,  66,   0,   0,   0,   0,   0,   0,  /* 00 */
      0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,  /* 10 */
     66,  79,   6,  71,  79,  71,  79,  79,  78,  78,  79,  79,  70,  79,  79,  70,  /* 20 */
    127, 127, 127, 127, 127, 127, 127, 127, 127, 127,  70,  78,  70,  78,  70,  70,  /* 30 */
     70,  95,  95,  95,  95,  95,  95,  79,  79,  79,  79,  79,  79,  79,  79,  79,  /* 40 */
     79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  70,   6,  70,  71,  79,  /* 50 */
     71,  95,  95,  95,  95,  95,  95,  79,  79,  79,  79,  79,  79,  79,  79,  79,  /* 60 */
     79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  70,  71,  70,  79,   0,  /* 70 */
     66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  /* 80 */
     66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  /* 90 */
     66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  /* a0 */
     66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  /* b0 */
     66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  /* c0 */
     66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  /* d0 */
     66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  /* e0 */
     66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  66,  /* f0 */
};

#if defined(EVH_HAVE_SSE2)
enum evh_scan_impl evh__scan_impl = EVH_IMPL_SSE2;
#elif defined(EVH_HAVE_NEON)
enum evh_scan_impl evh__scan_impl = EVH_IMPL_NEON;
#else
enum evh_scan_impl evh__scan_impl = EVH_IMPL_SCALAR;
#endif

static const char *const names[EVH_IMPL_COUNT] = {"scalar", "sse2", "avx2", "neon"};

static int available(enum evh_scan_impl impl)
{
    switch (impl) {
    case EVH_IMPL_SCALAR:
        return 1;
#if defined(EVH_HAVE_SSE2)
    case EVH_IMPL_SSE2:
        return 1;
#endif
#if defined(EVH_HAVE_AVX2)
    case EVH_IMPL_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
#endif
#if defined(EVH_HAVE_NEON)
    case EVH_IMPL_NEON:
        return 1;
#endif
    default:
        return 0;
    }
}

const char *evh_scan_select(const char *name)
{
    for (int i = EVH_IMPL_COUNT - 1; i >= 0; i--) {
        if ((name == NULL || strcmp(name, names[i]) == 0) && available((enum evh_scan_impl)i)) {
            evh__scan_impl = (enum evh_scan_impl)i;
            return names[i];
        }
    }
    return NULL;
}

const char *evh_scan_impl_name(void)
{
    return names[evh__scan_impl];
}

#if defined(EVH_HAVE_AVX2)
EVH_AVX2 static const uint8_t *value_avx2(const uint8_t *p, const uint8_t *end)
{
    return evh__value_avx2(p, p, end);
}

EVH_AVX2 static const uint8_t *target_avx2(const uint8_t *p, const uint8_t *end)
{
    return evh__target_avx2(p, p, end);
}
#endif

const uint8_t *evh_scan_value(const uint8_t *p, const uint8_t *end)
{
#if defined(EVH_HAVE_AVX2)
    if (evh__scan_impl == EVH_IMPL_AVX2)
        return value_avx2(p, end);
#endif
#if defined(EVH_LANE_BITS)
    if (evh__scan_impl != EVH_IMPL_SCALAR)
        return evh__value_v16(p, p, end);
#endif
    return evh__value_scalar(p, p, end);
}

const uint8_t *evh_scan_target(const uint8_t *p, const uint8_t *end)
{
#if defined(EVH_HAVE_AVX2)
    if (evh__scan_impl == EVH_IMPL_AVX2)
        return target_avx2(p, end);
#endif
#if defined(EVH_LANE_BITS)
    if (evh__scan_impl != EVH_IMPL_SCALAR)
        return evh__target_v16(p, p, end);
#endif
    return evh__target_scalar(p, p, end);
}

const uint8_t *evh_scan_token(const uint8_t *p, const uint8_t *end)
{
#if defined(EVH_LANE_BITS)
    if (evh__scan_impl != EVH_IMPL_SCALAR)
        return evh__token_v16(p, p, end);
#endif
    return evh__token_scalar(p, p, end);
}
