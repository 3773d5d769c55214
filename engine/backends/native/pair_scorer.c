// CVNet's pair scorer on the CPU: six unit-norm feature maps in, two logits out.
//
// The network verifies a query image against a key image from their correlation, a 4D tensor over (query position,
// key position) with nine channels (query scale i, key scale j). It is never whole in memory. All of it is one translation
// unit, read from the bottom up:
//
//   simd.h      vectors and words of this processor
//   amx.h       tiles of the matrix unit, emulated in amx_emulated.h
//   memory.h    statuses, memory that may run out
//   pool.h      threads
//   side.h      one image prepared
//   layers.h    blocks 2 to 4: convolutions 3x3, GroupNorm
//   block1.h    correlation, and the convolution 5x5 that consumes it
//   winograd.h  a faster way through some layers
//   amx_block1.h, amx_layers.h  the same blocks on the matrix unit
//   product.h   a product of two matrices on one thread, for maps that are kept coded
//   smaller.h   maps of fewer positions, for a rough score
//
// Values are stored in 32-bit words, and every inner loop is "accumulator += vector of words . one broadcast word", so that
// one source serves all precisions.
//
// Names: q query, k key, s scale, c channel. Grids are (h, w); "even" is the grid of positions (2y, 2x).

#include "amx_block1.h"
#include "amx_layers.h"
#include "block1.h"
#include "product.h"
#include "smaller.h"
#include "winograd.h"

enum { HIDDEN = 128, CLASSES = 2 };  // of the two linear layers
enum { HEAD_TENSORS = 4 };           // weight and bias of both

typedef struct {  // where a key is prepared and its pair scored
    Pool pool;
    Buffer rows, raw, act, stats;
    Side key;
} Desk;

typedef struct {
    int mode;
    int amx;  // whether the matrix unit computes it
    Block1 block1;
    Layer layers[LAYERS];
    float hidden[HIDDEN * HIDDEN], hidden_bias[HIDDEN], logits[CLASSES * HIDDEN], logits_bias[CLASSES];
    Desk desk;    // of all threads together
    Desk *single;  // [threads]: each of one thread
    Side query;
    int has_query;
} Model;

// GroupNorm and ReLU of the previous results, then the layer's convolution, raw -> act -> raw;
// `parts` tells how many partial statistics there are.
static Status run_layer(Pool *pool, const Stage *s, int *parts)
{
    size_t position = s->layer->in / per_word(s->mode), before = (s->k.w + 2) * position;
    memset(s->act - before, 0, before * sizeof(word));  // the row and the column before the first
    memset(s->act + area(s->q) * slab_words(s->k, s->layer->in, s->mode), 0, position * sizeof(word));  // after the last
    parallel(pool, s->q.h, normalise_task, s);
#if defined(AMX)
    if (s->amx) {
        parallel(pool, *parts = area(s->to_q), amx_convolve_task, s);
        return OK;
    }
#endif
    if (!uses_winograd(s->layer, s->mode)) {
        parallel(pool, *parts = area(s->to_q), convolve_task, s);
        return OK;
    }
    if (reserve_scratch(pool, winograd_bytes(s->layer))) return OUT_OF_MEMORY;
    parallel(pool, *parts = tiles_of(s->q.h) * tiles_of(s->q.w), winograd_task, s);
    return OK;
}

// Mean over all positions of the last layer, normalised, then the two linear layers.
static void head(const Model *m, const Norm *norm, Grid q, Grid k, const word *results, float logits[CLASSES])
{
    double total[HIDDEN] = {0}, positions = (double)area(q) * area(k);
    for (int i = 0; i < area(q) * area(k); i++)
        for (int c = 0; c < HIDDEN; c += LANES) {
            const word *slab = results + i / area(k) * raw_words(k, HIDDEN, m->mode);
            const word *raw = slab + (i % area(k) * HIDDEN + c) / per_raw(m->mode);
            vec v = relu(load_raw(m->mode, raw) * *(const vec_any *)(norm->scale + c) + *(const vec_any *)(norm->shift + c));
            for (int e = 0; e < LANES; e++) total[c + e] += v[e];
        }
    for (int o = 0; o < CLASSES; o++) logits[o] = m->logits_bias[o];
    for (int h = 0; h < HIDDEN; h++) {
        double sum = m->hidden_bias[h];
        for (int c = 0; c < HIDDEN; c++) sum += m->hidden[h * HIDDEN + c] * total[c] * norm->step / positions;
        for (int o = 0; o < CLASSES && sum > 0; o++) logits[o] += m->logits[o * HIDDEN + h] * (float)sum;
    }
}

enum { SLAB_PADDING = 64 };  // values; at least what `raw_words` adds

