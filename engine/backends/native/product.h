// A product of two matrices on the thread that asks for it, which leaves the others to what they are doing.

#pragma once

#include "simd.h"

enum { COLUMNS = 2 * LANES };

// out[R][columns] = rows[R][inner] x block[inner][COLUMNS], the first n columns, which is all of them or fewer.
INLINE void product_rows(const int R, const float *rows, const float (*block)[COLUMNS], int inner, int columns, int n,
                         float *out)
{
    vec sum[DOT_ROWS][2] = {0};
    for (int k = 0; k < inner; k++) {
        const vec_any *across = (const vec_any *)block[k];
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < 2; v++) sum[r][v] = mac(FLOAT32, sum[r][v], across[v], splat(rows[r * inner + k]));
    }
    for (int r = 0; r < R; r++) memcpy(out + (size_t)r * columns, sum[r], n * sizeof(float));
}

// out[rows][columns] = a[rows][inner] x b[inner][columns]; `block` is scratch.
static void product(const float *a, const float *b, int rows, int inner, int columns, float (*block)[COLUMNS], float *out)
{
    memset(block, 0, inner * sizeof *block);
    for (int first = 0; first < columns; first += COLUMNS) {
        int n = MIN(COLUMNS, columns - first), r = 0;
        for (int k = 0; k < inner; k++) memcpy(block[k], b + (size_t)k * columns + first, n * sizeof(float));
        for (; r + DOT_ROWS <= rows; r += DOT_ROWS)
            product_rows(DOT_ROWS, a + (size_t)r * inner, block, inner, columns, n, out + (size_t)r * columns + first);
        for (; r < rows; r++)
            product_rows(1, a + (size_t)r * inner, block, inner, columns, n, out + (size_t)r * columns + first);
    }
}
