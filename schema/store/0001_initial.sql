-- 0001_initial.sql: the store of one state directory. WAL; lhd is its only
-- writer; anybody may read with `sqlite3 -readonly`.
-- Times are Unix milliseconds (UTC). Steps count completed optimizer steps.

CREATE TABLE jobs (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  name        TEXT NOT NULL,
  spec_json   TEXT NOT NULL,           -- resolved job, as the worker gets it
  spec_yaml   TEXT NOT NULL,           -- job file as submitted
  priority    INTEGER NOT NULL DEFAULT 0,
  state       TEXT NOT NULL,
  wanted      TEXT NOT NULL DEFAULT 'run',  -- run | pause | cancel
  reason      TEXT NOT NULL DEFAULT '',  -- why it is in this state
  phase       INTEGER NOT NULL DEFAULT 0,
  step        INTEGER NOT NULL DEFAULT 0,
  attempt     INTEGER NOT NULL DEFAULT 0,  -- newest attempt, 0 = none yet
  restarts    INTEGER NOT NULL DEFAULT 0,  -- worker losses so far
  submitted_ms INTEGER NOT NULL,
  started_ms  INTEGER,
  ended_ms    INTEGER
) STRICT;

CREATE TABLE phases (
  job        INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
  phase      INTEGER NOT NULL,           -- 0, 1, ... in the order of the file
  name       TEXT NOT NULL,
  attention  TEXT NOT NULL,              -- full | lighthouse
  PRIMARY KEY (job, phase)
) STRICT, WITHOUT ROWID;

-- One row a worker's life. A resumed run is a new attempt from a checkpoint.
CREATE TABLE attempts (
  job        INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
  attempt    INTEGER NOT NULL,
  token      TEXT NOT NULL,              -- known to this worker and lhd only
  pid        INTEGER,
  start_time INTEGER,                    -- of the pid, clock ticks since boot
  first_step INTEGER,                    -- step it resumed from
  last_seq   INTEGER NOT NULL DEFAULT 0, -- newest record stored
  started_ms INTEGER NOT NULL,
  ended_ms   INTEGER,
  exit_code  INTEGER,
  exit_signal INTEGER,
  outcome    TEXT,                       -- done | cancelled | stopped | failed | lost
  PRIMARY KEY (job, attempt)
) STRICT, WITHOUT ROWID;

-- Every optimizer step. `step` counts the steps completed with this one.
CREATE TABLE steps (
  job          INTEGER NOT NULL,
  attempt      INTEGER NOT NULL,
  step         INTEGER NOT NULL,
  phase        INTEGER NOT NULL,
  time_ms      INTEGER NOT NULL,
  loss         REAL,                     -- nats a token, NULL if not finite
  grad_norm    REAL,                     -- before clipping, NULL if not finite
  lr           REAL NOT NULL,
  tokens       INTEGER NOT NULL,         -- trained on in this step
  step_ms      REAL NOT NULL,
  tokens_per_s REAL NOT NULL,
  data_epoch   INTEGER NOT NULL,
  PRIMARY KEY (job, attempt, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE evaluations (
  job        INTEGER NOT NULL,
  attempt    INTEGER NOT NULL,
  seq        INTEGER NOT NULL,
  step       INTEGER NOT NULL,
  phase      INTEGER NOT NULL,
  time_ms    INTEGER NOT NULL,
  attention  TEXT NOT NULL,
  reason     TEXT NOT NULL,   -- start | interval | before_switch | after_switch | end
  loss       REAL,
  tokens     INTEGER NOT NULL,
  PRIMARY KEY (job, attempt, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
  job         INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  seq         INTEGER NOT NULL,
  step        INTEGER NOT NULL,
  time_ms     INTEGER NOT NULL,
  path        TEXT NOT NULL,
  bytes       INTEGER NOT NULL,
  duration_ms REAL NOT NULL,
  reason      TEXT NOT NULL,
  PRIMARY KEY (job, attempt, seq)
) STRICT, WITHOUT ROWID;

-- The journal: every command that was accepted, committed before the answer.
CREATE TABLE commands (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  request_id  TEXT UNIQUE,             -- of the caller, makes a retry harmless
  job         INTEGER,
  method      TEXT NOT NULL,           -- job.switch, job.pause, ...
  args_json   TEXT NOT NULL,
  uid         INTEGER NOT NULL,
  pid         INTEGER NOT NULL,
  program     TEXT NOT NULL,           -- as the caller names itself
  message     TEXT NOT NULL DEFAULT '',  -- why, in the caller's words
  accepted_ms INTEGER NOT NULL,
  outcome     TEXT,                    -- NULL = pending, applied | refused
  outcome_ms  INTEGER,
  step        INTEGER,                 -- boundary it was applied at
  text        TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX commands_by_job ON commands(job, id);

-- What happened, in order: state changes, phases, commands' outcomes, faults.
CREATE TABLE events (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  job      INTEGER,
  attempt  INTEGER,
  step     INTEGER,
  time_ms  INTEGER NOT NULL,
  kind     TEXT NOT NULL,              -- job.state, job.phase, command.applied, ...
  text     TEXT NOT NULL,
  data_json TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX events_by_job ON events(job, id);
