// One image prepared: its maps as the operands of correlation.
//
// Sizes of the maps and their numbers of channels (MAP_DIM, SCALES) are engine/geometry.py's, which library.py passes on.

#pragma once

#include "amx.h"
#include "pool.h"
#include "simd.h"

enum { MOST_POSITIONS = 1 << 20 };       // of a map; the counts of pairs of positions stay within their integers
enum { CORRELATION_UNITS = 250 };        // in 8 bits, of correlation 1; rounding has the rest, up to 255
static const float MOST_SQUARE = 1.1f;   // of a position's norm; 8-bit storage of a unit vector moves it by less

typedef struct { int h, w; } Grid;
static int area(Grid g) { return g.h * g.w; }
static Grid halved(Grid g) { return (Grid){(g.h + 1) / 2, (g.w + 1) / 2}; }

typedef struct {             // one image's maps as they come
    Grid grid[SCALES];       // the last one is the full scale
    const void *map[SCALES];  // (MAP_DIM, h_s, w_s)
    int is_half;             // float16, else float32
} Maps;

typedef struct { int a, b; float t; } Between;  // value = (1 - t) * at a + t * at b

// Resizing, bilinear, align_corners, in PyTorch's float32 arithmetic.
static Between between(int i, int from, int to)
{
    float at = to > 1 ? (float)(from - 1) / (float)(to - 1) * (float)i : 0.0f;
    int a = MIN((int)at, from - 1);
    return (Between){a, MIN(a + 1, from - 1), at - (float)a};
}

typedef struct {
    int mode;
    Grid full, even, grid[SCALES];
    int start[SCALES + 1];  // first row of each scale in `native`
    word *native;           // [position][MAP_DIM words]: the broadcast operand, every position of the three native grids
    float *native_step;     // [position]: value of one unit of its integers (1 in float32, bfloat16)
    int *native_bias;       // [position]: -128 times the sum of its integers, as lanes have 128 added; else 0
    word *lanes;            // [even / 16][MAP_DIM words][3 scales][16]: the vector operand, maps resized, even positions
    float *lanes_step;      // [even / 16][3][16]
    int amx;                // whether tiles correlate it: then `rows` takes the place of `native`
    word *rows;             // [y][amx_rows][MAP_DIM words]: maps resized, every position (row 3 * x + scale), bfloat16
    Buffer memory;          // of all these
} Side;

// Rows of `rows` at each y, whole tiles of them; those beyond the last position are zero.
static int amx_rows(const Side *side) { return (side->full.w * SCALES + AMX_ROWS - 1) / AMX_ROWS * AMX_ROWS; }

static float half_to_float(uint16_t h)
{
    union { uint32_t u; float f; } x = {(uint32_t)(h & 0x7fff) << 13};
    x.f *= 0x1p112f;
    x.u |= (uint32_t)(h & 0x8000) << 16;
    return x.f;
}

typedef struct {  // of one image's maps to a Side
    Side *side;
    const Maps *maps;
    float *rows;        // [position][MAP_DIM]
    atomic_int *faults;  // positions that are no unit vectors
} Preparation;

enum { CHUNK = 32 };  // positions a task; a multiple of DOT_ROWS

static int scale_of(const Side *side, int position)
{
    return position < side->start[1] ? 0 : position < side->start[2] ? 1 : 2;
}

static void transpose_row(const Preparation *p, int position, float *row)
{
    int s = scale_of(p->side, position), i = position - p->side->start[s];
    size_t n = area(p->side->grid[s]);
    const uint16_t *half = p->maps->map[s];
    const float *whole = p->maps->map[s];
    if (p->maps->is_half) for (int c = 0; c < MAP_DIM; c++) row[c] = half_to_float(half[c * n + i]);
    else for (int c = 0; c < MAP_DIM; c++) row[c] = whole[c * n + i];
}

