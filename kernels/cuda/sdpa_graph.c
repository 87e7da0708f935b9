/* sdpa_graph.c: causal attention as cuDNN's operation graph.
 *
 * cuDNN matches the whole graph against patterns, so what is written here is a
 * spelling, not a program: operand order, data types and the multiplication by
 * one in the backward pass decide which kernel runs. Forward: scores, mask,
 * softmax by maximum and sum, log-sum-exp out, weights rounded to bf16, product.
 * Backward: delta = rowsum(do o); weights from lse; dv, ds, dk; dq summed in
 * float32 by tiles (in no fixed order) and then rounded. Where dq is the product's
 * own result instead, the library writes ds out, the whole square in bf16, and
 * multiplies it by k afterwards: bits that repeat, for 2 B H T S bytes.
 *
 * A KV head's dk and dv of grouped heads are bf16 before the sum over the group:
 * the library offers nothing finer. */
#include "sdpa_int.h"

#include <string.h>

typedef cudnnBackendDescriptor_t desc;

bool lh_sdpa_ok(struct lh_sdpa_graph *g, cudnnStatus_t rc, const char *what)
{
	char text[400] = "";

	if (rc == CUDNN_STATUS_SUCCESS || g->failed)
		return !g->failed;
	g->cudnn->last_error(text, sizeof(text));
	g->failed = lh_err_set(g->err, LH_EUNSUPPORTED, "cuDNN %s refuses '%s': %s %.300s",
			       g->cudnn->version, what, g->cudnn->error_string(rc), text);
	return false;
}

desc lh_sdpa_make(struct lh_sdpa_graph *g, cudnnBackendDescriptorType_t type)
{
	desc d = NULL;

	if (g->failed || !lh_sdpa_ok(g, g->cudnn->make(type, &d), "descriptor"))
		return NULL;
	LH_ASSERT(g->count < LH_GRAPH_DESCRIPTORS);
	g->all[g->count++] = d;
	return d;
}

void lh_sdpa_set(struct lh_sdpa_graph *g, desc d, cudnnBackendAttributeName_t name,
		 cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
	if (!g->failed)
		lh_sdpa_ok(g, g->cudnn->set(d, name, type, count, values), "attribute");
}

void lh_sdpa_finalize(struct lh_sdpa_graph *g, desc d, const char *what)
{
	if (!g->failed)
		lh_sdpa_ok(g, g->cudnn->finalize(d), what);
}

static void set_desc(struct lh_sdpa_graph *g, desc d, cudnnBackendAttributeName_t name,
		     desc value)
{
	lh_sdpa_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

/* ---- tensors --------------------------------------------------------------- */

enum kind { REAL, VIRTUAL, BY_VALUE };

struct four { /* dims or strides */
	int64_t at[4];
};

static desc tensor(struct lh_sdpa_graph *g, int64_t uid, enum kind kind,
		   cudnnDataType_t type, struct four dims, struct four strides)
{
	desc d = lh_sdpa_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
	int64_t alignment = 16;
	bool yes = true;

	if (kind == VIRTUAL)
		uid = g->next_uid++;
	else
		g->uses[uid] = true;
	lh_sdpa_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
	lh_sdpa_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims.at);
	lh_sdpa_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides.at);
	lh_sdpa_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
	lh_sdpa_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1,
		    &alignment);
	if (kind == VIRTUAL)
		lh_sdpa_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1,
			    &yes);
	if (kind == BY_VALUE)
		lh_sdpa_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1,
			    &yes);
	lh_sdpa_finalize(g, d, "tensor");
	return d;
}

static struct four contiguous(struct four d)
{
	return (struct four){ { d.at[1] * d.at[2] * d.at[3], d.at[2] * d.at[3], d.at[3],
				1 } };
}

static desc scalar(struct lh_sdpa_graph *g, enum lh_sdpa_uid uid, cudnnDataType_t type)
{
	struct four ones = { { 1, 1, 1, 1 } };

	return tensor(g, uid, BY_VALUE, type, ones, ones);
}

/* Rows of tokens: [B, heads, tokens, D] in packed rows. */
static desc rows(struct lh_sdpa_graph *g, enum lh_sdpa_uid uid, int64_t batch,
		 int64_t heads, int64_t tokens, int64_t D, int64_t row)
{
	return tensor(g, uid, REAL, CUDNN_DATA_BFLOAT16,
		      (struct four){ { batch, heads, tokens, D } },
		      (struct four){ { tokens * row, D, row, 1 } });
}

