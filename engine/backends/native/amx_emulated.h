// The tile registers of amx.h and their instructions in plain C, equal to the processor's in every bit.

#pragma once

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct { uint32_t row[16][16]; } AmxTile;
static _Thread_local AmxTile amx_tiles[8];

static void emulate_load(AmxTile *tile, const void *from, ptrdiff_t stride)
{
    for (int r = 0; r < 16; r++) memcpy(tile->row[r], (const char *)from + r * stride, 64);
}

static void emulate_store(const AmxTile *tile, void *to, ptrdiff_t stride)
{
    for (int r = 0; r < 16; r++) memcpy((char *)to + r * stride, tile->row[r], 64);
}

// Denormal numbers are 0 to the matrix unit, before and after every step.
static float without_denormals(float x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return without_denormals(x);
}

// C[m][n] += A[m] . B[.][n]: 16 pairs of bfloat16 each. The lower and the upper numbers of the pairs are summed apart, from
// zero, by fused multiply-adds; then C + (lower sum + upper sum).
static void emulate_multiply_bf16(AmxTile *c, const AmxTile *a, const AmxTile *b)
{
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float sum[2] = {0, 0};
            for (int k = 0; k < 16; k++) {
                uint32_t x = a->row[m][k], y = b->row[k][n];
                sum[0] = without_denormals(fmaf(float_of_bits(x << 16), float_of_bits(y << 16), sum[0]));
                sum[1] = without_denormals(fmaf(float_of_bits(x & 0xffff0000), float_of_bits(y & 0xffff0000), sum[1]));
            }
            float total = without_denormals(float_of_bits(c->row[m][n]) + without_denormals(sum[0] + sum[1]));
            memcpy(&c->row[m][n], &total, sizeof total);
        }
}
