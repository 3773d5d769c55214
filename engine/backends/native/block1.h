// Block 1: correlation of two images and a convolution 5x5 of stride 2 over one side's positions, at the even positions of
// the other side, for both sides.
//
// The side that is convolved is called "swept", the other one holds the "lanes": as many of its even positions as a vector
// has floats. One lane block sweeps down the other image row by row:
//     dot products on native grids -> bilinear resize -> clamp -> ring of five rows -> convolution
// so that a tile of correlation is born, used and overwritten within the L2 cache.

#pragma once

#include "layers.h"

enum { REDUCED = SCALES - 1, CHANNELS = SCALES * SCALES };  // scales below the full one; pairs of scales
enum { BLOCK1_OUT = 16, KERNEL1 = 5, MARGIN = KERNEL1 / 2, WEIGHTS1 = KERNEL1 * KERNEL1 };

typedef struct {
    Layer layer;
    word *sweep[2];           // [half][5][words of 5 columns][16]; half 0 sweeps the query, 1 the key
    float step[2][BLOCK1_OUT];  // value of one unit of its integers
} Block1;

// Columns of the swept image are stored by twos, 9 channels each, so that a window of five begins at a word's start.
INLINE int words_of(int mode, int values) { return (values + per_word(mode) - 1) / per_word(mode); }
INLINE int pair_words(int mode) { return words_of(mode, 2 * CHANNELS); }
INLINE int window_words(int mode) { return 2 * pair_words(mode) + words_of(mode, CHANNELS); }

// Channel of query scale i and key scale j, one of which is swept.
static int channel(int half, int swept, int lane) { return half ? lane * SCALES + swept : swept * SCALES + lane; }

// Kernel row ky (9, 5, 5) of one output channel as a window's values; padding is 0.
static void lay_window(const float *kernel, int half, int ky, int pair_values, float *values)
{
    for (int i = 0; i < KERNEL1 * CHANNELS; i++) {
        int kx = i / CHANNELS, c = channel(half, i % CHANNELS / SCALES, i % SCALES);
        values[kx / 2 * pair_values + kx % 2 * CHANNELS + i % CHANNELS] = kernel[(c * KERNEL1 + ky) * KERNEL1 + kx];
    }
}

enum { WINDOW_TILES = 2 };  // tiles that hold a window's words of bfloat16, see amx_block1.h

// weight (16, 9, 5, 5) -> [ky][window word][16], or for tiles [ky][WINDOW_TILES][16][16 window words].
static Status pack_sweep(Block1 *b, const float *weight, int half, int mode, int amx)
{
    int words = window_words(mode), pair_values = pair_words(mode) * per_word(mode);
    size_t bytes = (size_t)KERNEL1 * (amx ? WINDOW_TILES * AMX_WORDS : words) * BLOCK1_OUT * sizeof(word);
    word *packed = b->sweep[half] = allocate(bytes);
    if (!packed) return OUT_OF_MEMORY;
    memset(packed, 0, bytes);
    for (int co = 0; co < BLOCK1_OUT; co++) {
        const float *kernel = weight + co * CHANNELS * WEIGHTS1;
        float step = b->step[half][co] = step_of(mode, kernel, CHANNELS * WEIGHTS1);
        for (int ky = 0; ky < KERNEL1; ky++) {
            float values[3 * (2 * CHANNELS + 2)] = {0};
            word window[3 * 2 * CHANNELS];
            lay_window(kernel, half, ky, pair_values, values);
            pack(mode, values, window, words * per_word(mode), step, 0);
            for (int i = 0; i < words; i++) {
                int tile = ky * WINDOW_TILES + i / AMX_WORDS;
                int at = amx ? (tile * BLOCK1_OUT + co) * AMX_WORDS + i % AMX_WORDS : (ky * words + i) * BLOCK1_OUT + co;
                packed[at] = window[i];
            }
        }
    }
    return OK;
}

static Status make_block1(Block1 *b, const Tensor t[TENSORS], int mode, int amx)
{
    Status bad = set_layer(&b->layer, CHANNELS, BLOCK1_OUT, 2, WEIGHTS1, t);
    if (!bad) bad = pack_sweep(b, t[WEIGHT_Q].values, 0, mode, amx);
    return bad ? bad : pack_sweep(b, t[WEIGHT_K].values, 1, mode, amx);
}

typedef struct { const word *rows; const float *step; const int *bias; } Rows;  // native rows of the swept image

// How many of the lanes' three vectors stay in registers for a run of rows: as many as there are left. GCC would read them
// from memory for each product, which is more than processors with AVX2 read in a cycle.
#if defined(__FMA__) && !defined(__AVX512F__)
#if defined(DOT_SHORTS)
INLINE int held_lanes(int mode) { return mode == INT8 ? 2 : 3; }  // such a product needs a register of its own
#else
INLINE int held_lanes(int mode) { return (void)mode, 3; }
#endif
#else
INLINE int held_lanes(int mode) { return (void)mode, 0; }
#endif

