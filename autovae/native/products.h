/* Products of float32 matrices, for those who ask for several: by vectors (lanes.c) or by a matrix unit (unit.c). */
#pragma once

#include "adam.h"
#include "vectors.h"

#define EXPORT __attribute__((visibility("default")))

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#define HAS_PRODUCTS
#endif
#if defined(__linux__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#define HAS_UNIT
#endif

#ifdef HAS_PRODUCTS

/* C = A B, (m, n) of (m, k) and (k, n). `*_apart` are numbers between rows in memory; a factor is `turned` where rows in
   memory are its columns. Then, in this order and where they are given: the bias is added, negative results become 0,
   those become 0 where `kept` is not positive, and `sums` are those over rows. Or C is a gradient: a step of Adam is
   taken along it, and C is lost. */
typedef struct {
    const float *a, *b, *bias, *kept;
    float *c, *sums;
    long a_apart, b_apart, c_apart; /* `kept` lies like C, and so do values and moments */
    long m, n, k;
    int a_turned, b_turned, rectify;
    float *values, *means, *squares;
    const float *rates; /* of members; `rate` is a factor of them */
    float rate;
    Rule rule;
} Product;

/* The products of all members, which begin `*_next` numbers from each other; what lies like C, like C; bias and sums side
   by side. 0, or 1 where there is no room.

   Threads get members or, where there are too few, strips of the longer side of C: each cuts the other factor for
   itself, so that nobody waits for another before the end, and sums over rows are found in one order. */
int multiply_each(long members, const Product *of, long a_next, long b_next, long c_next, long threads);

/* On this thread alone. 0, or 1 where there is no room. */
int by_lanes(const Product *p);
int by_unit(const Product *p);

/* Whether the system lends the unit. */
int unit_ready(void);

/* For those two: so many bytes of this thread's own, or NULL; whether anything becomes of sums before they are C, and what,
   of a block of some rows from (m, n) on, `wide` numbers a row in the box; and a step of Adam along some rows of C from
   row m on, which lie one after the other. */
char *room_for(size_t size);
static inline int follows(const Product *p) { return p->bias || p->rectify || p->kept || p->sums; }
void finish(const Product *p, long m, long rows, long n, long wide, const float *box);
void move(const Product *p, long m, long rows, const float *c);
#endif

/* See passes.c. */
void linear_in_x(long head, long rows, long points, long features, const float *x, const float *eta, float *value,
                 float *slope, long threads);
void scale_rows(long rows, long features, float *values, const float *factor, long threads);
void normal_latents(long members, long samples, long points, long latents, const float *raw, const float *xi, long apart,
                    long next, float limit, float *scale, float *z, float *kl, long threads);
void normal_latents_back(long members, long samples, long points, long latents, const float *raw, const float *xi,
                         long apart, long next, float limit, const float *scale, const float *of_z, const float *of_kl,
                         float *slope, long threads);
void adam(long members, long size, float *values, const float *gradient, float *means, float *squares, uint16_t *narrow,
          long apart, const float *rates, double grow, double beta1, double beta2, double shrink, float epsilon,
          long threads);
