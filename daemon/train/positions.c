/* positions.c: see positions.h. */
#include "train/positions.h"

#include <math.h>
#include <string.h>

#include "lighthouse/err.h"

/* Edges seq_len^(i/32), rounded; those that fall together are one. */
void lh_positions_init(struct lh_positions *p, int64_t seq_len)
{
	memset(p, 0, sizeof(*p));
	for (int i = 1; i <= LH_POSITIONS_MAX; i++) {
		double at = pow((double)seq_len, (double)i / LH_POSITIONS_MAX);
		int64_t edge = i == LH_POSITIONS_MAX ? seq_len : (int64_t)round(at);

		if (edge > p->edge[p->count])
			p->edge[++p->count] = edge;
	}
}

void lh_positions_add(struct lh_positions *p, const int32_t *targets,
		      const int32_t *starts, const float *row_loss)
{
	int64_t tokens = p->edge[p->count];
	int i = 0;

	for (int64_t t = 0; t < tokens; t++) {
		int64_t place = starts ? t - starts[t] : t;

		i = place ? i : 0;
		while (place >= p->edge[i + 1])
			i++;
		if (targets[t] < 0)
			continue;
		p->nats[i] += row_loss[t];
		p->tokens[i]++;
	}
}

void lh_positions_join(struct lh_positions *p, const struct lh_positions *more)
{
	for (int i = 0; i < p->count; i++) {
		p->nats[i] += more->nats[i];
		p->tokens[i] += more->tokens[i];
	}
}

json_t *lh_positions_json(const struct lh_positions *p)
{
	json_t *edges = json_array(), *loss = json_array(), *tokens = json_array();

	json_array_append_new(edges, json_integer(p->edge[0]));
	for (int i = 0; i < p->count; i++) {
		bool known = p->tokens[i] && isfinite(p->nats[i]);

		json_array_append_new(edges, json_integer(p->edge[i + 1]));
		json_array_append_new(loss, known ? json_real(p->nats[i] /
							      (double)p->tokens[i]) :
						    json_null());
		json_array_append_new(tokens, json_integer(p->tokens[i]));
	}
	return json_pack("{s:o, s:o, s:o}", "edges", edges, "loss", loss, "tokens", tokens);
}