// out[r][3][16] = dot products of R native rows with the 3 x 16 lanes.
INLINE void dot_rows(const int mode, const int R, const word *restrict lanes, const float *lanes_step, Rows rows, vec *out)
{
    const int words = MAP_DIM / per_word(mode);
    vec acc[DOT_ROWS * SCALES];
    UNROLL for (int i = 0; i < R * SCALES; i++) acc[i] = mode == INT8 ? broadcast((word)rows.bias[i / SCALES]) : (vec){0};
    for (int k = 0; k < words; k++) {
        const vec *at = (const vec *)lanes + k * SCALES;
        vec l[SCALES];
        UNROLL for (int s = 0; s < SCALES; s++) l[s] = s < held_lanes(mode) ? held(at[s]) : at[s];
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int s = 0; s < SCALES; s++)
                acc[r * SCALES + s] = mac(mode, acc[r * SCALES + s], l[s], broadcast(rows.rows[r * words + k]));
    }
    UNROLL for (int i = 0; i < R * SCALES; i++)
        out[i] = as_float(mode, acc[i]) * ((const vec_any *)lanes_step)[i % SCALES] * rows.step[i / SCALES];
}

// Correlation of one lane block with `n` native positions from `first`: out[n][3][16].
INLINE void correlate(const int mode, const Side *swept, const Side *lanes, int block, int first, int n, vec *out)
{
    const int words = MAP_DIM / per_word(mode);
    const word *l = lanes->lanes + (size_t)block * words * SCALES * LANES;
    const float *lanes_step = lanes->lanes_step + block * SCALES * LANES;
    for (int runs = (n + DOT_ROWS - 1) / DOT_ROWS; runs > 0; runs--) {  // even lengths rather than a short last one
        int R = (n + runs - 1) / runs;
        Rows rows = {swept->native + (size_t)first * words, swept->native_step + first, swept->native_bias + first};
        switch (R) {
#define CASE(R) case R: if (R <= DOT_ROWS) dot_rows(mode, R, l, lanes_step, rows, out); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
        }
        first += R, n -= R, out += R * SCALES;
    }
}

#define CORRELATE(NAME, MODE)                                                                                          \
    static void NAME(const Side *swept, const Side *lanes, int block, int first, int n, vec *out)                      \
    {                                                                                                                  \
        correlate(MODE, swept, lanes, block, first, n, out);                                                           \
    }
CORRELATE(correlate_f32, FLOAT32) CORRELATE(correlate_bf16, BFLOAT16) CORRELATE(correlate_int8, INT8)

typedef struct {  // of one thread sweeping one image
    const Side *swept, *lanes;
    int block;
    vec *native[REDUCED][2];  // [scale][slot]: rows of correlation on the native grid, [w_s][3][16]
    int native_y[REDUCED][2];  // which row each slot holds
    vec *row[SCALES];         // the current row's height, [w_s][3][16]
    word *ring;               // [5][ring words][16]: clamped rows, two columns of zeros on both sides
    void (*correlate)(const Side *, const Side *, int, int, int, vec *);
    size_t ring_words;
    Between *columns[REDUCED];  // [scale][w]
} Sweep;

static const vec *native_row(Sweep *w, int s, int y)
{
    if (w->native_y[s][y & 1] != y) {
        int width = w->swept->grid[s].w;
        w->correlate(w->swept, w->lanes, w->block, w->swept->start[s] + y * width, width, w->native[s][y & 1]);
        w->native_y[s][y & 1] = y;
    }
    return w->native[s][y & 1];
}

static void resize_height(Sweep *w, int s, int y)
{
    Between b = between(y, w->swept->grid[s].h, w->swept->full.h);
    const vec *top = native_row(w, s, b.a), *bottom = native_row(w, s, b.b);
    for (int i = 0; i < w->swept->grid[s].w * SCALES; i++) w->row[s][i] = top[i] + b.t * (bottom[i] - top[i]);
}

// The nine channels of column x: out[swept scale * 3 + lane scale].
INLINE void column(const Sweep *w, int x, vec out[CHANNELS])
{
    UNROLL for (int s = 0; s < REDUCED; s++) {
        Between b = w->columns[s][x];
        const vec *left = w->row[s] + b.a * SCALES, *right = w->row[s] + b.b * SCALES;
        UNROLL for (int j = 0; j < SCALES; j++) out[s * SCALES + j] = left[j] + b.t * (right[j] - left[j]);
    }
    UNROLL for (int j = 0; j < SCALES; j++) out[REDUCED * SCALES + j] = w->row[REDUCED][x * SCALES + j];
}

