// Threads that sleep between stages: spinning, as OpenMP does, doubles the time when another program wants the cores.

#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "memory.h"

typedef void Task(const void *context, int i, void *scratch);

typedef struct Pool Pool;
typedef struct { Pool *pool; pthread_t id; Buffer scratch; } Worker;  // the first is the caller's thread

struct Pool {
    Worker *workers;
    int threads, working, stop, n;
    unsigned round;  // counts on from 0 again when it is full
    pthread_mutex_t lock;
    pthread_cond_t begin, end;
    Task *task;
    const void *context;
    atomic_int next;
};

static void take_tasks(Worker *me)
{
    Pool *p = me->pool;
    for (int i; (i = atomic_fetch_add(&p->next, 1)) < p->n;) p->task(p->context, i, me->scratch.p);
}

static void *work(void *worker)
{
    Pool *p = ((Worker *)worker)->pool;
    for (unsigned round = 1;; round++) {
        pthread_mutex_lock(&p->lock);
        while (p->round != round && !p->stop) pthread_cond_wait(&p->begin, &p->lock);
        int stop = p->stop;
        pthread_mutex_unlock(&p->lock);
        if (stop) return NULL;
        take_tasks(worker);
        pthread_mutex_lock(&p->lock);
        if (--p->working == 0) pthread_cond_signal(&p->end);
        pthread_mutex_unlock(&p->lock);
    }
}

// task(context, 0 .. n - 1, scratch) on all threads, the caller's too; returns when all are done. A task cannot fail:
// what it needs is reserved before, its thread's scratch by `reserve_scratch`.
static void parallel(Pool *p, int n, Task *task, const void *context)
{
    pthread_mutex_lock(&p->lock);
    p->task = task, p->context = context, p->n = n, p->working = p->threads - 1, p->round++;
    atomic_store(&p->next, 0);
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->lock);
    take_tasks(p->workers);
    pthread_mutex_lock(&p->lock);
    while (p->working) pthread_cond_wait(&p->end, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static Status reserve_scratch(Pool *p, size_t bytes)
{
    for (int i = 0; i < p->threads; i++)
        if (reserve(&p->workers[i].scratch, bytes)) return OUT_OF_MEMORY;
    return OK;
}

static void stop_pool(Pool *p)
{
    if (!p->workers) return;
    pthread_mutex_lock(&p->lock);
    p->stop = 1;
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i].id, NULL);
    pthread_mutex_destroy(&p->lock), pthread_cond_destroy(&p->begin), pthread_cond_destroy(&p->end);
    for (int i = 0; i < p->threads; i++) release(&p->workers[i].scratch);
    free(p->workers);
}

// Starts threads - 1 of them. The pool is to be stopped whatever comes back.
static Status start_pool(Pool *p, int threads)
{
    if (threads < 1) return THREADS_NOT_STARTED;
    p->workers = calloc(threads, sizeof *p->workers);
    if (!p->workers) return OUT_OF_MEMORY;
    pthread_mutex_init(&p->lock, NULL), pthread_cond_init(&p->begin, NULL), pthread_cond_init(&p->end, NULL);
    for (p->threads = 0; p->threads < threads; p->threads++) {
        Worker *w = &p->workers[p->threads];
        w->pool = p;
        if (p->threads && pthread_create(&w->id, NULL, work, w)) return THREADS_NOT_STARTED;
    }
    return OK;
}
