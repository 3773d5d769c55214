// Blocks 2 to 4: centre-pivot convolutions 3x3, each followed by GroupNorm and ReLU, as direct convolutions on
// [query position][key row][key column][channel].
//
// The accumulators hold a run of key columns, vectors of output channels each. Neither half needs a transpose, and the
// pivot tap, common to both halves, is computed once. GroupNorm becomes one scale and shift a channel, which is applied
// when the next layer reads the results.

#pragma once

#include "side.h"

enum { LAYERS = 8, MOST_IN = 64, MOST_OUT = 128 };         // of blocks 2 to 4; channels
enum { KERNEL = 9, NEIGHBOURS = 8, TAPS = 1 + 2 * NEIGHBOURS };  // 3x3; the pivot, and the others of both halves
enum { GROUPS = 4, MOST_ACTIVATION = 253 };                // of GroupNorm; in 8 bits, rounding has the rest
static const double EPSILON = 1e-5;                        // of GroupNorm

// A layer's tensors as they are given: over the query axes, over the key axes, GroupNorm.
enum { WEIGHT_Q, BIAS_Q, WEIGHT_K, BIAS_K, GAIN, SHIFT, TENSORS };
typedef struct { const float *values; int64_t size; } Tensor;

typedef struct {
    int in, out, stride;
    word *weights;           // [out / wide][TAPS][in words][wide]: pivot, 8 query taps, 8 key taps
    float *winograd[2];      // float32, stride 1, up to 32 channels: [half][36 points][in][out]
    float step[MOST_OUT];    // value of one unit of its integer weights (1 in float32, bfloat16)
    float bias[MOST_OUT];    // of both halves
    float gain[MOST_OUT], shift[MOST_OUT];  // GroupNorm
} Layer;

enum { WIDE = 4 };  // vectors
static int wide(const Layer *l) { return MIN(l->out, WIDE * LANES); }  // output channels computed at once

// Offset in rows and columns of neighbour i, from 0 to 7 around the pivot.
typedef struct { int y, x; } Offset;
static Offset neighbour(int i) { return (Offset){(i + (i >= KERNEL / 2)) / 3 - 1, (i + (i >= KERNEL / 2)) % 3 - 1}; }

static float tap_weight(const Layer *l, const Tensor *t, int tap, int co, int ci)
{
    const float *q = t[WEIGHT_Q].values + (co * l->in + ci) * KERNEL, *k = t[WEIGHT_K].values + (co * l->in + ci) * KERNEL;
    if (tap == 0) return q[KERNEL / 2] + k[KERNEL / 2];
    int i = (tap - 1) % NEIGHBOURS;
    return (tap <= NEIGHBOURS ? q : k)[i + (i >= KERNEL / 2)];
}

static Status pack_layer(Layer *l, const Tensor *t, int mode)
{
    int width = wide(l), words = l->in / per_word(mode);
    l->weights = allocate((size_t)TAPS * words * l->out * sizeof(word));
    if (!l->weights) return OUT_OF_MEMORY;
    for (int co = 0; co < l->out; co++) {
        float values[TAPS * MOST_IN];
        word packed[TAPS * MOST_IN];
        for (int i = 0; i < TAPS * l->in; i++) values[i] = tap_weight(l, t, i / l->in, co, i % l->in);
        l->step[co] = step_of(mode, values, TAPS * l->in);
        pack(mode, values, packed, TAPS * l->in, l->step[co], 0);
        word *out = l->weights + (size_t)co / width * width * TAPS * words + co % width;
        for (int i = 0; i < TAPS * words; i++) out[i * width] = packed[i];
    }
    return OK;
}

// Sizes and what does not depend on the arithmetic. `kernel` is the number of weights of an input and an output channel.
static Status set_layer(Layer *l, int in, int out, int stride, int kernel, const Tensor t[TENSORS])
{
    *l = (Layer){.in = in, .out = out, .stride = stride};
    for (int i = 0; i < TENSORS; i++)
        if (t[i].size != (i == WEIGHT_Q || i == WEIGHT_K ? out * in * kernel : out)) return BAD_SHAPE;
    for (int c = 0; c < out; c++) {
        l->bias[c] = t[BIAS_Q].values[c] + t[BIAS_K].values[c];
        l->gain[c] = t[GAIN].values[c], l->shift[c] = t[SHIFT].values[c];
    }
    return OK;
}

