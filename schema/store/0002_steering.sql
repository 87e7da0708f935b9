-- 0002_steering.sql: rules that steer jobs, what they did, and the pace of phases
-- that have not run yet.

-- Measured on the side: what a step of another phase would take.
CREATE TABLE paces (
  job      INTEGER NOT NULL,
  attempt  INTEGER NOT NULL,
  seq      INTEGER NOT NULL,
  step     INTEGER NOT NULL,
  phase    INTEGER NOT NULL,
  step_ms  REAL NOT NULL,
  time_ms  INTEGER NOT NULL,
  PRIMARY KEY (job, attempt, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE rules (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  job        INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
  name       TEXT NOT NULL,
  when_sql   TEXT NOT NULL DEFAULT '',  -- a condition, or
  on_kind    TEXT NOT NULL DEFAULT '',  -- a glob over kinds of events
  action     TEXT NOT NULL,             -- as written: "switch recovery"
  repeat     INTEGER NOT NULL DEFAULT 0,
  cooldown_s REAL NOT NULL DEFAULT 0,
  state      TEXT NOT NULL,             -- armed | fired | removed
  held       INTEGER NOT NULL DEFAULT 0, -- the condition was true when last looked at
  fired      INTEGER NOT NULL DEFAULT 0, -- times
  cursor_event INTEGER NOT NULL DEFAULT 0, -- events up to it were dealt with
  uid        INTEGER NOT NULL,          -- who made it
  pid        INTEGER NOT NULL,
  program    TEXT NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX rules_by_name ON rules(job, name) WHERE state <> 'removed';

-- Each time a rule fired, with what fired it.
CREATE TABLE rule_firings (
  rule     INTEGER NOT NULL REFERENCES rules(id) ON DELETE CASCADE,
  n        INTEGER NOT NULL,            -- 1, 2, ...
  command  INTEGER,                     -- that it gave, if it gave one
  event    INTEGER,                     -- that it answers
  step     INTEGER NOT NULL,
  time_ms  INTEGER NOT NULL,
  values_json TEXT NOT NULL,            -- of `now`, see daemon/jobs/rule_sql.h
  outcome  TEXT,                        -- NULL = under way, done | refused
  text     TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (rule, n)
) STRICT, WITHOUT ROWID;
