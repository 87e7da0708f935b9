/* jobfile_check.c: what several keys of a job decide together, and the data.
 *
 * Each refusal names the one key to change, with its line. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "data/vocabulary.h"
#include "jobs/jobfile.h"
#include "jobs/jobfile_int.h"
#include "join/address.h"
#include "lighthouse/shard.h"
#include "train/choices.h"
#include "train/passkey.h"

/* Finishes an error that is set: place and key in front. */
static int blame(const struct lh_node *root, const char *path, struct lh_err *err)
{
	return lh_node_blame(lh_node_find(root, path), path, err);
}

/* A name of a job or phase: one that a terminal, a command line and a path can
 * take, and that no job number or phase index can be mistaken for. */
static int check_name(const char *name, const struct lh_node *root, const char *path,
		      struct lh_err *err)
{
	const char *ok = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	if (strspn(name, ok) == strlen(name) &&
	    strspn(name, "0123456789") != strlen(name))
		return 0;
	lh_err_set(err, LH_EJOBFILE, "found '%s', letters, digits, '.', '_' and '-' are "
		   "allowed, and not digits alone", name);
	lh_err_hint(err, "jobs and phases are also known by their numbers");
	return blame(root, path, err);
}

static int check_rope(const struct lh_job_model *m, const struct lh_node *root,
		      struct lh_err *err)
{
	const struct lh_job_rope_scaling *r = &m->rope_scaling;

	if (r->type != LH_ROPE_LLAMA3 && r->type != LH_ROPE_YARN)
		return 0;
	if (!r->original_tokens) {
		lh_err_set(err, LH_EJOBFILE, "this scaling needs to know the context before");
		lh_err_hint(err, "the tokens of a sequence that the model was trained with");
		return blame(root, "model.rope_scaling.original_tokens", err);
	}
	if (r->type == LH_ROPE_LLAMA3 && r->high_freq_factor <= r->low_freq_factor) {
		lh_err_set(err, LH_EJOBFILE, "found %g, more than low_freq_factor (%g) is "
			   "allowed", r->high_freq_factor, r->low_freq_factor);
		lh_err_hint(err, "Llama 3.1 has 1 and 4");
		return blame(root, "model.rope_scaling.high_freq_factor", err);
	}
	if (r->type == LH_ROPE_YARN && r->beta_fast < r->beta_slow) {
		lh_err_set(err, LH_EJOBFILE, "found %g, beta_slow (%g) or more is allowed",
			   r->beta_fast, r->beta_slow);
		lh_err_hint(err, "the paper has 32 and 1");
		return blame(root, "model.rope_scaling.beta_fast", err);
	}
	if (r->type == LH_ROPE_YARN && m->rope_theta <= 1) {
		lh_err_set(err, LH_EJOBFILE, "all angles turn alike, yarn has nothing to "
			   "choose among");
		lh_err_hint(err, "10000 is usual");
		return blame(root, "model.rope_theta", err);
	}
	return 0;
}

static int check_model(const struct lh_job *job, const struct lh_node *root,
		       struct lh_err *err)
{
	const struct lh_job_model *m = &job->model;

	if (m->heads % m->kv_heads) {
		lh_err_set(err, LH_EJOBFILE, "found %d, which does not divide the %d heads",
			   m->kv_heads, m->heads);
		lh_err_hint(err, "kv_heads 0 means as many as heads");
		return blame(root, "model.kv_heads", err);
	}
	if (!m->head_dim) {
		lh_err_set(err, LH_EJOBFILE, "found %d, which does not divide dim (%" PRId64
			   ")", m->heads, m->dim);
		lh_err_hint(err, "another number of heads, or a head_dim of your own");
		return blame(root, "model.heads", err);
	}
	if (m->head_dim < 2 || m->head_dim % 2) {
		lh_err_set(err, LH_EJOBFILE, "the width of a head is %d, an even number from "
			   "2 is allowed", m->head_dim);
		lh_err_hint(err, "it is dim / heads unless given");
		return blame(root, "model.head_dim", err);
	}
	if (lh_job_tokenizer(job) == LH_TOKENIZER_BYTES && m->vocab < LH_BYTES_VOCAB) {
		lh_err_set(err, LH_EJOBFILE, "found %" PRId64 ", the byte tokenizer needs %d "
			   "or more", m->vocab, LH_BYTES_VOCAB);
		lh_err_hint(err, "256 bytes and the separator of documents");
		return blame(root, "model.vocab", err);
	}
	return check_rope(m, root, err);
}

