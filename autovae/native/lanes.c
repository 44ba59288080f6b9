/* Products of float32 matrices by vectors with fused multiplication and addition, at the rate that these can be had.

   A block of C, ROWS x WIDE, stays in registers while a term after the other is added: a row of B's strip, two vectors,
   times the numbers of a column of A's, each of which fills a vector. Slices of A and strips of B are packed, so that both
   are read as they lie; coming from the second cache they come faster than they are used up. Parts of 512 terms, whose slice
   stays in the nearest, take 4 % longer: C goes to memory between them.

   Torch's own setting takes vectors of half the width on processors that are not its library's maker's. */

#include "products.h"

#ifdef HAS_PRODUCTS

#include "turn.h"

#if defined(__AVX512F__)
#define W 16
#define ROWS 14 /* 28 sums, two vectors of B, one of A: 31 of 32 registers */
#else
#define W 8
#define ROWS 6 /* 12, two, one: 15 of 16 */
#endif
#define WIDE (2 * W)
#define TERMS 1024 /* of a part of the common axis: a slice of A takes 64 KB, a strip of B 128 at most */
#define GROUP 4    /* slices of A that are packed at once: what lies side by side in memory is read once */

typedef float lanes __attribute__((vector_size(4 * W)));
typedef float anywhere __attribute__((vector_size(4 * W), aligned(4)));

/* W rows and columns turned, of which so many are there; the others become 0. Rows go on: the square after the next is asked
   for, since the processor does not follow so many at once by itself. */
static void turn_some(const float *s, long apart, long rows, long columns, float *to, long next) {
    if (rows >= W && columns >= W) {
        for (long i = 0; i < W; i++) __builtin_prefetch(s + i * apart + 2 * W, 0, 3);
        return turn(s, apart, to, next);
    }
    float held[W * W] = {0};
    for (long i = 0; i < rows && i < W; i++)
        for (long j = 0; j < columns && j < W; j++) held[W * i + j] = s[i * apart + j];
    turn(held, W, to, next);
}

/* Where a slice of C, of ROWS rows at most, begins. */
static long begins_at(const Product *p, long slice, long slices) { return p->m * slice / slices; }

/* Slices of A from `slice` on, so many, `terms` of their numbers: to[slice][t][row], W a row, `most` rows a slice. */
static void pack_a(const Product *p, long slice, long count, long slices, long from, long terms, long most, float *to) {
    if (!p->a_turned) {
        for (long i = 0; i < count; i++, to += most * W) {
            const long row = begins_at(p, slice + i, slices);
            for (long t = 0; t < terms; t += W)
                turn_some(p->a + row * p->a_apart + from + t, p->a_apart, p->m - row, terms - t, to + t * W, W);
        }
        return;
    }
    for (long t = 0; t < terms; t++, to += W) {
        const float *s = p->a + (from + t) * p->a_apart;
        for (long i = 0; i < count; i++) {
            const long row = begins_at(p, slice + i, slices), left = p->m - row;
            float *at = to + i * most * W;
            __builtin_prefetch(s + 8 * p->a_apart + row, 0, 3);
            if (left >= W) memcpy(at, s + row, 4 * W);
            else for (long j = 0; j < left; j++) at[j] = s[row + j];
        }
    }
}

/* `terms` rows of B: to[strip][t][column], `most` rows a strip. Memory is read as it lies. */
static void pack_b(const Product *p, long from, long terms, long most, float *to) {
    if (p->b_turned) {
        for (long n = 0; n < p->n; n += W, to += n % WIDE ? W : most * WIDE - W)
            for (long t = 0; t < terms; t += W)
                turn_some(p->b + n * p->b_apart + from + t, p->b_apart, p->n - n, terms - t, to + t * WIDE, WIDE);
        return;
    }
    for (long t = 0; t < terms; t++, to += WIDE) {
        const float *s = p->b + (from + t) * p->b_apart;
        float *at = to;
        long n = 0;
        for (; n + WIDE <= p->n; n += WIDE, at += most * WIDE) memcpy(at, s + n, 4 * WIDE);
        if (n < p->n)
            for (long j = 0; j < WIDE; j++) at[j] = n + j < p->n ? s[n + j] : 0;
    }
}

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