/* The same memory read as its transpose: [B, heads, D, tokens]. */
static desc columns(struct lh_sdpa_graph *g, enum lh_sdpa_uid uid, int64_t batch,
		    int64_t heads, int64_t tokens, int64_t D, int64_t row)
{
	return tensor(g, uid, REAL, CUDNN_DATA_BFLOAT16,
		      (struct four){ { batch, heads, D, tokens } },
		      (struct four){ { tokens * row, D, 1, row } });
}

/* ---- operations ------------------------------------------------------------ */

static desc operation(struct lh_sdpa_graph *g, cudnnBackendDescriptorType_t type)
{
	desc op = lh_sdpa_make(g, type);

	LH_ASSERT(g->op_count < LH_GRAPH_OPS);
	g->ops[g->op_count++] = op;
	return op;
}

struct pointwise {
	cudnnPointwiseMode_t mode;
	cudnnDataType_t precision;
	desc x, b, t; /* first, second input, predicate; NULL: none */
	int64_t axis; /* of GEN_INDEX */
};

static desc pointwise(struct lh_sdpa_graph *g, desc y, struct pointwise p)
{
	desc how = lh_sdpa_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR), op;

	lh_sdpa_set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1,
		    &p.mode);
	lh_sdpa_set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1,
		    &p.precision);
	if (p.mode == CUDNN_POINTWISE_GEN_INDEX)
		lh_sdpa_set(g, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1,
			    &p.axis);
	lh_sdpa_finalize(g, how, "pointwise");
	op = operation(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
	set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
	set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, p.x);
	if (p.b)
		set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, p.b);
	if (p.t)
		set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, p.t);
	set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
	lh_sdpa_finalize(g, op, "pointwise operation");
	return y;
}

/* y <- mode(x, b) in float32. */
static desc math(struct lh_sdpa_graph *g, desc y, cudnnPointwiseMode_t mode, desc x,
		 desc b)
{
	return pointwise(g, y, (struct pointwise){ mode, CUDNN_DATA_FLOAT, x, b, NULL, 0 });
}

static desc matmul(struct lh_sdpa_graph *g, desc c, desc a, desc b)
{
	desc how = lh_sdpa_make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR), op;
	cudnnDataType_t type = CUDNN_DATA_FLOAT;

	lh_sdpa_set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
	lh_sdpa_finalize(g, how, "matmul");
	op = operation(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
	set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
	set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
	set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
	set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
	lh_sdpa_finalize(g, op, "matmul operation");
	return c;
}

static desc reduce(struct lh_sdpa_graph *g, desc y, cudnnReduceTensorOp_t which, desc x)
{
	desc how = lh_sdpa_make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR), op;
	cudnnDataType_t type = CUDNN_DATA_FLOAT;

	lh_sdpa_set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR,
		    CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &which);
	lh_sdpa_set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1,
		    &type);
	lh_sdpa_finalize(g, how, "reduction");
	op = operation(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
	set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
	set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
	set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
	lh_sdpa_finalize(g, op, "reduction operation");
	return y;
}