static int check_join(const struct lh_job *job, const struct lh_node *root,
		      struct lh_err *err)
{
	if (!*job->join)
		return 0;
	if (lh_address_check(job->join, err)) {
		err->code = LH_EJOBFILE;
		return blame(root, "join", err);
	}
	if (job->devices > 1 && !job->all_devices)
		return 0;
	lh_err_set(err, LH_EJOBFILE, "ranks that join are counted by devices:, which is %s",
		   job->all_devices ? "all" : "1");
	lh_err_hint(err, "devices: as many as your launcher starts, 2 or more");
	return blame(root, "devices", err);
}

static int check_batch(const struct lh_job *job, const struct lh_node *root,
		       struct lh_err *err)
{
	const struct lh_job_batch *b = &job->batch;
	int64_t share = lh_job_share(job), groups = lh_job_groups(job);

	if (b->sequences % groups) {
		if (job->context > 1)
			lh_err_set(err, LH_EJOBFILE, "found %d, whose %" PRId64 " groups of %d "
				   "do not divide the %" PRId64 " sequences", job->devices,
				   groups, job->context, b->sequences);
		else
			lh_err_set(err, LH_EJOBFILE, "found %d, which does not divide the %"
				   PRId64 " sequences", job->devices, b->sequences);
		lh_err_hint(err, "each %s takes as many sequences of a step, e.g. of %" PRId64,
			    job->context > 1 ? "group" : "device",
			    (b->sequences / groups + 1) * groups);
		return blame(root, "devices", err);
	}
	if (!b->micro_sequences || share % b->micro_sequences == 0)
		return 0;
	lh_err_set(err, LH_EJOBFILE, "found %" PRId64 ", which does not divide the %" PRId64
		   " sequences%s", b->micro_sequences, share,
		   job->devices > 1 ? " of a device" : "");
	lh_err_hint(err, "0 means all of them at once");
	return blame(root, "batch.micro_sequences", err);
}

static int check_schedule(const struct lh_job *job, const struct lh_node *root,
			  struct lh_err *err)
{
	const struct lh_job_optimizer *o = &job->optimizer;
	int64_t total = lh_jobfile_total_steps(job);

	if (o->schedule != LH_SCHEDULE_CONSTANT && total < 0) {
		lh_err_set(err, LH_EJOBFILE, "this schedule needs to know how many steps "
			   "there are");
		lh_err_hint(err, "schedule: constant, or phases that end after steps or "
			    "tokens");
		return blame(root, "optimizer.schedule", err);
	}
	if (total >= 0 && o->warmup_steps > total) {
		lh_err_set(err, LH_EJOBFILE, "found %" PRId64 ", the phases have %" PRId64
			   " steps in all", o->warmup_steps, total);
		lh_err_hint(err, "a shorter warm-up");
		return blame(root, "optimizer.warmup_steps", err);
	}
	return 0;
}

static int check_passkey(const struct lh_job *job, const struct lh_node *root,
			 struct lh_err *err)
{
	const char *path = "evaluation.passkey.every_steps";
	bool bytes = lh_job_tokenizer(job) == LH_TOKENIZER_BYTES;
	bool file = *job->evaluation.passkey.file;

