/* attention.h: one layer's attention from a packed projection, full or
 * Lighthouse, forward and backward: the order in which ops are called.
 *
 * The packed rows qkv (R, (H+2G)*D) hold q, k, v before rotation. Full attention
 * rotates q and k in place and keeps them so; Lighthouse attention leaves the
 * rows raw (they are dead after the gather) and keeps the sub-sequence. With norms,
 * both normalize q and k in place before they are rotated. Selection comes before
 * that: rows of one length would all score alike. Entries are means of normalized
 * rows, so that those of level 0 are what full attention has. Documents of `heads` stay
 * apart in the sub-sequence too: sub_start is theirs there.
 * Of a sequence that several ranks share (context.h) the rows here are this rank's: its two
 * pieces, one after the other, each with its own part of every tensor below. Then all calls
 * but redo_inputs are collective; others' keys come while pieces attend to their own.
 * Buffers belong to the model's arenas. Training thread only.
 */
#ifndef LIGHTHOUSE_ATTENTION_H
#define LIGHTHOUSE_ATTENTION_H

#include "lighthouse/ops.h"
#include "train/context.h"
#include "train/model.h"

/* From forward to backward. */
struct lh_attention_saved {
	lh_act *qkv;     /* (R,(H+2G)*D) */
	lh_act *o;       /* (R,H*D) */
	float *lse;      /* (B,H,T) or (B,H,S) */
	int32_t *index;  /* (B,H,S) */
	lh_act *qs, *ks, *vs, *os; /* (B,S,H,D) */
};

/* Norms of q and k, each with a gain (D). */
struct lh_attention_norm {
	const lh_act *q_gain, *k_gain;
	float *dq_gain, *dk_gain;
	float eps;
};

/* Dead when a call returns. */
struct lh_attention_scratch {
	float *score_q, *score_k;     /* (B,H,P), of one piece at a time */
	void *score;                  /* of the scorer */
	int32_t *map;                 /* (B,H,P) */
	lh_act *dqs, *dks, *dvs, *dos; /* (B,S,H,D) */
	struct lh_context_scratch context; /* of a shared sequence */
};

struct lh_attention_call {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	struct lh_heads heads;        /* rows of qkv and o: all of this rank's */
	/* heads.start of the sub-sequence, (B,S), or NULL */
	const int32_t *sub_start, *sub_start_host;
	const struct lh_rope *rope;             /* of a sequence */
	const struct lh_attention_norm *norm;   /* NULL: none */
	const struct lh_lighthouse *lighthouse; /* of a sequence; NULL: full attention */
	/* Ranks that share the sequence, one, of which `heads` are this rank's rows; NULL:
	 * sequences are whole. */
	const struct lh_comm *context;
};

/* The SDPA of one layer: of the rows themselves, or (g) of the sub-sequence,
 * contiguous (B,S,H,D), every head with K, V of its own; it as one document. */
struct lh_sdpa lh_attention_sdpa(const struct lh_lighthouse *g, struct lh_heads heads);
/* The same of a piece, g and heads its own: it sees the pieces before, too. Rows hold keys
 * and values of them, as those of context.h do. */
struct lh_sdpa lh_attention_piece_sdpa(const struct lh_lighthouse *g, struct lh_heads heads,
				       int piece);

/* saved->o <- attention of saved->qkv. lse, when it is not NULL, os, qs, ks, vs
 * and index are what backward needs. */
void lh_attention_forward(const struct lh_attention_call *a,
			  const struct lh_attention_saved *saved,
			  const struct lh_attention_scratch *scratch);
/* Once more, with lse, index and os as forward left them: what backward needs of
 * fresh qkv rows (rotation; qs, ks, vs), and o (Lighthouse only). */
void lh_attention_redo_inputs(const struct lh_attention_call *a,
			      const struct lh_attention_saved *saved);
void lh_attention_redo_output(const struct lh_attention_call *a,
			      const struct lh_attention_saved *saved,
			      const struct lh_attention_scratch *scratch);
/* dqkv (R,(H+2G)*D) <- gradient of the rows before rotation and norm, from dout
 * (R,H*D). raw: those rows once more, where there are norms; else NULL. */
void lh_attention_backward(const struct lh_attention_call *a,
			   const struct lh_attention_saved *saved,
			   const struct lh_attention_scratch *scratch, lh_act *dqkv,
			   const lh_act *dout, lh_act *raw);

#endif
