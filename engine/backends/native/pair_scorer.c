// CVNet's pair scorer on the CPU: six unit-norm feature maps in, two logits out.
//
// The network verifies a query image against a key image from their correlation, a 4D tensor over (query position,
// key position) with nine channels (query scale i, key scale j). It is never whole in memory:
//
//   block 1   conv 5x5 stride 2 over one side's positions, at the even positions of the other side, for both sides.
//             The side that is convolved is called "swept", the other one holds the "lanes": as many of its even
//             positions as a vector has floats (16 with AVX-512). One lane block sweeps down the other image row by row:
//                 dot products on native grids -> bilinear resize -> clamp -> ring of five rows -> convolution
//             so that a tile of correlation is born, used and overwritten within the L2 cache.
//   block 2-4 centre-pivot convolutions on [query position][key row][key column][channel], channels innermost, as
//             direct convolutions: the accumulators hold a run of key columns, one vector of 16 output channels each.
//             Neither half needs a transpose, and the pivot tap, common to both halves, is computed once.
//
// Values are stored in 32-bit words: a float32, a pair of bfloat16 or four 8-bit integers, and every inner loop is
// "accumulator += vector of words . one broadcast word", so that one source serves all precisions. A product of 8-bit
// words takes an unsigned side (lanes + 128, correlation, activations) and a signed one (native rows, weights).
//
// Names: q query, k key, s scale, c channel. Grids are (h, w); "even" is the grid of positions (2y, 2x).

#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16, ACCUMULATORS = 24, DOT_ROWS = 8, AT_ONCE = 16 };  // 32 registers
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

typedef uint32_t word __attribute__((may_alias));
typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t veci __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t vecu __attribute__((vector_size(4 * LANES), may_alias));
typedef float vec_any __attribute__((vector_size(4 * LANES), aligned(4), may_alias));  // at any address
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(4), may_alias));  // bfloat16
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 36")
#define MIN(a, b) ((a) < (b) ? (a) : (b))

enum { DIM = 256, SCALES = 3, CHANNELS = 9, BLOCK1_OUT = 16, KERNEL1 = 5, LAYERS = 8, TAPS = 17, HIDDEN = 128, STATS = 4 };
enum { CORRELATION_UNITS = 250 };  // in 8 bits, of correlation 1
enum { FLOAT32, BFLOAT16, INT8 };  // arithmetic of every product; statistics and sums are float32 or wider

typedef struct { int h, w; } Grid;
static int area(Grid g) { return g.h * g.w; }
static Grid halved(Grid g) { return (Grid){(g.h + 1) / 2, (g.w + 1) / 2}; }

// ---- words ------------------------------------------------------------------------------------------------------

INLINE int per_word(int mode) { return mode == FLOAT32 ? 1 : mode == BFLOAT16 ? 2 : 4; }
INLINE int per_raw(int mode) { return mode == FLOAT32 ? 1 : 2; }  // convolutions' results: float32 or bfloat16

INLINE vec splat(float x) { return x - (vec){0}; }
INLINE vec broadcast(word x) { return (vec)(x - (vecu){0}); }
#if defined(__AVX512F__)
INLINE vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
#else
INLINE vec larger(vec a, vec b) { veci m = a > b; return (vec)(((veci)a & m) | ((veci)b & ~m)); }
#endif
INLINE vec relu(vec x) { return larger(x, (vec){0}); }

// Two vectors as one of bfloat16 pairs, a in the low halves.
INLINE vecu pair(vec a, vec b) { return (((vecu)a + 0x8000u) >> 16) | (((vecu)b + 0x8000u) & 0xffff0000u); }

INLINE veci rounded(vec a) { return __builtin_convertvector(a + 0.5f, veci); }  // a >= 0

// Four vectors, clamped at 0 and rounded, as one of bytes.
INLINE vecu quad(const vec a[4])
{
#if defined(__AVX512BW__)
    __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)a[0]), _mm512_cvtps_epi32((__m512)a[1]));
    __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)a[2]), _mm512_cvtps_epi32((__m512)a[3]));
    const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return (vecu)_mm512_shuffle_epi8(_mm512_packus_epi16(low, high), turn);
#else
    return (vecu)(rounded(relu(a[0])) | rounded(relu(a[1])) << 8 | rounded(relu(a[2])) << 16 | rounded(relu(a[3])) << 24);
#endif
}

// acc + u . s: one product a lane, two of bfloat16, or four of bytes, u unsigned and s signed, acc integers.
INLINE vec mac(const int mode, vec acc, vec u, vec s)
{
    if (mode == FLOAT32) return acc + u * s;
#if defined(__AVX512BF16__)
    if (mode == BFLOAT16) return (vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)u, (__m512bh)s);
#else
    if (mode == BFLOAT16) {
        acc += (vec)((vecu)u << 16) * (vec)((vecu)s << 16);
        return acc + (vec)((vecu)u & 0xffff0000u) * (vec)((vecu)s & 0xffff0000u);
    }
#endif
#if defined(__AVX512VNNI__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(s));  // GCC 12 spills around the intrinsic's integer type
    return acc;
#else
    veci sum = (veci)acc;
    for (int up = 24; up >= 0; up -= 8) sum += (veci)((vecu)u << up >> 24) * ((veci)((vecu)s << up) >> 24);
    return (vec)sum;
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
    else *(halves *)p = __builtin_convertvector(((vecu)x + 0x8000u) >> 16, halves);
#endif
}