// Whether a position's values may be what they should: not NaN, not infinite, not of another norm. All zero is allowed.
static int is_unit(const float *row)
{
    vec squares = {0};
    for (int c = 0; c < MAP_DIM; c += LANES) squares += *(const vec_any *)(row + c) * *(const vec_any *)(row + c);
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += squares[lane];
    return total <= MOST_SQUARE;
}

static float step_of(int mode, const float *x, int n) { return mode == INT8 ? largest(x, n) / MOST_SIGNED : 1; }

static void prepare_native(Side *side, const float *row, int position)
{
    int words = MAP_DIM / per_word(side->mode), sum = 0;
    word *out = side->native + (size_t)position * words;
    float step = side->native_step[position] = step_of(side->mode, row, MAP_DIM);
    pack(side->mode, row, out, MAP_DIM, step, 0);
    for (int c = 0; c < MAP_DIM && side->mode == INT8; c++) sum += ((const unit *)out)[c];
    side->native_bias[position] = -UNSIGNED_OFFSET * sum;
}

static void native_task(const void *context, int chunk, void *scratch)
{
    (void)scratch;
    const Preparation *p = context;
    int end = MIN((chunk + 1) * CHUNK, p->side->start[SCALES]);
    for (int i = chunk * CHUNK; i < end; i += DOT_ROWS) {
        int n = MIN(DOT_ROWS, end - i);
        float *rows = p->rows + (size_t)i * MAP_DIM;
        int faults = 0;
        for (int r = 0; r < n; r++) {
            transpose_row(p, i + r, rows + r * MAP_DIM);
            faults += !is_unit(rows + r * MAP_DIM);
        }
        if (faults) atomic_fetch_add(p->faults, faults);
        else for (int r = 0; r < n && !p->side->amx; r++) prepare_native(p->side, rows + r * MAP_DIM, i + r);
    }
}

// The map of scale s, of which `rows` are the vectors, resized to full size: its vector at position (to_y, to_x).
static void resize_at(const Side *side, const float *rows, int s, int to_y, int to_x, float row[MAP_DIM])
{
    Grid g = side->grid[s];
    Between y = between(to_y, g.h, side->full.h), x = between(to_x, g.w, side->full.w);
    const float *aa = rows + (size_t)(y.a * g.w + x.a) * MAP_DIM, *ab = rows + (size_t)(y.a * g.w + x.b) * MAP_DIM;
    const float *ba = rows + (size_t)(y.b * g.w + x.a) * MAP_DIM, *bb = rows + (size_t)(y.b * g.w + x.b) * MAP_DIM;
    float waa = (1 - y.t) * (1 - x.t), wab = (1 - y.t) * x.t, wba = y.t * (1 - x.t), wbb = y.t * x.t;
    for (int c = 0; c < MAP_DIM; c++) row[c] = waa * aa[c] + wab * ab[c] + wba * ba[c] + wbb * bb[c];
}

// A resized vector at even position i as a lane.
static void put_lane(Side *side, const word *packed, float step, int s, int i)
{
    int words = MAP_DIM / per_word(side->mode), lane = i % LANES, block = i / LANES;
    word *out = side->lanes + ((size_t)block * words * SCALES + s) * LANES + lane;
    for (int k = 0; k < words; k++) out[k * SCALES * LANES] = packed[k];
    side->lanes_step[(block * SCALES + s) * LANES + lane] = step * (side->mode == INT8 ? CORRELATION_UNITS : 1);
}

static void prepare_lane(Side *side, const float *rows, int s, int i)
{
    float row[MAP_DIM];
    word packed[MAP_DIM];
    resize_at(side, rows, s, i / side->even.w * 2, i % side->even.w * 2, row);
    float step = step_of(side->mode, row, MAP_DIM);
    pack(side->mode, row, packed, MAP_DIM, step, UNSIGNED_OFFSET);
    put_lane(side, packed, step, s, i);
}

