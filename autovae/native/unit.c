/* Products of float32 matrices by the matrix unit (AMX) of x86 processors, which multiplies bfloat16 and adds float32.

   A number is taken as the sum of two bfloat16 numbers, x = high + low + rest with |rest| <= 2^-18 |x|, and

       a b = high high + high low + low high        relative error of a product of matrices some 4e-6

   which is what torch calls the precision "high". All three add to the same float32 sums. A factor is cut into tiles of
   16 rows of 64 bytes on the way: of A 16 rows by 32 of the common axis; of B 32 of the common axis, two by two, by 16
   columns. Blocks of 2 x 2 tiles of the result stay in the unit's registers over a part of the common axis whose tiles
   of A fit the nearest cache. */

#include "products.h"

#ifdef HAS_UNIT

#include "turn.h"
#include <sys/syscall.h>
#include <unistd.h>

#define TILE 1024        /* bytes */
#define STEP (4 * TILE)  /* of two tiles side by side, high and low */
#define STEPS 8          /* of 32 along the common axis: their tiles of A are 32 KB */

/* It is lent to a process that asks. */
int unit_ready(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0; }

static inline void halves(__m512 x, __m512 y, __m512i *high, __m512i *low) {
    __m512i h = (__m512i)_mm512_cvtne2ps_pbh(y, x);
    __m512 hx = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(h)), 16);
    __m512 hy = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(h, 1)), 16);
    *high = h;
    *low = (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(y, hy), _mm512_sub_ps(x, hx));
}

