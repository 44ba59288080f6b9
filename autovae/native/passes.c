/* What products leave over of a training step, each tensor read and written once. Tensors are contiguous float32.

   linear_in_x    sum_j x_j eta_j - A(eta_j), and the slope x_j - A'(eta_j): heads that are linear in x
   scale_rows     s <- s g, a factor for each row: the chain rule of such a head
   rectify_back   g <- g where h > 0, else 0; and its sum over rows: the gradient of the bias below
   adam           a step of Adam with a rate for each member
   middles        points of whole levels v, chosen by their places, as the middles of their bins, (v + 1/2) / L
   normal_latents a normal posterior's draws and its divergence from the standard normal, and back to its parameters

   Loops are shared by `threads` threads where the compiler knows OpenMP and the work is worth it. */

#include "products.h"

/* Whether `adam` takes subnormal numbers for zero. */
EXPORT int flushes(void) {
#if defined(__SSE__)
    return 1;
#else
    return 0;
#endif
}

#define SHARED 32768 /* numbers below which threads would rather wait for each other than work */

/* log of the integral of exp(x eta) over [0, 1], less max(eta, 0), and its derivative; a = |eta|, e = exp(-a).
   Direct forms cancel near 0; both series reach float32's accuracy at 1. */
static inline numbers continuous(numbers eta, numbers a, numbers e, numbers *mean) {
    bits near = a < 1.0f;
    numbers square = a * a, rest = pick(near, all(0.5f), 1.0f - e), far = pick(near, all(1.0f), a);
    numbers p = all(1.0f / 181440) - square * (1.0f / 9676800);
    p = square * p - 1.0f / 2880;
    p = a * (-0.5f + a * (1.0f / 24 + square * p));
    numbers value = pick(near, p, log_of(rest / far));
    p = square * (1.0f / 47900160) - 1.0f / 1209600;
    p = square * p + 1.0f / 30240;
    p = square * p - 1.0f / 720;
    p = a * (1.0f / 12 + square * p);
    numbers beyond = pick(near, p, 1.0f / rest - 1.0f / far - 0.5f);
    *mean = 0.5f + pick(eta < 0.0f, -beyond, beyond);
    return value;
}

/* Row r of eta meets row r % points of x. The slope may be missing. */
EXPORT void linear_in_x(long head, long rows, long points, long features, const float *x, const float *eta,
                        float *value, float *slope, long threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * features > SHARED)
    for (long row = 0; row < rows; row++) {
        const float *at = eta + row * features, *met = x + row % points * features;
        numbers held = all(0), factors = all(1);
        long kept = 0; /* factors of [1, 2] in each lane */
        for (long j = 0; j < features; j += LANES) {
            long left = features - j;
            numbers logit = load_some(at + j, left, 0);
            numbers pixel = load_some(met + j, left, 0);
            numbers a = size_of(logit), e = exp_minus(a), mean;
            numbers part = pixel * logit - pick(logit > 0.0f, logit, all(0));
            if (head == 0) { /* log(1 + e), by one logarithm for many factors */
                numbers sum = 1.0f + e;
                mean = pick(logit >= 0.0f, all(1), e) / sum;
                factors *= left < LANES ? load_some((const float *)&sum, left, 1) : sum;
                if (++kept == 64) {
                    held -= log_of(factors);
                    factors = all(1);
                    kept = 0;
                }
            } else {
                part -= continuous(logit, a, e, &mean); /* 0 where the logit is 0, so beyond the last feature too */
            }
            held += part;
            if (slope) store_some(slope + row * features + j, pixel - mean, left);
        }
        if (head == 0) held -= log_of(factors);
        value[row] = sum_of(held);
    }
}

/* 0, or 1 where a place is none of `count` points'. */
EXPORT int middles(long rows, long features, long count, const uint8_t *values, const int64_t *places, float levels,
                   float *to) {
    for (long row = 0; row < rows; row++) {
        if (places[row] < 0 || places[row] >= count) return 1;
        const uint8_t *from = values + places[row] * features;
        for (long j = 0; j < features; j++) to[row * features + j] = (from[j] + 0.5f) / levels;
    }
    return 0;
}

/* Raw outputs (m, s) of a posterior N(m, scale^2), scale = exp(s) with s kept within +-limit, `latents` of each a row:

     z = m + scale xi        kl = sum (m^2 + scale^2 - 1) / 2 - s

   Rows are (members, points); z and xi have `samples` of each, between members and points. Members of xi begin `apart`
   numbers from each other, its samples `next`. */