/* c (+)= a b for `rows` rows and one vector or two, all known when this is compiled. */
static inline __attribute__((always_inline)) void add_up(const int rows, const int two, const float *a, const float *b,
                                                         long terms, float *c, long apart, int begins) {
    lanes s[ROWS][2];
    UNROLLED
    for (int i = 0; i < rows; i++) {
        s[i][0] = begins ? (lanes){0} : *(const anywhere *)(c + i * apart);
        if (two) s[i][1] = begins ? (lanes){0} : *(const anywhere *)(c + i * apart + W);
    }
    for (; terms > 0; terms--, a += W, b += WIDE) {
        const lanes left = *(const lanes *)b, right = two ? *(const lanes *)(b + W) : left;
        UNROLLED
        for (int i = 0; i < rows; i++) {
            s[i][0] += a[i] * left;
            if (two) s[i][1] += a[i] * right;
        }
    }
    UNROLLED
    for (int i = 0; i < rows; i++) {
        *(anywhere *)(c + i * apart) = s[i][0];
        if (two) *(anywhere *)(c + i * apart + W) = s[i][1];
    }
}

#define CASE(rows)                                                       \
    case rows:                                                           \
        if (two) add_up(rows, 1, a, b, terms, c, apart, begins);         \
        else add_up(rows, 0, a, b, terms, c, apart, begins);             \
        break;

static void add_rows(long rows, int two, const float *a, const float *b, long terms, float *c, long apart, int begins) {
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#endif
    }
}

/* One block of C over a part of the common axis; `box` is room for it. */
static void block(const Product *p, long m, long rows, long n, const float *a, const float *b, long terms, int begins,
                  int ends, float *box) {
    const long columns = p->n - n < WIDE ? p->n - n : WIDE;
    const int two = columns > W, whole = columns == (two ? WIDE : W), finishes = ends && follows(p);
    float *at = p->c + m * p->c_apart + n;
    if (whole && !finishes) return add_rows(rows, two, a, b, terms, at, p->c_apart, begins);
    if (!begins)
        for (long i = 0; i < rows; i++) memcpy(box + WIDE * i, at + i * p->c_apart, 4 * columns);
    add_rows(rows, two, a, b, terms, box, WIDE, begins);
    if (finishes) return finish(p, m, rows, n, WIDE, box);
    for (long i = 0; i < rows; i++) memcpy(at + i * p->c_apart, box + WIDE * i, 4 * columns);
}

/* What a step of Adam along a block will read, while its sums are found. */
static void ask_for(const Product *p, long m, long rows, long n) {
    const float *const of[3] = {p->values, p->means, p->squares};
    for (int which = 0; which < 3; which++)
        for (long i = 0; i < rows; i++)
            for (long j = 0; j < WIDE; j += 16) __builtin_prefetch(of[which] + (m + i) * p->c_apart + n + j, 1, 2);
}

int by_lanes(const Product *p) {
    const long parts = (p->k + TERMS - 1) / TERMS, strips = (p->n + WIDE - 1) / WIDE, slices = (p->m + ROWS - 1) / ROWS;
    const long most = ((p->k + parts - 1) / parts + W - 1) / W * W; /* terms that a strip has room for */
    const long wide = p->values && parts == 1 ? ROWS * p->c_apart : 0;
    float *a = (float *)room_for(4 * (most * (GROUP * W + strips * WIDE) + ROWS * WIDE + wide));
    if (!a) return 1;
    float *packed = a + most * GROUP * W, *box = packed + strips * most * WIDE, *held = box + ROWS * WIDE;
    const unsigned before = p->values ? flush_small() : 0;
    memset(box, 0, 4 * ROWS * WIDE); /* where a strip ends early it is read, but not written */
    if (p->sums) memset(p->sums, 0, 4 * p->n);
    for (long part = 0; part < parts; part++) {
        const long from = p->k * part / parts, terms = p->k * (part + 1) / parts - from;
        const int ends = part == parts - 1, moves = ends && p->values != NULL;
        pack_b(p, from, terms, most, packed);
        for (long slice = 0; slice < slices; slice++) {
            const long m = begins_at(p, slice, slices), rows = begins_at(p, slice + 1, slices) - m, left = slices - slice;
            const float *own = a + slice % GROUP * most * W;
            Product here = *p;
            if (wide) here.c = held - m * p->c_apart; /* what is used here does not go to memory */
            if (slice % GROUP == 0) pack_a(p, slice, left < GROUP ? left : GROUP, slices, from, terms, most, a);
            for (long strip = 0; strip < strips; strip++) {
                if (moves) ask_for(p, m, rows, WIDE * strip);
                block(&here, m, rows, WIDE * strip, own, packed + strip * most * WIDE, terms, !part, ends, box);
            }
            if (moves) move(p, m, rows, here.c + m * p->c_apart);
        }
    }
    if (p->values) flush_as(before);
    return 0;
}

#endif