// All positions of row y, for tiles; the even ones are lanes as well.
static void amx_rows_task(const void *context, int y, void *scratch)
{
    (void)scratch;
    const Preparation *p = context;
    Side *side = p->side;
    word *out = side->rows + (size_t)y * amx_rows(side) * MAP_DIM / 2;
    for (int x = 0; x < side->full.w; x++)
        for (int s = 0; s < SCALES; s++, out += MAP_DIM / 2) {
            float row[MAP_DIM];
            resize_at(side, p->rows + (size_t)side->start[s] * MAP_DIM, s, y, x, row);
            pack(BFLOAT16, row, out, MAP_DIM, 1, 0);
            if (y % 2 == 0 && x % 2 == 0) put_lane(side, out, 1, s, y / 2 * side->even.w + x / 2);
        }
    memset(out, 0, (size_t)(amx_rows(side) - side->full.w * SCALES) * MAP_DIM / 2 * sizeof(word));
}

static void lanes_task(const void *context, int chunk, void *scratch)
{
    (void)scratch;
    const Preparation *p = context;
    for (int i = chunk * CHUNK; i < MIN((chunk + 1) * CHUNK, area(p->side->even)); i++)
        for (int s = 0; s < SCALES; s++) prepare_lane(p->side, p->rows + (size_t)p->side->start[s] * MAP_DIM, s, i);
}

static int fits(const Maps *maps)
{
    for (int s = 0; s < SCALES; s++) {
        Grid g = maps->grid[s];
        if (g.h < 1 || g.w < 1 || g.h > MOST_POSITIONS / g.w) return 0;
    }
    return 1;
}

// The grids of an image, and memory for its operands; lanes beyond the last even position are zero.
static Status lay_out(Side *side, int mode, int amx, const Maps *maps)
{
    side->mode = mode, side->amx = amx, side->full = maps->grid[SCALES - 1], side->even = halved(side->full);
    for (int s = 0; s < SCALES; s++) {
        side->grid[s] = maps->grid[s];
        side->start[s + 1] = side->start[s] + area(side->grid[s]);
    }
    size_t words = MAP_DIM / per_word(mode), native = amx ? 0 : side->start[SCALES];
    size_t rows = amx ? (size_t)side->full.h * amx_rows(side) : 0;
    size_t lanes = (area(side->even) + LANES - 1) / LANES * SCALES * LANES;
    size_t size = (native + lanes) * (words + 1) + native + rows * words;
    if (reserve(&side->memory, size * sizeof(word))) return OUT_OF_MEMORY;
    side->lanes = side->memory.p;  // first, as whole vectors of it are read
    side->rows = side->lanes + lanes * words;
    side->native = side->rows + rows * words;
    side->lanes_step = (float *)(side->native + native * words);
    side->native_step = side->lanes_step + lanes;
    side->native_bias = (int *)(side->native_step + native);
    memset(side->lanes, 0, lanes * words * sizeof(word));
    memset(side->lanes_step, 0, lanes * sizeof(float));
    return OK;
}

// Prepares an image's maps. `rows` is scratch that is kept.
static Status prepare_side(Side *side, int mode, int amx, Pool *pool, Buffer *rows, const Maps *maps)
{
    if (!fits(maps)) return BAD_SHAPE;
    if (lay_out(side, mode, amx, maps)) return OUT_OF_MEMORY;
    int positions = side->start[SCALES];
    if (reserve(rows, (size_t)positions * MAP_DIM * sizeof(float))) return OUT_OF_MEMORY;
    atomic_int faults = 0;
    Preparation p = {side, maps, rows->p, &faults};
    parallel(pool, (positions + CHUNK - 1) / CHUNK, native_task, &p);
    if (faults) return NOT_UNIT;
    if (amx) parallel(pool, side->full.h, amx_rows_task, &p);
    else parallel(pool, (area(side->even) + CHUNK - 1) / CHUNK, lanes_task, &p);
    return OK;
}
