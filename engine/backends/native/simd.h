// Vectors of this processor's width, and the words that they are made of.
//
// A word is 32 bits: a float32, a pair of bfloat16 or four 8-bit integers. A product of 8-bit words takes an unsigned
// side (lanes + 128, correlation, activations) and a signed one (native rows, weights). Where no instruction adds up four
// products of bytes, the same integers are kept in 16 bits, two a word, as AVX2 has one for these.

#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512VNNI__)
#define DOT_BYTES "vpdpbusd %2, %1, %0"
#define REGISTER "v"
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
#define DOT_BYTES "%{vex%} vpdpbusd %2, %1, %0"
#define REGISTER "x"
#elif defined(__AVX512BW__)
#define DOT_SHORTS
#define REGISTER "v"
#elif defined(__AVX2__) && !defined(__AVX512F__)
#define DOT_SHORTS
#define REGISTER "x"
#endif

#if defined(__clang__)
#define OR_MEMORY  // which it would always choose
#else
#define OR_MEMORY "m"
#endif

#if defined(__AVX512F__) || defined(AMX_EMULATED)  // a row of a tile is as wide
#if defined(__AVX512F__)
enum { LANES = 16, ACCUMULATORS = 24, DOT_ROWS = 8, AT_ONCE = 16 };  // 32 registers
#else
enum { LANES = 16, ACCUMULATORS = 4, DOT_ROWS = 1, AT_ONCE = 4 };  // made of narrower ones: the least to compile
#endif
#define INTERLEAVE_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define INTERLEAVE_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
enum { LANES = 8, ACCUMULATORS = 12, DOT_ROWS = 4, AT_ONCE = 8 };  // 16 registers
#define INTERLEAVE_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define INTERLEAVE_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
enum { LANES = 4, ACCUMULATORS = 12, DOT_ROWS = 4, AT_ONCE = 8 };
#define INTERLEAVE_LOW 0, 4, 1, 5
#define INTERLEAVE_HIGH 2, 6, 3, 7
#endif

#if defined(DOT_BYTES)
typedef int8_t unit;  // an 8-bit integer as it is kept
#else
typedef int16_t unit;
#endif
typedef uint32_t word __attribute__((may_alias));
typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t veci __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t vecu __attribute__((vector_size(4 * LANES), may_alias));
typedef float vec_any __attribute__((vector_size(4 * LANES), aligned(4), may_alias));  // at any address
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(4), may_alias));  // bfloat16
typedef unit units __attribute__((vector_size(sizeof(unit) * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 36")
#define MIN(a, b) ((a) < (b) ? (a) : (b))

enum { FLOAT32, BFLOAT16, INT8, MODES };  // arithmetic of every product; statistics and sums are float32 or wider
enum { UNITS = sizeof(word) / sizeof(unit) };
enum { MOST_SIGNED = 127, MOST_UNSIGNED = 255, UNSIGNED_OFFSET = 128 };  // of 8-bit integers
static const uint32_t BFLOAT16_HALF = 0x8000, BFLOAT16_HIGH = 0xffff0000;  // half a unit, and the upper one of a pair

INLINE int per_word(int mode) { return mode == FLOAT32 ? 1 : mode == BFLOAT16 ? 2 : UNITS; }
INLINE int per_raw(int mode) { return mode == FLOAT32 ? 1 : 2; }  // convolutions' results: float32 or bfloat16

#if defined(__AVX__)
INLINE vec held(vec x) { __asm__("" : "+x"(x)); return x; }  // in a register from here on
#else
INLINE vec held(vec x) { return x; }
#endif
INLINE vec splat(float x) { return x - (vec){0}; }
INLINE vec broadcast(word x) { return (vec)(x - (vecu){0}); }
#if defined(__AVX512F__)
INLINE vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(__AVX__)
INLINE vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
#else
INLINE vec larger(vec a, vec b) { veci m = a > b; return (vec)(((veci)a & m) | ((veci)b & ~m)); }
#endif
INLINE vec relu(vec x) { return larger(x, (vec){0}); }

// Two vectors as one of bfloat16 pairs, a in the low halves.
INLINE vecu pair(vec a, vec b)
{
    return (((vecu)a + BFLOAT16_HALF) >> 16) | (((vecu)b + BFLOAT16_HALF) & BFLOAT16_HIGH);
}

INLINE veci rounded(vec a) { return __builtin_convertvector(a + 0.5f, veci); }  // a >= 0
INLINE vecu byte(vec a) { return (vecu)rounded(-larger(-relu(a), splat(-MOST_UNSIGNED))); }

// UNITS vectors, clamped to 8 bits and rounded, as one of these.
INLINE vecu joined(const vec a[UNITS])
{
#if !defined(DOT_BYTES)
    return byte(a[0]) | byte(a[1]) << 16;
#elif defined(__AVX512BW__)
    __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)a[0]), _mm512_cvtps_epi32((__m512)a[1]));
    __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)a[2]), _mm512_cvtps_epi32((__m512)a[3]));
    const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return (vecu)_mm512_shuffle_epi8(_mm512_packus_epi16(low, high), turn);
