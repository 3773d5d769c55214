// Layers of stride 1 and few channels in float32: their 3x3 convolutions by Winograd's F(4x4, 3x3), Lavin and Gray,
// CVPR 2016.
//
// A block is 4x4 query positions by 4x4 key positions. Half 0 transforms a 6x6 window of query positions at each of the
// 16 key positions, half 1 the other way round; 36 small matrix products take the place of 9 x 16.

#pragma once

#include "layers.h"

enum { TILE = 4, WINDOW = 6, POINTS = WINDOW * WINDOW, BLOCK = TILE * TILE };
enum { WINOGRAD_MOST = 32 };  // channels; with more of them the products no longer stay in the cache

static int uses_winograd(const Layer *l, int mode)
{
    return mode == FLOAT32 && l->stride == 1 && l->out <= WINOGRAD_MOST;
}

// Point p of G w G^T for a 3x3 kernel w.
static double kernel_point(const float *w, int p)
{
    static const double G[WINDOW][3] = {{1 / 4., 0, 0}, {-1 / 6., -1 / 6., -1 / 6.}, {-1 / 6., 1 / 6., -1 / 6.},
                                        {1 / 24., 1 / 12., 1 / 6.}, {1 / 24., -1 / 12., 1 / 6.}, {0, 0, 1}};
    double sum = 0;
    for (int i = 0; i < KERNEL; i++) sum += G[p / WINDOW][i / 3] * w[i] * G[p % WINDOW][i % 3];
    return sum;
}

// Weights (out, in, 3, 3) -> [6 x 6 points][in][out].
static Status pack_winograd(Layer *l, int half, const float *weights)
{
    float *packed = l->winograd[half] = allocate((size_t)POINTS * l->in * l->out * sizeof(float));
    if (!packed) return OUT_OF_MEMORY;
    for (int p = 0; p < POINTS; p++)
        for (int ci = 0; ci < l->in; ci++)
            for (int co = 0; co < l->out; co++)
                packed[(p * l->in + ci) * l->out + co] = (float)kernel_point(weights + (co * l->in + ci) * KERNEL, p);
    return OK;
}

INLINE void to_points(vec *d, int step)  // B^T d
{
    vec a = d[0], b = d[step], c = d[2 * step], e = d[3 * step], f = d[4 * step], g = d[5 * step];
    vec even = f - 4 * c, odd = e - 4 * b, far = f - c, near = 2 * (e - b);
    d[0] = 4 * a - 5 * c + f, d[step] = even + odd, d[2 * step] = even - odd;
    d[3 * step] = far + near, d[4 * step] = far - near, d[5 * step] = 4 * b - 5 * e + g;
}

INLINE void from_points(vec *m, int step)  // A^T m, into the first four
{
    vec s = m[step] + m[2 * step], t = m[step] - m[2 * step], u = m[3 * step] + m[4 * step], v = m[3 * step] - m[4 * step];
    m[0] = m[0] + s + u, m[step] = t + 2 * v, m[2 * step] = s + 4 * u, m[3 * step] = t + 8 * v + m[5 * step];
}

typedef struct {
    ptrdiff_t window[POINTS];  // offsets of the 6x6 positions on the side that is convolved, -1 outside
    ptrdiff_t other[BLOCK];    // offsets of the 4x4 positions on the other side; outside ones repeat the first
} Offsets;

static void place(Grid g, int y, int x, ptrdiff_t row, ptrdiff_t column, ptrdiff_t window[POINTS], ptrdiff_t tile[BLOCK])
{
    for (int i = 0; i < POINTS; i++) {
        int py = y + i / WINDOW - 1, px = x + i % WINDOW - 1;
        window[i] = py < 0 || px < 0 || py >= g.h || px >= g.w ? -1 : py * row + px * column;
    }
    for (int i = 0; i < BLOCK; i++) {
        int inside = y + i / TILE < g.h && x + i % TILE < g.w;
        tile[i] = inside ? (y + i / TILE) * row + (x + i % TILE) * column : y * row + x * column;
    }
}

