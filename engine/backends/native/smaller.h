// A map of fewer positions: each is the mean of its part of the map, all parts being equal, and a unit vector again.

#pragma once

#include "side.h"

// `from` positions cut into `to` equal parts. Part i holds some of first[i] to end[i] - 1; the weights of these follow those
// of the part before: `from + to` at most, as neighbours share no more than one position.
typedef struct { int *first, *end; float *weights; } Parts;

static void cut(Parts *p, int64_t from, int64_t to)
{
    float *weight = p->weights;
    for (int64_t i = 0; i < to; i++) {  // in units of 1 / to of a position, part i is [i * from, (i + 1) * from)
        p->first[i] = (int)(i * from / to), p->end[i] = (int)(((i + 1) * from + to - 1) / to);
        for (int64_t x = p->first[i]; x < p->end[i]; x++) {
            int64_t low = i * from > x * to ? i * from : x * to, high = MIN((i + 1) * from, (x + 1) * to);
            *weight++ = (float)(high - low) / (float)from;
        }
    }
}

typedef struct {  // of one map
    Grid from, to;
    Parts rows, columns;
    float *channel;  // [from]
    float *row;      // [from.w]: one part of the height
    float *norm;     // [to]
} Shrinking;

static void shrink_channel(const Shrinking *s, const float *channel, float *out)
{
    const float *down = s->rows.weights;
    for (int i = 0; i < s->to.h; i++) {
        memset(s->row, 0, s->from.w * sizeof *s->row);
        for (int y = s->rows.first[i]; y < s->rows.end[i]; y++, down++)
            for (int x = 0; x < s->from.w; x++) s->row[x] += *down * channel[y * s->from.w + x];
        const float *across = s->columns.weights;
        for (int j = 0; j < s->to.w; j++) {
            float sum = 0;
            for (int x = s->columns.first[j]; x < s->columns.end[j]; x++) sum += *across++ * s->row[x];
            *out++ = sum;
        }
    }
}

// Vectors that cancel out leave zeros.
static void make_unit(float *map, float *norm, int channels, int n)
{
    memset(norm, 0, n * sizeof *norm);
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < n; i++) norm[i] += map[(size_t)c * n + i] * map[(size_t)c * n + i];
    for (int i = 0; i < n; i++) norm[i] = norm[i] > 0 ? 1 / sqrtf(norm[i]) : 0;
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < n; i++) map[(size_t)c * n + i] *= norm[i];
}

static Status reserve_shrinking(Buffer *b, Shrinking *s)
{
    Grid from = s->from, to = s->to;
    size_t parts = 2 * (from.h + to.h + from.w + to.w);  // more than their numbers come to
    if (reserve(b, (area(from) + from.w + area(to) + 2 * parts) * sizeof(float))) return OUT_OF_MEMORY;
    s->channel = b->p, s->row = s->channel + area(from), s->norm = s->row + from.w;
    float *rest = s->norm + area(to);
    s->rows = (Parts){(int *)rest, (int *)rest + to.h, rest + 2 * to.h};
    rest += 3 * to.h + from.h;
    s->columns = (Parts){(int *)rest, (int *)rest + to.w, rest + 2 * to.w};
    cut(&s->rows, from.h, to.h), cut(&s->columns, from.w, to.w);
    return OK;
}

// Map (channels, from), float16 or float32, as (channels, to).
static Status shrink(const void *map, int is_half, int channels, Grid from, Grid to, float *out)
{
    if (to.h < 1 || to.w < 1 || to.h > from.h || to.w > from.w || from.h > MOST_POSITIONS / from.w) return BAD_SHAPE;
    Buffer memory = {0};
    Shrinking s = {.from = from, .to = to};
    if (reserve_shrinking(&memory, &s)) return OUT_OF_MEMORY;
    for (int c = 0; c < channels; c++) {
        const uint16_t *half = (const uint16_t *)map + (size_t)c * area(from);
        const float *channel = (const float *)map + (size_t)c * area(from);
        for (int i = 0; i < area(from) && is_half; i++) s.channel[i] = half_to_float(half[i]);
        shrink_channel(&s, is_half ? s.channel : channel, out + (size_t)c * area(to));
    }
    make_unit(out, s.norm, channels, area(to));
    release(&memory);
    return OK;
}
