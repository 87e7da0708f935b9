/* tokenizer.h: text into ids and back, by the libraries of those who made the formats.
 *
 * A tokenizer is a program that lhctl starts, and that nothing but lhctl knows of:
 *   tokenizers/hf/main.mjs       Hugging Face's `tokenizers`, of tokenizer.json, by node
 *   tokenizers/sentencepiece.cc  SentencePiece, of a .model
 * So that a machine may lack either, that a file which is too much for its library ends a
 * program and not the pack, and that as many of them run as there are threads.
 *
 * It gets the file's name, and one socket as its stdin and stdout. Both sides send
 * frames, little-endian: u32 bytes of the body, u32 kind, the body.
 *   it      READY   u32 version of this, 1; u32 ids that there are
 *   lhctl   ENCODE  u32 n, n x u32 bytes of a text, the texts, UTF-8
 *   it      IDS     n x u32 ids of a text, the ids as u32
 *   lhctl   DECODE  ids as u32
 *   it      TEXT    UTF-8
 *   it      ERROR   a sentence; in place of any of its frames
 * Ids are those that the library gives for the text alone: nothing is put before or
 * behind it. What a text holds that looks like a special token is one. Decoding shows
 * special tokens. It ends at the end of its input.
 *
 * It is believed nothing: lengths and ids are checked, memory and time are limited, and
 * one that has failed is ended. One thread at a time.
 */
#ifndef LIGHTHOUSE_CTL_TOKENIZER_H
#define LIGHTHOUSE_CTL_TOKENIZER_H

#include <stdint.h>

#include "data/vocabulary.h"

/* Of one text: the libraries take two hundred times as much memory for it. */
enum { CTL_TOKENIZER_TEXT_BYTES = 32 << 20 };

struct ctl_text {
	const char *text; /* any bytes; for those that are no UTF-8 U+FFFD stands */
	int64_t bytes;
};

struct ctl_ids {
	int32_t *ids;
	int64_t count, cap;
};

struct ctl_tokenizer;
/* Whether the program of such files is here; LH_EUNSUPPORTED says what to install. */
int ctl_tokenizer_check(enum lh_vocabulary_kind kind, struct lh_err *err);
/* Starts the program for the file that `v` is of. LH_EUNSUPPORTED as above; LH_EDATA: its
 * library does not take the file. */
int ctl_tokenizer_open(struct ctl_tokenizer **t, const char *path,
		       const struct lh_vocabulary *v, struct lh_err *err);
void ctl_tokenizer_close(struct ctl_tokenizer *t); /* NULL is allowed */
/* Appends the ids of n texts to `ids`, and says in counts (n) how many each has. LH_EDATA
 * or LH_ETOOBIG; all that comes after an error is the same error. */
int ctl_tokenizer_encode(struct ctl_tokenizer *t, const struct ctl_text *texts, int n,
			 struct ctl_ids *ids, int64_t *counts, struct lh_err *err);
/* *text: UTF-8, the caller's; U+FFFD stands in it for what is none, and for NUL. LH_EDATA:
 * an id that the tokenizer does not have. */
int ctl_tokenizer_decode(struct ctl_tokenizer *t, const int32_t *ids, int64_t n,
			 char **text, struct lh_err *err);

/* ---- for tests: any program, with limits of its own ------------------------- */
struct ctl_tokenizer_program {
	const char *const *args; /* the first is its path or a name on PATH; NULL-terminated */
	const char *preload;       /* a library with another allocator, or NULL */
	int64_t load_ms, reply_ms; /* that it may take; */
	int64_t bytes_a_second;    /* and a second more for so much of text */
	uint64_t memory_bytes;     /* of data that it may have */
};
int ctl_tokenizer_start(struct ctl_tokenizer **t, const struct ctl_tokenizer_program *p,
			int64_t vocab, struct lh_err *err);

#endif