	if (bytes && file) {
		lh_err_set(err, LH_EJOBFILE, "the job's ids are bytes, whose words are built in");
		lh_err_hint(err, "leave it out; or name the tokenizer in data.tokenizer");
		return blame(root, "evaluation.passkey.file", err);
	}
	if (!job->evaluation.passkey.every_steps)
		return 0;
	if (!bytes && !file) {
		lh_err_set(err, LH_EJOBFILE, "the job's ids are not bytes, and it has no words "
			   "to hide digits in");
		lh_err_hint(err, "evaluation.passkey.file: 'lhctl ids --passkey' makes it of a "
			    "tokenizer; or every_steps: 0");
		return blame(root, path, err);
	}
	if (job->data.seq_len >= LH_PASSKEY_CONTEXT_MIN)
		return 0;
	lh_err_set(err, LH_EJOBFILE, "sequences of %" PRId64 " tokens hide no digit",
		   job->data.seq_len);
	lh_err_hint(err, "a seq_len from %d, or every_steps: 0", LH_PASSKEY_CONTEXT_MIN);
	return blame(root, path, err);
}

static int check_choices(const struct lh_job *job, const struct lh_node *root,
			 struct lh_err *err)
{
	if (!job->evaluation.choices.every_steps || job->evaluation.choices.file_count)
		return 0;
	lh_err_set(err, LH_EJOBFILE, "there is nothing to choose from");
	lh_err_hint(err, "evaluation.choices.files, or every_steps: 0");
	return blame(root, "evaluation.choices.every_steps", err);
}

/* Lighthouse keys that stand in a full phase. */
static int check_full(int i, const struct lh_node *root, struct lh_err *err)
{
	for (int k = 0; k < lh_phase_keys_count; k++) {
		const struct lh_key *key = &lh_phase_keys[k];
		const struct lh_node *phase, *n;
		char path[80];

		snprintf(path, sizeof(path), "phases.%d", i);
		phase = lh_node_find(root, path);
		n = lh_node_get(phase, key->path);
		if (!n || !key->lighthouse)
			continue;
		lh_err_set(err, LH_EJOBFILE, "means nothing in a phase of full attention");
		lh_err_hint(err, "remove it, or attention: lighthouse");
		snprintf(path, sizeof(path), "phases.%d.%s", i, key->path);
		return lh_node_blame(n, path, err);
	}
	return 0;
}

/* Residue classes of tokens would go through several documents. */
static int check_scorer(const struct lh_job *job, int i, const struct lh_node *root,
			struct lh_err *err)
{
	char path[80];

	if (job->data.documents == LH_DOCUMENTS_ATTEND ||
	    job->phases[i].lighthouse.scorer != LH_SCORER_DILATED)
		return 0;
	lh_err_set(err, LH_EJOBFILE, "this scorer attends across documents, which "
		   "data.documents keeps apart");
	lh_err_hint(err, "scorer: norm, or data.documents: attend");
	snprintf(path, sizeof(path), "phases.%d.scorer", i);
	return blame(root, path, err);
}

static int check_phase(const struct lh_job *job, int i, const struct lh_node *root,
		       struct lh_err *err)
{
	const struct lh_job_phase *p = &job->phases[i];
	const char *key = NULL;
	char path[80];

