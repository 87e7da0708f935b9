/* logits.c: logits HF_DIR OUT.safetensors <TOKENS: our logits for tokens in decimal on
 * stdin, for compare.py to hold against those of transformers. */
#include "logits.h"

enum { TOKENS_MAX = 1 << 20 };

static int write_logits(const char *path, const float *logits, int64_t n, int64_t V,
			struct lh_err *err)
{
	struct lh_safetensors_writer *w = lh_safetensors_writer_new();
	int64_t bytes;
	uint64_t hash;
	int rc;

	lh_safetensors_declare(w, "logits", LH_TENSOR_F32, 2, (const int64_t[]){ n, V });
	rc = lh_safetensors_begin(w, path, NULL, err);
	if (!rc)
		rc = lh_safetensors_append(w, logits, (size_t)(n * V) * 4, err);
	if (!rc)
		return lh_safetensors_commit(w, &bytes, &hash, err);
	lh_safetensors_abort(w);
	return rc;
}

static int64_t read_tokens(int32_t *tokens)
{
	int64_t n = 0;

	while (n < TOKENS_MAX && scanf("%d", &tokens[n]) == 1)
		n++;
	return n;
}

int main(int argc, char **argv)
{
	int32_t *tokens = lh_calloc(TOKENS_MAX, sizeof(*tokens));
	struct lh_err err = LH_ERR_INIT;
	struct logits l;
	float *out = NULL;
	int64_t n;
	int rc;

	if (argc != 3 || !(n = read_tokens(tokens))) {
		fputs("usage: logits HF_DIR OUT.safetensors <TOKENS\n", stderr);
		return 2;
	}
	rc = logits_open(&l, argv[1], n, &err);
	for (int64_t t = 0; !rc && t < n; t++)
		if (tokens[t] < 0 || tokens[t] >= l.vocab)
			rc = lh_err_set(&err, LH_EINVAL, "there is no token %d", tokens[t]);
	if (!rc) {
		out = lh_calloc((size_t)(n * l.vocab), 4);
		rc = logits_of(&l, tokens, n, out, &err);
	}
	if (!rc)
		rc = write_logits(argv[2], out, n, l.vocab, &err);
	if (rc)
		fprintf(stderr, "error: %s\nhint: %s\n", err.text, err.hint);
	logits_close(&l);
	free(out);
	free(tokens);
	return rc < 0;
}
