/* fuzz_hf.c: a directory of Hugging Face (train/hf.h): config.json, an index or
 * nothing, and a tensor file as its header's text and its data, each up to a NUL.
 *
 * What is taken is whole: it verifies, and goes out again. What is not leaves nothing. */
#include "fuzz.h"
#include "train/hf_int.h"
#include "train/manifest.h"

static void write_part(const char *dir, const char *name, struct fuzz_part part)
{
	fuzz_write(dir, name, part.text, part.bytes);
}

static void write_tensors(const char *dir, const char *name, struct fuzz_part header,
			  struct fuzz_part data)
{
	uint64_t n = header.bytes;
	char *file = lh_alloc(8 + n + data.bytes);

	memcpy(file, &n, 8);
	memcpy(file + 8, header.text, n);
	if (data.bytes)
		memcpy(file + 8 + n, data.text, data.bytes);
	fuzz_write(dir, name, file, 8 + n + data.bytes);
	free(file);
}

static void on_verified(void *arg, const char *file, int64_t bytes, const struct lh_err *why)
{
	(void)arg;
	(void)file;
	(void)bytes;
	LH_ASSERT(!why);
}

static void check(const char *from, const char *to, const char *again)
{
	struct lh_hf_export how = { .type = LH_TENSOR_F32, .file_bytes = 64 };
	struct lh_hf_progress nobody = { 0 };
	struct lh_hf_written w;
	struct lh_err err = LH_ERR_INIT;

	if (lh_hf_import(from, to, false, &nobody, &w, &err)) {
		LH_ASSERT(*err.text && !lh_fs_exists(to));
		return;
	}
	LH_ASSERT(!lh_manifest_verify(to, on_verified, NULL, &err));
	LH_ASSERT(!lh_hf_export(to, again, &how, &w, &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct fuzz_part rest = { (const char *)data, bytes };
	struct fuzz_part config = { "", 0 }, index = config, header = config;
	char *from = lh_asprintf("%s/from", fuzz_dir());
	char *to = lh_asprintf("%s/to", fuzz_dir());
	char *again = lh_asprintf("%s/again", fuzz_dir());

	LH_ASSERT(!lh_fs_mkdirs(from, NULL));
	fuzz_next(&rest, '\0', &config);
	fuzz_next(&rest, '\0', &index);
	fuzz_next(&rest, '\0', &header);
	write_part(from, LH_HF_CONFIG, config);
	if (index.bytes)
		write_part(from, LH_HF_INDEX, index);
	write_tensors(from, index.bytes ? "a.safetensors" : LH_HF_SINGLE, header,
		      rest.text ? rest : (struct fuzz_part){ "", 0 });
	check(from, to, again);
	lh_fs_remove_tree(from, NULL);
	lh_fs_remove_tree(to, NULL);
	lh_fs_remove_tree(again, NULL);
	free(again);
	free(to);
	free(from);
	return 0;
}
