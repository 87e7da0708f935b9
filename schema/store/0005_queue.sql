-- 0005_queue.sql: what a job in the queue waits for.

ALTER TABLE jobs ADD COLUMN not_before_ms INTEGER; -- NULL: for no time, or it has come
ALTER TABLE jobs ADD COLUMN after_job INTEGER; -- NULL: for no job's end, or it has ended
