/* Sixteen numbers at once, by the vector types of GCC and Clang: whatever the processor has, they become that. */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define LANES 16

typedef float numbers __attribute__((vector_size(4 * LANES)));
typedef int32_t bits __attribute__((vector_size(4 * LANES)));

static inline numbers all(float x) {
    numbers v;
    for (int i = 0; i < LANES; i++) v[i] = x;
    return v;
}

static inline numbers load(const float *from) {
    numbers v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(float *to, numbers v) { memcpy(to, &v, sizeof v); }

/* The first `count` numbers, the others `rest`; all of them where there are as many. */
static inline numbers load_some(const float *from, long count, float rest) {
    if (count >= LANES) return load(from);
    float held[LANES];
    for (int i = 0; i < LANES; i++) held[i] = i < count ? from[i] : rest;
    return load(held);
}

static inline void store_some(float *to, numbers v, long count) {
    if (count >= LANES) return store(to, v);
    float held[LANES];
    store(held, v);
    memcpy(to, held, 4 * count);
}

/* a where the bits of `where` are set, else b. */
static inline numbers pick(bits where, numbers a, numbers b) {
    return (numbers)((where & (bits)a) | (~where & (bits)b));
}

static inline numbers size_of(numbers x) { return (numbers)((bits)x & 0x7fffffff); }

static inline float sum_of(numbers v) {
    float s = 0;
    for (int i = 0; i < LANES; i++) s += v[i];
    return s;
}

/* sqrt x and 1 / x for x >= 0, to 2e-7. An approximation and a step of Newton's take a fifth of the exact instruction's time;
   they go wrong at 0 and infinity, which are left to stand for themselves. */
static inline numbers root_of(numbers x) {
#if defined(__AVX512F__)
    numbers y = (numbers)_mm512_rsqrt14_ps((__m512)x), root = x * y;
    root += 0.5f * y * (x - root * root);
    return pick((x > 0.0f) & (x < INFINITY), root, x);
#else
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

static inline numbers inverse_of(numbers x) {
#if defined(__AVX512F__)
    numbers y = (numbers)_mm512_rcp14_ps((__m512)x);
    return pick((x > 0.0f) & (x < INFINITY), y * (2.0f - x * y), y); /* rcp14 has these right */
#else
    return 1.0f / x;
#endif
}

/* exp(-a) for a > -87, to 1e-7 relative; below exp(-87) it is that. 2^n exp(r), |r| <= log(2) / 2 (Cephes). */
static inline numbers exp_minus(numbers a) {
    const float whole = 12582912.0f; /* 1.5 * 2^23: added to it, a number is rounded, and stands in its low bits */
    a = pick(a > 87.0f, all(87.0f), a);
    numbers shifted = a * -1.44269504f + whole, n = shifted - whole;
    numbers r = -a - n * 0.693359375f + n * 2.12194440e-4f;
    numbers p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return pick(a == a, (numbers)((bits)p + ((bits)shifted << 23)), a);
}

/* log x for normal x > 0, to 1e-7: exponent and a polynomial on [sqrt(1/2), sqrt 2) (Cephes). */
static inline numbers log_of(numbers x) {
    bits raw = (bits)x - 0x3f3504f3, exponent = raw >> 23; /* from sqrt(1/2) on */
    numbers m = (numbers)((raw & 0x7fffff) + 0x3f3504f3) - 1.0f, square = m * m;
    numbers n = __builtin_convertvector(exponent, numbers);
    numbers p = m * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * square - n * 2.12194440e-4f - 0.5f * square;
    return m + p + n * 0.693359375f;
}
