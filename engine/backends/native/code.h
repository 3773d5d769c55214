// Bytes of a learnt code as the coordinates that they stand for, see engine/gallery/map_code.py.

#pragma once

#include "smaller.h"

// out[dims][n] of codes[][n], each position a unit vector: dimension d is tables[d][the byte of the position in row[d]].
static Status look_up(const float (*tables)[256], const int *row, int dims, const uint8_t *codes, int n, float *out)
{
    Buffer norm = {0};
    if (reserve(&norm, n * sizeof(float))) return OUT_OF_MEMORY;
    for (int d = 0; d < dims; d++) {
        const uint8_t *bytes = codes + (size_t)row[d] * n;
        for (int i = 0; i < n; i++) out[(size_t)d * n + i] = tables[d][bytes[i]];
    }
    make_unit(out, norm.p, dims, n);
    release(&norm);
    return OK;
}
