/* ops.h: the harness of the GPU's op tests.
 *
 * A case is a list of arguments (inputs, outputs that start with known values)
 * and a call. The call runs once on the CPU in float32 and twice on the GPU, for
 * lh_ops_cuda_f32, lh_ops_cuda and the latter on a deterministic device; for bf16
 * the CPU gets the same rounded inputs.
 * Outputs are compared by |x - y| / |y| (integers: exactly), guard words on both
 * sides of every tensor must survive, and the second run must give the same
 * bits as the first. */
#ifndef LIGHTHOUSE_TESTS_OPS_H
#define LIGHTHOUSE_TESTS_OPS_H

#include "lighthouse/ops.h"

enum { ARGS = 14, DIMS = 8, GUARD = 64 }; /* GUARD elements on each side */
enum { GPUS = 3 };

enum kind { ACT, F32, I32 };

struct arg {
	enum kind kind;
	int64_t n;
	bool out;
	float spread, middle; /* floats: middle + spread * (-1 .. 1) */
	int64_t limit;        /* ids: 0 .. limit - 1 */
	void *given;          /* host values instead (owned), float or int32 */
};

struct test {
	const char *name;
	struct arg arg[ARGS];
	int count;
	int64_t d[DIMS];
	struct lh_heads h;
	struct lh_lighthouse g;
	int starts; /* the argument that tells where documents begin; 0: none */
	bool flag;
	bool roams; /* unless deterministic, the library sums in no fixed order */
	void (*call)(const struct lh_ops *o, struct lh_dev *dev, void **p,
		     const struct test *t);
};

struct side {
	const char *name;
	const struct lh_ops *ops;
	bool deterministic;
	struct lh_dev *dev;
};

extern struct side ops_cpu; /* the reference */

uint32_t ops_noise(void); /* any 32 bits */
void ops_die(const struct lh_err *err);
/* The next argument, n elements; the caller may change what is in it. */
struct arg *ops_add(struct test *t, enum kind kind, int64_t n, bool out);
/* Two arguments: rotary tables of T positions. */
void ops_add_tables(struct test *t, int64_t T, int D);
/* One argument, t->starts: B sequences of T tokens hold documents of 1 to `most`
 * windows; the same each time. `most` 0: none is added. */
void ops_add_starts(struct test *t, int B, int64_t T, int64_t window, int most);
/* t->h, in a call with arguments p. */
struct lh_heads ops_heads(const struct test *t, void **p);
/* "op 1 2 3 +" in `text`, from t->d and t->flag. */
void ops_name(struct test *t, char *text, size_t size, const char *op);
bool ops_wanted(const char *name); /* by the command line's filter */
/* Host values of an argument (heap); activations rounded to bf16 when `half`. */
void *ops_values(const struct arg *a, bool half);
/* Runs a case there; results (count; heap) receive every argument. False: guards
 * damaged. */
bool ops_once(const struct side *s, const struct test *t, void *const *values,
	      void **results);
/* Runs a case on all GPUS sides; given values die with it. */
void ops_run(struct test *t, const struct side *gpus);

/* All cases of a file. */
void ops_layer_cases(const struct side *gpus);
void ops_attention_cases(const struct side *gpus);

#endif
