// What every function of the interface returns, and memory that may run out.

#pragma once

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

// library.py has a remedy for each, in this order.
typedef enum { OK, OUT_OF_MEMORY, THREADS_NOT_STARTED, BAD_SHAPE, BAD_PRECISION, NOT_UNIT, NOT_FINITE, NO_QUERY } Status;

enum { CACHE_LINE = 64, HUGE_PAGE = 2 << 20, HUGE_FROM = 2 * HUGE_PAGE };  // bytes

// Aligned memory, or NULL.
static void *allocate(size_t bytes)
{
    size_t page = bytes >= HUGE_FROM ? HUGE_PAGE : CACHE_LINE;
    void *p = aligned_alloc(page, (bytes + page - 1) / page * page);
#if defined(__linux__)
    if (p && page == HUGE_PAGE) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

typedef struct { void *p; size_t bytes; } Buffer;  // grows, kept from pair to pair

static void release(Buffer *b)
{
    free(b->p);
    *b = (Buffer){0};
}

static Status reserve(Buffer *b, size_t bytes)
{
    if (b->bytes >= bytes) return OK;
    release(b);
    b->p = allocate(bytes);
    if (!b->p) return OUT_OF_MEMORY;
    b->bytes = bytes;
    return OK;
}
