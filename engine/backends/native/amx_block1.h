// Block 1 on the matrix unit, in bfloat16: correlation and convolution 5x5 as products of tiles.
//
// The swept image's maps are resized before they are correlated, not the correlations afterwards as in block1.h: a tile
// product costs less than interpolating its result. Row n = 3x + s of an operand is column x of the map of scale s, so that
// value 3n + j (lane scale j) of the correlation is the ring's value 9x + 3s + j.

#pragma once

#include "amx.h"
#include "block1.h"

#if defined(AMX)

enum { AMX_STEPS = MAP_DIM / 2 / AMX_WORDS };                          // K-steps of a dot product
enum { AMX_RING_WORDS = AMX_ROWS * SCALES / 2 };                   // of the ring, from one tile of the swept image's rows
enum { LANES_STRIDE = SCALES * AMX_ROW_BYTES };                    // bytes between the words of a lane block

// Clamped correlations [lane scale][n][16 lanes] of the rows n and n + 1 as three words of the ring.
INLINE void clamp_two_rows(const vec c[SCALES][AMX_ROWS], int n, vecu *ring)
{
    ring[0] = pair(relu(c[0][n]), relu(c[1][n]));
    ring[1] = pair(relu(c[2][n]), relu(c[0][n + 1]));
    ring[2] = pair(relu(c[1][n + 1]), relu(c[2][n + 1]));
}

// One round of a pipeline of three: the products of tile `round` go to tiles C0 to C2 while the results of the tile before are
// stored from D0 to D2 and those of the one before that are clamped. Without it the matrix unit waits for the vector units.
#define CORRELATION_ROUND(C0, C1, C2, D0, D1, D2)                                                                      \
    do {                                                                                                               \
        amx_zero(C0); amx_zero(C1); amx_zero(C2);                                                                      \
        UNROLL for (int k = 0; k < AMX_STEPS; k++) {                                                                   \
            if (round < tiles) {                                                                                       \
                const word *lanes = block + k * AMX_ROWS * SCALES * AMX_WORDS;                                         \
                amx_load(6, rows + k * AMX_WORDS, MAP_DIM / 2 * sizeof(word));                                             \
                amx_load(7, lanes, LANES_STRIDE);                                                                      \
                amx_multiply_bf16(C0, 6, 7);                                                                           \
                amx_load(7, lanes + AMX_WORDS, LANES_STRIDE);                                                          \
                amx_multiply_bf16(C1, 6, 7);                                                                           \
                amx_load(7, lanes + 2 * AMX_WORDS, LANES_STRIDE);                                                      \
                amx_multiply_bf16(C2, 6, 7);                                                                           \
            }                                                                                                          \
            if (k == 0) amx_store(D0, stored[0], AMX_ROW_BYTES);                                                       \
            if (k == 1) amx_store(D1, stored[1], AMX_ROW_BYTES);                                                       \
            if (k == 2) amx_store(D2, stored[2], AMX_ROW_BYTES);                                                       \
            if (round >= 2) clamp_two_rows(clamped, 2 * k, ring + k * SCALES);                                         \
        }                                                                                                              \
    } while (0)

// Row y of the correlation of the resized maps, clamped, into its slot of the ring.
static void amx_fill_ring(Sweep *w, int y)
{
    const int tiles = amx_rows(w->swept) / AMX_ROWS;
    const word *rows = w->swept->rows + (size_t)y * amx_rows(w->swept) * MAP_DIM / 2;
    const word *block = w->lanes->lanes + (size_t)w->block * MAP_DIM / 2 * SCALES * LANES;
    vecu *ring = (vecu *)w->ring + y % KERNEL1 * w->ring_words + pair_words(BFLOAT16);
    vec buffers[2][SCALES][AMX_ROWS];
    amx_zero(3); amx_zero(4); amx_zero(5);
    for (int round = 0; round < tiles + 2; round++) {
        vec(*stored)[AMX_ROWS] = buffers[(round + 1) % 2], (*clamped)[AMX_ROWS] = buffers[round % 2];
        if (round % 2) CORRELATION_ROUND(3, 4, 5, 0, 1, 2);
        else CORRELATION_ROUND(0, 1, 2, 3, 4, 5);
        rows += AMX_ROWS * MAP_DIM / 2;
        if (round >= 2) ring += AMX_RING_WORDS;
    }
}

// The 5x5x9 window at even position (y, x) times all weights, into tile C: [16 outputs][16 lanes].
#define CONVOLVE_WINDOW(C, X)                                                                                          \
    do {                                                                                                               \
        amx_zero(C);                                                                                                   \
        for (int ky = 0; ky < KERNEL1; ky++) {                                                                         \
            int row = 2 * y + ky - MARGIN;                                                                             \
            if (row < 0 || row >= w->swept->full.h) continue;                                                          \
            const vec *window = (const vec *)w->ring + row % KERNEL1 * w->ring_words + (X) * pair_words(BFLOAT16);     \
            const word *kernel = weights + ky * WINDOW_TILES * AMX_TILE_WORDS;                                         \
            amx_load(6, kernel, AMX_ROW_BYTES);                                                                        \
            amx_load(7, window, AMX_ROW_BYTES);                                                                        \
            amx_multiply_bf16(C, 6, 7);                                                                                \
            amx_load(6, kernel + AMX_TILE_WORDS, AMX_ROW_BYTES);                                                       \
            amx_load(7, window + AMX_ROWS, AMX_ROW_BYTES);                                                             \
            amx_multiply_bf16(C, 6, 7);                                                                                \
        }                                                                                                              \
    } while (0)

// One row of outputs. A window's products run beside the storing of the window before.
INLINE void amx_convolve_row(const int half, const Sweep *w, const word *weights, const Target *t, int y)
{
    Stats stats[OUT_VECTORS] = {nothing()};
    vec sums[BLOCK1_OUT];
    CONVOLVE_WINDOW(0, 0);
    for (int x = 0; x < w->swept->even.w; x++) {
        if (x % 2) {
            amx_store(1, sums, AMX_ROW_BYTES);
            if (x + 1 < w->swept->even.w) CONVOLVE_WINDOW(0, x + 1);
        } else {
            amx_store(0, sums, AMX_ROW_BYTES);
            if (x + 1 < w->swept->even.w) CONVOLVE_WINDOW(1, x + 1);
        }
        put_column(BFLOAT16, half, sums, t, y, x, stats);
    }
    if (half == 1) add_stats(t->stats, BLOCK1_OUT, stats);
}

// One lane block of one half, as sweep_block does it.
static void sweep_amx(int half, Sweep *w, const word *weights, const Target *t)
{
    amx_begin();
    for (int y = 0, ready = 0; y < w->swept->even.h; y++) {
        for (; ready < MIN(2 * y + MARGIN + 1, w->swept->full.h); ready++) amx_fill_ring(w, ready);
        if (half) amx_convolve_row(1, w, weights, t, y);
        else amx_convolve_row(0, w, weights, t, y);
    }
    amx_end();
}

#endif
