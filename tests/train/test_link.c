/* test_link.c: the worker's line to lhd, against a peer that breaks off, repeats
 * itself, is too old, or is not there: every record arrives once, every command
 * is delivered once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "fake_lhd.h"
#include "train/link.h"
#include "train/spool.h"

enum { SILENCE_MS = 300, TAKE_MS = 20000 };

static struct fake_lhd lhd;
static struct lh_link *link_;

static void open_link(int64_t spool_max_bytes)
{
	char *spool = scratch_path("spool.jsonl"), *socket = scratch_path("worker.sock");
	struct lh_link_config c = { .job = 7, .attempt = 3, .generation = 5,
				    .token = "secret", .socket = socket, .spool = spool,
				    .spool_max_bytes = spool_max_bytes };
	struct lh_err err = LH_ERR_INIT;

	if (lh_link_open(&link_, &c, &err))
		fail_msg("%s", err.text);
	free(spool);
	free(socket);
}

static int setup_lhd(void **state)
{
	if (scratch_setup(state))
		return -1;
	fake_open(&lhd);
	return 0;
}

static int setup(void **state)
{
	if (setup_lhd(state))
		return -1;
	open_link(0);
	return 0;
}

static int teardown(void **state)
{
	fake_close(&lhd);
	if (link_)
		lh_link_close(link_, 0);
	link_ = NULL;
	return scratch_teardown(state);
}

static void post(const char *kind, int64_t from, int64_t to)
{
	for (int64_t step = from; step <= to; step++)
		lh_link_post_take(link_, json_pack("{s:s, s:I}", "t", kind, "step",
						   (json_int_t)step));
}

/* Reads records until `last`; they must be first, first + 1, ... and, as the
 * tests post them, of step = seq. */
static void expect_records(int64_t first, int64_t last)
{
	while (first <= last) {
		json_t *m = fake_expect(&lhd, "records"), *r;
		json_t *list = json_object_get(m, "records");
		size_t i;

		assert_in_range(json_array_size(list), 1, LH_PROTO_BATCH);
		json_array_foreach (list, i, r) {
			assert_int_equal(fake_int(r, "seq"), first);
			assert_int_equal(fake_int(r, "step"), first);
			assert_true(fake_int(r, "time_ms") > 0);
			first++;
		}
		json_decref(m);
	}
	assert_int_equal(first, last + 1);
}

/* Nothing but progress for a while. */
static void expect_silence(void)
{
	int64_t end = lh_clock_us() + SILENCE_MS * 1000;
	json_t *m;

	while (lh_clock_us() < end && (m = fake_read_within(&lhd, SILENCE_MS))) {
		assert_true(fake_is(m, "progress"));
		json_decref(m);
	}
}

/* The worker closes the line. */
static void expect_hang_up(void)
{
	json_t *m;

	while ((m = fake_read_within(&lhd, 0))) {
		assert_true(fake_is(m, "progress"));
		json_decref(m);
	}
}

static void accept_any(void)
{
	json_decref(fake_accept(&lhd));
}

static void hello_says_who_it_is(void **state)
{
	json_t *m;

	(void)state;
	lh_link_status(link_, 40, 1, "paused", "paused");
	accept_any(); /* it may have dialled before the status */
	fake_hang_up(&lhd);
	m = fake_accept(&lhd);
	assert_int_equal(fake_int(m, "proto"), LH_PROTO_VERSION);
	assert_int_equal(fake_int(m, "job"), 7);
	assert_int_equal(fake_int(m, "attempt"), 3);
	assert_string_equal(json_string_value(json_object_get(m, "token")), "secret");
	assert_int_equal(fake_int(m, "pid"), getpid());
	assert_int_equal(fake_int(m, "start_time"), lh_proc_start_time(getpid()));
	assert_int_equal(fake_int(m, "generation"), 5);
	assert_int_equal(fake_int(m, "first_seq"), 1);
	assert_int_equal(fake_int(m, "next_seq"), 1);
	assert_int_equal(fake_int(m, "step"), 40);
	assert_int_equal(fake_int(m, "phase"), 1);
	assert_string_equal(json_string_value(json_object_get(m, "state")), "paused");
	json_decref(m);
	fake_welcome(&lhd, 5, 0);
	m = fake_expect(&lhd, "progress");
	assert_int_equal(fake_int(m, "step"), 40);
	assert_string_equal(json_string_value(json_object_get(m, "doing")), "paused");
	json_decref(m);
}