// Statistics of a layer's results by channel: sum, sum of squares, and in 8 bits largest and largest of -x.
enum { SUM, SQUARE, MOST, MOST_NEGATIVE, STATS };
typedef struct { vec sum, square, most, most_negative; } Stats;

INLINE Stats nothing(void) { return (Stats){.most = splat(-INFINITY), .most_negative = splat(-INFINITY)}; }

INLINE void count(const int mode, Stats *s, vec x)
{
    s->sum += x, s->square += x * x;
    if (mode == INT8) s->most = larger(s->most, x), s->most_negative = larger(s->most_negative, -x);
}

static void no_stats(double *out, int channels)
{
    for (int i = 0; i < STATS * channels; i++) out[i] = i < MOST * channels ? 0 : -INFINITY;
}

INLINE void add_stats(double *out, int channels, const Stats *s)  // out[STATS][channels]
{
    for (int c = 0; c < LANES; c++, out++) {
        out[SUM * channels] += s->sum[c], out[SQUARE * channels] += s->square[c];
        out[MOST * channels] = fmax(out[MOST * channels], s->most[c]);
        out[MOST_NEGATIVE * channels] = fmax(out[MOST_NEGATIVE * channels], s->most_negative[c]);
    }
}

typedef struct { float scale[MOST_OUT], shift[MOST_OUT], step; } Norm;  // next input = relu(scale * x + shift) * step

// The sum of `parts` partial statistics [part][STATS][out].
static void add_up(const Layer *l, const double *stats, int parts, double total[STATS][MOST_OUT])
{
    for (int i = 0; i < STATS; i++)
        for (int c = 0; c < l->out; c++) total[i][c] = i < MOST ? 0 : -INFINITY;
    for (int p = 0; p < parts; p++)
        for (int c = 0; c < l->out; c++) {
            const double *s = stats + (size_t)p * STATS * l->out + c;
            total[SUM][c] += s[SUM * l->out], total[SQUARE][c] += s[SQUARE * l->out];
            total[MOST][c] = fmax(total[MOST][c], s[MOST * l->out]);
            total[MOST_NEGATIVE][c] = fmax(total[MOST_NEGATIVE][c], s[MOST_NEGATIVE * l->out]);
        }
}

// GroupNorm as one scale and shift a channel. In 8 bits the unit `step` is such that the largest activation is
// MOST_ACTIVATION. Statistics that are not finite would become activations of 0, and those a plausible score.
static Status group_norm(const Layer *l, int mode, const double *stats, int parts, double positions, Norm *norm)
{
    double total[STATS][MOST_OUT], top = 1e-20;
    add_up(l, stats, parts, total);
    int size = l->out / GROUPS;
    for (int g = 0; g < GROUPS; g++) {
        double sum = 0, square = 0;
        for (int c = g * size; c < (g + 1) * size; c++) sum += total[SUM][c], square += total[SQUARE][c];
        if (!isfinite(sum) || !isfinite(square)) return NOT_FINITE;
        double mean = sum / (positions * size), variance = fmax(square / (positions * size) - mean * mean, 0);
        for (int c = g * size; c < (g + 1) * size; c++) {
            double scale = l->gain[c] / sqrt(variance + EPSILON), shift = l->shift[c] - mean * scale;
            norm->scale[c] = (float)scale, norm->shift[c] = (float)shift;
            top = fmax(top, fmax(scale * total[MOST][c], -scale * total[MOST_NEGATIVE][c]) + shift);
        }
    }
    norm->step = mode == INT8 ? (float)(top / MOST_ACTIVATION) : 1;
    for (int c = 0; c < l->out; c++) norm->scale[c] /= norm->step, norm->shift[c] /= norm->step;
    return OK;
}

// Words of one query position's results: [key][channel]. The extra cache line keeps the 16 lanes of half 1 of block 1, one
// slab apart, from falling into the same set of the cache.
static size_t raw_words(Grid k, int channels, int mode)
{
    return (size_t)area(k) * channels / per_raw(mode) + CACHE_LINE / sizeof(word);
}

typedef struct { const word *x, *weights; } Tap;

typedef struct {  // of one row of outputs
    int columns, step;        // step: words from one output column to the next
    word *y;
    const float *scale, *bias;  // [V * LANES], of the sums
    Stats *stats;             // [V]
} Row;

