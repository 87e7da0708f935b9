/* sdpa_plan.c: cuDNN opened, attention planned, plans kept and run.
 *
 * A plan is the first engine configuration, in the order of cuDNN's heuristics,
 * that finalizes. Which one is fast on Hopper is known of the versions in FAST; another
 * one there is several times slower, which the log and the description of the device
 * then show. Other versions may number them anew. */
#include "cache.h"
#include "sdpa_int.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { CONFIGS = 16 };
static const struct {
	int64_t minor;
	int64_t engine[2]; /* forward, backward */
} FAST[] = { { 14, { 2, 2 } }, { 19, { 2, 6 } } };

struct lh_sdpa_plan {
	struct lh_sdpa_shape shape;
	struct lh_sdpa_graph graph; /* owns every descriptor */
	cudnnBackendDescriptor_t plan;
	int64_t workspace, engine;
};

struct lh_sdpa_plans {
	struct lh_cudnn cudnn;
	cudnnHandle_t handle;
	struct lh_sdpa_plan **plan;
	int count;
	char *dir, *gpu; /* of plans on disk; NULL: none */
	bool warned[2];  /* of a slow engine: forward, backward */
};

/* ---- the library ----------------------------------------------------------- */

static int missing(struct lh_err *err, const char *why)
{
	lh_err_set(err, LH_EUNSUPPORTED,
		   "'libcudnn.so.9' cannot be used: %s; cuDNN %d.%d or newer is needed",
		   why, LH_CUDNN_MIN_VERSION / 10000, LH_CUDNN_MIN_VERSION / 100 % 100);
	return lh_err_hint(err, "install cuDNN 9 for CUDA 13, or name its directory in "
			   "LD_LIBRARY_PATH");
}

static void close_cudnn(struct lh_cudnn *c)
{
	if (c->library)
		dlclose(c->library);
	c->library = NULL;
}

static int open_cudnn(struct lh_cudnn *c, struct lh_err *err)
{
	struct {
		void *to;
		const char *name;
	} symbols[] = {
		{ &c->get_version, "cudnnGetVersion" },
		{ &c->error_string, "cudnnGetErrorString" },
		{ &c->last_error, "cudnnGetLastErrorString" },
		{ &c->create, "cudnnCreate" },
		{ &c->destroy, "cudnnDestroy" },
		{ &c->set_stream, "cudnnSetStream" },
		{ &c->make, "cudnnBackendCreateDescriptor" },
		{ &c->unmake, "cudnnBackendDestroyDescriptor" },
		{ &c->set, "cudnnBackendSetAttribute" },
		{ &c->get, "cudnnBackendGetAttribute" },
		{ &c->finalize, "cudnnBackendFinalize" },
		{ &c->execute, "cudnnBackendExecute" },
	};
	char why[160];
	size_t v;

	c->library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
	if (!c->library) /* not there, or something that it needs is not */
		return missing(err, dlerror());
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *f = dlsym(c->library, symbols[i].name);

		if (!f) {
			snprintf(why, sizeof(why), "it has no %s", symbols[i].name);
			close_cudnn(c);
			return missing(err, why);
		}
		memcpy(symbols[i].to, &f, sizeof(f));
	}
	c->number = v = c->get_version();
	snprintf(c->version, sizeof(c->version), "%zu.%zu.%zu", v / 10000, v / 100 % 100,
		 v % 100);
	if (v >= LH_CUDNN_MIN_VERSION)
		return 0;
	snprintf(why, sizeof(why), "it is version %s", c->version);
	close_cudnn(c);
	return missing(err, why);
}

int lh_sdpa_check_library(struct lh_err *err)
{
	struct lh_cudnn c = { 0 };
	int rc = open_cudnn(&c, err);

	if (!rc)
		close_cudnn(&c);
	return rc;
}

