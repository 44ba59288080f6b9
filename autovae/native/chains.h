/* Chains of linear layers and Adam on many tensors, see chains.c. */
#pragma once

#include "products.h"

typedef struct {
    const float *weight, *bias;
    long in, out;
} Layer;

/* A tensor's place; where `a` is given its gradient is a b, of `k` terms, and `gradient` room for it. */
typedef struct {
    float *values, *gradient, *means, *squares;
    long members, m, n;
    const float *a, *b;
    long k, a_next, a_apart, a_turned, b_next, b_apart, b_turned;
} Task;

int chain_forward(long members, long points, long depth, const Layer *layers, const float *x, long x_next,
                  float *const *outputs, long threads);
int chain_backward(long members, long points, long depth, const Layer *layers, const float *const *outputs, const float *g,
                   float *const *slopes, float *const *sums, float *to_x, long threads);
int adam_steps(long count, const Task *tasks, const float *rates, double grow, double beta1, double beta2, double shrink,
               float epsilon, long threads);