EXPORT void normal_latents(long members, long samples, long points, long latents, const float *raw, const float *xi,
                           long apart, long next, float limit, float *scale, float *z, float *kl, long threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && members * samples * points * latents > SHARED)
    for (long row = 0; row < members * points; row++) {
        const float *at = raw + row * 2 * latents, *noise = xi + row / points * apart + row % points * latents;
        float *to = z + (row / points * samples * points + row % points) * latents;
        numbers sum = all(0);
        for (long j = 0; j < latents; j += LANES) {
            long left = latents - j;
            numbers m = load_some(at + j, left, 0), s = load_some(at + latents + j, left, 0);
            s = pick(s > limit, all(limit), pick(s < -limit, all(-limit), s));
            numbers width = exp_minus(-s), d = width - 1.0f;
            sum += 0.5f * (m * m + d * (2.0f + d)) - s; /* 0 where m and s are, so beyond the last latent too */
            store_some(scale + row * latents + j, width, left);
            for (long k = 0; k < samples; k++)
                store_some(to + k * points * latents + j, m + width * load_some(noise + k * next + j, left, 0), left);
        }
        kl[row] = sum_of(sum);
    }
}

/* The gradient of (m, s) from those of z and kl. */
EXPORT void normal_latents_back(long members, long samples, long points, long latents, const float *raw,
                                const float *xi, long apart, long next, float limit, const float *scale,
                                const float *of_z, const float *of_kl, float *slope, long threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && members * samples * points * latents > SHARED)
    for (long row = 0; row < members * points; row++) {
        const float *at = raw + row * 2 * latents, *noise = xi + row / points * apart + row % points * latents;
        const float *from = of_z + (row / points * samples * points + row % points) * latents;
        float *to = slope + row * 2 * latents;
        for (long j = 0; j < latents; j += LANES) {
            long left = latents - j;
            numbers m = load_some(at + j, left, 0), s = load_some(at + latents + j, left, 0);
            numbers width = load_some(scale + row * latents + j, left, 1), d = width - 1.0f;
            numbers of_m = of_kl[row] * m, of_scale = all(0);
            for (long k = 0; k < samples; k++) {
                numbers g = load_some(from + k * points * latents + j, left, 0);
                of_m += g;
                of_scale += g * load_some(noise + k * next + j, left, 0);
            }
            numbers of_s = of_scale * width + of_kl[row] * (d * (2.0f + d));
            store_some(to + j, of_m, left);
            store_some(to + latents + j, pick((s >= -limit) & (s <= limit), of_s, all(0)), left);
        }
    }
}

EXPORT void scale_rows(long rows, long features, float *values, const float *factor, long threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * features > SHARED)
    for (long row = 0; row < rows; row++)
        for (long j = 0; j < features; j++) values[row * features + j] *= factor[row];
}

EXPORT void rectify_back(long members, long rows, long features, float *g, const float *h, float *sums, long threads) {
    long strips = (features + 4 * LANES - 1) / (4 * LANES);
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * features > SHARED)
    for (long part = 0; part < members * strips; part++) {
        long member = part / strips, first = part % strips * 4 * LANES;
        long count = features - first < 4 * LANES ? features - first : 4 * LANES;
        float held[4 * LANES] = {0};
        for (long row = 0; row < rows; row++) {
            float *at = g + (member * rows + row) * features + first;
            const float *above = h + (member * rows + row) * features + first;
            for (long j = 0; j < count; j++) {
                float v = above[j] <= 0 ? 0 : at[j];
                at[j] = v;
                held[j] += v;
            }
        }
        memcpy(sums + member * features + first, held, 4 * count);
    }
}

/* As bfloat16, rounded to the nearest, to even where two are. */
static inline uint16_t narrowed(float x) {
    uint32_t raw;
    memcpy(&raw, &x, 4);
    return x == x ? (raw + 0x7fff + (raw >> 16 & 1)) >> 16 : 0x7fc0;
}

/* A rate for each of `members` parts of `size` numbers; grow is 1 / (1 - beta1^t), shrink sqrt(1 - beta2^t). Parts of
   `narrow`, which may be missing, begin `apart` numbers from each other. */
EXPORT void adam(long members, long size, float *values, const float *gradient, float *means, float *squares,
                 uint16_t *narrow, long apart, const float *rates, double grow, double beta1, double beta2,
                 double shrink, float epsilon, long threads) {
    const Rule rule = rule_of(beta1, beta2, shrink, epsilon);
    long block = 1 << 14, blocks = (size + block - 1) / block;
#pragma omp parallel for num_threads(threads) if (threads > 1 && members * size > SHARED)
    for (long part = 0; part < members * blocks; part++) {
        long member = part / blocks, first = part % blocks * block;
        long count = size - first < block ? size - first : block, at = member * size + first;
        const float rate = rates[member] * grow;
        const unsigned before = flush_small();
        for (long i = 0; i < count; i += LANES)
            adam_step(&rule, rate, gradient + at + i, values + at + i, means + at + i, squares + at + i, count - i);
        flush_as(before);
        if (narrow)
            for (long i = 0; i < count; i++) narrow[member * apart + first + i] = narrowed(values[at + i]);
    }
}
