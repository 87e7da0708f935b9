/* trace.cuh: a table of ops that times every call with CUDA events.
 *
 *   struct lh_ops ops = trace_ops(&lh_ops_cuda);   one trace at a time
 *   ... use ops ...; sync; trace_print(stdout); trace_reset();
 *
 * Events cost about a microsecond a call: sums are right, short ops a little
 * long. */
#ifndef LIGHTHOUSE_TESTS_TRACE_CUH
#define LIGHTHOUSE_TESTS_TRACE_CUH

#include <algorithm>
#include <map>
#include <stdio.h>
#include <string>
#include <utility>
#include <vector>

#include "cuda.h"

struct trace_call {
	std::string name;
	cudaEvent_t from, to;
};
static std::vector<trace_call> trace_calls;
static const struct lh_ops *trace_inner;

/* Wraps one member of struct lh_ops; `label` tells calls of different kinds apart. */
template <auto Member> struct trace_wrap;
template <typename R, typename... A, R (*lh_ops::*Member)(struct lh_dev *, A...)>
struct trace_wrap<Member> {
	static inline const char *name;
	static std::string label() { return ""; }
	template <typename First, typename... Rest>
	static std::string label(First first, Rest...)
	{
		char text[64] = "";

		if constexpr (std::is_same_v<First, const struct lh_sdpa *>)
			snprintf(text, sizeof(text), " %lld of %lld",
				 (long long)first->heads.tokens, (long long)first->kv_tokens);
		if constexpr (std::is_same_v<First, const struct lh_linear *>)
			snprintf(text, sizeof(text), " %lld>%lld", (long long)first->in,
				 (long long)first->out);
		return text;
	}
	static R call(struct lh_dev *dev, A... args)
	{
		trace_call c = { name + label(args...), NULL, NULL };

		cudaEventCreate(&c.from);
		cudaEventCreate(&c.to);
		cudaEventRecord(c.from, dev->stream);
		(trace_inner->*Member)(dev, args...);
		cudaEventRecord(c.to, dev->stream);
		trace_calls.push_back(c);
	}
};

static struct lh_ops trace_ops(const struct lh_ops *inner)
{
	struct lh_ops o = *inner;

	trace_inner = inner;
#define TRACE(member)                                                                 \
	trace_wrap<&lh_ops::member>::name = #member;                                  \
	o.member = trace_wrap<&lh_ops::member>::call
	TRACE(linear);
	TRACE(linear_dx);
	TRACE(linear_dw);
	TRACE(rmsnorm);
	TRACE(rmsnorm_bwd);
	TRACE(rope);
	TRACE(swiglu);
	TRACE(swiglu_bwd);
	TRACE(embed);
	TRACE(embed_bwd);
	TRACE(xent);
	TRACE(sdpa);
	TRACE(sdpa_bwd);
	TRACE(lighthouse_score);
	TRACE(lighthouse_select);
	TRACE(lighthouse_map);
	TRACE(lighthouse_gather);
	TRACE(lighthouse_gather_bwd);
	TRACE(lighthouse_scatter);
	TRACE(lighthouse_scatter_bwd);
	TRACE(lighthouse_halo);
	TRACE(lighthouse_halo_add);
	TRACE(lighthouse_halo_bwd);
	TRACE(lighthouse_halo_put);
	TRACE(copy_rows);
	TRACE(sum_rows);
	TRACE(norm);
	TRACE(adamw);
	TRACE(zero);
#undef TRACE
	return o;
}

static void trace_reset(void)
{
	for (trace_call &c : trace_calls) {
		cudaEventDestroy(c.from);
		cudaEventDestroy(c.to);
	}
	trace_calls.clear();
}

/* Milliseconds from the first call to the end of the last. After a sync. */
static double trace_span_ms(void)
{
	float span = 0;

	if (!trace_calls.empty())
		cudaEventElapsedTime(&span, trace_calls.front().from, trace_calls.back().to);
	return span;
}

/* The share of that in which no call ran. */
static double trace_idle(void)
{
	double span = trace_span_ms(), busy = 0;
	float ms = 0;

	for (trace_call &c : trace_calls) {
		cudaEventElapsedTime(&ms, c.from, c.to);
		busy += ms;
	}
	return span > 0 ? (span - busy) / span : 0;
}

/* After a sync: milliseconds by op, the span of all, and what lay idle between. */
static void trace_print(FILE *f)
{
	std::map<std::string, std::pair<int, double>> sums;
	std::vector<std::pair<double, std::string>> order;
	double span = trace_span_ms(), idle = trace_idle();
	float ms = 0;

	for (trace_call &c : trace_calls) {
		cudaEventElapsedTime(&ms, c.from, c.to);
		sums[c.name].first++;
		sums[c.name].second += ms;
	}
	for (auto &s : sums)
		order.push_back({ s.second.second, s.first });
	std::sort(order.rbegin(), order.rend());
	fprintf(f, "  %9.2f ms from the first op to the last, %.2f idle (%.2f %%)\n", span,
		span * idle, 100 * idle);
	for (auto &o : order)
		fprintf(f, "  %9.2f ms %5.1f %%  %4d x %s\n", o.first, 100 * o.first / span,
			sums[o.second].first, o.second.c_str());
}

#endif
