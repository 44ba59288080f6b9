/* The matrix unit's instructions, as far as unit.c has them, for processors without one: included before a source. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define __AMX_BF16__ 1
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_loadconfig
#undef _tile_release
#define _tile_loadd(tile, from, apart) load_tile(tile, (const char *)(from), apart)
#define _tile_stored(tile, to, apart) store_tile(tile, (char *)(to), apart)
#define _tile_zero(tile) memset(&tiles[tile], 0, sizeof tiles[tile])
#define _tile_dpbf16ps(c, a, b) multiply_tiles(c, a, b)
#define _tile_loadconfig(shape) ((void)(shape))
#define _tile_release() ((void)0)
#define syscall(...) 0 /* the system lends it */

static _Thread_local union {
    char bytes[16][64];
    float sums[16][16];
    uint16_t halves[16][32];
} tiles[8];

static inline void load_tile(int tile, const char *from, long apart) {
    for (int i = 0; i < 16; i++) memcpy(tiles[tile].bytes[i], from + i * apart, 64);
}

static inline void store_tile(int tile, char *to, long apart) {
    for (int i = 0; i < 16; i++) memcpy(to + i * apart, tiles[tile].bytes[i], 64);
}

static inline float widened(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

/* Rows of A are 32 numbers of bfloat16; rows of B are 16 pairs, of two numbers of a column each. */
static inline void multiply_tiles(int c, int a, int b) {
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 32; k++)
            for (int j = 0; j < 16; j++)
                tiles[c].sums[i][j] += widened(tiles[a].halves[i][k]) * widened(tiles[b].halves[k / 2][2 * j + k % 2]);
}