// Values that a buffer of activations (or results) must hold, at the widest layer, padding included.
static size_t most_values(const Model *m, Grid q, Grid k)
{
    size_t most = (size_t)area(q) * ((k.h + 1) * (k.w + 1) * BLOCK1_OUT + SLAB_PADDING);
    for (const Layer *l = m->layers; l < m->layers + LAYERS; l++) {
        if (l->stride == 2) q = halved(q), k = halved(k);
        size_t values = (size_t)area(q) * ((k.h + 1) * (k.w + 1) * l->out + SLAB_PADDING);
        if (most < values) most = values;
    }
    return most;
}

// Words of zeros before the activations: a row and a column at the widest layer.
static size_t before_activations(const Desk *d) { return (size_t)(d->key.even.w + 2) * MOST_OUT; }

static Status reserve_pair(const Model *m, Desk *d)
{
    int mode = m->mode;
    size_t values = most_values(m, m->query.even, d->key.even);
    Status bad = reserve(&d->raw, values * sizeof(word) / per_raw(mode));
    size_t after = AMX_OVERRUN * MOST_OUT;
    if (!bad) bad = reserve(&d->act, (values + after) * sizeof(word) / per_word(mode) + before_activations(d) * sizeof(word));
    return bad ? bad : reserve(&d->stats, (size_t)area(m->query.even) * STATS * MOST_OUT * sizeof(double));
}

static Status score_pair(const Model *m, Desk *d, float logits[CLASSES])
{
    if (reserve_pair(m, d)) return OUT_OF_MEMORY;
    Grid q = m->query.even, k = d->key.even;
    word *raw = d->raw.p, *act = (word *)d->act.p + before_activations(d);
    double *stats = d->stats.p;
    Norm norm;
    Status bad = OK;
    for (int half = 0; half < 2 && !bad; half++)
        bad = sweep_half(&m->block1, &d->pool, half, &m->query, &d->key, raw, stats);
    int parts = (area(q) + LANES - 1) / LANES;
    if (!bad) bad = group_norm(&m->block1.layer, m->mode, stats, parts, (double)area(q) * area(k), &norm);
    for (const Layer *l = m->layers; l < m->layers + LAYERS && !bad; l++) {
        Grid to_q = l->stride == 2 ? halved(q) : q, to_k = l->stride == 2 ? halved(k) : k;
        bad = run_layer(&d->pool, &(Stage){m->mode, m->amx, l, &norm, q, k, to_q, to_k, raw, act, stats}, &parts);
        q = to_q, k = to_k;
        if (!bad) bad = group_norm(l, m->mode, stats, parts, (double)area(q) * area(k), &norm);
    }
    if (bad) return bad;
    head(m, &norm, q, k, raw, logits);
    return isfinite(logits[0]) && isfinite(logits[1]) ? OK : NOT_FINITE;
}

static Status score_key(const Model *m, Desk *d, const Maps *key, float logits[CLASSES])
{
    Status bad = prepare_side(&d->key, m->mode, m->amx, &d->pool, &d->rows, key);
    return bad ? bad : score_pair(m, d, logits);
}

typedef struct { const Model *model; const Maps *keys; int n; float *logits; atomic_int *next, *bad; } Batch;

static void single_task(const void *context, int desk, void *scratch)
{
    (void)scratch;
    const Batch *b = context;
    for (int i; (i = atomic_fetch_add(b->next, 1)) < b->n;) {
        Status bad = score_key(b->model, &b->model->single[desk], b->keys + i, b->logits + i * CLASSES);
        if (bad) atomic_store(b->bad, bad);
    }
}

// Beyond it a pair takes long beside what its threads lose where they meet, a dozen times, and memory for each adds up.
enum { SMALL_PAIR = 1 << 14 };  // even positions of the query times those of the key

static int all_small(const Model *m, const Maps *keys, int n)
{
    for (int i = 0; i < n; i++)
        if (!fits(keys + i) || (int64_t)area(m->query.even) * area(halved(keys[i].grid[SCALES - 1])) > SMALL_PAIR) return 0;
    return 1;
}

static Status make_layers(Model *m, const Tensor *t)
{
    static const struct { int in, out, stride; } sizes[LAYERS] = {
        {16, 16, 1}, {16, 32, 2}, {32, 32, 1}, {32, 32, 1}, {32, 64, 2}, {64, 64, 1}, {64, 64, 1}, {64, 128, 1},
    };
    Status bad = OK;
    for (int i = 0; i < LAYERS && !bad; i++, t += TENSORS) {
        Layer *l = &m->layers[i];
        bad = set_layer(l, sizes[i].in, sizes[i].out, sizes[i].stride, KERNEL, t);
#if defined(AMX)
        if (!bad && m->amx) bad = amx_pack_layer(l, t);
#endif
        if (!bad && !m->amx) bad = pack_layer(l, t, m->mode);
        if (bad || !uses_winograd(l, m->mode)) continue;
        bad = pack_winograd(l, 0, t[WEIGHT_Q].values);
        if (!bad) bad = pack_winograd(l, 1, t[WEIGHT_K].values);
    }
    return bad;
}

static Status take(float *to, int size, const Tensor *t)
{
    if (t->size != size) return BAD_SHAPE;
    memcpy(to, t->values, size * sizeof(float));
    return OK;
}