#else
    return byte(a[0]) | byte(a[1]) << 8 | byte(a[2]) << 16 | byte(a[3]) << 24;
#endif
}

// acc + u . s: one product a lane, two of bfloat16, or UNITS of 8 bits, u unsigned and s signed, acc integers.
INLINE vec mac(const int mode, vec acc, vec u, vec s)
{
    if (mode == FLOAT32) return acc + u * s;
#if defined(__AVX512BF16__)
    if (mode == BFLOAT16) return (vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)u, (__m512bh)s);
#else
    if (mode == BFLOAT16) {
        acc += (vec)((vecu)u << 16) * (vec)((vecu)s << 16);
        return acc + (vec)((vecu)u & BFLOAT16_HIGH) * (vec)((vecu)s & BFLOAT16_HIGH);
    }
#endif
#if defined(DOT_BYTES)
    // the intrinsic would do, but GCC 12 spills around its integer type
    __asm__(DOT_BYTES : "+" REGISTER(acc) : REGISTER(u), REGISTER(s));
    return acc;
#elif defined(DOT_SHORTS)
    vec products;  // by the intrinsic, GCC would make all of them first, and spill the sums
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0"
            : "+" REGISTER(acc), "=&" REGISTER(products) : REGISTER OR_MEMORY(u), REGISTER(s));
    return acc;
#else
    return (vec)((veci)acc + ((veci)u << 16 >> 16) * ((veci)s << 16 >> 16) + ((veci)u >> 16) * ((veci)s >> 16));
#endif
}

INLINE vec as_float(const int mode, vec acc) { return mode == INT8 ? __builtin_convertvector((veci)acc, vec) : acc; }

// LANES channels of one position: results of a convolution (raw), inputs of one (act).
INLINE vec load_raw(const int mode, const word *p)
{
    if (mode == FLOAT32) return *(const vec_any *)p;
    return (vec)(__builtin_convertvector(*(const halves *)p, vecu) << 16);
}

INLINE void store_raw(const int mode, word *p, vec x)
{
    if (mode == FLOAT32) *(vec_any *)p = x;
#if defined(__AVX512BF16__)
    else *(halves *)p = (halves)_mm512_cvtneps_pbh((__m512)x);
#else
    else *(halves *)p = __builtin_convertvector(((vecu)x + BFLOAT16_HALF) >> 16, halves);
#endif
}

INLINE void store_act(const int mode, word *p, vec x)
{
    if (mode == INT8) *(units *)p = __builtin_convertvector(rounded(x), units);
    else store_raw(mode, p, x);
}

INLINE void transpose(vec a[LANES])  // LANES x LANES, by perfect shuffles
{
    UNROLL for (int stage = 1; stage < LANES; stage *= 2) {
        vec b[LANES];
        UNROLL for (int i = 0; i < LANES / 2; i++) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + LANES / 2], INTERLEAVE_LOW);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + LANES / 2], INTERLEAVE_HIGH);
        }
        UNROLL for (int i = 0; i < LANES; i++) a[i] = b[i];
    }
}

// n floats into n / per_word words; 8-bit: round(x / step) + offset.
static void pack(int mode, const float *in, word *out, int n, float step, int offset)
{
    const word *bits = (const word *)in;
    unit *integers = (unit *)out;
    float inverse = 1 / step;
    if (mode == FLOAT32) memcpy(out, in, n * sizeof(float));
    if (mode == BFLOAT16)
        for (int i = 0; i < n / 2; i++)
            out[i] = (bits[2 * i] + BFLOAT16_HALF) >> 16 | ((bits[2 * i + 1] + BFLOAT16_HALF) & BFLOAT16_HIGH);
    if (mode == INT8)
        for (int i = 0; i < n; i++)  // positive before it is cut to an integer
            integers[i] = (unit)((int)(in[i] * inverse + (UNSIGNED_OFFSET + 0.5f)) - UNSIGNED_OFFSET + offset);
}

static float largest(const float *x, int n)  // |x|, never 0
{
    vec top = splat(1e-20f);
    int i = 0;
    for (; i + LANES <= n; i += LANES) top = larger(top, larger(*(const vec_any *)(x + i), -*(const vec_any *)(x + i)));
    float most = 0;
    for (; i < n; i++) most = fmaxf(most, fabsf(x[i]));
    for (int lane = 0; lane < LANES; lane++) most = fmaxf(most, top[lane]);
    return most;
}