static desc reshape(struct lh_sdpa_graph *g, desc y, desc x)
{
	desc op = operation(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);

	set_desc(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
	set_desc(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
	lh_sdpa_finalize(g, op, "reshape operation");
	return y;
}

/* ---- the graphs ------------------------------------------------------------ */

struct build {
	struct lh_sdpa_graph *g;
	const struct lh_sdpa_shape *s;
	struct four square; /* [B, H, Sq, Skv] */
	struct four column; /* [B, H, Sq, 1] */
	desc q, kt, scale, ninf;
};

static desc square(struct build *b, cudnnDataType_t type)
{
	return tensor(b->g, 0, VIRTUAL, type, b->square, contiguous(b->square));
}

static desc column(struct build *b)
{
	return tensor(b->g, 0, VIRTUAL, CUDNN_DATA_FLOAT, b->column,
		      contiguous(b->column));
}

static desc real_column(struct build *b, enum lh_sdpa_uid uid)
{
	return tensor(b->g, uid, REAL, CUDNN_DATA_FLOAT, b->column,
		      contiguous(b->column));
}

static desc index_of(struct build *b, desc like, int64_t axis)
{
	return pointwise(b->g, square(b, CUDNN_DATA_INT32),
			 (struct pointwise){ CUDNN_POINTWISE_GEN_INDEX,
					     CUDNN_DATA_FLOAT, like, NULL, NULL, axis });
}

static desc integers(struct build *b, cudnnPointwiseMode_t mode, desc x,
		     enum lh_sdpa_uid uid)
{
	return pointwise(b->g, square(b, CUDNN_DATA_INT32),
			 (struct pointwise){ mode, CUDNN_DATA_INT32, x,
					     scalar(b->g, uid, CUDNN_DATA_INT32), NULL,
					     0 });
}

/* Scores past the diagonal become -inf. Row, then column, compared with >=: any
 * other order is not recognised. */
static desc mask(struct build *b, desc scores)
{
	desc row, col, keep;

	if (b->s->mask == LH_SDPA_ALL)
		return scores;
	row = index_of(b, scores, 2);
	col = index_of(b, scores, 3);
	if (b->s->mask == LH_SDPA_BOTTOM_RIGHT) {
		row = integers(b, CUDNN_POINTWISE_ADD, row, LH_SDPA_KV_LEN);
		row = integers(b, CUDNN_POINTWISE_SUB, row, LH_SDPA_Q_LEN);
	} else if (b->s->mask == LH_SDPA_SHIFTED) {
		row = integers(b, CUDNN_POINTWISE_ADD, row, LH_SDPA_SHIFT);
	}
	keep = pointwise(b->g, square(b, CUDNN_DATA_BOOLEAN),
			 (struct pointwise){ CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN,
					     row, col, NULL, 0 });
	return pointwise(b->g, square(b, CUDNN_DATA_FLOAT),
			 (struct pointwise){ CUDNN_POINTWISE_BINARY_SELECT,
					     CUDNN_DATA_FLOAT, scores, b->ninf, keep,
					     0 });
}

static desc float_square(struct build *b)
{
	return square(b, CUDNN_DATA_FLOAT);
}

/* scale q k^T */
static desc scores(struct build *b)
{
	desc s = matmul(b->g, float_square(b), b->q, b->kt);

	return math(b->g, float_square(b), CUDNN_POINTWISE_MUL, s, b->scale);
}

static void forward(struct build *b)
{
	const struct lh_sdpa_shape *s = b->s;
	struct lh_sdpa_graph *g = b->g;
	desc v = rows(g, LH_SDPA_V, s->batch, s->kv_heads, s->kv_tokens, s->head_dim,
		      s->kv_row);
	desc o = rows(g, LH_SDPA_O, s->batch, s->heads, s->tokens, s->head_dim, s->o_row);
	desc m, max, d, e, sum, p, log;

	m = mask(b, scores(b));
	max = reduce(g, column(b), CUDNN_REDUCE_TENSOR_MAX, m);
	d = math(g, float_square(b), CUDNN_POINTWISE_SUB, m, max);
	e = math(g, float_square(b), CUDNN_POINTWISE_EXP, d, NULL);
	sum = reduce(g, column(b), CUDNN_REDUCE_TENSOR_ADD, e);
	log = math(g, column(b), CUDNN_POINTWISE_LOG, sum, NULL);
	math(g, real_column(b, LH_SDPA_LSE), CUDNN_POINTWISE_ADD, max, log);
	p = math(g, square(b, CUDNN_DATA_BFLOAT16), CUDNN_POINTWISE_DIV, e, sum);
	matmul(g, o, p, v);
}

/* [B, H, Skv, Sq] over the memory of a square: its transpose, in bf16. */
static desc transposed(struct build *b, desc x)
{
	const int64_t *n = b->square.at;
	desc y = tensor(b->g, 0, VIRTUAL, CUDNN_DATA_BFLOAT16,
			(struct four){ { n[0], n[1], n[3], n[2] } },
			(struct four){ { n[1] * n[2] * n[3], n[2] * n[3], 1, n[3] } });

	return reshape(b->g, y, x);
}

/* out (KV heads) <- x^T y (query heads), summed over each group. */
static void key_gradient(struct build *b, enum lh_sdpa_uid uid, desc xt, desc y)
{
	const struct lh_sdpa_shape *s = b->s;
	desc out = rows(b->g, uid, s->batch, s->kv_heads, s->kv_tokens, s->head_dim,
			s->kv_row);
	struct four full = { { s->batch, s->heads, s->kv_tokens, s->head_dim } };

	if (s->heads == s->kv_heads)
		matmul(b->g, out, xt, y);
	else
		reduce(b->g, out, CUDNN_REDUCE_TENSOR_ADD,
		       matmul(b->g, tensor(b->g, 0, VIRTUAL, CUDNN_DATA_BFLOAT16, full,
					   contiguous(full)), xt, y));
}

static void backward(struct build *b)
{
	const struct lh_sdpa_shape *s = b->s;
	struct lh_sdpa_graph *g = b->g;
	int64_t B = s->batch, H = s->heads, T = s->tokens, D = s->head_dim;
	struct four wide = { { B, H, T, D } };
	struct four keys = { { B, s->kv_heads, s->kv_tokens, D } };
	desc vt = columns(g, LH_SDPA_V, B, s->kv_heads, s->kv_tokens, D, s->kv_row);
	desc o = rows(g, LH_SDPA_O, B, H, T, D, s->o_row);
	desc dout = rows(g, LH_SDPA_DOUT, B, H, T, D, s->o_row);
	desc lse = real_column(b, LH_SDPA_LSE), delta = real_column(b, LH_SDPA_DELTA);
	desc dq = rows(g, LH_SDPA_DQ, B, H, T, D, s->dq_row);
	desc one = scalar(g, LH_SDPA_ONE, CUDNN_DATA_FLOAT), a, p, d, ds, k;

	a = math(g, tensor(g, 0, VIRTUAL, CUDNN_DATA_FLOAT, wide, contiguous(wide)),
		 CUDNN_POINTWISE_MUL, dout, o);
	a = reduce(g, column(b), CUDNN_REDUCE_TENSOR_ADD, a);
	/* Without this product the plan materialises the square. */
	math(g, delta, CUDNN_POINTWISE_MUL, a, one);
	p = math(g, float_square(b), CUDNN_POINTWISE_SUB, scores(b), lse);
	p = math(g, float_square(b), CUDNN_POINTWISE_EXP, mask(b, p), NULL);
	key_gradient(b, LH_SDPA_DV, transposed(b, p), dout);
	d = matmul(g, float_square(b), dout, vt);
	d = math(g, float_square(b), CUDNN_POINTWISE_SUB, d, delta);
	d = math(g, float_square(b), CUDNN_POINTWISE_MUL, d, p);
	ds = math(g, float_square(b), CUDNN_POINTWISE_MUL, d, b->scale);
	key_gradient(b, LH_SDPA_DK, transposed(b, ds), b->q);
	k = reshape(g, tensor(g, 0, VIRTUAL, CUDNN_DATA_FLOAT, keys,
			      (struct four){ { s->kv_tokens * s->kv_row, D, s->kv_row,
					       1 } }), b->kt);
	if (s->deterministic)
		matmul(g, dq, ds, k);
	else
		math(g, dq, CUDNN_POINTWISE_IDENTITY,
		     matmul(g, tensor(g, LH_SDPA_DQ_SUM, REAL, CUDNN_DATA_FLOAT, wide,
				      contiguous(wide)), ds, k), NULL);
}

int lh_sdpa_graph_build(struct lh_sdpa_graph *g, const struct lh_sdpa_shape *s)
{
	struct build b = {
		.g = g, .s = s,
		.square = { { s->batch, s->heads, s->tokens, s->kv_tokens } },
		.column = { { s->batch, s->heads, s->tokens, 1 } },
	};

	g->next_uid = 1000;
	b.q = rows(g, LH_SDPA_Q, s->batch, s->heads, s->tokens, s->head_dim, s->q_row);
	b.kt = columns(g, LH_SDPA_K, s->batch, s->kv_heads, s->kv_tokens, s->head_dim,
		       s->kv_row);
	b.scale = scalar(g, LH_SDPA_SCALE, CUDNN_DATA_FLOAT);
	if (s->mask != LH_SDPA_ALL)
		b.ninf = scalar(g, LH_SDPA_NINF, CUDNN_DATA_FLOAT);
	if (s->backward)
		backward(&b);
	else
		forward(&b);
	g->graph = lh_sdpa_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
	lh_sdpa_set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS,
		    CUDNN_TYPE_BACKEND_DESCRIPTOR, g->op_count, g->ops);
	if (g->handle)
		lh_sdpa_set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE,
			    CUDNN_TYPE_HANDLE, 1, &g->handle);
	lh_sdpa_finalize(g, g->graph, "attention graph");
	return g->failed;
}

void lh_sdpa_graph_release(struct lh_sdpa_graph *g)
{
	while (g->count)
		g->cudnn->unmake(g->all[--g->count]);
}