static void records_wait_for_the_welcome_and_come_in_batches(void **state)
{
	(void)state;
	post("step", 1, 1000);
	accept_any();
	expect_silence();
	fake_welcome(&lhd, 5, 0);
	expect_records(1, 1000);
	fake_ack(&lhd, 1000);
	post("step", 1001, 1001);
	expect_records(1001, 1001);
	expect_silence();
}

static void a_reconnect_resends_exactly_what_is_not_stored(void **state)
{
	json_t *m;

	(void)state;
	accept_any();
	fake_welcome(&lhd, 5, 0);
	post("step", 1, 6);
	expect_records(1, 6);
	fake_ack(&lhd, 3);
	fake_command(&lhd, 1, "pause", NULL);
	m = lh_link_take(link_, TAKE_MS); /* so the ack was read too */
	assert_non_null(m);
	json_decref(m);
	fake_hang_up(&lhd);
	post("step", 7, 7);
	m = fake_accept(&lhd);
	assert_int_equal(fake_int(m, "first_seq"), 4);
	json_decref(m);
	/* 4 was stored; its acknowledgement got lost. */
	fake_welcome(&lhd, 5, 4);
	expect_records(5, 7);
	expect_silence();
	/* Everything stored: nothing to resend, and late acks change nothing. */
	fake_hang_up(&lhd);
	accept_any();
	fake_welcome(&lhd, 5, 7);
	fake_ack(&lhd, 2);
	expect_silence();
	post("step", 8, 8);
	expect_records(8, 8);
}

static void an_older_lhd_is_not_obeyed(void **state)
{
	(void)state;
	post("step", 1, 1);
	accept_any();
	fake_welcome(&lhd, 4, 0);
	expect_hang_up();
	accept_any();
	fake_welcome(&lhd, 9, 0);
	expect_records(1, 1);
	fake_hang_up(&lhd);
	/* It has seen 9: what was good enough before is not any more. */
	{
		json_t *m = fake_accept(&lhd);

		assert_int_equal(fake_int(m, "generation"), 9);
		json_decref(m);
	}
	fake_welcome(&lhd, 8, 0);
	fake_command(&lhd, 1, "cancel", NULL);
	expect_hang_up();
	assert_null(lh_link_take(link_, 0));
	accept_any();
	fake_welcome(&lhd, 9, 0);
	expect_records(1, 1);
	assert_null(lh_link_take(link_, 0));
}

static void a_stranger_cannot_command(void **state)
{
	json_t *m;

	(void)state;
	post("step", 1, 1);
	accept_any();
	fake_command(&lhd, 1, "cancel", NULL);
	fake_ack(&lhd, 1);
	fake_welcome(&lhd, 5, 0);
	expect_records(1, 1); /* the ack was not taken either */
	fake_command(&lhd, 1, "pause", NULL);
	m = lh_link_take(link_, TAKE_MS);
	assert_string_equal(json_string_value(json_object_get(m, "verb")), "pause");
	json_decref(m);
}

/* One write, so that the worker has sent nothing in between. */
static void an_ack_of_what_was_not_sent_is_ignored(void **state)
{
	static const char both[] = "{\"m\":\"welcome\",\"proto\":1,\"generation\":5,"
				   "\"stored_seq\":0}\n{\"m\":\"ack\",\"seq\":2}\n";

	(void)state;
	post("step", 1, 3);
	accept_any();
	send(lhd.fd, both, strlen(both), MSG_NOSIGNAL);
	expect_records(1, 3);
}

static void a_command_is_delivered_once(void **state)
{
	json_t *m;

	(void)state;
	for (int round = 0; round < 3; round++) {
		accept_any();
		fake_welcome(&lhd, 5, 0);
		fake_command(&lhd, 10, "switch", json_pack("{s:s}", "phase", "b"));
		fake_command(&lhd, 10, "switch", json_pack("{s:s}", "phase", "b"));
		fake_command(&lhd, 11 + round, "pause", NULL);
		m = lh_link_take(link_, TAKE_MS);
		if (round == 0) {
			assert_int_equal(fake_int(m, "id"), 10);
			assert_string_equal(json_string_value(json_object_get(
						    json_object_get(m, "args"), "phase")),
					    "b");
			json_decref(m);
			m = lh_link_take(link_, TAKE_MS);
		}
		assert_int_equal(fake_int(m, "id"), 11 + round);
		json_decref(m);
		assert_null(lh_link_take(link_, 0));
		fake_hang_up(&lhd);
	}
}