// Row y of the full-size correlation, clamped, into its slot of the ring.
INLINE void fill_ring(const int mode, Sweep *w, int y)
{
    int width = w->swept->full.w;
    for (int s = 0; s < REDUCED; s++) resize_height(w, s, y);
    w->correlate(w->swept, w->lanes, w->block, w->swept->start[REDUCED] + y * width, width, w->row[REDUCED]);
    vecu *out = (vecu *)w->ring + (y % KERNEL1) * w->ring_words + pair_words(mode);
    for (int x = 0; x < width; x += 2, out += pair_words(mode)) {
        vec two[2 * CHANNELS + 2] = {0};
        column(w, x, two);
        if (x + 1 < width) column(w, x + 1, two + CHANNELS);
        UNROLL for (int i = 0; i < pair_words(mode); i++)
            out[i] = mode == FLOAT32    ? (vecu)relu(two[i])
                     : mode == BFLOAT16 ? pair(relu(two[2 * i]), relu(two[2 * i + 1]))
                                        : joined(two + UNITS * i);
    }
}

// acc[16 outputs] of 16 lanes: the 5x5x9 window at even position (y, x).
INLINE void convolve_window(const int mode, const Sweep *w, const word *weights, int y, int x, vec acc[BLOCK1_OUT])
{
    const int words = window_words(mode);
    for (int co0 = 0; co0 < BLOCK1_OUT; co0 += AT_ONCE) {
        vec sum[AT_ONCE] = {0};
        for (int ky = 0; ky < KERNEL1; ky++) {
            int row = 2 * y + ky - MARGIN;
            if (row < 0 || row >= w->swept->full.h) continue;
            const vec *v = (const vec *)w->ring + (row % KERNEL1) * w->ring_words + x * pair_words(mode);
            const word *k = weights + ky * words * BLOCK1_OUT + co0;
            for (int i = 0; i < words; i++, k += BLOCK1_OUT)
                UNROLL for (int co = 0; co < AT_ONCE; co++) sum[co] = mac(mode, sum[co], v[i], broadcast(k[co]));
        }
        UNROLL for (int co = 0; co < AT_ONCE; co++) acc[co0 + co] = sum[co];
    }
}

typedef struct {  // where half 0 or 1 of block 1 puts its results
    word *y;                  // [query][key][16]
    size_t swept_row, swept_column, lane;  // strides in words
    int lanes;
    float scale[BLOCK1_OUT], bias[BLOCK1_OUT];  // of the sums
    double *stats;            // [STATS][16], half 1 only
} Target;

enum { OUT_VECTORS = BLOCK1_OUT / LANES };  // of one position's channels

// Store the sums [16 outputs][lanes] at column x of row y: half 0 writes, half 1 adds and counts.
INLINE void put_column(const int mode, const int half, vec acc[BLOCK1_OUT], const Target *t, int y, int x, Stats stats[])
{
    UNROLL for (int co = 0; co < BLOCK1_OUT; co++) acc[co] = as_float(mode, acc[co]) * t->scale[co] + t->bias[co];
    UNROLL for (int g = 0; g < OUT_VECTORS; g++) transpose(acc + g * LANES);
    word *out = t->y + y * t->swept_row + x * t->swept_column;
    for (int l = 0; l < t->lanes; l++, out += t->lane)
        UNROLL for (int g = 0; g < OUT_VECTORS; g++) {
            word *p = out + g * LANES / per_raw(mode);
            vec v = acc[g * LANES + l];
            if (half == 1) {
                v += load_raw(mode, p);
                count(mode, &stats[g], v);
            }
            store_raw(mode, p, v);
        }
}

// One lane block of one half: half 0 writes, half 1 adds to it and takes GroupNorm's statistics.
INLINE void sweep_block(const int mode, const int half, Sweep *w, const word *weights, const Target *t)
{
    Grid full = w->swept->full, even = w->swept->even;
    for (int s = 0; s < REDUCED; s++) w->native_y[s][0] = w->native_y[s][1] = -1;
    int ready = 0;
    for (int y = 0; y < even.h; y++) {
        for (; ready < MIN(2 * y + MARGIN + 1, full.h); ready++) fill_ring(mode, w, ready);
        Stats stats[OUT_VECTORS];
        for (int g = 0; g < OUT_VECTORS; g++) stats[g] = nothing();
        for (int x = 0; x < even.w; x++) {
            vec acc[BLOCK1_OUT];
            convolve_window(mode, w, weights, y, x, acc);
            put_column(mode, half, acc, t, y, x, stats);
        }
        for (int g = 0; g < OUT_VECTORS && half == 1; g++) add_stats(t->stats + g * LANES, BLOCK1_OUT, &stats[g]);
    }
}

