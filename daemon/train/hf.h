/* hf.h: models in Hugging Face's form: config.json and sharded safetensors.
 *
 * Llama, Mistral without its window, Qwen2 and Qwen3.
 * What trains here has the same arithmetic: RMSNorm, SwiGLU, rotary positions in
 * half-split order. So tensors differ in their names alone, and in that ours are
 * packed: q, k, v and gate, up are rows of one. No element is permuted.
 *
 * A tensor at a time, in pieces, from mapped files: memory stays small however large
 * the model is. What is written appears complete or not at all (base/publish.h).
 * No device; blocking; one thread.
 */
#ifndef LIGHTHOUSE_HF_H
#define LIGHTHOUSE_HF_H

#include "data/safetensors.h"

/* Of a file, if not said otherwise; a tensor that is larger has one of its own. */
#define LH_HF_FILE_BYTES INT64_C(5000000000)

struct lh_hf_progress { /* zeroed: nobody asks */
	void (*moved)(void *arg, int64_t done_bytes, int64_t all_bytes);
	void *arg;
};

struct lh_hf_export {
	enum lh_tensor_type type; /* float32, bf16 or fp16 */
	int64_t file_bytes;       /* tensors of a file together, at most */
	bool replace;             /* an export that is there */
	struct lh_hf_progress progress;
};

/* What was written. */
struct lh_hf_written {
	int files;            /* of tensors */
	int64_t bytes;        /* of them */
	int64_t parameters;
	int64_t step;         /* of the checkpoint; 0 of an import */
	const char *model;    /* "LlamaForCausalLM" */
	bool has_tokenizer;   /* that is a file: copied, or named */
	struct lh_err left_out; /* why not, if it is wanted; code 0: it is not */
};

/* The parameters of a checkpoint as DIR, that transformers loads, with the tokenizer of
 * its job. LH_EUNSUPPORTED: no class of it computes this; LH_ETOOBIG: a number is out of
 * the type's range. */
int lh_hf_export(const char *checkpoint, const char *dir, const struct lh_hf_export *how,
		 struct lh_hf_written *written, struct lh_err *err);

/* The model in the directory `from` as a checkpoint DIR of weights alone, in the types
 * that they have: the start of a job (model.from), or of an export. Its tokenizer stays
 * where it is and is named (data.tokenizer). `from` is foreign: LH_ECORRUPT
 * or LH_ENOTFOUND tells what is missing, of another shape, or leads out of it (a link,
 * but for those of the cache that Hugging Face's own tools keep); LH_EUNSUPPORTED what
 * its model computes that ours does not. */
int lh_hf_import(const char *from, const char *dir, bool replace,
		 const struct lh_hf_progress *progress, struct lh_hf_written *written,
		 struct lh_err *err);

#endif