static inline __mmask16 first(long n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

#define LOW (2 * TILE) /* from a tile of high halves to its low ones */

/* 16 rows and 32 columns at s: a row of numbers is a row of the tile. */
static inline void rows_to(const float *s, long apart, long rows, long columns, char *high, char *low) {
    __m512i h, l;
    if (rows >= 16 && columns >= 32) {
        for (long i = 0; i < 16; i++) {
            const float *soon = s + i * apart + 64; /* the tile after next: rows are too short for the prefetcher */
            _mm_prefetch(soon, _MM_HINT_T0);
            _mm_prefetch(soon + 16, _MM_HINT_T0);
            halves(_mm512_loadu_ps(s + i * apart), _mm512_loadu_ps(s + i * apart + 16), &h, &l);
            _mm512_store_si512(high + 64 * i, h);
            _mm512_store_si512(low + 64 * i, l);
        }
        return;
    }
    __mmask16 left = first(columns), right = first(columns - 16);
    for (long i = 0; i < 16; i++) {
        h = l = _mm512_setzero_si512();
        if (i < rows) {
            const float *at = s + i * apart;
            halves(_mm512_maskz_loadu_ps(left, at), _mm512_maskz_loadu_ps(right, at + 16), &h, &l);
        }
        _mm512_store_si512(high + 64 * i, h);
        _mm512_store_si512(low + 64 * i, l);
    }
}

/* 32 rows and 16 columns at s: two rows, their numbers in turn, are a row of the tile. */
static inline void pairs_to(const float *s, long apart, long rows, long columns, char *high, char *low) {
    static const uint16_t in_turn[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                         8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i zip = _mm512_loadu_si512(in_turn), h, l;
    __mmask16 mask = first(columns);
    for (long i = 0; i < 16; i++) {
        const float *at = s + 2 * i * apart;
        __m512 x = _mm512_setzero_ps(), y = x;
        _mm_prefetch(at + 32 * apart, _MM_HINT_T0); /* the next tile */
        _mm_prefetch(at + 33 * apart, _MM_HINT_T0);
        if (2 * i < rows) x = _mm512_maskz_loadu_ps(mask, at);
        if (2 * i + 1 < rows) y = _mm512_maskz_loadu_ps(mask, at + apart);
        halves(x, y, &h, &l);
        _mm512_store_si512(high + 64 * i, _mm512_permutexvar_epi16(zip, h));
        _mm512_store_si512(low + 64 * i, _mm512_permutexvar_epi16(zip, l));
    }
}

/* A tile, its low halves LOW beyond, from 16 rows and 32 columns, or (`pairs`) from 32 rows and 16 columns, of which so
   many are there; `turned` where its rows shall be columns. */
static void pack(const float *s, long apart, long rows, long columns, int pairs, int turned, char *to) {
    char held[2 * TILE] __attribute__((aligned(64)));
    char *high = turned ? held : to, *low = turned ? held + TILE : to + LOW;
    if (pairs) pairs_to(s, apart, rows, columns, high, low);
    else rows_to(s, apart, rows, columns, high, low);
    if (turned) {
        turn((const float *)high, 16, (float *)to, 16);
        turn((const float *)low, 16, (float *)(to + LOW), 16);
    }
}

/* Compilers are not told that the unit reads memory: what was written before is to be there. */
#define WRITTEN __asm__ volatile("" ::: "memory")

/* Memory that will be wanted: two lines at each place, and then the next two. */
typedef struct {
    const char *at[3];
} Soon;

/* What stands between two instructions of the unit. Some processors hold the unit back where its instructions follow each
   other closely; with eight others in between it takes 11 ns for one instead of 18, and a step 250 instead of 370. Where
   it is not held back they cost nothing, since it takes 16 cycles for each. */
static inline __attribute__((always_inline)) void ease(Soon *soon, long apart) {
    for (int i = 0; i < 3; i++) {
        _mm_prefetch(soon->at[i], _MM_HINT_T0);
        _mm_prefetch(soon->at[i] + 64, _MM_HINT_T0);
        soon->at[i] += apart;
    }
    __asm__ volatile("nop\n\tnop\n\tnop\n\tnop");
}

/* Registers 0 to 3 hold sums, 4 and 5 tiles of A, 6 and 7 of B. */
#define LOAD(tile, from) _tile_loadd(tile, from, 64)
#define EASED(c, a, b)                   \
    {                                    \
        _tile_dpbf16ps(c, a, b);         \
        ease(&soon, wanted ? 128 : 384); \
    }
#define MULTIPLY                            \
    EASED(0, 4, 6)                          \
    if (two_b) EASED(1, 4, 7)               \
    if (two_a) EASED(2, 5, 6)               \
    if (two_a && two_b) EASED(3, 5, 7)

/* Meanwhile what is `wanted` is asked for, if anything, else B's next tiles. */
static inline __attribute__((always_inline)) void multiply(const char *a, const char *b, long steps, int two_a, int two_b,
                                                           Soon *wanted) {
    Soon soon = {{0}};
    if (wanted) soon = *wanted;
    WRITTEN;
    for (long k = 0; k < steps; k++, a += STEP, b += STEP) {
        const char *next = b + STEP;
        if (!wanted) soon = (Soon){{next, next + 128, next + 256}};
        LOAD(4, a);
        if (two_a) LOAD(5, a + TILE);
        LOAD(6, b + 2 * TILE);
        if (two_b) LOAD(7, b + 3 * TILE);
        MULTIPLY
        LOAD(6, b);
        if (two_b) LOAD(7, b + TILE);
        MULTIPLY
        LOAD(4, a + 2 * TILE);
        if (two_a) LOAD(5, a + 3 * TILE);
        MULTIPLY
    }
    if (wanted) *wanted = soon;
}

/* The tiles of a strip of 32 rows of A, or 32 columns of B, over some steps of the common axis, of which k are there.
   A strip lies along memory's rows (A as it is, B turned), or across them. */
static void pack_strip(const float *s, long apart, int along, int turned, long count, long k, long strip, long from,
                       long steps, char *to) {
    for (long t = 0; t < steps; t++, to += STEP)
        for (long half = 0; half < 2; half++) {
            long i = 32 * strip + 16 * half, j = 32 * (from + t);
            if (i >= count) continue;
            if (along) pack(s + i * apart + j, apart, count - i, k - j, 0, turned, to + half * TILE);
            else pack(s + j * apart + i, apart, k - j, count - i, 1, turned, to + half * TILE);
        }
}

static void pack_a(const Product *p, long strip, long from, long steps, char *to) {
    pack_strip(p->a, p->a_apart, !p->a_turned, p->a_turned, p->m, p->k, strip, from, steps, to);
}

static void pack_b(const Product *p, long strip, long from, long steps, char *to) {
    pack_strip(p->b, p->b_apart, p->b_turned, p->b_turned, p->n, p->k, strip, from, steps, to);
}

/* One block of C over a part of the common axis; `box` is 32 x 32 numbers of room. */
static void block(const Product *p, long m, long n, const char *a, const char *b, long steps, int begins, int ends,
                  float *box, Soon *wanted) {
    int two_a = p->m - m > 16, two_b = p->n - n > 16, whole = p->m - m >= 32 && p->n - n >= 32;
    float *at = p->c + m * p->c_apart + n;
    int finished = ends && follows(p), straight = whole && !finished;
    if (begins) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        if (!whole)
            for (long i = 0; i < 32 && i < p->m - m; i++)
                for (long j = 0; j < 32; j += 16) {
                    __m512 v = _mm512_maskz_loadu_ps(first(p->n - n - j), at + i * p->c_apart + j);
                    _mm512_store_ps(box + 32 * i + j, v);
                }
        const float *from = whole ? at : box;
        long apart = whole ? p->c_apart : 32;
        WRITTEN;
        _tile_loadd(0, from, 4 * apart);
        _tile_loadd(1, from + 16, 4 * apart);
        _tile_loadd(2, from + 16 * apart, 4 * apart);
        _tile_loadd(3, from + 16 * apart + 16, 4 * apart);
    }
    if (two_a && two_b && wanted) multiply(a, b, steps, 1, 1, wanted);
    else if (two_a && two_b) multiply(a, b, steps, 1, 1, NULL);
    else if (two_a) multiply(a, b, steps, 1, 0, NULL);
    else if (two_b) multiply(a, b, steps, 0, 1, NULL);
    else multiply(a, b, steps, 0, 0, NULL);
    float *to = straight ? at : box;
    long apart = straight ? p->c_apart : 32;
    _tile_stored(0, to, 4 * apart);
    _tile_stored(1, to + 16, 4 * apart);
    _tile_stored(2, to + 16 * apart, 4 * apart);
    _tile_stored(3, to + 16 * apart + 16, 4 * apart);
    if (straight) return;
    if (finished) finish(p, m, p->m - m < 32 ? p->m - m : 32, n, 32, box);
    else
        for (long i = 0; i < 32 && i < p->m - m; i++)
            for (long j = 0; j < 32; j += 16)
                _mm512_mask_storeu_ps(at + i * p->c_apart + j, first(p->n - n - j), _mm512_load_ps(box + 32 * i + j));
}

int by_unit(const Product *p) {
    struct { uint8_t palette, start, none[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape = {1, 0, {0}, {0}, {0}};
    for (int i = 0; i < 8; i++) {
        shape.bytes[i] = 64;
        shape.rows[i] = 16;
    }
    long steps = (p->k + 31) / 32, strips = (p->n + 31) / 32, parts = (steps + STEPS - 1) / STEPS;
    size_t tiles = (size_t)strips * STEPS * STEP, strip_of_c = p->values ? 4 * 32 * (size_t)p->c_apart : 0;
    char *a = room_for((STEPS + 1) * STEP + tiles + strip_of_c), *packed = a + (STEPS + 1) * STEP;
    if (!a) return 1;
    float *box = (float *)(a + STEPS * STEP), *held = (float *)(packed + tiles);
    const unsigned before = p->values ? flush_small() : 0;
    if (p->sums) memset(p->sums, 0, 4 * p->n);
    WRITTEN;
    _tile_loadconfig(&shape);
    for (long part = 0; part < parts; part++) {
        long from = steps * part / parts, count = steps * (part + 1) / parts - from;
        for (long strip = 0; strip < strips; strip++) pack_b(p, strip, from, count, packed + strip * count * STEP);
        for (long m = 0; m < p->m; m += 32) {
            int moves = part == parts - 1 && p->values != NULL;
            Product here = *p;
            Soon soon;
            if (moves) {
                const float *next[3] = {p->values + m * p->c_apart, p->means + m * p->c_apart, p->squares + m * p->c_apart};
                memcpy(&soon, next, sizeof soon);
                if (parts == 1) here.c = held - m * p->c_apart; /* what is used here does not go to memory */
            }
            pack_a(p, m / 32, from, count, a);
            for (long strip = 0; strip < strips; strip++)
                block(&here, m, 32 * strip, a, packed + strip * count * STEP, count, !part, part == parts - 1, box,
                      moves ? &soon : NULL);
            if (moves) move(p, m, p->m - m < 32 ? p->m - m : 32, here.c + m * p->c_apart);
        }
    }
    _tile_release();
    if (p->values) flush_as(before);
    return 0;
}

#elif defined(HAS_PRODUCTS)

int unit_ready(void) { return 0; }
int by_unit(const Product *p) { return by_lanes(p); }

#endif
