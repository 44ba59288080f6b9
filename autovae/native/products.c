/* Products of float32 matrices, shared out to threads. What multiplies is the matrix unit or vectors, as was chosen. */

#include "products.h"

#ifdef HAS_PRODUCTS

#include <pthread.h>
#include <stdlib.h>

enum { NONE, BY_LANES, BY_UNIT };

static int kind = NONE;

/* Choose the last of NONE, vectors and the unit that is not beyond `most` and can be had; which that is. */
EXPORT int products_by(int most) {
    return kind = most >= BY_UNIT && unit_ready() ? BY_UNIT : most >= BY_LANES ? BY_LANES : NONE;
}

/* Room of a thread, given back when the thread ends. */
typedef struct { size_t size; char *at; } Room;
static pthread_key_t room_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static void leave(void *room) {
    free(((Room *)room)->at);
    free(room);
}
static int have_key;
static void make_key(void) { have_key = !pthread_key_create(&room_key, leave); }
char *room_for(size_t size) {
    pthread_once(&once, make_key);
    if (!have_key) return NULL;
    Room *room = pthread_getspecific(room_key);
    if (!room) {
        room = calloc(1, sizeof *room);
        if (!room) return NULL;
        pthread_setspecific(room_key, room);
    }
    if (room->size < size) {
        free(room->at);
        room->at = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
        room->size = room->at ? size : 0;
    }
    return room->at;
}

/* Bias, rectifier, mask and column sums, and its place in C. `wide` is a multiple of LANES. */
void finish(const Product *p, long m, long rows, long n, long wide, const float *box) {
    const numbers zero = all(0);
    for (const float *end = box + wide; box < end && n < p->n; box += LANES, n += LANES) {
        const long count = p->n - n;
        const numbers bias = p->bias ? load_some(p->bias + n, count, 0) : zero;
        numbers sum = p->sums ? load_some(p->sums + n, count, 0) : zero;
        for (long i = 0; i < rows; i++) {
            const long at = (m + i) * p->c_apart + n;
            numbers v = load(box + wide * i) + bias;
            if (p->rectify) v = pick(v <= 0.0f, zero, v); /* nan stays */
            if (p->kept) v = pick(load_some(p->kept + at, count, 0) <= 0.0f, zero, v);
            store_some(p->c + at, v, count);
            sum += v;
        }
        if (p->sums) store_some(p->sums + n, sum, count);
    }
}

/* Not through pointers to the rule, that stores could change. */
void move(const Product *p, long m, long rows, const float *c) {
    const Rule rule = p->rule;
    const float rate = p->rate;
    const long count = rows * p->c_apart, first = m * p->c_apart;
    float *values = p->values + first, *means = p->means + first, *squares = p->squares + first;
    for (long i = 0; i < count; i += LANES)
        adam_step(&rule, rate, c + i, values + i, means + i, squares + i, count - i);
}

/* Columns, or rows, of a product from `from` to `to`. */
static Product some(Product p, int rows, long from, long to) {
    if (rows) {
        p.a += from * (p.a_turned ? 1 : p.a_apart);
        p.m = to - from;
    } else {
        p.b += from * (p.b_turned ? p.b_apart : 1);
        p.n = to - from;
    }
    long at = from * (rows ? p.c_apart : 1);
    p.c += at;
    if (p.values) p.values += at, p.means += at, p.squares += at;
    if (p.kept) p.kept += at;
    if (p.bias && !rows) p.bias += from;
    if (p.sums && !rows) p.sums += from;
    return p;
}

int multiply_each(long members, const Product *of, long a_next, long b_next, long c_next, long threads) {
    int rows = of->values || (of->m > of->n && !of->sums), failed = 0;
    long length = rows ? of->m : of->n, strips = (length + 31) / 32, parts = members < threads ? threads : 1;
    if (parts > strips) parts = strips;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic) reduction(| : failed)
    for (long task = 0; task < members * parts; task++) {
        long i = task / parts, part = task % parts;
        long from = 32 * (strips * part / parts), to = 32 * (strips * (part + 1) / parts);
        Product p = *of;
        p.a += i * a_next;
        p.b += i * b_next;
        p.c += i * c_next;
        if (p.bias) p.bias += i * p.n;
        if (p.kept) p.kept += i * p.m * p.n;
        if (p.sums) p.sums += i * p.n;
        if (p.values) p.values += i * c_next, p.means += i * c_next, p.squares += i * c_next, p.rate *= p.rates[i];
        p = some(p, rows, from, to < length ? to : length);
        failed |= kind == BY_UNIT ? by_unit(&p) : by_lanes(&p);
    }
    return failed;
}

/* C = A B for each member, with what `finish` does where bias, kept or sums are given. `*_apart` are numbers between
   rows in memory; a factor is `turned` where rows in memory are its columns. */
EXPORT int products(long members, long m, long n, long k, const float *a, long a_next, long a_apart, int a_turned,
                    const float *b, long b_next, long b_apart, int b_turned, float *c, long c_next, const float *bias,
                    int rectify, const float *kept, float *sums, long threads) {
    const Product p = {.a = a, .a_apart = a_apart, .a_turned = a_turned, .m = m, .b = b, .b_apart = b_apart,
                       .b_turned = b_turned, .n = n, .k = k, .c = c, .c_apart = n, .bias = bias, .rectify = rectify,
                       .kept = kept, .sums = sums};
    return multiply_each(members, &p, a_next, b_next, c_next, threads);
}

#else

EXPORT int products_by(int most) { return 0; }

#endif
