/* statements.c: every statement that writes, with the meaning of its binds, but for
 * rollups, which follow from steps (rollup.c).
 *
 * Columns are bound in the order they stand in the statement. Inserts of records
 * are OR IGNORE on their primary key: storing one twice changes nothing. Ids of
 * jobs, commands and events are given out by daemon/jobs, which loads the
 * highest at start; so a caller knows them before the commit. */
#include "store/store_int.h"

#include <math.h>

const struct lh_store_sql lh_store_sql[LH_STMT_COUNT] = {
	[LH_STMT_JOB_INSERT] = {
		"INSERT INTO jobs (id, name, spec_json, spec_yaml, priority, state, "
		"reason, submitted_ms, not_before_ms, after_job) "
		"VALUES (?,?,?,?,?,?,?,?,?,?)", 10 },
	[LH_STMT_JOB_STATE] = {
		"UPDATE jobs SET state = ?2, wanted = ?3, reason = ?4, phase = ?5, "
		"step = ?6, attempt = ?7, restarts = ?8, started_ms = ?9, "
		"ended_ms = ?10, lost_step = ?11 WHERE id = ?1", 11 },
	[LH_STMT_JOB_WAIT] = {
		"UPDATE jobs SET not_before_ms = ?2, after_job = ?3 WHERE id = ?1", 3 },
	[LH_STMT_JOB_PRIORITY] = { "UPDATE jobs SET priority = ?2 WHERE id = ?1", 2 },
	[LH_STMT_JOB_SPEC] = { "UPDATE jobs SET spec_json = ?2 WHERE id = ?1", 2 },
	[LH_STMT_PHASE_INSERT] = {
		"INSERT INTO phases (job, phase, name, attention) VALUES (?,?,?,?)", 4 },
	[LH_STMT_ATTEMPT_INSERT] = {
		"INSERT INTO attempts (job, attempt, token, started_ms) "
		"VALUES (?,?,?,?)", 4 },
	[LH_STMT_ATTEMPT_WORKER] = {
		"UPDATE attempts SET pid = ?3, start_time = ?4, first_step = ?5 "
		"WHERE job = ?1 AND attempt = ?2", 5 },
	/* Never goes back, whatever is repeated. */
	[LH_STMT_ATTEMPT_SEQ] = {
		"UPDATE attempts SET last_seq = max(last_seq, ?3) "
		"WHERE job = ?1 AND attempt = ?2", 3 },
	/* The outcome alone when the end record comes; all when the process is
	 * gone. */
	[LH_STMT_ATTEMPT_END] = {
		"UPDATE attempts SET ended_ms = ?3, exit_code = ?4, exit_signal = ?5, "
		"outcome = ?6 WHERE job = ?1 AND attempt = ?2", 6 },
	[LH_STMT_ATTEMPT_REMAINS] = {
		"UPDATE attempts SET last_step = ?3, doing = ?4, why = ?5, hint = ?6, "
		"log_json = ?7 WHERE job = ?1 AND attempt = ?2", 7 },
	[LH_STMT_STEP_INSERT] = {
		"INSERT OR IGNORE INTO steps (job, attempt, step, phase, time_ms, loss, "
		"grad_norm, lr, tokens, step_ms, tokens_per_s, data_epoch) "
		"VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", 12 },
	[LH_STMT_EVAL_INSERT] = {
		"INSERT OR IGNORE INTO evaluations (job, attempt, seq, step, phase, "
		"time_ms, attention, reason, loss, tokens, duration_ms, set_no, "
		"set_name, cost) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", 14 },
	[LH_STMT_LOOK_INSERT] = {
		"INSERT OR IGNORE INTO looks (job, attempt, seq, step, phase, time_ms, "
		"kind, attention, reason, duration_ms, cost, data_json) "
		"VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", 12 },
	[LH_STMT_PACE_INSERT] = {
		"INSERT OR IGNORE INTO paces (job, attempt, seq, step, phase, step_ms, "
		"time_ms) VALUES (?,?,?,?,?,?,?)", 7 },
	[LH_STMT_CHECKPOINT_INSERT] = {
		"INSERT OR IGNORE INTO checkpoints (job, attempt, seq, step, time_ms, "
		"path, bytes, duration_ms, reason) VALUES (?,?,?,?,?,?,?,?,?)", 9 },
	[LH_STMT_COMMAND_INSERT] = {
		"INSERT INTO commands (id, request_id, job, method, args_json, uid, "
		"pid, program, message, accepted_ms) VALUES (?,?,?,?,?,?,?,?,?,?)", 10 },
	/* The first outcome stands. */
	[LH_STMT_COMMAND_OUTCOME] = {
		"UPDATE commands SET outcome = ?2, outcome_ms = ?3, step = ?4, "
		"text = ?5 WHERE id = ?1 AND outcome IS NULL", 5 },
	[LH_STMT_COMMAND_REVERTED] = {
		"UPDATE commands SET outcome = 'reverted', "
		"text = text || '; taken back: ' || ?2 "
		"WHERE id = ?1 AND outcome = 'applied'", 2 },
	[LH_STMT_EVENT_INSERT] = {
		"INSERT INTO events (id, job, attempt, step, time_ms, kind, text, "
		"data_json) VALUES (?,?,?,?,?,?,?,?)", 8 },
	[LH_STMT_RULE_INSERT] = {
		"INSERT INTO rules (id, job, name, when_sql, on_kind, action, repeat, "
		"cooldown_s, state, cursor_event, uid, pid, program, created_ms) "
		"VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", 14 },
	[LH_STMT_RULE_STATE] = {
		"UPDATE rules SET state = ?2, held = ?3, fired = ?4, cursor_event = ?5 "
		"WHERE id = ?1", 5 },
	[LH_STMT_FIRING_INSERT] = {
		"INSERT INTO rule_firings (rule, n, command, event, step, time_ms, "
		"values_json, outcome, text) VALUES (?,?,?,?,?,?,?,?,?)", 9 },
	[LH_STMT_FIRING_OUTCOME] = {
		"UPDATE rule_firings SET outcome = ?3, text = ?4 "
		"WHERE rule = ?1 AND n = ?2", 4 },
	[LH_STMT_PAGE_KEY_INSERT] = {
		"INSERT INTO page_keys (sha256, role, uid, created_ms, expires_ms) "
		"VALUES (?,?,?,?,?)", 5 },
	[LH_STMT_PAGE_KEYS_OVER] = {
		"DELETE FROM page_keys WHERE expires_ms <= ?1", 1 },
};

int lh_store_bind(sqlite3_stmt *st, const struct lh_bind *binds, int count)
{
	int rc = SQLITE_OK;

	for (int i = 0; rc == SQLITE_OK && i < count; i++) {
		const struct lh_bind *b = &binds[i];

		switch (b->type) {
		case LH_BIND_NULL:
			rc = sqlite3_bind_null(st, i + 1);
			break;
		case LH_BIND_INT:
			rc = sqlite3_bind_int64(st, i + 1, b->i);
			break;
		case LH_BIND_REAL:
			/* SQLite makes NULL of NaN by itself, not of infinity. */
			rc = isfinite(b->r) ? sqlite3_bind_double(st, i + 1, b->r) :
					      sqlite3_bind_null(st, i + 1);
			break;
		case LH_BIND_TEXT:
			rc = sqlite3_bind_text(st, i + 1, b->s, -1, SQLITE_STATIC);
			break;
		}
	}
	return rc;
}
