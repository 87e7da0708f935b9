-- 0004_evaluations.sql: what an evaluation took. Each says with which attention it was
-- made; while a Lighthouse phase runs there are pairs of one step.

ALTER TABLE evaluations ADD COLUMN duration_ms REAL; -- NULL: before this was measured
