// Blocks 2 to 4 on the matrix unit, in bfloat16.
//
// The rows of a tile are 16 positions of the key, which lie one after the other in memory, and a tap is a constant offset from
// them: columns and rows of zeros between take the place of the edges. Where the stride is 1, a slab of key positions is one
// long row; what comes out at its columns of zeros is dropped.

#pragma once

#include "amx.h"
#include "layers.h"

#if defined(AMX)

enum { AMX_MOST_STEPS = TAPS * MOST_IN / (2 * AMX_WORDS) };

typedef struct { int tap, next, channel; } AmxStep;  // 32 input channels of one tap; or 16 of it and 16 of the position after

// The K-steps of a layer: of 16 channels a step holds two taps that are neighbours in a row of the key, where there are two.
static int amx_steps(const Layer *l, AmxStep steps[AMX_MOST_STEPS])
{
    static const AmxStep of_16_channels[] = {{9, 10, 0}, {11, -1, 0}, {12, 0, 0}, {13, -1, 0}, {14, 15, 0}, {16, -1, 0},
        {1, -1, 0}, {2, -1, 0}, {3, -1, 0}, {4, -1, 0}, {5, -1, 0}, {6, -1, 0}, {7, -1, 0}, {8, -1, 0}};
    int n = 0;
    if (l->in == AMX_WORDS) {
        n = sizeof of_16_channels / sizeof *of_16_channels;
        memcpy(steps, of_16_channels, sizeof of_16_channels);
    } else
        for (int tap = 0; tap < TAPS; tap++)
            for (int channel = 0; channel < l->in; channel += 2 * AMX_WORDS) steps[n++] = (AmxStep){tap, -1, channel};
    return n;
}

// Weights as [step][out / 16][16 pairs of inputs][16 outputs].
static Status amx_pack_layer(Layer *l, const Tensor *t)
{
    AmxStep steps[AMX_MOST_STEPS];
    int n = amx_steps(l, steps);
    l->weights = allocate((size_t)n * AMX_WORDS * l->out * sizeof(word));
    if (!l->weights) return OUT_OF_MEMORY;
    for (int s = 0; s < n; s++)
        for (int co = 0; co < l->out; co++) {
            float values[2 * AMX_WORDS] = {0};
            word packed[AMX_WORDS];
            for (int i = 0; i < 2 * AMX_WORDS; i++) {
                int tap = i < l->in ? steps[s].tap : steps[s].next;
                if (tap >= 0) values[i] = tap_weight(l, t, tap, co, (steps[s].channel + i) % l->in);
            }
            pack(BFLOAT16, values, packed, 2 * AMX_WORDS, 1, 0);
            word *tile = l->weights + (size_t)(s * l->out / AMX_ROWS + co / AMX_ROWS) * AMX_TILE_WORDS + co % AMX_ROWS;
            for (int i = 0; i < AMX_WORDS; i++) tile[i * AMX_ROWS] = packed[i];
        }
    for (int co = 0; co < l->out; co++) l->step[co] = 1;
    return OK;
}

// The steps whose query position is inside the picture, for query position (qy, qx): inputs at the slab's first key position.
static int amx_list_taps(const Layer *l, Grid q, Grid k, const word *act, int qy, int qx, Tap taps[AMX_MOST_STEPS])
{
    AmxStep steps[AMX_MOST_STEPS];
    int position = l->in / 2, n = 0, all = amx_steps(l, steps);
    ptrdiff_t slab = slab_words(k, l->in, BFLOAT16);
    const word *pivot = act + (qy * q.w + qx) * slab;
    for (int s = 0; s < all; s++) {
        Offset d = steps[s].tap ? neighbour((steps[s].tap - 1) % NEIGHBOURS) : (Offset){0, 0};
        int of_query = steps[s].tap <= NEIGHBOURS;
        if (of_query && (qy + d.y < 0 || qy + d.y >= q.h || qx + d.x < 0 || qx + d.x >= q.w)) continue;
        ptrdiff_t offset = of_query ? (d.y * q.w + d.x) * slab : (ptrdiff_t)(d.y * (k.w + 1) + d.x) * position;
        const word *weights = l->weights + (size_t)s * l->out / AMX_ROWS * AMX_TILE_WORDS;
        taps[n++] = (Tap){pivot + offset + steps[s].channel / 2, weights};
    }
    return n;
}

// Sums of 2 tiles of positions, `at` words from the slab's first, for 32 outputs: sums[2 * position tile + output tile].
static void amx_multiply_2x2(const Tap *taps, int n, size_t output, const ptrdiff_t at[2], size_t stride, vec sums[4][AMX_ROWS])
{
    amx_zero(0); amx_zero(1); amx_zero(2); amx_zero(3);
    for (const Tap *t = taps; t < taps + n; t++) {
        amx_load(4, t->x + at[0], stride);
        amx_load(6, t->weights + output, AMX_ROW_BYTES);
        amx_multiply_bf16(0, 4, 6);
        amx_load(7, t->weights + output + AMX_TILE_WORDS, AMX_ROW_BYTES);
        amx_multiply_bf16(1, 4, 7);
        amx_load(5, t->x + at[1], stride);
        amx_multiply_bf16(2, 5, 6);
        amx_multiply_bf16(3, 5, 7);
    }
    amx_store(0, sums[0], AMX_ROW_BYTES); amx_store(1, sums[1], AMX_ROW_BYTES);
    amx_store(2, sums[2], AMX_ROW_BYTES); amx_store(3, sums[3], AMX_ROW_BYTES);
}