int lh_sdpa_plans_new(struct lh_sdpa_plans **out, void *stream, struct lh_err *err)
{
	struct lh_sdpa_plans *p = lh_calloc(1, sizeof(*p));
	cudnnStatus_t rc;
	int code = open_cudnn(&p->cudnn, err);

	if (code)
		goto fail_open;
	rc = p->cudnn.create(&p->handle);
	if (rc == CUDNN_STATUS_SUCCESS)
		rc = p->cudnn.set_stream(p->handle, stream);
	if (rc != CUDNN_STATUS_SUCCESS) {
		code = lh_err_set(err, LH_EUNSUPPORTED, "cuDNN %s does not start: %s",
				  p->cudnn.version, p->cudnn.error_string(rc));
		goto fail_handle;
	}
	*out = p;
	return 0;

fail_handle:
	lh_sdpa_plans_free(p);
	*out = NULL;
	return code;
fail_open:
	free(p);
	*out = NULL;
	return code;
}

static void plan_free(struct lh_sdpa_plan *p)
{
	lh_sdpa_graph_release(&p->graph);
	free(p);
}

void lh_sdpa_plans_free(struct lh_sdpa_plans *p)
{
	if (!p)
		return;
	for (int i = 0; i < p->count; i++)
		plan_free(p->plan[i]);
	if (p->handle)
		p->cudnn.destroy(p->handle);
	close_cudnn(&p->cudnn);
	free(p->plan);
	free(p->dir);
	free(p->gpu);
	free(p);
}

/* " 2 forward" or " 2 or 1 forward": the engines of one direction. */
static void list_engines(const struct lh_sdpa_plans *p, bool backward, char *text,
			 size_t bytes)
{
	int64_t seen[CONFIGS];
	int count = 0, used = 0;

	for (int i = 0; i < p->count && count < CONFIGS; i++) {
		const struct lh_sdpa_plan *plan = p->plan[i];
		bool known = plan->shape.backward != backward;

		for (int j = 0; j < count; j++)
			known |= seen[j] == plan->engine;
		if (known)
			continue;
		used += snprintf(text + used, bytes - (size_t)used, "%s %" PRId64,
				 count ? " or" : "", plan->engine);
		seen[count++] = plan->engine;
		if ((size_t)used >= bytes)
			return;
	}
	if (count)
		snprintf(text + used, bytes - (size_t)used, " %s",
			 backward ? "backward" : "forward");
}

void lh_sdpa_plans_describe(const struct lh_sdpa_plans *p, char *text, size_t bytes)
{
	char forward[64] = "", backward[64] = "";

	list_engines(p, false, forward, sizeof(forward));
	list_engines(p, true, backward, sizeof(backward));
	snprintf(text, bytes, "cuDNN %s%s%s%s%s", p->cudnn.version,
		 *forward || *backward ? ", attention engines" : "", forward,
		 *forward && *backward ? "," : "", backward);
}

int lh_sdpa_plans_count(const struct lh_sdpa_plans *p)
{
	return p->count;
}

/* ---- planning -------------------------------------------------------------- */

/* configs (CONFIGS) <- engine configurations, best first; returns how many.
 * `device` describes the GPU when there is no handle. */
