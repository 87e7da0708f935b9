/* jobfile_int.h: the job file's insides: the generated key table, and the tree
 * that YAML, overrides and JSON all become before they are read. For
 * jobfile*.c and the tests only. */
#ifndef LIGHTHOUSE_JOBFILE_INT_H
#define LIGHTHOUSE_JOBFILE_INT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lighthouse/job.h"

enum lh_key_type { LH_KEY_STRING, LH_KEY_INTEGER, LH_KEY_NUMBER, LH_KEY_BOOLEAN,
		   LH_KEY_ENUM, LH_KEY_PATH, LH_KEY_PATHS, LH_KEY_SETS,
		   LH_KEY_LAYERS };

struct lh_key {
	const char *path;     /* "model.dim"; of a phase: "until.steps" */
	enum lh_key_type type;
	size_t offset, bytes; /* in struct lh_job or lh_job_phase */
	int64_t min, max;     /* LH_KEY_INTEGER */
	double min_number, max_number; /* LH_KEY_NUMBER */
	size_t max_bytes;     /* LH_KEY_STRING, LH_KEY_PATH */
	bool required;
	bool lighthouse;      /* means nothing in a phase of full attention */
	const char *fallback; /* as it would stand in the file */
	const char *names[8]; /* LH_KEY_ENUM, in the order of the enum; LH_KEY_PATH: words
			       * that are no paths */
	const char *doc;
};

/* Generated from schema/job.json. */
extern const struct lh_key lh_job_keys[], lh_phase_keys[], lh_rule_keys[];
extern const int lh_job_keys_count, lh_phase_keys_count, lh_rule_keys_count;

struct lh_preset { /* one key of one preset; the list ends with NULLs */
	const char *name, *path, *value;
};
extern const struct lh_preset lh_presets[];

enum lh_node_kind { LH_NODE_SCALAR, LH_NODE_LIST, LH_NODE_MAP };

struct lh_node {
	enum lh_node_kind kind;
	char *key;            /* in its map, or NULL */
	char *text;           /* scalar */
	bool quoted;          /* a scalar that can only be a string */
	int line;             /* 1-based; 0 = not from a file */
	const char *origin;   /* borrowed: file name or "--set a.b=c" */
	struct lh_node **child;
	int count;
};

void lh_node_free(struct lh_node *n); /* NULL is allowed */
/* Child of a map, or NULL. */
struct lh_node *lh_node_get(const struct lh_node *map, const char *key);
/* A scalar that is text to YAML: quoted, or none of its other words (null, true). */
bool lh_node_is_text(const struct lh_node *n);
/* Adds, or replaces the child of the same key; takes `child`. */
void lh_node_put_take(struct lh_node *map, const char *key, struct lh_node *child);

/* One YAML document, strictly; see jobfile.h. */
int lh_node_from_yaml(struct lh_node **out, const char *text, size_t bytes,
		      const char *origin, struct lh_err *err);
struct lh_node *lh_node_from_json(const json_t *json);
/* "a.b=value", "phases.0.topk=8" or "phases.NAME.topk=8" into the tree. */
int lh_node_override(struct lh_node *root, const char *set, struct lh_err *err);

struct lh_reader {
	const struct lh_node *root;
	const char *base_dir; /* NULL: paths are taken as they stand */
	const char *prefix;   /* of paths in messages: "" or "phases.0." */
	struct lh_err *err;
};

/* ---- jobfile.c: one value -------------------------------------------------- */
/* A value that is refused: what was found, what is allowed. */
int lh__reader_refuse(const struct lh_reader *r, const struct lh_node *n,
		      const char *path, const struct lh_key *key, const char *allowed);
int lh__read_number(const struct lh_reader *r, const struct lh_node *n, const char *path,
		    const struct lh_key *key, void *out);
int lh__read_string(const struct lh_reader *r, const struct lh_node *n, const char *path,
		    const struct lh_key *key, char **out);

/* ---- jobfile_paths.c ------------------------------------------------------- */
int lh__read_path(const struct lh_reader *r, const struct lh_node *n, const char *path,
		  const struct lh_key *key, char **out);
/* Shards, or a mixture of them. */
int lh__read_paths(const struct lh_reader *r, const struct lh_node *n, const char *path,
		   const struct lh_key *key, struct lh_job_data *d);

/* ---- jobfile_sets.c -------------------------------------------------------- */
/* Refuses a name that is none, or that another of `what` ("sets") has: `is_known`. `at`:
 * the node that gave it. */
int lh__check_name(const struct lh_reader *r, const struct lh_node *at, const char *path,
		   const char *what, const char *name, bool is_known);
/* A path, a section of NAME: PATH, or a list of { name, path } into the sets of a key. */
int lh__read_sets(const struct lh_reader *r, const struct lh_node *n, const char *path,
		  const struct lh_key *key, struct lh_job *job);
/* What lh__read_sets reads: a path alone where there is one without a name. */
json_t *lh__sets_json(const struct lh_key *key, const struct lh_job *job);

/* The tree into a zeroed job: types, ranges, presets, defaults, unknown keys. */
int lh_jobfile_read(struct lh_job *job, const struct lh_node *root,
		    const char *base_dir, struct lh_err *err);
/* What several keys decide together. `root` gives the lines. */
int lh_jobfile_check(const struct lh_job *job, const struct lh_node *root,
		     struct lh_err *err);
/* ---- jobfile_context.c ----------------------------------------------------- */
/* Whether the job's devices can share its sequences, and a Lighthouse phase, which is sound,
 * can be done in pieces of them. */
int lh_jobfile_check_context(const struct lh_job *job, const struct lh_node *root,
			     struct lh_err *err);
int lh_jobfile_check_pieces(const struct lh_job *job, int phase, const struct lh_node *root,
			    struct lh_err *err);
/* For a job file only: lhd must load every job it has accepted, and there were
 * days when phases could be named anything. */
int lh_jobfile_check_names(const struct lh_job *job, const struct lh_node *root,
			   struct lh_err *err);
int lh_jobfile_check_data(const struct lh_job *job, const struct lh_node *root,
			  struct lh_err *err);

/* Gives the model section, and data.tokenizer, what the weights that it starts from say of
 * themselves, and *model what that is, if there are any (new reference, else NULL). */
int lh_jobfile_fill_from(struct lh_node *root, const char *base_dir, json_t **model,
			 struct lh_err *err);
/* Whether the job's model can have these weights. */
int lh_jobfile_check_from(const struct lh_job *job, const json_t *model,
			  const struct lh_node *root, struct lh_err *err);

/* "ORIGIN:LINE: PATH: " before the sentence of `err`. Returns err->code. */
int lh_node_blame(const struct lh_node *n, const char *path, struct lh_err *err);
/* The node of a dotted path ("phases.1.topk"), or its nearest ancestor. */
const struct lh_node *lh_node_find(const struct lh_node *root, const char *path);

#endif