// R output columns from x by V vectors of channels, over all taps; input columns are `step` words apart.
INLINE void convolve_run(const int mode, const int words, const int step, const int V, const int R, const Tap *taps, int n,
                         const Row *row, int x)
{
    vec acc[ACCUMULATORS];
    UNROLL for (int i = 0; i < R * V; i++) acc[i] = (vec){0};
    for (int t = 0; t < n; t++) {
        const word *in = taps[t].x + x * step;
        const vec *w = (const vec *)taps[t].weights;
        for (int c = 0; c < words; c++)
            UNROLL for (int r = 0; r < R; r++)
                UNROLL for (int v = 0; v < V; v++)
                    acc[r * V + v] = mac(mode, acc[r * V + v], broadcast(in[r * step + c]), w[c * V + v]);
    }
    UNROLL for (int v = 0; v < V; v++) {
        Stats stats = row->stats[v];
        vec scale = ((const vec_any *)row->scale)[v], bias = ((const vec_any *)row->bias)[v];
        UNROLL for (int r = 0; r < R; r++) {
            vec a = as_float(mode, acc[r * V + v]) * scale + bias;
            count(mode, &stats, a);
            store_raw(mode, row->y + (x + r) * row->step + v * LANES / per_raw(mode), a);
        }
        row->stats[v] = stats;
    }
}

// A row of outputs, in runs as long as the registers allow and of about equal length.
INLINE void convolve_row(const int mode, const int in, const int stride, const int V, const Tap *taps, int n, const Row *row)
{
    const int words = in / per_word(mode), longest = ACCUMULATORS / V;
    for (int x = 0, runs = (row->columns + longest - 1) / longest; runs > 0; runs--) {
        int R = (row->columns - x + runs - 1) / runs;
        switch (R) {
#define CASE(R) case R: if (R * V <= ACCUMULATORS) convolve_run(mode, words, stride * words, V, R, taps, n, row, x); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
            CASE(13) CASE(14) CASE(15) CASE(16) CASE(17) CASE(18) CASE(19) CASE(20) CASE(21) CASE(22) CASE(23) CASE(24)
#undef CASE
        }
        x += R;
    }
}

typedef void RowKernel(const Tap *, int, const Row *);
#define ROW_KERNEL(NAME, MODE, IN, STRIDE, V)                                                                          \
    static void NAME(const Tap *taps, int n, const Row *row) { convolve_row(MODE, IN, STRIDE, V, taps, n, row); }