// One half of a block: out[query 16][key 16][channels], written by half 0, added to by half 1.
INLINE void winograd_half(const int channels, const int half, const float *x, const float *weights, const Offsets *at,
                          vec *points, vec *products, vec *out)
{
    const int V = channels / LANES, R = AT_ONCE / V, point = BLOCK * V + 1;  // + 1: not all points in one set of the cache
    for (int r = 0; r < BLOCK; r++)
        for (int v = 0; v < V; v++) {
            vec d[POINTS];
            UNROLL for (int i = 0; i < POINTS; i++) {
                d[i] = (vec){0};
                if (at->window[i] >= 0) d[i] = *(const vec_any *)(x + at->window[i] + at->other[r] + v * LANES);
            }
            UNROLL for (int i = 0; i < WINDOW; i++) to_points(d + i, WINDOW);
            UNROLL for (int i = 0; i < WINDOW; i++) to_points(d + i * WINDOW, 1);
            UNROLL for (int i = 0; i < POINTS; i++) points[i * point + r * V + v] = d[i];
        }
    for (int p = 0; p < POINTS; p++)
        for (int r0 = 0; r0 < BLOCK; r0 += R) {
            vec acc[AT_ONCE] = {0};
            const word *in = (const word *)(points + p * point + r0 * V);
            const vec *w = (const vec *)weights + p * channels * V;
            for (int c = 0; c < channels; c++)
                UNROLL for (int r = 0; r < R; r++)
                    UNROLL for (int v = 0; v < V; v++)
                        acc[r * V + v] = mac(FLOAT32, acc[r * V + v], broadcast(in[r * channels + c]), w[c * V + v]);
            UNROLL for (int i = 0; i < AT_ONCE; i++) products[p * point + r0 * V + i] = acc[i];
        }
    for (int r = 0; r < BLOCK; r++)
        for (int v = 0; v < V; v++) {
            vec m[POINTS];
            UNROLL for (int i = 0; i < POINTS; i++) m[i] = products[i * point + r * V + v];
            UNROLL for (int i = 0; i < WINDOW; i++) from_points(m + i, WINDOW);
            UNROLL for (int i = 0; i < TILE; i++) from_points(m + i * WINDOW, 1);
            UNROLL for (int i = 0; i < BLOCK; i++) {
                vec *o = out + (half ? r * BLOCK + i : i * BLOCK + r) * V + v, y = m[i / TILE * WINDOW + i % TILE];
                if (half) *o += y;
                else *o = y;
            }
        }
}

// Bias, statistics and storing of a block whose first positions are (qy, qx) and (ky, kx).
static void store_block(const Stage *s, int qy, int qx, int ky, int kx, const vec *block, Stats *stats)
{
    int channels = s->layer->out, V = channels / LANES;
    for (int i = 0; i < BLOCK * BLOCK * V; i++) {
        int y = qy + i / (V * BLOCK) / TILE, x = qx + i / (V * BLOCK) % TILE;
        int py = ky + i / V % BLOCK / TILE, px = kx + i / V % TILE, v = i % V;
        if (y >= s->q.h || x >= s->q.w || py >= s->k.h || px >= s->k.w) continue;
        vec value = block[i] + ((const vec_any *)s->layer->bias)[v];
        count(FLOAT32, &stats[v], value);
        word *slab = s->raw + (y * s->q.w + x) * raw_words(s->k, channels, FLOAT32);
        store_raw(FLOAT32, slab + (py * s->k.w + px) * channels + v * LANES, value);
    }
}

static int tiles_of(int length) { return (length + TILE - 1) / TILE; }

// Vectors of the transformed windows of a half, and of their products.
static int point_vectors(const Layer *l) { return (BLOCK * l->out / LANES + 1) * POINTS; }

static size_t winograd_bytes(const Layer *l)
{
    return (2 * point_vectors(l) + BLOCK * BLOCK * l->out / LANES) * sizeof(vec);
}

static void winograd_task(const void *context, int tile, void *scratch)  // 4x4 query positions, all keys
{
    const Stage *s = context;
    const Layer *l = s->layer;
    int across = tiles_of(s->q.w), qy = tile / across * TILE, qx = tile % across * TILE;
    vec *points = scratch, *products = points + point_vectors(l), *block = products + point_vectors(l);
    ptrdiff_t slab = slab_words(s->k, l->in, FLOAT32), row = (s->k.w + 1) * l->in;
    Offsets over_q, over_k;
    place(s->q, qy, qx, slab * s->q.w, slab, over_q.window, over_k.other);
    Stats stats[WINOGRAD_MOST / LANES];
    for (int v = 0; v < 32 / LANES; v++) stats[v] = nothing();
    double *totals = s->stats + (size_t)tile * STATS * l->out;
    no_stats(totals, l->out);
    for (int ky = 0; ky < s->k.h; ky += TILE) {
        for (int kx = 0; kx < s->k.w; kx += TILE) {
            place(s->k, ky, kx, row, l->in, over_k.window, over_q.other);
            const float *x = (const float *)s->act;
            if (l->in == 16) {
                winograd_half(16, 0, x, l->winograd[0], &over_q, points, products, block);
                winograd_half(16, 1, x, l->winograd[1], &over_k, points, products, block);
            } else {
                winograd_half(32, 0, x, l->winograd[0], &over_q, points, products, block);
                winograd_half(32, 1, x, l->winograd[1], &over_k, points, products, block);
            }
            store_block(s, qy, qx, ky, kx, block, stats);
        }
    }
    for (int v = 0; v < l->out / LANES; v++) add_stats(totals + v * LANES, l->out, &stats[v]);
}