	for (int j = 0; j < i; j++) {
		if (strcmp(job->phases[j].name, p->name))
			continue;
		lh_err_set(err, LH_EJOBFILE, "two phases are named '%s'", p->name);
		lh_err_hint(err, "each phase needs a name of its own");
		snprintf(path, sizeof(path), "phases.%d.name", i);
		return blame(root, path, err);
	}
	if (!p->until.manual == !(p->until.steps || p->until.tokens || p->until.minutes > 0)) {
		lh_err_set(err, LH_EJOBFILE, p->until.manual ?
				   "a manual phase has no other limit" :
				   "the phase has no end");
		lh_err_hint(err, "until: { steps: N }, { tokens: N }, { minutes: N }, or "
			    "until: manual");
		snprintf(path, sizeof(path), "phases.%d.until", i);
		return blame(root, path, err);
	}
	if (p->attention == LH_ATTENTION_FULL)
		return check_full(i, root, err);
	if (!lh_lighthouse_check(&p->lighthouse, &key, err))
		return check_scorer(job, i, root, err) ? err->code :
			lh_jobfile_check_pieces(job, i, root, err);
	err->code = LH_EJOBFILE;
	if (!strcmp(key, "seq_len"))
		snprintf(path, sizeof(path), "data.seq_len");
	else
		snprintf(path, sizeof(path), "phases.%d.%s", i, key);
	return blame(root, path, err);
}

int lh_jobfile_check(const struct lh_job *job, const struct lh_node *root,
		     struct lh_err *err)
{
	int rc = check_name(job->name, root, "name", err);

	if (!rc)
		rc = check_model(job, root, err);
	if (!rc)
		rc = check_join(job, root, err);
	if (!rc)
		rc = lh_jobfile_check_context(job, root, err);
	if (!rc)
		rc = check_batch(job, root, err);
	if (!rc)
		rc = check_passkey(job, root, err);
	if (!rc)
		rc = check_choices(job, root, err);
	for (int i = 0; !rc && i < job->phase_count; i++)
		rc = check_phase(job, i, root, err);
	return rc ? rc : check_schedule(job, root, err);
}

static int check_rule(const struct lh_job *job, int i, const struct lh_node *root,
		      struct lh_err *err)
{
	const struct lh_job_rule *r = &job->rules[i];
	char path[80];

	snprintf(path, sizeof(path), "rules.%d.name", i);
	if (check_name(r->name, root, path, err))
		return err->code;
	for (int j = 0; j < i; j++) {
		if (strcmp(job->rules[j].name, r->name))
			continue;
		lh_err_set(err, LH_EJOBFILE, "two rules are named '%s'", r->name);
		lh_err_hint(err, "each rule needs a name of its own");
		return blame(root, path, err);
	}
	return 0;
}

int lh_jobfile_check_names(const struct lh_job *job, const struct lh_node *root,
			   struct lh_err *err)
{
	char path[80];

	for (int i = 0; i < job->phase_count; i++) {
		snprintf(path, sizeof(path), "phases.%d.name", i);
		if (check_name(job->phases[i].name, root, path, err))
			return err->code;
	}
	for (int i = 0; i < job->rule_count; i++)
		if (check_rule(job, i, root, err))
			return err->code;
	return 0;
}

/* ---- data ------------------------------------------------------------------ */

static int check_documents(const struct lh_job *job, const struct lh_shard *s,
			   struct lh_err *err)
{
	if (job->data.documents == LH_DOCUMENTS_ATTEND || lh_shard_has_documents(s))
		return 0;
	lh_err_set(err, LH_EDATA, "'%s': does not tell where documents end, which "
		   "data.documents keeps apart", s->path);
	return lh_err_hint(err, "files of 'lhctl pack' and Megatron's .idx do; or "
			   "data.documents: attend");
}

static int check_shard(const struct lh_job *job, const char *path, int64_t need,
		       struct lh_err *err)
{
	struct lh_shard s;
	int rc = lh_shard_open(&s, path, job->data.format, err);

	if (rc)
		return rc;
	rc = lh_shard_check_vocab(&s, job->model.vocab, err);
	if (!rc)
		rc = check_documents(job, &s, err);
	if (!rc && s.count < need) {
		rc = lh_err_set(err, LH_EDATA, "'%s': holds %" PRId64 " tokens, at least %"
				PRId64 " are needed", path, s.count, need);
		lh_err_hint(err, "more text, or a shorter seq_len");
	}
	lh_shard_close(&s);
	return rc;
}