static json_t *take_call(int64_t id)
{
	json_t *m;

	fake_send_take(&lhd, json_pack("{s:s, s:I, s:s, s:{}}", "m", "call", "call",
				       (json_int_t)id, "method", "sample", "args"));
	m = lh_link_take(link_, TAKE_MS);
	assert_non_null(m);
	assert_int_equal(fake_int(m, "call"), id);
	return m;
}

static void calls_are_answered_on_the_line_they_came_on(void **state)
{
	json_t *call, *m, *next;

	(void)state;
	accept_any();
	fake_welcome(&lhd, 5, 0);
	call = take_call(1);
	assert_true(lh_link_answer_take(link_, call, json_pack("{s:s, s:s}", "m", "piece",
							       "text", "ab")));
	m = fake_expect(&lhd, "piece");
	next = json_pack("{s:s, s:s, s:i}", "m", "piece", "text", "ab", "call", 1);
	assert_true(json_equal(m, next));
	json_decref(m);
	json_decref(next);
	/* Another call waits; then an lhd takes over that counts from 1 again. */
	fake_send_take(&lhd, json_pack("{s:s, s:i, s:s}", "m", "call", "call", 2,
				       "method", "sample"));
	fake_command(&lhd, 1, "pause", NULL);
	fake_hang_up(&lhd);
	accept_any();
	fake_welcome(&lhd, 6, 0);
	fake_command(&lhd, 1, "pause", NULL);
	m = lh_link_take(link_, TAKE_MS);
	assert_true(fake_is(m, "command"));
	json_decref(m);
	next = take_call(1); /* not 2: nobody waits for that one */
	assert_false(lh_link_answer_take(link_, call, json_pack("{s:s}", "m", "piece")));
	assert_true(lh_link_answer_take(link_, next, json_pack("{s:s}", "m", "reply")));
	m = fake_expect(&lhd, "reply");
	assert_int_equal(fake_int(m, "call"), 1);
	json_decref(m);
	json_decref(next);
	json_decref(call);
}

static void a_refusal_is_delivered(void **state)
{
	json_t *m;

	(void)state;
	accept_any();
	fake_send_take(&lhd, json_pack("{s:s, s:s, s:s}", "m", "refuse", "code",
				       "LH_ESTATE", "text", "the attempt is over"));
	m = lh_link_take(link_, TAKE_MS);
	assert_true(fake_is(m, "refuse"));
	json_decref(m);
}

static void garbage_does_no_harm_and_a_long_line_closes(void **state)
{
	static const char garbage[] =
		"{nonsense\n[1, 2]\n\"x\"\n{}\n{\"m\": 3}\n{\"m\": \"new\"}\n";
	static char blob[1 << 16];

	(void)state;
	accept_any();
	fake_welcome(&lhd, 5, 0);
	send(lhd.fd, garbage, sizeof(garbage) - 1, MSG_NOSIGNAL);
	post("step", 1, 1);
	expect_records(1, 1);
	memset(blob, 'x', sizeof(blob));
	for (size_t sent = 0; sent <= LH_PROTO_LINE_MAX_BYTES + sizeof(blob);) {
		ssize_t n = send(lhd.fd, blob, sizeof(blob), MSG_NOSIGNAL);

		if (n <= 0)
			break;
		sent += (size_t)n;
	}
	send(lhd.fd, "\n", 1, MSG_NOSIGNAL);
	expect_hang_up();
	accept_any();
	fake_welcome(&lhd, 5, 0);
	expect_records(1, 1);
}

static void without_lhd_everything_is_in_the_spool(void **state)
{
	size_t bytes;
	char *data;
	int lines = 0;

	(void)state;
	fake_close(&lhd);
	post("step", 1, 500);
	post("end", 501, 501);
	lh_link_close(link_, TAKE_MS); /* nobody to wait for */
	link_ = NULL;
	data = scratch_read("spool.jsonl", &bytes);
	for (char *p = data; (p = strchr(p, '\n')); p++)
		lines++;
	assert_int_equal(lines, 501);
	assert_non_null(strstr(data, "\"t\":\"end\""));
	free(data);
}

struct kinds {
	int64_t steps, others, told;
	bool end;
};

static void count(json_t *m, struct kinds *k)
{
	json_t *r;
	size_t i;

	json_array_foreach (json_object_get(m, "records"), i, r) {
		const char *t = json_string_value(json_object_get(r, "t"));
		const char *text = json_string_value(json_object_get(r, "text"));

		k->steps += !strcmp(t, "step");
		k->others += !strcmp(t, "checkpoint");
		k->end = k->end || !strcmp(t, "end");
		if (text && strstr(text, "were dropped"))
			k->told += atoll(text);
		fake_ack(&lhd, fake_int(r, "seq"));
	}
}

