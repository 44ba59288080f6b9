/* The rule of Adam for some numbers:

   m <- b1 m + (1 - b1) g      v <- b2 v + (1 - b2) g^2      p <- p - rate m / (sqrt(v / c2) + eps)

   with the first moment's correction in the rate. */
#pragma once

#include <math.h>

#include "vectors.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

typedef struct {
    float keep1, keep2, more1, more2, inverse, epsilon;
} Rule;

/* `shrink` is sqrt(1 - beta2^t). Rounded last: 1 - beta2 of a rounded beta2 is wrong in the fifth digit. */
static inline Rule rule_of(double beta1, double beta2, double shrink, float epsilon) {
    return (Rule){beta1, beta2, 1 - beta1, 1 - beta2, 1 / shrink, epsilon};
}

/* From here on, where the processor can, numbers too small to be normal become 0, and cost no more than others. */
static inline unsigned flush_small(void) {
#if defined(__SSE__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
#else
    return 0;
#endif
}

static inline void flush_as(unsigned before) {
#if defined(__SSE__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

/* One step of up to LANES numbers, of which `count` are there. */
static inline __attribute__((always_inline)) void adam_step(const Rule *rule, float rate, const float *gradient,
                                                            float *values, float *means, float *squares, long count) {
    const int some = count < LANES;
    numbers g = some ? load_some(gradient, count, 0) : load(gradient), p = some ? load_some(values, count, 0) : load(values);
    numbers m = some ? load_some(means, count, 0) : load(means), v = some ? load_some(squares, count, 0) : load(squares);
    m = rule->keep1 * m + rule->more1 * g;
    v = rule->keep2 * v + rule->more2 * g * g;
    p -= rate * m * inverse_of(root_of(v) * rule->inverse + rule->epsilon);
    if (some) {
        store_some(means, m, count);
        store_some(squares, v, count);
        store_some(values, p, count);
    } else {
        store(means, m);
        store(squares, v);
        store(values, p);
    }
}
