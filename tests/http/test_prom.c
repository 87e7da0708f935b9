/* test_prom.c: the text that Prometheus reads: its lines, escapes, numbers that are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "http/prom.h"
#include "lighthouse/err.h"

/* The whole text for these facts; heap. */
static char *written_of(const char *daemon, const char *devices, const char *jobs)
{
	json_t *d = json_loads(daemon, 0, NULL), *j = json_loads(jobs, 0, NULL);
	json_t *v = json_loads(devices, 0, NULL);
	struct lh_buf out = { 0 };

	assert_non_null(d);
	assert_non_null(j);
	assert_non_null(v);
	lh_prom_write(&out, d, v, j);
	lh_buf_append(&out, "", 1);
	json_decref(d);
	json_decref(j);
	json_decref(v);
	return out.data;
}

static char *written(const char *daemon, const char *jobs)
{
	return written_of(daemon, "{}", jobs);
}

/* Each of `lines` is one of the text's. */
static void expect_lines(char *text, const char *const *lines)
{
	char needle[256];

	for (; *lines; lines++) {
		snprintf(needle, sizeof(needle), "\n%s\n", *lines);
		if (!strstr(text, needle))
			fail_msg("'%s' is not in\n%s", *lines, text);
	}
	free(text);
}

static void numbers_of_lhd_are_told_once_with_their_units(void **state)
{
	static const char *const lines[] = {
		"# TYPE lighthouse_build_info gauge",
		"lighthouse_build_info{version=\"1.2\\\"\\\\\"} 1",
		"lighthouse_start_time_seconds 1700000000.123",
		"lighthouse_queue_length 3",
		"lighthouse_database_up 0",
		"lighthouse_database_size_bytes 9007199254740992",
		NULL };

	(void)state;
	expect_lines(written("{\"version\":\"1.2\\\"\\\\\",\"started_ms\":1700000000123,"
			     "\"queued\":3,\"database_up\":0,"
			     "\"database_bytes\":9007199254740992}", "[]"), lines);
}

static void a_job_is_labelled_and_is_in_one_state(void **state)
{
	static const char *const lines[] = {
		"lighthouse_job_step{job_id=\"7\",name=\"a\\\"b\\\\c\\nd\"} 12",
		"lighthouse_job_state{job_id=\"7\",name=\"a\\\"b\\\\c\\nd\",state=\"PAUSED\"} 1",
		"lighthouse_job_state{job_id=\"7\",name=\"a\\\"b\\\\c\\nd\",state=\"DONE\"} 0",
		"lighthouse_job_loss_nats_per_token{job_id=\"7\",name=\"a\\\"b\\\\c\\nd\"} 2.5",
		"lighthouse_job_last_step_timestamp_seconds{job_id=\"7\",name=\"a\\\"b\\\\c\\nd\"} "
		"1700000000.500",
		"# TYPE lighthouse_job_checkpoints_total counter",
		"lighthouse_job_checkpoints_total{job_id=\"7\",name=\"a\\\"b\\\\c\\nd\"} 4",
		"lighthouse_job_validation_loss_nats_per_token{job_id=\"7\",name=\"a\\\"b"
		"\\\\c\\nd\",set=\"co\\\"de\"} 1.5",
		"lighthouse_job_validation_loss_nats_per_token{job_id=\"7\",name=\"a\\\"b"
		"\\\\c\\nd\",set=\"v\"} NaN",
		NULL };

	(void)state;
	expect_lines(written("{}", "[{\"job\":7,\"name\":\"a\\\"b\\\\c\\nd\",\"step\":12,"
				   "\"state\":\"PAUSED\",\"loss\":2.5,"
				   "\"last_step_ms\":1700000000500,\"checkpoints\":4,"
				   "\"validation\":[{\"set_name\":\"co\\\"de\",\"loss\":1.5},"
				   "{\"set_name\":\"v\",\"loss\":null}]}]"),
		     lines);
}

static void what_is_not_known_is_left_out_but_a_loss_is_nan(void **state)
{
	char *text = written("{}", "[{\"job\":1,\"name\":\"x\",\"state\":\"RUNNING\","
				   "\"loss\":null,\"eta_s\":null}]");
	static const char *const lines[] = {
		"lighthouse_job_loss_nats_per_token{job_id=\"1\",name=\"x\"} NaN", NULL };

	(void)state;
	assert_null(strstr(text, "\nlighthouse_job_remaining_seconds{"));
	assert_null(strstr(text, "\nlighthouse_job_last_step_timestamp_seconds{"));
	assert_null(strstr(text, "\nlighthouse_queue_length "));
	expect_lines(text, lines);
}

static void devices_are_told_with_their_labels_and_what_is_null_is_not(void **state)
{
	char *text = written_of("{}", "{\"host\":{\"load\":1.5,\"utilisation\":null,"
				"\"disk_free_bytes\":5},\"gpus\":[{\"index\":0,\"name\":\"A \\\"B\","
				"\"uuid\":\"GPU-1\",\"memory_used_bytes\":7,"
				"\"utilisation\":0.5,\"power_watts\":512.25,"
				"\"temperature_celsius\":null}]}",
				"[{\"job\":1,\"name\":\"x\",\"state\":\"RUNNING\","
				"\"host_bytes\":9,\"gpu_bytes\":null}]");
	static const char *const lines[] = {
		"lighthouse_cpu_load 1.5",
		"lighthouse_disk_free_bytes 5",
#define GPU "{gpu=\"0\",uuid=\"GPU-1\",model=\"A \\\"B\"}"
		"lighthouse_gpu_memory_used_bytes" GPU " 7",
		"lighthouse_gpu_utilisation_ratio" GPU " 0.5",
		"lighthouse_gpu_power_watts" GPU " 512.25",
		"lighthouse_worker_memory_bytes{job_id=\"1\",name=\"x\"} 9",
		NULL };

	(void)state;
	assert_null(strstr(text, "\nlighthouse_cpu_utilisation_ratio "));
	assert_null(strstr(text, "\nlighthouse_gpu_temperature_celsius{"));
	assert_null(strstr(text, "\nlighthouse_worker_gpu_memory_bytes{"));
	expect_lines(text, lines);
}

/* Each sample stands below the HELP and TYPE of its name. */
static void every_sample_has_its_help_and_type(void **state)
{
	char *text = written("{\"queued\":1}", "[{\"job\":1,\"name\":\"x\",\"step\":1},"
					       "{\"job\":2,\"name\":\"y\",\"step\":2}]");
	char *rest, *line, name[96] = "";

	(void)state;
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (!strncmp(line, "# HELP ", 7)) {
			snprintf(name, sizeof(name), "%.*s",
				 (int)strcspn(line + 7, " "), line + 7);
			line = strtok_r(NULL, "\n", &rest);
			assert_non_null(line);
			assert_int_equal(strncmp(line, "# TYPE ", 7), 0);
			assert_int_equal(strncmp(line + 7, name, strlen(name)), 0);
		} else {
			assert_int_equal(strncmp(line, name, strlen(name)), 0);
			assert_non_null(strchr("{ ", line[strlen(name)]));
		}
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_of_lhd_are_told_once_with_their_units),
		cmocka_unit_test(a_job_is_labelled_and_is_in_one_state),
		cmocka_unit_test(what_is_not_known_is_left_out_but_a_loss_is_nan),
		cmocka_unit_test(devices_are_told_with_their_labels_and_what_is_null_is_not),
		cmocka_unit_test(every_sample_has_its_help_and_type),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