static void a_full_spool_drops_steps_only_and_says_how_many(void **state)
{
	enum { STEPS = 3000 };
	struct kinds k = { 0 };
	json_t *m;

	(void)state;
	open_link(100000);
	for (int i = 0; i < STEPS; i++) {
		post("step", i, i);
		if (i % 100 == 0)
			post("checkpoint", i, i);
	}
	post("end", STEPS, STEPS);
	accept_any();
	fake_welcome(&lhd, 5, 0);
	while (!k.end) {
		m = fake_expect(&lhd, "records");
		count(m, &k);
		json_decref(m);
	}
	assert_int_equal(k.others, STEPS / 100);
	assert_true(k.told > 0);
	assert_int_equal(k.steps + k.told, STEPS);
}

/* As if the disk were full: no file of this process grows beyond `bytes`. */
static void limit_files(rlim_t bytes)
{
	struct rlimit r;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
	r.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void what_a_full_disk_refuses_waits_in_memory(void **state)
{
	int64_t next = 2;
	json_t *m;

	(void)state;
	accept_any();
	fake_welcome(&lhd, 5, 0);
	post("step", 1, 1);
	expect_records(1, 1);
	limit_files(512);
	post("step", 2, 600);
	post("checkpoint", 601, 601);
	while ((m = fake_read_within(&lhd, SILENCE_MS))) {
		next += (int64_t)json_array_size(json_object_get(m, "records"));
		json_decref(m);
	}
	assert_true(next < 100);
	limit_files(RLIM_INFINITY);
	post("step", 602, 602);
	expect_records(next, 602);
}

/* An lhd that stores and acknowledges whatever comes, in a thread. */
struct storing {
	pthread_t thread;
	int64_t got;  /* atomic: last seq */
};

static void *store_all(void *arg)
{
	struct storing *s = arg;
	json_t *m;

	json_decref(fake_accept(&lhd));
	fake_welcome(&lhd, 5, 0);
	while ((m = fake_read_within(&lhd, 0))) {
		json_t *list = json_object_get(m, "records");
		const json_t *last = json_array_get(list, json_array_size(list) - 1);

		if (last) {
			int64_t seq = fake_int(last, "seq");

			__atomic_store_n(&s->got, seq, __ATOMIC_SEQ_CST);
			fake_ack(&lhd, seq);
		}
		json_decref(m);
	}
	return NULL;
}

/* What is posted last, the end of the job, arrives although the worker closes
 * its line at once, even if that is before it was welcome. */
static void the_last_record_is_acknowledged_before_the_line_closes(void **state)
{
	(void)state;
	for (int round = 0; round < 50; round++) {
		struct storing s = { .got = 0 };
		int64_t end = lh_clock_us() + FAKE_LIMIT_MS * 1000;

		assert_int_equal(pthread_create(&s.thread, NULL, store_all, &s), 0);
		post("step", 1, 1);
		while (round % 2 && !__atomic_load_n(&s.got, __ATOMIC_SEQ_CST) && lh_clock_us() < end)
			sched_yield();
		post("end", 2, 2);
		lh_link_close(link_, TAKE_MS);
		pthread_join(s.thread, NULL);
		assert_int_equal(s.got, 2);
		fake_hang_up(&lhd);
		open_link(0);
	}
}

#define LINK_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LINK_TEST(hello_says_who_it_is),
		LINK_TEST(records_wait_for_the_welcome_and_come_in_batches),
		LINK_TEST(a_reconnect_resends_exactly_what_is_not_stored),
		LINK_TEST(an_older_lhd_is_not_obeyed),
		LINK_TEST(a_stranger_cannot_command),
		LINK_TEST(an_ack_of_what_was_not_sent_is_ignored),
		LINK_TEST(a_command_is_delivered_once),
		LINK_TEST(calls_are_answered_on_the_line_they_came_on),
		LINK_TEST(a_refusal_is_delivered),
		LINK_TEST(garbage_does_no_harm_and_a_long_line_closes),
		LINK_TEST(without_lhd_everything_is_in_the_spool),
		LINK_TEST(what_a_full_disk_refuses_waits_in_memory),
		cmocka_unit_test_setup_teardown(
			a_full_spool_drops_steps_only_and_says_how_many, setup_lhd,
			teardown),
		LINK_TEST(the_last_record_is_acknowledged_before_the_line_closes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
