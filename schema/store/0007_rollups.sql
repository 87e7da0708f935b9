-- 0007_rollups.sql: steps put together, so that a long run is drawn without being read
-- whole; and what finds the few events that a job's page asks for among many.

-- The steps of one attempt in a block of 16^level neighbours, level 1 to 5: those whose
-- step / 16^level is `block`. lhd writes them with the steps (daemon/store/rollup.h).
CREATE TABLE rollups (
  job              INTEGER NOT NULL,
  attempt          INTEGER NOT NULL,
  level            INTEGER NOT NULL,
  block            INTEGER NOT NULL,
  first_step       INTEGER NOT NULL,   -- of those that there are
  last_step        INTEGER NOT NULL,
  steps            INTEGER NOT NULL,   -- how many
  phase            INTEGER NOT NULL,   -- highest
  time_ms          INTEGER NOT NULL,   -- latest
  tokens           INTEGER NOT NULL,   -- sum
  loss_count       INTEGER NOT NULL,   -- of those that are finite; NULL below if 0
  loss_min         REAL,
  loss_sum         REAL,
  loss_max         REAL,
  grad_norm_count  INTEGER NOT NULL,
  grad_norm_min    REAL,
  grad_norm_sum    REAL,
  grad_norm_max    REAL,
  lr_min           REAL NOT NULL,
  lr_sum           REAL,
  lr_max           REAL NOT NULL,
  step_ms_min      REAL NOT NULL,
  step_ms_sum      REAL,
  step_ms_max      REAL NOT NULL,
  tokens_per_s_min REAL NOT NULL,
  tokens_per_s_sum REAL,
  tokens_per_s_max REAL NOT NULL,
  PRIMARY KEY (job, attempt, level, block)
) STRICT, WITHOUT ROWID;

-- total(), unlike sum(), refuses no integers.
INSERT INTO rollups
SELECT job, attempt, 1, step >> 4, min(step), max(step), count(*), max(phase),
  max(time_ms), CAST(total(tokens) AS INTEGER),
  count(loss), min(loss), sum(loss), max(loss),
  count(grad_norm), min(grad_norm), sum(grad_norm), max(grad_norm),
  min(lr), sum(lr), max(lr), min(step_ms), sum(step_ms), max(step_ms),
  min(tokens_per_s), sum(tokens_per_s), max(tokens_per_s)
FROM steps GROUP BY job, attempt, step >> 4;

WITH levels(level) AS (VALUES (2), (3), (4), (5))
INSERT INTO rollups
SELECT r.job, r.attempt, l.level, r.block >> 4 * (l.level - 1), min(first_step),
  max(last_step), sum(steps), max(phase), max(time_ms), CAST(total(tokens) AS INTEGER),
  sum(loss_count), min(loss_min), sum(loss_sum), max(loss_max),
  sum(grad_norm_count), min(grad_norm_min), sum(grad_norm_sum), max(grad_norm_max),
  min(lr_min), sum(lr_sum), max(lr_max), min(step_ms_min), sum(step_ms_sum),
  max(step_ms_max), min(tokens_per_s_min), sum(tokens_per_s_sum), max(tokens_per_s_max)
FROM levels l CROSS JOIN rollups r WHERE r.level = 1 GROUP BY 1, 2, 3, 4;

CREATE INDEX events_by_kind ON events(job, kind, id);
