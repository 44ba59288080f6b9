/* Whole chains of linear layers with rectifiers between them, forward and back, and a step of Adam on many tensors: one
   call each, since on a small step calls take as long as the work.

   Activations are (members, points, width), each layer's in a place of its own; weights (members, in, out). Threads get members
   or, where there are too few, share every product. */

#include "chains.h"

#ifdef HAS_PRODUCTS

/* Outputs of layers for members from `from` to `to`, each alone. */
static int forward(long from, long to, long points, long depth, const Layer *layers, const float *x, long x_next,
                   float *const *outputs, long threads) {
    int failed = 0;
    for (long l = 0; l < depth; l++) {
        long in = layers[l].in, out = layers[l].out;
        const Product p = {.a = x + from * x_next, .a_apart = in, .m = points, .b = layers[l].weight + from * in * out,
                           .b_apart = out, .n = out, .k = in, .c = outputs[l] + from * points * out, .c_apart = out,
                           .bias = layers[l].bias + from * out, .rectify = l < depth - 1};
        failed |= multiply_each(to - from, &p, x_next, in * out, points * out, threads);
        x = outputs[l];
        x_next = points * out;
    }
    return failed;
}

/* Gradients of all layers' outputs but the last's, whose is g, and their sums over points; of x where that is asked for. */
static int backward(long from, long to, long points, long depth, const Layer *layers, const float *const *outputs,
                    const float *g, float *const *slopes, float *const *sums, float *to_x, long threads) {
    int failed = 0;
    const long width = layers[depth - 1].out;
    for (long i = from; i < to; i++) {
        float *sum = sums[depth - 1] + i * width;
        memset(sum, 0, 4 * width);
        for (long row = i * points; row < (i + 1) * points; row++)
            for (long j = 0; j < width; j++) sum[j] += g[row * width + j];
    }
    for (long l = depth - 1; l >= 0; l--) {
        long in = layers[l].in, out = layers[l].out;
        float *c = l ? slopes[l - 1] : to_x;
        if (!c) break;
        const Product p = {.a = g + from * points * out, .a_apart = out, .m = points,
                           .b = layers[l].weight + from * in * out, .b_apart = out, .b_turned = 1, .n = in, .k = out,
                           .c = c + from * points * in, .c_apart = in,
                           .kept = l ? outputs[l - 1] + from * points * in : NULL, .sums = l ? sums[l - 1] + from * in : NULL};
        failed |= multiply_each(to - from, &p, points * out, in * out, points * in, threads);
        g = c;
    }
    return failed;
}

/* `x_next` is 0 where members share x. */
EXPORT int chain_forward(long members, long points, long depth, const Layer *layers, const float *x, long x_next,
                         float *const *outputs, long threads) {
    if (members < threads) return forward(0, members, points, depth, layers, x, x_next, outputs, threads);
    int failed = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic) reduction(| : failed)
    for (long i = 0; i < members; i++) failed |= forward(i, i + 1, points, depth, layers, x, x_next, outputs, 1);
    return failed;
}

EXPORT int chain_backward(long members, long points, long depth, const Layer *layers, const float *const *outputs,
                          const float *g, float *const *slopes, float *const *sums, float *to_x, long threads) {
    if (members < threads) return backward(0, members, points, depth, layers, outputs, g, slopes, sums, to_x, threads);
    int failed = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic) reduction(| : failed)
    for (long i = 0; i < members; i++)
        failed |= backward(i, i + 1, points, depth, layers, outputs, g, slopes, sums, to_x, 1);
    return failed;
}

#endif

/* A step of Adam on every tensor, see `adam`; rates of members. */
EXPORT int adam_steps(long count, const Task *tasks, const float *rates, double grow, double beta1, double beta2,
                      double shrink, float epsilon, long threads) {
    int failed = 0;
    for (const Task *t = tasks; t < tasks + count; t++) {
        long size = t->m * t->n;
        if (!t->a) {
            adam(t->members, size, t->values, t->gradient, t->means, t->squares, NULL, 0, rates, grow, beta1, beta2,
                 shrink, epsilon, threads);
            continue;
        }
#ifdef HAS_PRODUCTS
        const Product p = {.a = t->a, .a_apart = t->a_apart, .a_turned = t->a_turned, .m = t->m, .b = t->b,
                           .b_apart = t->b_apart, .b_turned = t->b_turned, .n = t->n, .k = t->k, .c = t->gradient,
                           .c_apart = t->n, .values = t->values, .means = t->means, .squares = t->squares,
                           .rates = rates, .rate = grow, .rule = rule_of(beta1, beta2, shrink, epsilon)};
        failed |= multiply_each(t->members, &p, t->a_next, t->b_next, size, threads);
#else
        failed = 1; /* nobody asked whether there are products */
#endif
    }
    return failed;
}