#define ROW_KERNELS(IN, STRIDE, OUT)                                                                                   \
    ROW_KERNEL(row_##IN##_##STRIDE##_f32, FLOAT32, IN, STRIDE, MIN(OUT / LANES, WIDE))                                    \
    ROW_KERNEL(row_##IN##_##STRIDE##_bf16, BFLOAT16, IN, STRIDE, MIN(OUT / LANES, WIDE))                                  \
    ROW_KERNEL(row_##IN##_##STRIDE##_int8, INT8, IN, STRIDE, MIN(OUT / LANES, WIDE))
ROW_KERNELS(16, 1, 16) ROW_KERNELS(16, 2, 32) ROW_KERNELS(32, 1, 32) ROW_KERNELS(32, 2, 64) ROW_KERNELS(64, 1, 64)

static RowKernel *row_kernel(const Layer *l, int mode)
{
#define KERNEL(IN, STRIDE) \
    if (l->in == IN && l->stride == STRIDE) \
        return (RowKernel *[]){row_##IN##_##STRIDE##_f32, row_##IN##_##STRIDE##_bf16, row_##IN##_##STRIDE##_int8}[mode];
    KERNEL(16, 1) KERNEL(16, 2) KERNEL(32, 1) KERNEL(32, 2) KERNEL(64, 1)
#undef KERNEL
    return NULL;
}

// Words of one query position's activations: [key row][key column + 1][channel], a column of zeros after every row and a
// row of zeros after the last.
static size_t slab_words(Grid k, int channels, int mode) { return (size_t)(k.h + 1) * (k.w + 1) * channels / per_word(mode); }

// The taps inside the picture for query position (qy, qx) and key row ky, all in input coordinates.
static int list_taps(const Layer *l, int mode, Grid q, Grid k, const word *x, const word *weights, int qy, int qx, int ky,
                     Tap taps[TAPS])
{
    int words = l->in / per_word(mode), tap_words = words * wide(l), n = 0;
    ptrdiff_t slab = slab_words(k, l->in, mode), row = (k.w + 1) * words;
    const word *pivot = x + (qy * q.w + qx) * slab + ky * row;
    taps[n++] = (Tap){pivot, weights};
    for (int i = 0; i < NEIGHBOURS; i++) {
        Offset d = neighbour(i);
        if (qy + d.y >= 0 && qy + d.y < q.h && qx + d.x >= 0 && qx + d.x < q.w)
            taps[n++] = (Tap){pivot + (d.y * q.w + d.x) * slab, weights + (1 + i) * tap_words};
        if (ky + d.y >= 0 && ky + d.y < k.h)
            taps[n++] = (Tap){pivot + d.y * row + d.x * words, weights + (1 + NEIGHBOURS + i) * tap_words};
    }
    return n;
}

typedef struct {  // of one layer, or of the normalisation before it
    int mode, amx;
    const Layer *layer;
    const Norm *norm;         // of the input
    Grid q, k, to_q, to_k;    // of the input, of the output
    word *raw, *act;
    double *stats;            // [task][STATS][out]
} Stage;

// Results of a convolution at one query position -> inputs of the next one.
INLINE void normalise_slab(const int mode, const Stage *s, int i)
{
    int channels = s->layer->in;
    const word *raw = s->raw + i * raw_words(s->k, channels, mode);
    word *act = s->act + i * slab_words(s->k, channels, mode);
    for (int y = 0; y < s->k.h; y++) {
        for (int x = 0; x < s->k.w; x++)
            for (int c = 0; c < channels; c += LANES, raw += LANES / per_raw(mode), act += LANES / per_word(mode)) {
                vec scale = *(const vec_any *)(s->norm->scale + c), shift = *(const vec_any *)(s->norm->shift + c);
                store_act(mode, act, relu(load_raw(mode, raw) * scale + shift));
            }
        memset(act, 0, channels / per_word(mode) * sizeof(word));
        act += channels / per_word(mode);
    }
    memset(act, 0, (s->k.w + 1) * channels / per_word(mode) * sizeof(word));
}

// One row of query positions, the last row first: what was written last is still in the cache.
static void normalise_task(const void *context, int task, void *scratch)
{
    (void)scratch;
    const Stage *s = context;
    int row = s->q.h - 1 - task;
    for (int i = row * s->q.w; i < (row + 1) * s->q.w; i++) {
        if (s->mode == FLOAT32) normalise_slab(FLOAT32, s, i);
        else if (s->mode == BFLOAT16) normalise_slab(BFLOAT16, s, i);
        else normalise_slab(INT8, s, i);
    }
}

// All outputs [key][out] of query position i, and their statistics.
static void convolve_task(const void *context, int i, void *scratch)
{
    (void)scratch;
    const Stage *s = context;
    const Layer *l = s->layer;
    int mode = s->mode, width = wide(l), position = l->out / per_raw(mode), qy = i / s->to_q.w, qx = i % s->to_q.w;
    word *y = s->raw + i * raw_words(s->to_k, l->out, mode);
    float scale[MOST_OUT];
    for (int c = 0; c < l->out; c++) scale[c] = l->step[c] * s->norm->step;
    Stats stats[MOST_OUT / LANES];
    for (int v = 0; v < l->out / LANES; v++) stats[v] = nothing();
    for (int ky = 0; ky < s->to_k.h; ky++)
        for (int c0 = 0; c0 < l->out; c0 += width) {
            Tap taps[TAPS];
            const word *weights = l->weights + (size_t)c0 * TAPS * l->in / per_word(mode);
            int n = list_taps(l, mode, s->q, s->k, s->act, weights, qy * l->stride, qx * l->stride, ky * l->stride, taps);
            word *out = y + (size_t)ky * s->to_k.w * position + c0 / per_raw(mode);
            Row row = {s->to_k.w, position, out, scale + c0, l->bias + c0, stats + c0 / LANES};
            row_kernel(l, mode)(taps, n, &row);
        }
    double *totals = s->stats + (size_t)i * STATS * l->out;
    no_stats(totals, l->out);
    for (int v = 0; v < l->out / LANES; v++) add_stats(totals + v * LANES, l->out, &stats[v]);
}
