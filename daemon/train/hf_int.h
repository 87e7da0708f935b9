/* hf_int.h: the two forms of a model side by side, for hf_*.c and tests only. */
#ifndef LIGHTHOUSE_HF_INT_H
#define LIGHTHOUSE_HF_INT_H

#include <jansson.h>

#include "base/publish.h"
#include "data/vocabulary.h"
#include "lighthouse/job.h"
#include "train/hf.h"
#include "train/params.h"

#define LH_HF_CONFIG "config.json"
#define LH_HF_SINGLE "model.safetensors"
#define LH_HF_INDEX "model.safetensors.index.json"

enum { LH_HF_PIECES_MAX = 3 };

/* One of their tensors, which is a run of elements of one of ours. */
struct lh_hf_piece {
	char name[96];
	int dims;
	int64_t shape[2];
	int64_t from, count; /* elements of our tensor */
};

/* How many there are, in order; together they are the whole tensor. */
int lh_hf_pieces(struct lh_hf_piece piece[LH_HF_PIECES_MAX], const struct lh_param *p,
		 const struct lh_job_model *c);

/* Class of transformers that computes this model. LH_EUNSUPPORTED: none does. */
int lh_hf_class(const struct lh_job_model *c, const char **name, struct lh_err *err);
/* config.json and generation_config.json of it; new references. `v`: of the tokenizer's
 * file; NULL: the job has none. */
json_t *lh_hf_config_of(const struct lh_job *job, enum lh_tensor_type type,
			const struct lh_vocabulary *v);
json_t *lh_hf_generation_of(const struct lh_job *job, const struct lh_vocabulary *v);

/* Our job of their config: its model, their context as data.seq_len, and for the rest
 * what a job must have. LH_EUNSUPPORTED: our model cannot compute theirs. */
int lh_hf_job_of(struct lh_job *job, const char **class, const json_t *config,
		 struct lh_err *err);

/* A directory of theirs: hf_dir.c. */
struct lh_hf_dir {
	char *path;  /* without links */
	char *root;  /* whatever is read lies in it */
	json_t *config;
	struct lh_safetensors *file;
	char **name; /* of each */
	int files, tensors;
	json_t *map; /* tensor -> name of its file; NULL: there is one file */
};
/* Opens all of its files. Errors name what they are about within `path`. */
int lh_hf_dir_open(struct lh_hf_dir *d, const char *path, struct lh_err *err);
void lh_hf_dir_close(struct lh_hf_dir *d); /* zeroed is allowed */
/* NAME in a directory, links resolved; heap. NULL and *err: LH_ENOTFOUND, or LH_ECORRUPT
 * for one that leads out of it. */
char *lh_hf_file(const char *dir, const char *name, struct lh_err *err);
/* NULL when there is none; *file is the one it lies in. */
const struct lh_tensor *lh_hf_dir_find(const struct lh_hf_dir *d, const char *name,
				       int *file);

/* hf_tokenizer.c: *path: of the directory's tokenizer (heap), NULL where there is none or
 * *left_out says why it is not taken. LH_ECORRUPT: a file of it is a link out of there. */
int lh_hf_tokenizer_find(const char *dir, int64_t vocab, char **path,
			 struct lh_err *left_out, struct lh_err *err);
/* A tokenizer, by the name that others look for, and what belongs to it beside it. */
int lh_hf_tokenizer_copy(const char *path, const struct lh_vocabulary *v,
			 const struct lh_publish *out, struct lh_err *err);

#endif