/* *hash: of its file, 0 where the job names none. */
static int check_tokenizer(const struct lh_job *job, uint64_t *hash, struct lh_err *err)
{
	struct lh_vocabulary v;

	*hash = 0;
	if (lh_job_tokenizer(job) != LH_TOKENIZER_FILE)
		return 0;
	if (lh_vocabulary_read(&v, job->data.tokenizer, err))
		return lh_fs_exists(job->data.tokenizer) ? err->code :
			lh_err_hint(err, "bytes, none, or a path relative to the job file");
	*hash = v.hash;
	if (v.size <= job->model.vocab)
		return 0;
	lh_err_set(err, LH_EDATA, "'%s' has ids up to %" PRId64 ", model.vocab is %" PRId64,
		   job->data.tokenizer, v.size - 1, job->model.vocab);
	return lh_err_hint(err, "model.vocab: %" PRId64 ", or a multiple of 64 above it",
			   v.size);
}

/* Of ids that a file has for evaluations; neither need be told. */
static int check_same_tokenizer(const struct lh_job *job, const char *path, uint64_t theirs,
				uint64_t ours, struct lh_err *err)
{
	bool bytes = lh_job_tokenizer(job) == LH_TOKENIZER_BYTES;

	if (!theirs || theirs == ours || (!ours && !bytes))
		return 0;
	lh_err_set(err, LH_EDATA, "'%s': its ids are of another tokenizer than the job's",
		   path);
	return lh_err_hint(err, "'lhctl ids' makes them of the tokenizer that data.tokenizer "
			   "names");
}

static int check_passkey_words(const struct lh_job *job, uint64_t tokenizer,
			       struct lh_err *err)
{
	const char *path = job->evaluation.passkey.file;
	struct lh_passkey_words w;
	int rc = *path ? lh_passkey_words_read(&w, job, err) : 0;

	if (rc || !*path)
		return rc;
	rc = check_same_tokenizer(job, path, w.tokenizer, tokenizer, err);
	lh_passkey_words_release(&w);
	return rc;
}

static int check_choices_file(const struct lh_job *job, const char *path,
			      uint64_t tokenizer, struct lh_err *err)
{
	struct lh_choices c;
	int rc = lh_choices_read(&c, path, job, err);

	if (!rc)
		rc = check_same_tokenizer(job, path, c.tokenizer, tokenizer, err);
	lh_choices_release(&c);
	return rc;
}

int lh_jobfile_check_data(const struct lh_job *job, const struct lh_node *root,
			  struct lh_err *err)
{
	/* A sequence of documents that are kept apart is filled up. */
	int64_t need = job->data.documents == LH_DOCUMENTS_ATTEND ? job->data.seq_len + 1 : 2;
	const struct lh_job_set *quiz = job->evaluation.choices.files;
	uint64_t tokenizer;

	if (check_tokenizer(job, &tokenizer, err))
		return blame(root, "data.tokenizer", err);
	for (int i = 0; i < job->data.train_count; i++)
		if (check_shard(job, job->data.train[i], need, err))
			return blame(root, "data.train", err);
	for (int i = 0; i < job->data.validation_count; i++)
		if (check_shard(job, job->data.validation[i].path, 2, err))
			return blame(root, "data.validation", err);
	if (check_passkey_words(job, tokenizer, err))
		return blame(root, "evaluation.passkey.file", err);
	for (int i = 0; i < job->evaluation.choices.file_count; i++)
		if (check_choices_file(job, quiz[i].path, tokenizer, err))
			return blame(root, "evaluation.choices.files", err);
	return 0;
}

/* ---- questions about a job ------------------------------------------------- */

int64_t lh_jobfile_until_steps(const struct lh_job *job, const struct lh_job_until *u)
{
	int64_t step_tokens = job->batch.sequences * job->data.seq_len;
	int64_t by_tokens = (u->tokens + step_tokens - 1) / step_tokens;

	if (!u->steps && !u->tokens)
		return -1;
	if (!u->steps || (u->tokens && by_tokens < u->steps))
		return by_tokens;
	return u->steps;
}

