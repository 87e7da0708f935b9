/* cache.h: small files in a directory that outlives the process: attention plans,
 * chosen GEMM algorithms. Names say what a file is of (library, version, GPU,
 * shape), so a file is either right or not there; damaged ones are for the caller
 * to pass over and replace. Plain C; failures to write are silent: a cache. */
#ifndef LIGHTHOUSE_CUDA_CACHE_H
#define LIGHTHOUSE_CUDA_CACHE_H

#include <stddef.h>

/* Heap, with a NUL after it, or NULL when there is none. dir may be NULL. */
char *lh_cache_read(const char *dir, const char *name, size_t *bytes);
/* Whole or not at all. */
void lh_cache_write(const char *dir, const char *name, const void *text, size_t bytes);
/* `text` with everything but letters, digits, '.' and '-' as '_', in place. */
char *lh_cache_name(char *text);

#endif
