-- 0008_looks.sql: evaluations of named sets, and what is looked at beside the loss.

ALTER TABLE evaluations ADD COLUMN set_no INTEGER NOT NULL DEFAULT 0; -- 0: the one that rules mean
ALTER TABLE evaluations ADD COLUMN set_name TEXT NOT NULL DEFAULT 'validation';
-- All evaluations of the attempt so far / its steps; NULL: before the first.
ALTER TABLE evaluations ADD COLUMN cost REAL;

CREATE INDEX evaluations_of_set ON evaluations (job, set_no, attention, attempt, seq);

-- What an evaluation looks at beside the loss: which entries Lighthouse attention
-- selects, the loss by place in the sequence, digits hidden in long texts.
CREATE TABLE looks (
  job         INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  seq         INTEGER NOT NULL,
  step        INTEGER NOT NULL,
  phase       INTEGER NOT NULL,
  time_ms     INTEGER NOT NULL,
  kind        TEXT NOT NULL,  -- selection | positions | passkey
  attention   TEXT NOT NULL,
  reason      TEXT NOT NULL,
  duration_ms REAL,
  cost        REAL,           -- all of this kind in the attempt so far / its steps
  data_json   TEXT NOT NULL,  -- schema/README.md has what is in it
  PRIMARY KEY (job, attempt, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX looks_of_kind ON looks (job, kind, attempt, seq);