// Sums of 4 tiles of positions for 16 outputs.
static void amx_multiply_4x1(const Tap *taps, int n, const ptrdiff_t at[4], size_t stride, vec sums[4][AMX_ROWS])
{
    amx_zero(0); amx_zero(1); amx_zero(2); amx_zero(3);
    for (const Tap *t = taps; t < taps + n; t++) {
        amx_load(6, t->weights, AMX_ROW_BYTES);
        amx_load(4, t->x + at[0], stride);
        amx_multiply_bf16(0, 4, 6);
        amx_load(5, t->x + at[1], stride);
        amx_multiply_bf16(1, 5, 6);
        amx_load(4, t->x + at[2], stride);
        amx_multiply_bf16(2, 4, 6);
        amx_load(5, t->x + at[3], stride);
        amx_multiply_bf16(3, 5, 6);
    }
    amx_store(0, sums[0], AMX_ROW_BYTES); amx_store(1, sums[1], AMX_ROW_BYTES);
    amx_store(2, sums[2], AMX_ROW_BYTES); amx_store(3, sums[3], AMX_ROW_BYTES);
}

typedef struct {  // how the outputs of a query position are cut into tiles of 16 positions
    int in_row;       // tiles of a row
    int tiles;
    int row, column;  // positions of the input from one row, and one column, of outputs to the next
} AmxTiling;

static AmxTiling amx_tiling(const Stage *s)
{
    int one_row = s->layer->stride == 1, width = one_row ? s->k.h * (s->k.w + 1) : s->to_k.w;
    int in_row = (width + AMX_ROWS - 1) / AMX_ROWS;
    return (AmxTiling){in_row, one_row ? in_row : in_row * s->to_k.h, 2 * (s->k.w + 1), s->layer->stride};
}

// Store the sums of tile `tile` for 16 outputs from `co` on, with their bias, and count them.
static void amx_put(const Stage *s, const AmxTiling *tiling, int tile, int co, const vec sums[AMX_ROWS], word *y, Stats *stats)
{
    const Layer *l = s->layer;
    vec bias = *(const vec_any *)(l->bias + co);
    int first = tile % tiling->in_row * AMX_ROWS, one_row = l->stride == 1;
    int ky = one_row ? first / (s->k.w + 1) : tile / tiling->in_row, kx = one_row ? first % (s->k.w + 1) : first;
    for (int r = 0; r < AMX_ROWS; r++, kx++) {
        if (kx == s->k.w + 1 && one_row) kx = 0, ky++;
        if (kx >= s->to_k.w || ky >= s->to_k.h) continue;  // a column or row of zeros
        vec sum = sums[r] + bias;
        count(BFLOAT16, stats, sum);
        store_raw(BFLOAT16, y + ((size_t)(ky * s->to_k.w + kx) * l->out + co) / 2, sum);
    }
}

// All outputs [key][out] of query position i, and their statistics, as convolve_task makes them.
static void amx_convolve_task(const void *context, int i, void *scratch)
{
    (void)scratch;
    const Stage *s = context;
    const Layer *l = s->layer;
    const AmxTiling tiling = amx_tiling(s);
    const int of_positions = l->out == AMX_ROWS ? 4 : 2, of_outputs = 4 / of_positions;  // tiles of a step of the loops
    const size_t position = l->in / 2, stride = l->stride * position * sizeof(word);
    word *y = s->raw + i * raw_words(s->to_k, l->out, BFLOAT16);
    Tap taps[AMX_MOST_STEPS];
    int n = amx_list_taps(l, s->q, s->k, s->act, i / s->to_q.w * l->stride, i % s->to_q.w * l->stride, taps);
    Stats stats[MOST_OUT / AMX_ROWS];
    for (int v = 0; v < l->out / AMX_ROWS; v++) stats[v] = nothing();
    amx_begin();
    for (int first = 0; first < tiling.tiles; first += of_positions) {
        ptrdiff_t at[4];
        for (int p = 0; p < of_positions; p++) {  // beyond the last tile the last one is computed again, and not put
            int tile = MIN(first + p, tiling.tiles - 1), column = tile % tiling.in_row * AMX_ROWS * tiling.column;
            at[p] = (ptrdiff_t)(tile / tiling.in_row * tiling.row + column) * position;
        }
        for (int co = 0; co < l->out; co += of_outputs * AMX_ROWS) {
            vec sums[4][AMX_ROWS];
            if (of_outputs == 1) amx_multiply_4x1(taps, n, at, stride, sums);
            else amx_multiply_2x2(taps, n, (size_t)co * AMX_ROWS, at, stride, sums);
            for (int t = 0; t < 4 && first + t / of_outputs < tiling.tiles; t++) {
                int to = co + t % of_outputs * AMX_ROWS;
                amx_put(s, &tiling, first + t / of_outputs, to, sums[t], y, stats + to / AMX_ROWS);
            }
        }
    }
    amx_end();
    double *totals = s->stats + (size_t)i * STATS * l->out;
    no_stats(totals, l->out);
    for (int v = 0; v < l->out / AMX_ROWS; v++) add_stats(totals + v * AMX_ROWS, l->out, &stats[v]);
}

#endif