int64_t lh_jobfile_phase_steps(const struct lh_job *job, int phase)
{
	return lh_jobfile_until_steps(job, &job->phases[phase].until);
}

int64_t lh_jobfile_total_steps(const struct lh_job *job)
{
	int64_t total = 0;

	for (int i = 0; i < job->phase_count; i++) {
		int64_t n = lh_jobfile_phase_steps(job, i);

		if (n < 0)
			return -1;
		total += n;
	}
	return total;
}

int lh_jobfile_find_phase(const struct lh_job *job, const char *name, int *phase,
			  struct lh_err *err)
{
	char all[200] = "", *end;
	long n = strtol(name, &end, 10);

	for (int i = 0; i < job->phase_count; i++) {
		size_t used = strlen(all);

		if (!strcmp(job->phases[i].name, name)) {
			*phase = i;
			return 0;
		}
		snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "",
			 job->phases[i].name);
	}
	if (*name && !*end && n >= 0 && n < job->phase_count) {
		*phase = (int)n;
		return 0;
	}
	lh_err_set(err, LH_ENOTFOUND, "there is no phase '%.64s'", name);
	return lh_err_hint(err, "the phases are %s", all);
}

enum lh_tokenizer lh_job_tokenizer(const struct lh_job *job)
{
	const char *name = job->data.tokenizer;

	return !strcmp(name, "bytes") ? LH_TOKENIZER_BYTES :
	       !strcmp(name, "none")  ? LH_TOKENIZER_NONE :
					LH_TOKENIZER_FILE;
}

void lh_job_release(struct lh_job *job)
{
	free(job->name);
	free(job->join);
	free(job->model.preset);
	free(job->model.from);
	for (int i = 0; i < job->data.train_count; i++)
		free(job->data.train[i]);
	free(job->data.train);
	for (int i = 0; i < job->data.source_count; i++)
		free(job->data.sources[i].name);
	free(job->data.tokenizer);
	for (int i = 0; i < job->data.validation_count; i++) {
		free(job->data.validation[i].name);
		free(job->data.validation[i].path);
	}
	free(job->evaluation.passkey.file);
	for (int i = 0; i < job->evaluation.choices.file_count; i++) {
		free(job->evaluation.choices.files[i].name);
		free(job->evaluation.choices.files[i].path);
	}
	for (int i = 0; i < job->phase_count; i++)
		free(job->phases[i].name);
	for (int i = 0; i < job->rule_count; i++) {
		free(job->rules[i].name);
		free(job->rules[i].when);
		free(job->rules[i].on);
		free(job->rules[i].action);
	}
	memset(job, 0, sizeof(*job));
}

int lh_job_groups(const struct lh_job *job)
{
	/* `devices: all` is one until a place is found. */
	return job->devices > job->context ? job->devices / job->context : 1;
}

int64_t lh_job_share(const struct lh_job *job)
{
	return job->batch.sequences / lh_job_groups(job);
}

int64_t lh_job_micro_sequences(const struct lh_job *job)
{
	if (job->context > 1)
		return 1;
	return job->batch.micro_sequences ? job->batch.micro_sequences : lh_job_share(job);
}

int64_t lh_job_model_params(const struct lh_job_model *m)
{
	int64_t C = m->dim, hd = (int64_t)m->heads * m->head_dim;
	int64_t qkv = (int64_t)(m->heads + 2 * m->kv_heads) * m->head_dim;
	int64_t layer = qkv * C + hd * C + 3 * m->ffn_dim * C + 2 * C +
			(m->qkv_bias ? qkv : 0) + (m->qk_norm ? 2 * m->head_dim : 0);

	return m->layers * layer + (m->tied ? 1 : 2) * m->vocab * C + C;
}