static Status make_head(Model *m, const Tensor *t)
{
    int bad = take(m->hidden, HIDDEN * HIDDEN, t) || take(m->hidden_bias, HIDDEN, t + 1);
    return bad || take(m->logits, CLASSES * HIDDEN, t + 2) || take(m->logits_bias, CLASSES, t + 3) ? BAD_SHAPE : OK;
}

// ---- the interface: one thread a model at a time; a failed call leaves the model fit for the next one -------------------

// Whether the matrix unit computes what is scored in BFLOAT16: this build has its instructions, and Linux lets them run.
int cvnet_has_amx(void)
{
#if defined(AMX)
    return amx_permitted();
#endif
    return 0;
}

// Whether this build has the instructions that make `mode` worth its error (without them it is correct, and slow).
int cvnet_accelerated(int mode)
{
#if defined(__AVX512BF16__)
    if (mode == BFLOAT16) return 1;
#endif
    if (mode == BFLOAT16) return cvnet_has_amx();
#if defined(DOT_BYTES) || defined(DOT_SHORTS)
    if (mode == INT8) return 1;
#endif
    return mode == FLOAT32;
}

static void clear_desk(Desk *d)
{
    stop_pool(&d->pool);
    Buffer *buffers[] = {&d->rows, &d->raw, &d->act, &d->stats, &d->key.memory};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) release(buffers[i]);
}

void cvnet_free(Model *m)
{
    for (int i = 0; m->single && i < m->desk.pool.threads; i++) clear_desk(m->single + i);
    free(m->single);
    clear_desk(&m->desk);
    for (Layer *l = m->layers; l < m->layers + LAYERS; l++) free(l->weights), free(l->winograd[0]), free(l->winograd[1]);
    free(m->block1.sweep[0]), free(m->block1.sweep[1]);
    release(&m->query.memory);
    free(m);
}

static Status start_desks(Model *m, int threads)
{
    Status bad = start_pool(&m->desk.pool, threads);
    if (bad) return bad;
    m->single = calloc(threads, sizeof *m->single);
    if (!m->single) return OUT_OF_MEMORY;
    for (int i = 0; i < threads && !bad; i++) bad = start_pool(&m->single[i].pool, 1);
    return bad;
}

enum { WEIGHTS = (1 + LAYERS) * TENSORS + HEAD_TENSORS };

// tensors: TENSORS for each of the nine convolutions, weight and bias of both linear layers. Model: NULL unless OK.
Status cvnet_create(const Tensor *tensors, int n, int mode, int threads, Model **model)
{
    *model = NULL;
    if (mode < 0 || mode >= MODES) return BAD_PRECISION;
    if (n != WEIGHTS) return BAD_SHAPE;
    Model *m = calloc(1, sizeof *m);
    if (!m) return OUT_OF_MEMORY;
    m->mode = mode, m->amx = mode == BFLOAT16 && cvnet_has_amx();
    Status bad = make_block1(&m->block1, tensors, mode, m->amx);
    if (!bad) bad = make_layers(m, tensors + TENSORS);
    if (!bad) bad = make_head(m, tensors + (1 + LAYERS) * TENSORS);
    if (!bad) bad = start_desks(m, threads);
    if (bad) cvnet_free(m);
    else *model = m;
    return bad;
}

// The query that the next keys are scored against.
Status cvnet_prepare_query(Model *m, const Maps *query)
{
    Status bad = prepare_side(&m->query, m->mode, m->amx, &m->desk.pool, &m->desk.rows, query);
    m->has_query = !bad;
    return bad;
}

// Logits [n][CLASSES] of the prepared query against n keys: one after the other by all threads, small ones a thread each.
Status cvnet_score(Model *m, const Maps *keys, int n, float *logits)
{
    if (!m->has_query) return NO_QUERY;
    int threads = m->desk.pool.threads;
    if (threads > 1 && n > 1 && all_small(m, keys, n)) {
        atomic_int next = 0, bad = OK;
        parallel(&m->desk.pool, MIN(threads, n), single_task, &(Batch){m, keys, n, logits, &next, &bad});
        return bad;
    }
    Status bad = OK;
    for (int i = 0; i < n && !bad; i++) bad = score_key(m, &m->desk, keys + i, logits + i * CLASSES);
    return bad;
}

// A map (channels, from) of unit vectors as one (channels, to) of fewer positions.
Status cvnet_shrink(const void *map, int is_half, int channels, Grid from, Grid to, float *out)
{
    return shrink(map, is_half, channels, from, to, out);
}

// out[rows][columns] = a[rows][inner] x b[inner][columns].
Status cvnet_product(const float *a, const float *b, int rows, int inner, int columns, float *out)
{
    Buffer block = {0};
    if (reserve(&block, inner * sizeof(float[COLUMNS]))) return OUT_OF_MEMORY;
    product(a, b, rows, inner, columns, block.p, out);
    release(&block);
    return OK;
}
