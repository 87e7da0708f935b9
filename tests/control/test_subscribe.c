/* test_subscribe.c: events and steps, pushed to good and to slow readers. */
#include "served.h"

static void publish(int64_t id, int64_t job, bool is_step)
{
	struct lh_event ev = { is_step ? 0 : id, job, is_step, NULL };

	ev.json = json_pack("{s:I,s:I,s:s}", "id", (json_int_t)id, "job",
			    (json_int_t)job, "text", "something happened to it");
	lh_hub_publish(lh_server_hub(server), &ev);
	json_decref(ev.json);
}

/* A field of the params of the next message, which must be of this method. */
static int64_t next_push(struct client *c, const char *method, const char *field,
			 int64_t *subscription)
{
	json_t *m = next_message(c), *p = json_object_get(m, "params");
	int64_t v = json_integer_value(json_object_get(p, field));

	assert_string_equal(json_string_value(json_object_get(m, "method")), method);
	assert_true(json_is_integer(json_object_get(p, field)));
	*subscription = json_integer_value(json_object_get(p, "subscription"));
	json_decref(m);
	return v;
}

static void subscriptions_get_what_they_asked_for(void **state)
{
	struct client a, b;
	int64_t sub;

	(void)state;
	open_client(&a);
	open_client(&b);
	call(&a, 1, "sub", "{\"job\":7}");
	expect_result(&a, 1);
	call(&b, 1, "sub", "{\"steps\":true}");
	expect_result(&b, 1);
	publish(1, 7, false);
	publish(2, 8, false);
	publish(3, 7, true);
	publish(4, 7, false);
	assert_int_equal(next_push(&a, "event", "id", &sub), 1);
	assert_int_equal(next_push(&a, "event", "id", &sub), 4);
	assert_int_equal(next_push(&b, "event", "id", &sub), 1);
	assert_int_equal(next_push(&b, "event", "id", &sub), 2);
	assert_int_equal(next_push(&b, "step", "id", &sub), 3);
	assert_int_equal(next_push(&b, "event", "id", &sub), 4);

	call(&a, 2, "unsub", "{\"id\":1}");
	expect_result(&a, 2);
	publish(5, 7, false);
	call(&a, 3, "unsub", "{\"id\":1}");
	expect_error(&a, LH_ENOTFOUND);
	assert_int_equal(next_push(&b, "event", "id", &sub), 5);
	assert_null(poll_message(&a));
	close_client(&a);
	close_client(&b);
}

static void subscriptions_have_a_limit(void **state)
{
	struct client c;
	int i;

	(void)state;
	open_client(&c);
	for (i = 0; i < LH_FEED_MAX_SUBSCRIPTIONS; i++) {
		call(&c, i, "sub", "{}");
		expect_result(&c, i);
	}
	call(&c, i, "sub", "{}");
	expect_error(&c, LH_ETOOBIG);
	close_client(&c);
}

/* What was received and what was told as lost, of each subscription. */
struct tally {
	int64_t got_events, got_steps, lost_events, lost_steps, newest;
	int told;
};

static void count_message(json_t *m, struct tally tally[3])
{
	const char *method = json_string_value(json_object_get(m, "method"));
	json_t *p = json_object_get(m, "params");
	int64_t sub = json_integer_value(json_object_get(p, "subscription")), id;
	struct tally *t = &tally[sub];

	assert_true(sub == 1 || sub == 2);
	if (!strcmp(method, "lost")) {
		t->lost_events += json_integer_value(json_object_get(p, "events"));
		t->lost_steps += json_integer_value(json_object_get(p, "steps"));
		t->told++;
		return;
	}
	id = json_integer_value(json_object_get(p, "id"));
	assert_true(id > t->newest);
	/* a gap has been told before what comes after it */
	assert_int_equal(id, t->got_events + t->got_steps + t->lost_events +
				     t->lost_steps + 1);
	t->newest = id;
	if (!strcmp(method, "step"))
		t->got_steps++;
	else
		t->got_events++;
}

static void subscriptions_count_what_a_slow_reader_lost(void **state)
{
	enum { N = 40000 };
	struct tally tally[3] = { 0 };
	struct client c;
	json_t *m;
	int i;

	(void)state;
	open_client(&c);
	call(&c, 1, "sub", "{\"steps\":true}");
	expect_result(&c, 1);
	call(&c, 2, "sub", "{\"steps\":true,\"job\":7}");
	expect_result(&c, 2);
	for (i = 1; i <= N; i++) {
		publish(i, 7, i % 10 != 0);
		assert_true(lh_server_hub(server)->feeds->used_bytes <=
			    LH_FEED_MAX_BYTES);
		if (i % 100 == 0)
			turns(1);
	}
	while (tally[1].newest < N || tally[2].newest < N) {
		m = next_message(&c);
		count_message(m, tally);
		json_decref(m);
	}
	for (i = 1; i <= 2; i++) {
		assert_int_equal(tally[i].got_events + tally[i].lost_events, N / 10);
		assert_int_equal(tally[i].got_steps + tally[i].lost_steps,
				 N - N / 10);
		assert_true(tally[i].lost_steps > 0 && tally[i].lost_events > 0);
		assert_int_equal(tally[i].told, 1);
	}
	close_client(&c);
}

