/* A square of 32-bit numbers, turned: as many rows as a vector has numbers. */
#pragma once

#include <immintrin.h>

#if defined(__AVX512F__)

/* 16 x 16; rows are `apart` and `next` numbers from each other. Four rows' quarters are put side by side, so that two
   rounds are left. */
static inline __attribute__((always_inline)) void turn(const float *from, long apart, float *to, long next) {
    for (int quarter = 0; quarter < 4; quarter++) {
        __m512i x[4];
        for (int i = 0; i < 4; i++) {
            const float *at = from + apart * i + 4 * quarter;
            x[i] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)at));
            x[i] = _mm512_mask_broadcast_i32x4(x[i], 0x00f0, _mm_loadu_si128((const __m128i *)(at + 4 * apart)));
            x[i] = _mm512_mask_broadcast_i32x4(x[i], 0x0f00, _mm_loadu_si128((const __m128i *)(at + 8 * apart)));
            x[i] = _mm512_mask_broadcast_i32x4(x[i], 0xf000, _mm_loadu_si128((const __m128i *)(at + 12 * apart)));
        }
        __m512i even = _mm512_unpacklo_epi32(x[0], x[1]), second = _mm512_unpacklo_epi32(x[2], x[3]);
        __m512i odd = _mm512_unpackhi_epi32(x[0], x[1]), last = _mm512_unpackhi_epi32(x[2], x[3]);
        float *at = to + 4 * quarter * next;
        _mm512_storeu_si512(at, _mm512_unpacklo_epi64(even, second));
        _mm512_storeu_si512(at + next, _mm512_unpackhi_epi64(even, second));
        _mm512_storeu_si512(at + 2 * next, _mm512_unpacklo_epi64(odd, last));
        _mm512_storeu_si512(at + 3 * next, _mm512_unpackhi_epi64(odd, last));
    }
}

#else

/* 8 x 8, by halves as above. */
static inline __attribute__((always_inline)) void turn(const float *from, long apart, float *to, long next) {
    for (int half = 0; half < 2; half++) {
        __m256 x[4];
        for (int i = 0; i < 4; i++) {
            const float *at = from + apart * i + 4 * half;
            x[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)), _mm_loadu_ps(at + 4 * apart), 1);
        }
        __m256d even = _mm256_castps_pd(_mm256_unpacklo_ps(x[0], x[1]));
        __m256d odd = _mm256_castps_pd(_mm256_unpackhi_ps(x[0], x[1]));
        __m256d second = _mm256_castps_pd(_mm256_unpacklo_ps(x[2], x[3]));
        __m256d last = _mm256_castps_pd(_mm256_unpackhi_ps(x[2], x[3]));
        float *at = to + 4 * half * next;
        _mm256_storeu_ps(at, _mm256_castpd_ps(_mm256_unpacklo_pd(even, second)));
        _mm256_storeu_ps(at + next, _mm256_castpd_ps(_mm256_unpackhi_pd(even, second)));
        _mm256_storeu_ps(at + 2 * next, _mm256_castpd_ps(_mm256_unpacklo_pd(odd, last)));
        _mm256_storeu_ps(at + 3 * next, _mm256_castpd_ps(_mm256_unpackhi_pd(odd, last)));
    }
}

#endif