#define SWEEP(NAME, MODE)                                                                                              \
    static void NAME(int half, Sweep *w, const word *weights, const Target *t)                                         \
    {                                                                                                                  \
        if (half) sweep_block(MODE, 1, w, weights, t);                                                                 \
        else sweep_block(MODE, 0, w, weights, t);                                                                      \
    }
SWEEP(sweep_f32, FLOAT32) SWEEP(sweep_bf16, BFLOAT16) SWEEP(sweep_int8, INT8)
typedef void SweepBlock(int half, Sweep *w, const word *weights, const Target *t);
#if defined(AMX)
static SweepBlock sweep_amx;  // in amx_block1.h
#endif

static SweepBlock *sweep_of(const Side *side)
{
#if defined(AMX)
    if (side->amx) return sweep_amx;
#endif
    return side->mode == FLOAT32 ? sweep_f32 : side->mode == BFLOAT16 ? sweep_bf16 : sweep_int8;
}

static size_t row_vectors(const Side *swept, int s) { return (size_t)swept->grid[s].w * SCALES; }

// The words of one row, two columns of zeros on both sides; tiles write whole rows of theirs and read whole windows.
static size_t ring_words(const Side *swept)
{
    size_t words = (size_t)(swept->even.w + 2) * pair_words(swept->mode);
    return swept->amx ? words + 2 * AMX_ROWS * SCALES : words;
}

// Bytes of scratch that a thread needs for sweeping `swept`: the ring, for each reduced scale three rows and a table of
// columns, for the full scale one row.
static size_t sweep_bytes(const Side *swept)
{
    size_t vectors = KERNEL1 * ring_words(swept) + row_vectors(swept, REDUCED);
    for (int s = 0; s < REDUCED; s++) vectors += 3 * row_vectors(swept, s);
    return vectors * sizeof(vec) + REDUCED * swept->full.w * sizeof(Between);
}

static Sweep new_sweep(void *scratch, const Side *swept, const Side *lanes)
{
    Sweep w = {.swept = swept, .lanes = lanes, .ring = scratch, .ring_words = ring_words(swept)};
    int width = swept->full.w, mode = swept->mode;
    w.correlate = mode == FLOAT32 ? correlate_f32 : mode == BFLOAT16 ? correlate_bf16 : correlate_int8;
    memset(w.ring, 0, KERNEL1 * w.ring_words * sizeof(vec));
    vec *p = (vec *)scratch + KERNEL1 * w.ring_words;
    for (int s = 0; s < SCALES; s++) w.row[s] = p, p += row_vectors(swept, s);
    for (int i = 0; i < 2 * REDUCED; i++) w.native[i / 2][i % 2] = p, p += row_vectors(swept, i / 2);
    for (int s = 0; s < REDUCED; s++) {
        w.columns[s] = (Between *)p + s * width;
        for (int x = 0; x < width; x++) w.columns[s][x] = between(x, swept->grid[s].w, width);
    }
    return w;
}

typedef struct {
    const Block1 *block1;
    int half;
    const Side *swept, *lanes;
    Target target;            // of lane block 0
} Half;

static void half_task(const void *context, int block, void *scratch)
{
    const Half *h = context;
    Sweep w = new_sweep(scratch, h->swept, h->lanes);
    Target t = h->target;
    w.block = block;
    t.y += block * LANES * t.lane, t.stats += (size_t)block * STATS * BLOCK1_OUT;
    t.lanes = MIN(LANES, area(h->lanes->even) - block * LANES);
    if (h->half) no_stats(t.stats, BLOCK1_OUT);
    sweep_of(h->swept)(h->half, &w, h->block1->sweep[h->half], &t);
}

// Half 0 or 1, by lane blocks, into y [query][key][16]; half 1 leaves statistics [block][STATS][16].
static Status sweep_half(const Block1 *b, Pool *pool, int half, const Side *query, const Side *key, word *y, double *stats)
{
    Half h = {b, half, half ? key : query, half ? query : key, {.y = y, .stats = stats}};
    if (reserve_scratch(pool, sweep_bytes(h.swept))) return OUT_OF_MEMORY;
    int mode = query->mode;
    size_t position = BLOCK1_OUT / per_raw(mode), slab = raw_words(key->even, BLOCK1_OUT, mode);
    h.target.swept_column = half ? position : slab;
    h.target.swept_row = h.target.swept_column * h.swept->even.w;
    h.target.lane = half ? slab : position;
    for (int c = 0; c < BLOCK1_OUT; c++) {
        h.target.scale[c] = b->step[half][c] / (mode == INT8 ? CORRELATION_UNITS : 1);
        h.target.bias[c] = half ? 0 : b->layer.bias[c];
    }
    parallel(pool, (area(h.lanes->even) + LANES - 1) / LANES, half_task, &h);
    return OK;
}