static void subscriptions_end_with_their_connection(void **state)
{
	struct client c;

	(void)state;
	open_client(&c);
	call(&c, 1, "sub", "{}");
	expect_result(&c, 1);
	publish(1, 1, false);
	close_client(&c);
	TURN_UNTIL(lh_server_clients(server) == 0);
	assert_null(lh_server_hub(server)->feeds);
	publish(2, 1, false);
}

static void on_wake(struct lh_feed *f)
{
	(void)f;
}

/* The next line's params, and what it is of. */
static void expect_params(struct lh_feed *f, const char *method, int64_t event, int64_t step,
			  const char *want)
{
	struct lh_feed_kind kind;
	struct lh_buf out = { 0 };

	assert_true(lh_feed_take_params(f, &kind, &out));
	assert_string_equal(kind.method, method);
	assert_int_equal(kind.event, event);
	assert_int_equal(kind.step, step);
	assert_int_equal(kind.attempt, step ? 2 : 0);
	lh_buf_append(&out, "", 1);
	assert_string_equal(out.data, want);
	lh_buf_release(&out);
}

static void params_can_be_taken_without_their_frame(void **state)
{
	struct lh_event event = { 5, 7, false, json_pack("{s:i}", "id", 5) };
	struct lh_event step = { 0, 7, true, json_pack("{s:i,s:i}", "attempt", 2, "step", 9) };
	struct lh_event long_one = { 6, 7, false, NULL };
	struct lh_feed_kind kind;
	struct lh_buf out = { 0 };
	struct lh_hub hub = { 0 };
	struct lh_feed f;

	(void)state;
	lh_feed_init(&f, &hub, 0, on_wake);
	assert_int_equal(lh_feed_add(&f, 7, true, NULL), 1);
	lh_hub_publish(&hub, &event);
	lh_hub_publish(&hub, &step);
	expect_params(&f, "event", 5, 0, "{\"subscription\":1,\"id\":5}");
	expect_params(&f, "step", 0, 9, "{\"subscription\":1,\"attempt\":2,\"step\":9}");
	assert_false(lh_feed_take_params(&f, &kind, &out));

	lh_hub_publish(&hub, &step);
	long_one.json = json_pack("{s:o}", "text", text_of(LH_FEED_MAX_BYTES));
	lh_hub_publish(&hub, &long_one);
	expect_params(&f, "lost", 0, 0, "{\"subscription\":1,\"events\":0,\"steps\":1}");
	lh_feed_release(&f);
	json_decref(event.json);
	json_decref(step.json);
	json_decref(long_one.json);
}

static int woken;

static void on_counted_wake(struct lh_feed *f)
{
	(void)f;
	woken++;
}

static void lines_that_come_soon_after_one_wait_for_each_other(void **state)
{
	struct lh_event step = { 0, 7, true, json_pack("{s:i,s:i}", "attempt", 1, "step", 9) };
	struct lh_buf out = { 0 };
	struct lh_hub hub = { 0 };
	uv_timer_t gather;
	struct lh_feed f;
	uv_loop_t own;

	(void)state;
	uv_loop_init(&own);
	uv_timer_init(&own, &gather);
	gather.data = &hub;
	hub.gather = &gather;
	lh_feed_init(&f, &hub, 5, on_counted_wake);
	f.taken_ms = uv_now(&own) - 5;
	assert_int_equal(lh_feed_add(&f, 7, true, NULL), 1);
	woken = 0;
	lh_hub_publish(&hub, &step);
	assert_int_equal(woken, 1);
	assert_true(lh_feed_take(&f, &out));
	/* The loop's time stands still. */
	lh_hub_publish(&hub, &step);
	lh_hub_publish(&hub, &step);
	assert_int_equal(woken, 1);
	uv_run(&own, UV_RUN_DEFAULT);
	assert_int_equal(woken, 2);
	assert_true(lh_feed_take(&f, &out));
	assert_true(lh_feed_take(&f, &out));
	assert_false(lh_feed_take(&f, &out));
	/* All was taken: the timer has nothing to do. */
	assert_false(uv_is_active((uv_handle_t *)&gather));
	lh_feed_release(&f);
	uv_close((uv_handle_t *)&gather, NULL);
	uv_run(&own, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&own), 0);
	lh_buf_release(&out);
	json_decref(step.json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(subscriptions_count_what_a_slow_reader_lost),
		T(subscriptions_get_what_they_asked_for),
		T(subscriptions_have_a_limit),
		T(lines_that_come_soon_after_one_wait_for_each_other),
		T(params_can_be_taken_without_their_frame),
		T(subscriptions_end_with_their_connection),
	};

	signal(SIGPIPE, SIG_IGN);
	lh_log_set_level(LH_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