static int64_t configurations(struct lh_sdpa_graph *g, cudnnBackendDescriptor_t device,
			      cudnnBackendDescriptor_t *configs)
{
	cudnnBackendDescriptor_t heur = lh_sdpa_make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
	cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
	int64_t found = 0;

	lh_sdpa_set(g, heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
		    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->graph);
	lh_sdpa_set(g, heur, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
	if (device)
		lh_sdpa_set(g, heur, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
			    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &device);
	lh_sdpa_finalize(g, heur, "heuristics");
	for (int i = 0; i < CONFIGS; i++)
		configs[i] = lh_sdpa_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	if (!g->failed)
		lh_sdpa_ok(g, g->cudnn->get(heur, CUDNN_ATTR_ENGINEHEUR_RESULTS,
					    CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS, &found,
					    configs), "heuristics' results");
	if (!g->failed && !found)
		g->failed = lh_err_set(g->err, LH_EUNSUPPORTED,
				       "cuDNN %s has no engine for this attention",
				       g->cudnn->version);
	return g->failed ? 0 : found;
}

static int64_t engine_of(struct lh_sdpa_graph *g, cudnnBackendDescriptor_t config)
{
	cudnnBackendDescriptor_t engine = lh_sdpa_make(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
	int64_t index = -1, n = 0;

	if (!g->failed)
		lh_sdpa_ok(g, g->cudnn->get(config, CUDNN_ATTR_ENGINECFG_ENGINE,
					    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
					    &engine), "engine");
	if (!g->failed)
		lh_sdpa_ok(g, g->cudnn->get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
					    CUDNN_TYPE_INT64, 1, &n, &index),
			   "engine's index");
	return index;
}

/* The first configuration that compiles. */
static int finish_plan(struct lh_sdpa_plan *p)
{
	struct lh_sdpa_graph *g = &p->graph;
	const struct lh_cudnn *c = g->cudnn;
	cudnnBackendDescriptor_t configs[CONFIGS];
	int64_t found = configurations(g, NULL, configs), n;
	cudnnStatus_t rc = CUDNN_STATUS_NOT_SUPPORTED;

	for (int64_t i = 0; i < found && rc != CUDNN_STATUS_SUCCESS; i++) {
		p->plan = lh_sdpa_make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
		if (g->handle)
			lh_sdpa_set(g, p->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
				    CUDNN_TYPE_HANDLE, 1, &g->handle);
		lh_sdpa_set(g, p->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
			    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &configs[i]);
		if (g->failed)
			return g->failed;
		rc = c->finalize(p->plan);
		p->engine = engine_of(g, configs[i]);
	}
	if (!g->failed && lh_sdpa_ok(g, rc, "attention plan"))
		lh_sdpa_ok(g, c->get(p->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
				     CUDNN_TYPE_INT64, 1, &n, &p->workspace),
			   "workspace size");
	return g->failed;
}

/* ---- plans on disk: a line of the engine, then cuDNN's JSON ----------------- */

void lh_sdpa_plans_cache(struct lh_sdpa_plans *p, const char *dir, const char *gpu)
{
	if (p->dir)
		return;
	p->dir = lh_strdup(dir);
	p->gpu = lh_strdup(gpu);
}

static char *file_of(const struct lh_sdpa_plans *plans, const struct lh_sdpa_shape *s)
{
	return lh_cache_name(lh_asprintf(
		"sdpa-%s-%s-%s-b%d-h%d.%d-d%d-t%" PRId64 ".%" PRId64 "-r%" PRId64 ".%" PRId64
		".%" PRId64 ".%" PRId64 "-m%d.json", plans->cudnn.version, plans->gpu,
		s->deterministic ? "bwd-fixed" : s->backward ? "bwd" : "fwd", s->batch,
		s->heads, s->kv_heads, s->head_dim, s->tokens, s->kv_tokens, s->q_row,
		s->kv_row, s->o_row, s->dq_row, s->mask));
}

/* The plan from its file; false when there is none that works. */
static bool load_plan(const struct lh_sdpa_plans *plans, struct lh_sdpa_plan *p)
{
	struct lh_sdpa_graph *g = &p->graph;
	const struct lh_cudnn *c = g->cudnn;
	char *file, *text, *json;
	size_t bytes = 0;
	int64_t n;
	bool good;

	if (!plans->dir)
		return false;
	file = file_of(plans, &p->shape);
	text = lh_cache_read(plans->dir, file, &bytes);
	free(file);
	if (!text)
		return false;
	json = strchr(text, '\n');
	p->plan = lh_sdpa_make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
	good = !g->failed && json && sscanf(text, "engine %" SCNd64, &p->engine) == 1 &&
	       !c->set(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
		       CUDNN_TYPE_CHAR, (int64_t)bytes - (json + 1 - text), json + 1) &&
	       !c->set(p->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
		       &g->handle) &&
	       !c->finalize(p->plan) &&
	       !c->get(p->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
		       1, &n, &p->workspace);
	free(text);
	return good;
}

static void save_plan(const struct lh_sdpa_plans *plans, const struct lh_sdpa_plan *p)
{
	const struct lh_cudnn *c = p->graph.cudnn;
	int64_t bytes = 0;
	char *text, *file, line[40];
	size_t head;

	if (!plans->dir ||
	    c->get(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0,
		   &bytes, NULL) || bytes <= 0)
		return;
	head = (size_t)snprintf(line, sizeof(line), "engine %" PRId64 "\n", p->engine);
	text = lh_alloc(head + (size_t)bytes);
	memcpy(text, line, head);
	file = file_of(plans, &p->shape);
	if (!c->get(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
		    bytes, &bytes, text + head))
		lh_cache_write(plans->dir, file, text, head + (size_t)bytes);
	free(file);
	free(text);
}

static int build_plan(const struct lh_sdpa_plans *plans, struct lh_sdpa_plan *p)
{
	int rc = lh_sdpa_graph_build(&p->graph, &p->shape);

	if (rc || load_plan(plans, p))
		return rc;
	rc = finish_plan(p);
	if (!rc)
		save_plan(plans, p);
	return rc;
}

/* -1: not known of this version. */
static int64_t fast_engine(const struct lh_cudnn *c, bool backward)
{
	for (size_t i = 0; i < sizeof(FAST) / sizeof(*FAST); i++)
		if ((int64_t)c->number / 100 == 900 + FAST[i].minor)
			return FAST[i].engine[backward];
	return -1;
}

static void judge_engine(struct lh_sdpa_plans *plans, const struct lh_sdpa_plan *p)
{
	bool backward = p->shape.backward;
	int64_t fast = fast_engine(&plans->cudnn, backward);

	if (fast < 0 || p->engine == fast || plans->warned[backward])
		return;
	plans->warned[backward] = true;
	lh_warn("cuDNN %s takes its engine %" PRId64 " for attention %s (%d heads of %d), "
		"not %" PRId64 ": steps will be several times slower than estimated",
		plans->cudnn.version, p->engine, backward ? "backward" : "forward",
		p->shape.heads, p->shape.head_dim, fast);
}

static int refuse_shape(const struct lh_sdpa_shape *s, struct lh_err *err)
{
	lh_err_prefix(err, "attention of %d sequences, %" PRId64 " x %" PRId64
		      " tokens, %d/%d heads of %d%s", s->batch, s->tokens, s->kv_tokens,
		      s->heads, s->kv_heads, s->head_dim, s->backward ? ", backward" : "");
	return LH_EUNSUPPORTED;
}

int lh_sdpa_plans_get(struct lh_sdpa_plans *plans, const struct lh_sdpa_shape *shape,
		      const struct lh_sdpa_plan **out, struct lh_err *err)
{
	struct lh_sdpa_plan *p;

	for (int i = 0; i < plans->count; i++)
		if (!memcmp(&plans->plan[i]->shape, shape, sizeof(*shape))) {
			*out = plans->plan[i];
			return 0;
		}
	p = lh_calloc(1, sizeof(*p));
	p->shape = *shape;
	p->graph.cudnn = &plans->cudnn;
	p->graph.handle = plans->handle;
	p->graph.err = err;
	if (build_plan(plans, p)) {
		plan_free(p);
		return refuse_shape(shape, err);
	}
	p->graph.err = NULL;
	judge_engine(plans, p);
	plans->plan = lh_realloc(plans->plan,
				 (size_t)(plans->count + 1) * sizeof(*plans->plan));
	plans->plan[plans->count++] = p;
	*out = p;
	return 0;
}

size_t lh_sdpa_plan_workspace_bytes(const struct lh_sdpa_plan *p)
{
	return (size_t)p->workspace;
}

/* ---- running --------------------------------------------------------------- */

struct pack {
	int64_t uids[LH_SDPA_UIDS];
	void *pointers[LH_SDPA_UIDS];
	int64_t count;
};

static void add(struct pack *k, const struct lh_sdpa_plan *p, enum lh_sdpa_uid uid,
		const void *pointer)
{
	if (!p->graph.uses[uid])
		return;
	k->uids[k->count] = uid;
	memcpy(&k->pointers[k->count++], &pointer, sizeof(pointer));
}

int lh_sdpa_plan_run(struct lh_sdpa_plans *plans, const struct lh_sdpa_plan *p,
		     const struct lh_sdpa_tensors *t, struct lh_err *err)
{
	struct lh_sdpa_graph g = { .cudnn = &plans->cudnn, .err = err };
	float ninf = -INFINITY, one = 1;
	int32_t kv_len = (int32_t)p->shape.kv_tokens, q_len = (int32_t)p->shape.tokens;
	struct pack k = { .count = 0 };
	cudnnBackendDescriptor_t d;

	add(&k, p, LH_SDPA_Q, t->q);
	add(&k, p, LH_SDPA_K, t->k);
	add(&k, p, LH_SDPA_V, t->v);
	add(&k, p, LH_SDPA_O, t->o);
	add(&k, p, LH_SDPA_LSE, t->lse);
	add(&k, p, LH_SDPA_DOUT, t->dout);
	add(&k, p, LH_SDPA_DQ, t->dq);
	add(&k, p, LH_SDPA_DK, t->dk);
	add(&k, p, LH_SDPA_DV, t->dv);
	add(&k, p, LH_SDPA_DELTA, t->delta);
	add(&k, p, LH_SDPA_DQ_SUM, t->dq_sum);
	add(&k, p, LH_SDPA_SCALE, &t->scale);
	add(&k, p, LH_SDPA_NINF, &ninf);
	add(&k, p, LH_SDPA_ONE, &one);
	add(&k, p, LH_SDPA_KV_LEN, &kv_len);
	add(&k, p, LH_SDPA_Q_LEN, &q_len);
	add(&k, p, LH_SDPA_SHIFT, &t->shift);
	d = lh_sdpa_make(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
	lh_sdpa_set(&g, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, k.count,
		    k.uids);
	lh_sdpa_set(&g, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
		    k.count, k.pointers);
	lh_sdpa_set(&g, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
		    &t->workspace);
	lh_sdpa_finalize(&g, d, "variant pack");
	if (!g.failed)
		lh_sdpa_ok(&g, plans->cudnn.execute(plans->handle, p->plan, d),
			   "attention");
	lh_sdpa_graph_release(&g);
	return g.failed;
}

/* ---- without a GPU --------------------------------------------------------- */

int lh_sdpa_probe(const char *device_json, const struct lh_sdpa_shape *shape,
		  int64_t *engine, int64_t *workspace_bytes, struct lh_err *err)
{
	struct lh_cudnn cudnn = { 0 };
	struct lh_sdpa_graph *g;
	cudnnBackendDescriptor_t configs[CONFIGS], device;
	int64_t n;
	int rc = open_cudnn(&cudnn, err);

	if (rc)
		return rc;
	g = lh_calloc(1, sizeof(*g));
	g->cudnn = &cudnn;
	g->err = err;
	device = lh_sdpa_make(g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
	lh_sdpa_set(g, device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
		    (int64_t)strlen(device_json) + 1, device_json);
	lh_sdpa_finalize(g, device, "device description");
	if (!lh_sdpa_graph_build(g, shape) && configurations(g, device, configs)) {
		*engine = engine_of(g, configs[0]);
		if (!g->failed)
			lh_sdpa_ok(g, cudnn.get(configs[0],
						CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE,
						CUDNN_TYPE_INT64, 1, &n, workspace_bytes),
				   "workspace size");
	}
	rc = g->failed;
	lh_sdpa_graph_release(g);
	free(g);
	close_cudnn(&cudnn);
	return rc;
}
