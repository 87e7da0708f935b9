/* gen.h: the generator's parts. Build-time only; any failure prints one
 * sentence and exits 1. Inputs are ours, so checks are for our own mistakes. */
#ifndef LIGHTHOUSE_GEN_H
#define LIGHTHOUSE_GEN_H

#include <jansson.h>
#include <stdio.h>

/* One source of truth each: reads under `schema`, writes under `out`. */
void gen_errors(const char *schema, const char *out);
void gen_sql(const char *schema, const char *out);
void gen_rpc(const char *schema, const char *out);
void gen_job(const char *schema, const char *out);
void gen_readme(const char *schema, const char *out);

_Noreturn void gen_die(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));
json_t *gen_load(const char *dir, const char *name);
FILE *gen_open(const char *dir, const char *name);
void gen_close(FILE *f);
/* Writes s as a C string literal, quotes and all. */
void gen_string(FILE *f, const char *s);
/* Sorted names in `dir` that end in `suffix`; heap, NULL-terminated. */
char **gen_list(const char *dir, const char *suffix);

#endif
