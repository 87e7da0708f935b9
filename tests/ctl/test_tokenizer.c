/* test_tokenizer.c: a program that makes ids, which dies, hangs or lies (ctl/tokenizer.h).
 * This test is that program too, when it is told what to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../ctl/text_stream.h"

enum { READY = 1, ENCODE, IDS, DECODE, TEXT, ERROR, VOCAB = 256 };

/* ---- the program ----------------------------------------------------------- */

static void say_head(uint32_t kind, uint32_t bytes)
{
	uint32_t head[2] = { bytes, kind };

	if (write(STDOUT_FILENO, head, sizeof(head)) < 0)
		_exit(1);
}

static void say(uint32_t kind, const void *body, uint32_t bytes)
{
	say_head(kind, bytes);
	if (write(STDOUT_FILENO, body, bytes) < 0)
		_exit(1);
}

static bool hear(void *data, size_t n)
{
	for (char *at = data; n;) {
		ssize_t got = read(STDIN_FILENO, at, n);

		if (got <= 0)
			return false;
		at += got;
		n -= (size_t)got;
	}
	return true;
}

/* One text, whose bytes are its ids. */
static void answer(const char *how, const char *body, uint32_t bytes)
{
	uint32_t *out = lh_calloc(bytes + 2, 4), n = bytes - 8;

	out[0] = n;
	for (uint32_t i = 0; i < n; i++)
		out[i + 1] = (unsigned char)body[8 + i];
	if (!strcmp(how, "beyond"))
		out[n] = VOCAB;
	if (!strcmp(how, "short"))
		out[0]--;
	say(IDS, out, 4 * (n + 1));
	free(out);
}

static int serve(const char *how)
{
	uint32_t head[2];

	while (hear(head, sizeof(head))) {
		char *body = lh_alloc(head[0]);

		if (!hear(body, head[0]))
			break;
		if (!strcmp(how, "deaf"))
			pause();
		if (!strcmp(how, "killed"))
			abort();
		if (!strcmp(how, "long"))
			say_head(IDS, UINT32_MAX);
		else if (!strcmp(how, "kind"))
			say(TEXT, "x", 1);
		else if (!strcmp(how, "error"))
			say(ERROR, "it is too hard", 14);
		else if (head[1] == ENCODE)
			answer(how, body, head[0]);
		for (uint32_t i = 0; head[1] == DECODE && i < head[0] / 4; i++)
			body[i] = body[4 * i];
		if (head[1] == DECODE)
			say(TEXT, body, head[0] / 4);
		free(body);
	}
	return 0;
}

static int program(const char *how)
{
	uint32_t ready[2] = { strcmp(how, "version") ? 1 : 9,
			      strcmp(how, "large") ? VOCAB : VOCAB + 1 };

	if (!strcmp(how, "silent"))
		pause();
	if (!strcmp(how, "hungry") && !malloc(256 << 20)) {
		fputs("no memory\n", stderr);
		return 4;
	}
	if (!strcmp(how, "exits")) {
		fputs("\nthread 1 panicked at lib.rs:1:\nno luck\nat 0x1\n", stderr);
		return 3;
	}
	say(READY, ready, sizeof(ready));
	if (!strcmp(how, "stuck"))
		pause();
	return serve(how);
}

/* ---- what is made of it ---------------------------------------------------- */

static char self[4096];

static int start(struct ctl_tokenizer **t, const char *how, struct lh_err *err)
{
	const char *args[] = { self, how, NULL };
	int64_t ms = !strcmp(how, "silent") || !strcmp(how, "deaf") || !strcmp(how, "stuck") ?
			     50 : 60000;
	uint64_t memory = strcmp(how, "hungry") ? UINT64_MAX : 64 << 20;

	*err = (struct lh_err)LH_ERR_INIT;
	return ctl_tokenizer_start(t, &(struct ctl_tokenizer_program){ args, NULL, ms, ms, 64 << 20,
									memory }, VOCAB, err);
}

/* Of this process. */
static int count_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void one_that_does_not_start_is_told(void **state)
{
	static const struct {
		const char *how, *why;
		int code;
	} bad[] = {
		{ "silent", "gives no answer", LH_ETIMEOUT },
		{ "exits", "ended with status 3: no luck", LH_EDATA },
#ifndef __SANITIZE_ADDRESS__ /* its own memory is without measure */
		{ "hungry", "ended with status 4: no memory", LH_EDATA },
#endif
		{ "version", "of another version", LH_EPROTO },
		{ "large", "its vocabulary is not the file's", LH_EPROTO },
	};
	int files = count_files();

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ctl_tokenizer *t = NULL;
		struct lh_err err;

		assert_int_equal(start(&t, bad[i].how, &err), bad[i].code);
		assert_non_null(strstr(err.text, bad[i].why));
		assert_true(*err.hint);
		assert_null(t);
	}
	assert_int_equal(count_files(), files);
}