INLINE void store_act(const int mode, word *p, vec x)
{
    if (mode == INT8) *(bytes *)p = __builtin_convertvector(rounded(x), bytes);
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
    uint8_t *units = (uint8_t *)out;
    float inverse = 1 / step;
    if (mode == FLOAT32) memcpy(out, in, n * sizeof(float));
    if (mode == BFLOAT16)
        for (int i = 0; i < n / 2; i++) out[i] = (bits[2 * i] + 0x8000u) >> 16 | ((bits[2 * i + 1] + 0x8000u) & 0xffff0000u);
    if (mode == INT8)
        for (int i = 0; i < n; i++) units[i] = (uint8_t)((int)(in[i] * inverse + 128.5f) - 128 + offset);
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

// ---- memory -----------------------------------------------------------------------------------------------------

static void *allocate(size_t bytes)
{
    size_t page = bytes >= (4u << 20) ? 2u << 20 : 64;
    void *p = aligned_alloc(page, (bytes + page - 1) / page * page);
#if defined(__linux__)
    if (p && page > 64) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

typedef struct { void *p; size_t bytes; } Buffer;  // grows, kept from pair to pair

static void *reserve(Buffer *b, size_t bytes)
{
    if (b->bytes < bytes) {
        free(b->p);
        b->p = allocate(bytes);
        b->bytes = bytes;
    }
    return b->p;
}

// ---- threads ----------------------------------------------------------------------------------------------------

// Threads that sleep between stages: spinning, as OpenMP does, doubles the time when another program wants the cores.
typedef void Task(const void *context, int i, int thread);

typedef struct {
    pthread_t *workers;
    int threads, working, round, stop, n;
    pthread_mutex_t lock;
    pthread_cond_t begin, end;
    Task *task;
    const void *context;
    atomic_int next;
} Pool;

typedef struct { Pool *pool; int thread; } Worker;

static void take_tasks(Pool *p, int thread)
{
    for (int i; (i = atomic_fetch_add(&p->next, 1)) < p->n;) p->task(p->context, i, thread);
}

static void *work(void *argument)
{
    Worker me = *(Worker *)argument;
    Pool *p = me.pool;
    free(argument);
    for (int round = 1;; round++) {
        pthread_mutex_lock(&p->lock);
        while (p->round < round && !p->stop) pthread_cond_wait(&p->begin, &p->lock);
        pthread_mutex_unlock(&p->lock);
        if (p->stop) return NULL;
        take_tasks(p, me.thread);
        pthread_mutex_lock(&p->lock);
        if (--p->working == 0) pthread_cond_signal(&p->end);
        pthread_mutex_unlock(&p->lock);
    }
}

// task(context, 0 .. n - 1, thread) on all threads, the caller's too; returns when all are done.
static void parallel(Pool *p, int n, Task *task, const void *context)
{
    pthread_mutex_lock(&p->lock);
    p->task = task, p->context = context, p->n = n, p->working = p->threads - 1, p->round++;
    atomic_store(&p->next, 0);
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->lock);
    take_tasks(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->working) pthread_cond_wait(&p->end, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void start_pool(Pool *p, int threads)
{
    p->threads = threads, p->workers = calloc(threads, sizeof *p->workers);
    pthread_mutex_init(&p->lock, NULL), pthread_cond_init(&p->begin, NULL), pthread_cond_init(&p->end, NULL);
    for (int i = 1; i < threads; i++) {
        Worker *w = malloc(sizeof *w);
        *w = (Worker){p, i};
        pthread_create(&p->workers[i], NULL, work, w);
    }
}

static void stop_pool(Pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = 1;
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i], NULL);
    pthread_mutex_destroy(&p->lock), pthread_cond_destroy(&p->begin), pthread_cond_destroy(&p->end);
    free(p->workers);
}

// ---- bilinear resizing, align_corners ---------------------------------------------------------------------------

typedef struct { int a, b; float t; } Between;  // value = (1 - t) * at a + t * at b

static Between between(int i, int from, int to)  // PyTorch's float32 arithmetic
{
    float at = to > 1 ? (float)(from - 1) / (float)(to - 1) * (float)i : 0.0f;
    int a = MIN((int)at, from - 1);
    return (Between){a, MIN(a + 1, from - 1), at - (float)a};
}

static Grid scaled(Grid full, int s)
{
    double side = sqrt((double[]){0.25, 0.5, 1.0}[s]);
    return (Grid){(int)rint(full.h * side), (int)rint(full.w * side)};
}

// ---- one image prepared -----------------------------------------------------------------------------------------

typedef struct {
    int mode;
    Grid full, even, grid[SCALES];
    int start[SCALES + 1];  // first row of each scale in `native`
    word *native;           // [position][DIM words]: the broadcast operand, every position of the three native grids
    float *native_step;     // [position]: value of one unit of its integers (1 in float32, bfloat16)
    int *native_bias;       // [position]: -128 times the sum of its integers, as lanes have 128 added; else 0
    word *lanes;            // [even / 16][DIM words][3 scales][16]: the vector operand, maps resized, even positions
    float *lanes_step;      // [even / 16][3][16]
} Side;

static float half_to_float(uint16_t h)
{
    union { uint32_t u; float f; } x = {(uint32_t)(h & 0x7fff) << 13};
    x.f *= 0x1p112f;
    x.u |= (uint32_t)(h & 0x8000) << 16;
    return x.f;
}

typedef struct {  // of one image's maps to a Side
    Side *side;
    const void *const *maps;
    int is_half;
    float *rows;  // [position][256]
} Preparation;

enum { CHUNK = 32 };  // positions a task

static int scale_of(const Side *side, int position)
{
    return position < side->start[1] ? 0 : position < side->start[2] ? 1 : 2;
}

static void transpose_row(const Preparation *p, int position, float *row)
{
    int s = scale_of(p->side, position), i = position - p->side->start[s];
    size_t n = area(p->side->grid[s]);
    if (p->is_half) for (int c = 0; c < DIM; c++) row[c] = half_to_float(((const uint16_t *)p->maps[s])[c * n + i]);
    else for (int c = 0; c < DIM; c++) row[c] = ((const float *)p->maps[s])[c * n + i];
}

static float step_of(int mode, const float *x, int n) { return mode == INT8 ? largest(x, n) / 127 : 1; }

static void prepare_native(Side *side, const float *row, int position)
{
    int words = DIM / per_word(side->mode), sum = 0;
    word *out = side->native + (size_t)position * words;
    float step = side->native_step[position] = step_of(side->mode, row, DIM);
    pack(side->mode, row, out, DIM, step, 0);
    for (int c = 0; c < DIM && side->mode == INT8; c++) sum += ((const int8_t *)out)[c];
    side->native_bias[position] = -128 * sum;
}

static void native_task(const void *context, int chunk, int thread)
{
    (void)thread;
    const Preparation *p = context;
    for (int i = chunk * CHUNK; i < MIN((chunk + 1) * CHUNK, p->side->start[SCALES]); i++) {
        transpose_row(p, i, p->rows + (size_t)i * DIM);
        prepare_native(p->side, p->rows + (size_t)i * DIM, i);
    }
}

// Even position i of the map at scale s, resized to full size, as a lane.
static void prepare_lane(Side *side, const float *rows, int s, int i)
{
    int words = DIM / per_word(side->mode), lane = i % LANES, block = i / LANES;
    Grid g = side->grid[s];
    Between y = between(i / side->even.w * 2, g.h, side->full.h), x = between(i % side->even.w * 2, g.w, side->full.w);
    const float *aa = rows + (size_t)(y.a * g.w + x.a) * DIM, *ab = rows + (size_t)(y.a * g.w + x.b) * DIM;
    const float *ba = rows + (size_t)(y.b * g.w + x.a) * DIM, *bb = rows + (size_t)(y.b * g.w + x.b) * DIM;
    float waa = (1 - y.t) * (1 - x.t), wab = (1 - y.t) * x.t, wba = y.t * (1 - x.t), wbb = y.t * x.t;
    float row[DIM];
    for (int c = 0; c < DIM; c++) row[c] = waa * aa[c] + wab * ab[c] + wba * ba[c] + wbb * bb[c];
    float step = step_of(side->mode, row, DIM);
    word packed[DIM], *out = side->lanes + ((size_t)block * words * SCALES + s) * LANES + lane;
    pack(side->mode, row, packed, DIM, step, 128);
    for (int k = 0; k < words; k++) out[k * SCALES * LANES] = packed[k];
    side->lanes_step[(block * SCALES + s) * LANES + lane] = step * (side->mode == INT8 ? CORRELATION_UNITS : 1);
}

static void lanes_task(const void *context, int chunk, int thread)
{
    (void)thread;
    const Preparation *p = context;
    for (int i = chunk * CHUNK; i < MIN((chunk + 1) * CHUNK, area(p->side->even)); i++)
        for (int s = 0; s < SCALES; s++) prepare_lane(p->side, p->rows + (size_t)p->side->start[s] * DIM, s, i);
}

static void free_side(Side *side)
{
    if (!side) return;
    free(side->native), free(side->native_step), free(side->native_bias), free(side->lanes), free(side->lanes_step);
    free(side);
}

// Three maps (256, h_s, w_s), float32 or float16, of an image whose full grid is h x w.
static Side *prepare_side(int mode, Pool *pool, Buffer *buffer, int h, int w, const void *const maps[SCALES], int is_half)
{
    Side *side = calloc(1, sizeof *side);
    side->mode = mode, side->full = (Grid){h, w}, side->even = halved(side->full);
    for (int s = 0; s < SCALES; s++) {
        side->grid[s] = scaled(side->full, s);
        side->start[s + 1] = side->start[s] + area(side->grid[s]);
    }
    int n = side->start[SCALES], blocks = (area(side->even) + LANES - 1) / LANES;
    size_t words = DIM / per_word(mode);
    side->native = allocate((size_t)n * words * sizeof(word));
    side->native_step = malloc(n * sizeof(float)), side->native_bias = malloc(n * sizeof(int));
    side->lanes = allocate(blocks * words * SCALES * LANES * sizeof(word));
    side->lanes_step = calloc(blocks * SCALES * LANES, sizeof(float));
    memset(side->lanes, 0, blocks * words * SCALES * LANES * sizeof(word));
    Preparation p = {side, maps, is_half, reserve(buffer, (size_t)n * DIM * sizeof(float))};
    parallel(pool, (n + CHUNK - 1) / CHUNK, native_task, &p);
    parallel(pool, (area(side->even) + CHUNK - 1) / CHUNK, lanes_task, &p);
    return side;
}

// ---- the model --------------------------------------------------------------------------------------------------

typedef struct {
    int in, out, stride;
    word *weights;           // [out / 64 or 1][TAPS][in words][MIN(out, 64)]: pivot, 8 query taps, 8 key taps
    float *winograd[2];      // float32, stride 1, up to 32 channels: [half][36 points][in][out]
    float step[128];         // value of one unit of its integer weights (1 in float32, bfloat16)
    float bias[128];         // of both halves
    float gain[128], shift[128];  // GroupNorm
} Layer;

typedef struct {
    int mode;
    Pool pool;
    word *sweep[2];          // block 1, [half][5][words of 5 columns][16]; half 0 sweeps the query, 1 the key
    float sweep_step[2][BLOCK1_OUT];
    Layer block1, layers[LAYERS];
    float hidden[HIDDEN * HIDDEN], hidden_bias[HIDDEN], logits[2 * HIDDEN], logits_bias[2];
    Buffer rows, raw, act, stats, *scratch;  // scratch: one a thread
    Side *query;
} Model;

// Columns of the swept image are stored by twos, 9 channels each, so that a window of five begins at a word's start.
INLINE int pair_words(int mode) { return mode == FLOAT32 ? 18 : mode == BFLOAT16 ? 9 : 5; }
INLINE int window_words(int mode) { return mode == FLOAT32 ? 45 : mode == BFLOAT16 ? 23 : 13; }  // 18 + 18 + 9 values

// conv weight (16, 9, 5, 5) -> [ky][window word][16].
static word *pack_sweep(const float *weight, int half, int mode, float step[BLOCK1_OUT])
{
    int words = window_words(mode), pair_values = pair_words(mode) * per_word(mode);
    word *packed = allocate((size_t)KERNEL1 * words * BLOCK1_OUT * sizeof(word)), window[KERNEL1 * CHANNELS];
    for (int co = 0; co < BLOCK1_OUT; co++) {
        const float *kernel = weight + co * CHANNELS * KERNEL1 * KERNEL1;
        step[co] = step_of(mode, kernel, CHANNELS * KERNEL1 * KERNEL1);
        for (int ky = 0; ky < KERNEL1; ky++) {
            float values[64] = {0};
            for (int i = 0; i < KERNEL1 * CHANNELS; i++) {
                int kx = i / CHANNELS, swept = i % CHANNELS / SCALES, lane = i % SCALES;
                int c = half == 0 ? swept * SCALES + lane : lane * SCALES + swept;  // channel = 3 * query + key scale
                values[kx / 2 * pair_values + kx % 2 * CHANNELS + i % CHANNELS] = kernel[(c * KERNEL1 + ky) * KERNEL1 + kx];
            }
            pack(mode, values, window, words * per_word(mode), step[co], 0);
            for (int i = 0; i < words; i++) packed[(ky * words + i) * BLOCK1_OUT + co] = window[i];
        }
    }
    return packed;
}

static int wide(const Layer *l) { return MIN(l->out, 4 * LANES); }  // output channels computed at once

static float tap_weight(const Layer *l, const float *over_q, const float *over_k, int tap, int co, int ci)
{
    const float *q = over_q + (co * l->in + ci) * 9, *k = over_k + (co * l->in + ci) * 9;
    if (tap == 0) return q[4] + k[4];
    int i = (tap - 1) % 8;
    return (tap <= 8 ? q : k)[i + (i >= 4)];
}

static void pack_layer(Layer *l, const float *over_q, const float *over_k, int mode)
{
    int width = wide(l), words = l->in / per_word(mode);
    l->weights = allocate((size_t)TAPS * words * l->out * sizeof(word));
    for (int co = 0; co < l->out; co++) {
        float values[TAPS * 64];
        word packed[TAPS * 64];
        for (int i = 0; i < TAPS * l->in; i++) values[i] = tap_weight(l, over_q, over_k, i / l->in, co, i % l->in);
        l->step[co] = step_of(mode, values, TAPS * l->in);
        pack(mode, values, packed, TAPS * l->in, l->step[co], 0);
        word *out = l->weights + (size_t)co / width * width * TAPS * words + co % width;
        for (int i = 0; i < TAPS * words; i++) out[i * width] = packed[i];
    }
}

static int uses_winograd(const Layer *l, int mode) { return mode == FLOAT32 && l->stride == 1 && l->out <= 32; }

// 3x3 weights (out, in, 3, 3) -> [6 x 6 points][in][out]: G w G^T of F(4x4, 3x3), Lavin and Gray, CVPR 2016.
static float *pack_winograd(const Layer *l, const float *weights)
{
    static const double G[6][3] = {{1 / 4., 0, 0}, {-1 / 6., -1 / 6., -1 / 6.}, {-1 / 6., 1 / 6., -1 / 6.},
                                   {1 / 24., 1 / 12., 1 / 6.}, {1 / 24., -1 / 12., 1 / 6.}, {0, 0, 1}};
    float *packed = allocate((size_t)36 * l->in * l->out * sizeof(float));
    for (int p = 0; p < 36; p++)
        for (int ci = 0; ci < l->in; ci++)
            for (int co = 0; co < l->out; co++) {
                const float *w = weights + (co * l->in + ci) * 9;
                double sum = 0;
                for (int i = 0; i < 9; i++) sum += G[p / 6][i / 3] * w[i] * G[p % 6][i % 3];
                packed[(p * l->in + ci) * l->out + co] = (float)sum;
            }
    return packed;
}

static void set_layer(Layer *l, int in, int out, int stride, const float *const t[6])
{
    *l = (Layer){.in = in, .out = out, .stride = stride};
    for (int c = 0; c < out; c++) l->bias[c] = t[1][c] + t[3][c], l->gain[c] = t[4][c], l->shift[c] = t[5][c];
}

typedef struct { float scale[128], shift[128], step; } Norm;  // input of the next layer = relu(scale * x + shift) * step

// GroupNorm(4) as one scale and shift a channel, from `parts` partial statistics [part][STATS][out]: sum, sum of squares,
// largest, largest of -x. In 8 bits the unit `step` is such that the largest activation is 253.
static void group_norm(const Layer *l, int mode, const double *stats, int parts, double positions, Norm *norm)
{
    double total[STATS][128];
    for (int i = 0; i < STATS * 128; i++) total[i / 128][i % 128] = i < 256 ? 0 : -INFINITY;
    for (int p = 0; p < parts; p++)
        for (int c = 0; c < l->out; c++) {
            const double *s = stats + (size_t)p * STATS * l->out + c;
            total[0][c] += s[0], total[1][c] += s[l->out];
            total[2][c] = fmax(total[2][c], s[2 * l->out]), total[3][c] = fmax(total[3][c], s[3 * l->out]);
        }
    int size = l->out / 4;
    double top = 1e-20;
    for (int g = 0; g < 4; g++) {
        double sum = 0, square = 0;
        for (int c = g * size; c < (g + 1) * size; c++) sum += total[0][c], square += total[1][c];
        double mean = sum / (positions * size), variance = fmax(square / (positions * size) - mean * mean, 0);
        for (int c = g * size; c < (g + 1) * size; c++) {
            double scale = l->gain[c] / sqrt(variance + 1e-5), shift = l->shift[c] - mean * scale;
            norm->scale[c] = (float)scale, norm->shift[c] = (float)shift;
            top = fmax(top, fmax(scale * total[2][c], -scale * total[3][c]) + shift);
        }
    }
    norm->step = mode == INT8 ? (float)(top / 253) : 1;
    for (int c = 0; c < l->out; c++) norm->scale[c] /= norm->step, norm->shift[c] /= norm->step;
}

// ---- block 1 ----------------------------------------------------------------------------------------------------

typedef struct { const word *rows; const float *step; const int *bias; } Rows;  // native rows of the swept image

// out[r][3][16] = dot products of R native rows with the 3 x 16 lanes.
INLINE void dot_rows(const int mode, const int R, const word *restrict lanes, const float *lanes_step, Rows rows, vec *out)
{
    const int words = DIM / per_word(mode);
    vec acc[DOT_ROWS * SCALES];
    UNROLL for (int i = 0; i < R * SCALES; i++) acc[i] = mode == INT8 ? broadcast((word)rows.bias[i / SCALES]) : (vec){0};
    for (int k = 0; k < words; k++) {
        const vec *l = (const vec *)lanes + k * SCALES;
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
    const int words = DIM / per_word(mode);
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
    vec *native[2][2];        // [scale 0, 1][slot]: rows of correlation on the native grid, [w_s][3][16]
    int native_y[2][2];       // which row each slot holds
    vec *row[SCALES];         // the current row's height, [w_s][3][16]
    word *ring;               // [5][ring words][16]: clamped rows, two columns of zeros on both sides
    void (*correlate)(const Side *, const Side *, int, int, int, vec *);
    size_t ring_words;
    Between *columns[2];      // [scale 0, 1][w]
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
    UNROLL for (int s = 0; s < 2; s++) {
        Between b = w->columns[s][x];
        const vec *left = w->row[s] + b.a * SCALES, *right = w->row[s] + b.b * SCALES;
        UNROLL for (int j = 0; j < SCALES; j++) out[s * SCALES + j] = left[j] + b.t * (right[j] - left[j]);
    }
    UNROLL for (int j = 0; j < SCALES; j++) out[2 * SCALES + j] = w->row[2][x * SCALES + j];
}

// Row y of the full-size correlation, clamped, into its slot of the ring.
INLINE void fill_ring(const int mode, Sweep *w, int y)
{
    int width = w->swept->full.w;
    for (int s = 0; s < 2; s++) resize_height(w, s, y);
    w->correlate(w->swept, w->lanes, w->block, w->swept->start[2] + y * width, width, w->row[2]);
    vecu *out = (vecu *)w->ring + (y % KERNEL1) * w->ring_words + pair_words(mode);
    for (int x = 0; x < width; x += 2, out += pair_words(mode)) {
        vec two[2 * CHANNELS + 2] = {0};
        column(w, x, two);
        if (x + 1 < width) column(w, x + 1, two + CHANNELS);
        UNROLL for (int i = 0; i < pair_words(mode); i++)
            out[i] = mode == FLOAT32    ? (vecu)relu(two[i])
                     : mode == BFLOAT16 ? pair(relu(two[2 * i]), relu(two[2 * i + 1]))
                                        : quad(two + 4 * i);
    }
}

// acc[16 outputs] of 16 lanes: the 5x5x9 window at even position (y, x).
INLINE void convolve_window(const int mode, const Sweep *w, const word *weights, int y, int x, vec acc[BLOCK1_OUT])
{
    const int words = window_words(mode);
    for (int co0 = 0; co0 < BLOCK1_OUT; co0 += AT_ONCE) {
        vec sum[AT_ONCE] = {0};
        for (int ky = 0; ky < KERNEL1; ky++) {
            int row = 2 * y + ky - 2;
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

typedef struct { vec sum, square, most, most_negative; } Stats;

INLINE Stats nothing(void) { return (Stats){.most = splat(-INFINITY), .most_negative = splat(-INFINITY)}; }

INLINE void count(const int mode, Stats *s, vec x)
{
    s->sum += x, s->square += x * x;
    if (mode == INT8) s->most = larger(s->most, x), s->most_negative = larger(s->most_negative, -x);
}

static void no_stats(double *out, int channels)
{
    for (int i = 0; i < STATS * channels; i++) out[i] = i < 2 * channels ? 0 : -INFINITY;
}

INLINE void add_stats(double *out, int channels, const Stats *s)  // out[STATS][channels]
{
    for (int c = 0; c < LANES; c++, out++) {
        out[0] += s->sum[c], out[channels] += s->square[c];
        out[2 * channels] = fmax(out[2 * channels], s->most[c]);
        out[3 * channels] = fmax(out[3 * channels], s->most_negative[c]);
    }
}

enum { GROUPS = BLOCK1_OUT / LANES };  // vectors of one position's channels

// One lane block of one half: half 0 writes, half 1 adds to it and takes GroupNorm's statistics.
INLINE void sweep_block(const int mode, const int half, Sweep *w, const word *weights, const Target *t)
{
    Grid full = w->swept->full, even = w->swept->even;
    for (int i = 0; i < 4; i++) w->native_y[i / 2][i % 2] = -1;
    int ready = 0;
    for (int y = 0; y < even.h; y++) {
        for (; ready < MIN(2 * y + 3, full.h); ready++) fill_ring(mode, w, ready);
        Stats stats[GROUPS];
        for (int g = 0; g < GROUPS; g++) stats[g] = nothing();
        for (int x = 0; x < even.w; x++) {
            vec acc[BLOCK1_OUT];
            convolve_window(mode, w, weights, y, x, acc);
            UNROLL for (int co = 0; co < BLOCK1_OUT; co++) acc[co] = as_float(mode, acc[co]) * t->scale[co] + t->bias[co];
            UNROLL for (int g = 0; g < GROUPS; g++) transpose(acc + g * LANES);
            word *out = t->y + y * t->swept_row + x * t->swept_column;
            for (int l = 0; l < t->lanes; l++, out += t->lane)
                UNROLL for (int g = 0; g < GROUPS; g++) {
                    word *p = out + g * LANES / per_raw(mode);
                    vec v = acc[g * LANES + l];
                    if (half == 1) {
                        v += load_raw(mode, p);
                        count(mode, &stats[g], v);
                    }
                    store_raw(mode, p, v);
                }
        }
        for (int g = 0; g < GROUPS && half == 1; g++) add_stats(t->stats + g * LANES, BLOCK1_OUT, &stats[g]);
    }
}

#define SWEEP(NAME, MODE)                                                                                              \
    static void NAME(int half, Sweep *w, const word *weights, const Target *t)                                         \
    {                                                                                                                  \
        if (half) sweep_block(MODE, 1, w, weights, t);                                                                 \
        else sweep_block(MODE, 0, w, weights, t);                                                                      \
    }
SWEEP(sweep_f32, FLOAT32) SWEEP(sweep_bf16, BFLOAT16) SWEEP(sweep_int8, INT8)

// The scratch of one thread for sweeping `swept`.
static Sweep new_sweep(Buffer *buffer, const Side *swept, const Side *lanes)
{
    Sweep w = {.swept = swept, .lanes = lanes};
    int width = swept->full.w, mode = swept->mode;
    w.correlate = mode == FLOAT32 ? correlate_f32 : mode == BFLOAT16 ? correlate_bf16 : correlate_int8;
    w.ring_words = (size_t)(swept->even.w + 2) * pair_words(mode);
    size_t row[SCALES], vectors = KERNEL1 * w.ring_words;
    for (int s = 0; s < SCALES; s++) row[s] = (size_t)swept->grid[s].w * SCALES, vectors += (s < 2 ? 3 : 1) * row[s];
    vec *p = reserve(buffer, vectors * sizeof(vec) + 2 * width * sizeof(Between));
    w.ring = (word *)p, p += KERNEL1 * w.ring_words;
    memset(w.ring, 0, KERNEL1 * w.ring_words * sizeof(vec));
    for (int s = 0; s < SCALES; s++) w.row[s] = p, p += row[s];
    for (int i = 0; i < 4; i++) w.native[i / 2][i % 2] = p, p += row[i / 2];
    for (int s = 0; s < 2; s++) {
        w.columns[s] = (Between *)p + s * width;
        for (int x = 0; x < width; x++) w.columns[s][x] = between(x, swept->grid[s].w, width);
    }
    return w;
}

// Words of one query position's results: [key][channel]. The extra cache line keeps the 16 lanes of half 1 of block 1, one
// slab apart, from falling into the same set of the cache.
static size_t raw_words(Grid k, int channels, int mode) { return (size_t)area(k) * channels / per_raw(mode) + 16; }

typedef struct {
    const Model *model;
    int half;
    const Side *swept, *lanes;
    Target target;            // of lane block 0
} Half;

static void half_task(const void *context, int block, int thread)
{
    const Half *h = context;
    int mode = h->model->mode;
    Sweep w = new_sweep(&h->model->scratch[thread], h->swept, h->lanes);
    Target t = h->target;
    w.block = block;
    t.y += block * LANES * t.lane, t.stats += (size_t)block * STATS * BLOCK1_OUT;
    t.lanes = MIN(LANES, area(h->lanes->even) - block * LANES);
    if (h->half) no_stats(t.stats, BLOCK1_OUT);
    (mode == FLOAT32 ? sweep_f32 : mode == BFLOAT16 ? sweep_bf16 : sweep_int8)(h->half, &w, h->model->sweep[h->half], &t);
}

// Half 0 or 1 of block 1, by lane blocks, into y [query][key][16]; half 1 leaves statistics [block][STATS][16].
static void block1_half(Model *m, int half, const Side *query, const Side *key, word *y, double *stats)
{
    Half h = {m, half, half ? key : query, half ? query : key, {.y = y, .stats = stats}};
    size_t position = BLOCK1_OUT / per_raw(m->mode), slab = raw_words(key->even, BLOCK1_OUT, m->mode);
    h.target.swept_column = half ? position : slab;
    h.target.swept_row = h.target.swept_column * h.swept->even.w;
    h.target.lane = half ? slab : position;
    for (int c = 0; c < BLOCK1_OUT; c++) {
        h.target.scale[c] = m->sweep_step[half][c] / (m->mode == INT8 ? CORRELATION_UNITS : 1);
        h.target.bias[c] = half ? 0 : m->block1.bias[c];
    }
    parallel(&m->pool, (area(h.lanes->even) + LANES - 1) / LANES, half_task, &h);
}

// ---- blocks 2 to 4 ----------------------------------------------------------------------------------------------

typedef struct { const word *x, *weights; } Tap;

typedef struct {  // of one row of outputs
    int columns, step;        // words from one output column to the next
    word *y;
    const float *scale, *bias;  // [V * LANES], of the sums
    Stats *stats;             // [V]
} Row;

// R output columns from x by V vectors of 16 channels, over all taps; input columns are `step` words apart.
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
    ROW_KERNEL(row_##IN##_##STRIDE##_f32, FLOAT32, IN, STRIDE, MIN(OUT / LANES, 4))                                    \
    ROW_KERNEL(row_##IN##_##STRIDE##_bf16, BFLOAT16, IN, STRIDE, MIN(OUT / LANES, 4))                                  \
    ROW_KERNEL(row_##IN##_##STRIDE##_int8, INT8, IN, STRIDE, MIN(OUT / LANES, 4))
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

// Words of one query position's activations: [key row][key column + 1][channel], a column of zeros after every row.
static size_t slab_words(Grid k, int channels, int mode) { return (size_t)k.h * (k.w + 1) * channels / per_word(mode); }

// The taps inside the picture for query position (qy, qx) and key row ky, all in input coordinates.
static int list_taps(const Layer *l, int mode, Grid q, Grid k, const word *x, const word *weights, int qy, int qx, int ky,
                     Tap taps[TAPS])
{
    int words = l->in / per_word(mode), tap_words = words * wide(l), n = 0;
    ptrdiff_t slab = slab_words(k, l->in, mode), row = (k.w + 1) * words;
    const word *pivot = x + (qy * q.w + qx) * slab + ky * row;
    taps[n++] = (Tap){pivot, weights};
    for (int i = 0; i < 8; i++) {
        int dy = (i + (i >= 4)) / 3 - 1, dx = (i + (i >= 4)) % 3 - 1;
        if (qy + dy >= 0 && qy + dy < q.h && qx + dx >= 0 && qx + dx < q.w)
            taps[n++] = (Tap){pivot + (dy * q.w + dx) * slab, weights + (1 + i) * tap_words};
        if (ky + dy >= 0 && ky + dy < k.h)
            taps[n++] = (Tap){pivot + dy * row + dx * words, weights + (9 + i) * tap_words};
    }
    return n;
}

typedef struct {  // of one layer, or of the normalisation before it
    int mode;
    const Layer *layer;
    const Norm *norm;         // of the input
    Grid q, k, to_q, to_k;    // of the input, of the output
    word *raw, *act;
    double *stats;            // [task][STATS][out]
    Buffer *scratch;          // one a thread
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
}

// One row of query positions, the last row first: what was written last is still in the cache.
static void normalise_task(const void *context, int task, int thread)
{
    (void)thread;
    const Stage *s = context;
    int row = s->q.h - 1 - task;
    for (int i = row * s->q.w; i < (row + 1) * s->q.w; i++) {
        if (s->mode == FLOAT32) normalise_slab(FLOAT32, s, i);
        else if (s->mode == BFLOAT16) normalise_slab(BFLOAT16, s, i);
        else normalise_slab(INT8, s, i);
    }
}

// All outputs [key][out] of query position i, and their statistics.
static void convolve_task(const void *context, int i, int thread)
{
    (void)thread;
    const Stage *s = context;
    const Layer *l = s->layer;
    int mode = s->mode, width = wide(l), position = l->out / per_raw(mode), qy = i / s->to_q.w, qx = i % s->to_q.w;
    word *y = s->raw + i * raw_words(s->to_k, l->out, mode);
    float scale[128];
    for (int c = 0; c < l->out; c++) scale[c] = l->step[c] * s->norm->step;
    Stats stats[128 / LANES];
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

// ---- blocks 2 and 3 in float32: the 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3) ------------------------
//
// A block is 4x4 query positions by 4x4 key positions. Half 0 transforms a 6x6 window of query positions at each of the
// 16 key positions, half 1 the other way round; 36 small matrix products take the place of 9 x 16.

enum { TILE = 4, WINDOW = 6, POINTS = 36, BLOCK = 16 };

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

static void winograd_task(const void *context, int tile, int thread)  // 4x4 query positions, all keys
{
    const Stage *s = context;
    const Layer *l = s->layer;
    int across = (s->q.w + TILE - 1) / TILE, qy = tile / across * TILE, qx = tile % across * TILE;
    int vectors = (BLOCK * l->out / LANES + 1) * POINTS;
    vec *points = reserve(&s->scratch[thread], (2 * vectors + BLOCK * BLOCK * l->out / LANES) * sizeof(vec));
    vec *products = points + vectors, *block = products + vectors;
    ptrdiff_t slab = slab_words(s->k, l->in, FLOAT32), row = (s->k.w + 1) * l->in;
    Offsets over_q, over_k;
    place(s->q, qy, qx, slab * s->q.w, slab, over_q.window, over_k.other);
    Stats stats[32 / LANES];
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

// ---- the whole network ------------------------------------------------------------------------------------------

// GroupNorm and ReLU of the previous results, then the layer's convolution, raw -> act -> raw;
// returns how many partial statistics there are.
static int run_layer(Model *m, const Stage *s)
{
    size_t before = s->layer->in / per_word(m->mode);
    memset(s->act - before, 0, before * sizeof(word));  // the column before the first row
    parallel(&m->pool, s->q.h, normalise_task, s);
    int winograd = uses_winograd(s->layer, s->mode), across = (s->q.w + TILE - 1) / TILE, down = (s->q.h + TILE - 1) / TILE;
    int tasks = winograd ? across * down : area(s->to_q);
    parallel(&m->pool, tasks, winograd ? winograd_task : convolve_task, s);
    return tasks;
}

// Mean over all positions of the last layer, normalised, then the two linear layers.
static void head(const Model *m, const Norm *norm, Grid q, Grid k, const word *results, float logits[2])
{
    double total[HIDDEN] = {0}, positions = (double)area(q) * area(k);
    for (int i = 0; i < area(q) * area(k); i++)
        for (int c = 0; c < HIDDEN; c += LANES) {
            const word *raw = results + i / area(k) * raw_words(k, HIDDEN, m->mode) + (i % area(k) * HIDDEN + c) / per_raw(m->mode);
            vec v = relu(load_raw(m->mode, raw) * *(const vec_any *)(norm->scale + c) + *(const vec_any *)(norm->shift + c));
            for (int e = 0; e < LANES; e++) total[c + e] += v[e];
        }
    for (int o = 0; o < 2; o++) logits[o] = m->logits_bias[o];
    for (int h = 0; h < HIDDEN; h++) {
        double sum = m->hidden_bias[h];
        for (int c = 0; c < HIDDEN; c++) sum += m->hidden[h * HIDDEN + c] * total[c] * norm->step / positions;
        for (int o = 0; o < 2 && sum > 0; o++) logits[o] += m->logits[o * HIDDEN + h] * (float)sum;
    }
}

// Values that a buffer of activations (or results) must hold, at the widest layer, padding included.
static size_t most_values(const Model *m, Grid q, Grid k)
{
    size_t most = (size_t)area(q) * (k.h * (k.w + 1) * BLOCK1_OUT + 64);
    for (const Layer *l = m->layers; l < m->layers + LAYERS; l++) {
        if (l->stride == 2) q = halved(q), k = halved(k);
        size_t values = (size_t)area(q) * (k.h * (k.w + 1) * l->out + 64);
        if (most < values) most = values;
    }
    return most;
}

static void score_pair(Model *m, const Side *query, const Side *key, float logits[2])
{
    Grid q = query->even, k = key->even;
    size_t values = most_values(m, q, k);
    word *raw = reserve(&m->raw, values * sizeof(word) / per_raw(m->mode));
    word *act = (word *)reserve(&m->act, (values + 256) * sizeof(word) / per_word(m->mode)) + 128 / per_word(m->mode);
    double *stats = reserve(&m->stats, (size_t)area(q) * STATS * 128 * sizeof(double));
    Norm norm;

    for (int half = 0; half < 2; half++) block1_half(m, half, query, key, raw, stats);
    group_norm(&m->block1, m->mode, stats, (area(q) + LANES - 1) / LANES, (double)area(q) * area(k), &norm);
    for (const Layer *l = m->layers; l < m->layers + LAYERS; l++) {
        Grid to_q = l->stride == 2 ? halved(q) : q, to_k = l->stride == 2 ? halved(k) : k;
        int parts = run_layer(m, &(Stage){m->mode, l, &norm, q, k, to_q, to_k, raw, act, stats, m->scratch});
        q = to_q, k = to_k;
        group_norm(l, m->mode, stats, parts, (double)area(q) * area(k), &norm);
    }
    head(m, &norm, q, k, raw, logits);
}

// ---- the interface ----------------------------------------------------------------------------------------------

// Whether this build has the instructions that make `mode` worth its error (without them it is correct, and slow).
int cvnet_accelerated(int mode)
{
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
    return mode == FLOAT32 || mode == BFLOAT16 || mode == INT8;
#else
    return mode == FLOAT32;
#endif
}

// tensors: for each of the nine convolutions conv1.weight, conv1.bias, conv2.weight, conv2.bias, norm weight, norm bias;
// then mlp.0 weight and bias, mlp.2 weight and bias. mode: 0 float32, 1 bfloat16, 2 8-bit integers.
Model *cvnet_create(const float *const *tensors, int mode, int threads)
{
    static const int in[] = {16, 16, 32, 32, 32, 64, 64, 64}, out[] = {16, 32, 32, 32, 64, 64, 64, 128};
    static const int stride[] = {1, 2, 1, 1, 2, 1, 1, 1};
    Model *m = calloc(1, sizeof *m);
    m->mode = mode;
    m->scratch = calloc(threads, sizeof *m->scratch);
    start_pool(&m->pool, threads);
    set_layer(&m->block1, CHANNELS, BLOCK1_OUT, 2, tensors);
    for (int half = 0; half < 2; half++) m->sweep[half] = pack_sweep(tensors[2 * half], half, mode, m->sweep_step[half]);
    for (int i = 0; i < LAYERS; i++) {
        const float *const *t = tensors + 6 * (i + 1);
        set_layer(&m->layers[i], in[i], out[i], stride[i], t);
        pack_layer(&m->layers[i], t[0], t[2], mode);
        for (int half = 0; half < 2 && uses_winograd(&m->layers[i], mode); half++)
            m->layers[i].winograd[half] = pack_winograd(&m->layers[i], t[2 * half]);
    }
    const float *const *t = tensors + 6 * (LAYERS + 1);
    memcpy(m->hidden, t[0], sizeof m->hidden), memcpy(m->hidden_bias, t[1], sizeof m->hidden_bias);
    memcpy(m->logits, t[2], sizeof m->logits), memcpy(m->logits_bias, t[3], sizeof m->logits_bias);
    return m;
}

// maps: three (256, h_s, w_s) arrays, float32 or (is_half) float16.
void cvnet_prepare_query(Model *m, int h, int w, const void *const maps[SCALES], int is_half)
{
    free_side(m->query);
    m->query = prepare_side(m->mode, &m->pool, &m->rows, h, w, maps, is_half);
}

// Logits (2) of the prepared query against one key.
void cvnet_score(Model *m, int h, int w, const void *const maps[SCALES], int is_half, float logits[2])
{
    Side *key = prepare_side(m->mode, &m->pool, &m->rows, h, w, maps, is_half);
    score_pair(m, m->query, key, logits);
    free_side(key);
}

void cvnet_free(Model *m)
{
    stop_pool(&m->pool);
    free_side(m->query);
    for (int i = 0; i < m->pool.threads; i++) free(m->scratch[i].p);
    for (int i = 0; i < LAYERS; i++) {
        free(m->layers[i].weights), free(m->layers[i].winograd[0]), free(m->layers[i].winograd[1]);
    }
    free(m->sweep[0]), free(m->sweep[1]), free(m->scratch), free(m->rows.p), free(m->raw.p), free(m->act.p), free(m->stats.p);
    free(m);
}
