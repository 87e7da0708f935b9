-- 0008_looks.sql: evaluations of named sets, and what is looked at beside the loss.

ALTER TABLE evaluations ADD COLUMN set_no INTEGER NOT NULL DEFAULT 0; -- 0: the one that rules mean
ALTER TABLE evaluations ADD COLUMN set_name TEXT NOT NULL DEFAULT 'validation';
-- All evaluations of the attempt so far / its steps; NULL: before the first.
ALTER TABLE evaluations ADD COLUMN cost REAL;

CREATE INDEX evaluations_of_set ON evaluations (job, set_no, attention, attempt, seq);
