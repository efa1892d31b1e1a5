#include "internal.h"

#include <stdlib.h>
#include <string.h>

void *ev__buffer_get(ev_loop *loop) {
    struct ev_pool *pool = &loop->pool;
    if (!pool->spare) {
        loop->stats.pool_misses++;
        return malloc(EV_BUFFER_SIZE);
    }
    void *buffer = pool->spare;
    memcpy(&pool->spare, buffer, sizeof pool->spare);
    pool->spare_count--;
    loop->stats.pool_hits++;
    return buffer;
}

void ev__buffer_put(ev_loop *loop, void *buffer) {
    struct ev_pool *pool = &loop->pool;
    if (pool->spare_count == EV_POOL_MOST) {
        free(buffer);
        return;
    }
    memcpy(buffer, &pool->spare, sizeof pool->spare);
    pool->spare = buffer;
    pool->spare_count++;
}

void ev__pool_free(ev_loop *loop) {
    while (loop->pool.spare) {
        void *buffer = loop->pool.spare;
        memcpy(&loop->pool.spare, buffer, sizeof loop->pool.spare);
        free(buffer);
    }
    loop->pool.spare_count = 0;
}