static void one_that_fails_at_a_text_is_told_and_stays_failed(void **state)
{
	static const struct {
		const char *how, *why;
		int code;
	} bad[] = {
		{ "deaf", "gives no answer", LH_ETIMEOUT },
		{ "stuck", "gives no answer", LH_ETIMEOUT },
		{ "killed", "ended by signal 6", LH_EDATA },
		{ "long", "too long", LH_EPROTO },
		{ "kind", "another kind", LH_EPROTO },
		{ "beyond", "beyond the vocabulary", LH_EPROTO },
		{ "short", "its length", LH_EPROTO },
		{ "error", "the tokenizer says: it is too hard", LH_EDATA },
	};
	char *large = lh_calloc(1, 4 << 20); /* more than a socket takes at once */
	int files = count_files();

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ctl_text text = { large, strcmp(bad[i].how, "stuck") ? 9 : 1 << 20 };
		struct ctl_ids ids = { 0 };
		struct ctl_tokenizer *t;
		struct lh_err err, again;
		int64_t count;

		assert_int_equal(start(&t, bad[i].how, &err), 0);
		assert_int_equal(ctl_tokenizer_encode(t, &text, 1, &ids, &count, &err),
				 bad[i].code);
		if (!strstr(err.text, bad[i].why))
			fail_msg("%s: %s", bad[i].how, err.text);
		assert_true(*err.hint);
		assert_int_equal(ids.count, 0);
		assert_int_equal(ctl_tokenizer_encode(t, &text, 1, &ids, &count, &again),
				 bad[i].code);
		assert_string_equal(again.text, err.text);
		ctl_tokenizer_close(t);
		free(ids.ids);
	}
	free(large);
	assert_int_equal(count_files(), files);
}

static void ids_are_appended_and_decoded(void **state)
{
	struct ctl_ids ids = { 0 };
	struct ctl_tokenizer *t;
	struct lh_err err;
	const int32_t odd[] = { 'a', 0, 0xff, 'b' };
	int64_t count;
	char *text;

	(void)state;
	assert_int_equal(start(&t, "good", &err), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ctl_tokenizer_encode(t, &(struct ctl_text){ "abc", 3 }, 1, &ids,
						      &count, &err), 0);
		assert_int_equal(count, 3);
	}
	assert_int_equal(ids.count, 9);
	assert_int_equal(ctl_tokenizer_decode(t, ids.ids + 1, 4, &text, &err), 0);
	assert_string_equal(text, "bcab");
	free(text);
	assert_int_equal(ctl_tokenizer_decode(t, odd, 4, &text, &err), 0);
	assert_string_equal(text, "a\357\277\275\357\277\275b");
	free(text);
	assert_int_equal(ctl_tokenizer_decode(t, &(int32_t){ VOCAB }, 1, &text, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "id 256 is none of the tokenizer's 256"));
	assert_int_equal(ctl_tokenizer_encode(t, &(struct ctl_text){ "", (32 << 20) + 1 }, 1,
					      &ids, &count, &err), LH_ETOOBIG);
	assert_int_equal(ctl_tokenizer_encode(t, &(struct ctl_text){ "", 0 }, 1, &ids, &count,
					      &err), 0);
	free(ids.ids);
	ctl_tokenizer_close(t);
}

/* Bytes one by one, of which some are half a character and some none. */
static void a_stream_tells_whole_characters_and_all_of_them(void **state)
{
	static const char *const told[] = { "", "", "", "\xf0\x9f\x9a\xa2", "a", "", "\xc3\xa9",
					    "", "\357\277\275b", "" };
	const char *all = "\xf0\x9f\x9a\xa2" "a" "\xc3\xa9" "\xe2" "b" "\xc3";
	struct ctl_text_stream s;
	struct ctl_tokenizer *t;
	struct lh_err err;
	int32_t id = 'x';
	char *text;

	(void)state;
	assert_int_equal(start(&t, "good", &err), 0);
	assert_int_equal(ctl_text_stream_begin(&s, t, &id, 1, &err), 0);
	for (int round = 0; round < 9; round++) /* more than it decodes at once */
		for (int i = 0; i < 10; i++) {
			id = (unsigned char)all[i];
			assert_int_equal(ctl_text_stream_add(&s, &id, 1, &text, &err), 0);
			/* Half a character is held from the round before. */
			assert_string_equal(text, round && i == 3 ?
						"\xef\xbf\xbd\xf0\x9f\x9a\xa2" : told[i]);
			free(text);
		}
	assert_int_equal(ctl_text_stream_end(&s, &text, &err), 0);
	assert_string_equal(text, "\xef\xbf\xbd");
	free(text);
	ctl_text_stream_release(&s);
	ctl_tokenizer_close(t);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_does_not_start_is_told),
		cmocka_unit_test(one_that_fails_at_a_text_is_told_and_stays_failed),
		cmocka_unit_test(ids_are_appended_and_decoded),
		cmocka_unit_test(a_stream_tells_whole_characters_and_all_of_them),
	};
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (argc > 1)
		return program(argv[1]);
	assert_true(n > 0);
	return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
