-- 0003_losses.sql: what a worker that was lost, or failed, left behind.

ALTER TABLE jobs ADD COLUMN lost_step INTEGER NOT NULL DEFAULT 0;
  -- furthest step at which one of `restarts` was lost; a checkpoint beyond it
  -- forgives them

ALTER TABLE attempts ADD COLUMN last_step INTEGER; -- of the job when it ended
ALTER TABLE attempts ADD COLUMN doing TEXT;        -- as it last said: 'training', ...
ALTER TABLE attempts ADD COLUMN why TEXT;          -- how it ended, a sentence
ALTER TABLE attempts ADD COLUMN hint TEXT;         -- the remedy, '' if none is known
ALTER TABLE attempts ADD COLUMN log_json TEXT;     -- last lines of its log, an array
