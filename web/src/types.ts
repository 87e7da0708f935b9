// types.ts: what lhd answers, as far as the page reads it. schema/rpc/*.json is the
// source of truth; optional members are those that an older lhd does not tell.

export interface JobSummary {
  job: number;
  name: string;
  state: string;
  reason: string;
  priority: number;
  phase: number;
  phase_name: string;
  step: number;
  total_steps: number | null;
  loss: number | null;
  tokens_per_s: number | null;
  eta_s: number | null;
  attempt: number;
  restarts: number;
  submitted_ms: number;
  started_ms: number | null;
  ended_ms: number | null;
}

export interface Phase {
  name: string;
  attention: string;
  steps: number | null;
  first_step: number | null;
}

export interface Attempt {
  attempt: number;
  first_step: number | null;
  last_step: number | null;
  started_ms: number;
  ended_ms: number | null;
  outcome: string | null;
  why: string | null;
  hint: string | null;
  log: string[] | null;
}

export interface Evaluation {
  step: number;
  attempt: number;
  phase: number;
  attention: string;
  reason: string;
  loss: number | null;
  tokens: number;
  time_ms: number;
  set_no?: number;
  set_name?: string;
  cost?: number | null;
}

/** What an evaluation saw beside the loss; `data` depends on the kind. */
export interface Look<T> {
  kind: string;
  step: number;
  attempt: number;
  attention: string;
  cost: number | null;
  data: T;
}

export interface Positions {
  set_name?: string;
  edges: number[]; // one more than losses
  loss: (number | null)[];
}

export interface Passkey {
  contexts: number[];
  depths: number[];
  samples: number;
  found: number[][]; // a row for each context
  right: number;
}

export interface Choices {
  sets: { set_name: string; items: number; acc: number; acc_norm: number; chance: number }[];
}

export interface Selection {
  levels: {
    level: number;
    expanded: number;
    any_head: number;
    heads: number | null;
    kept: number | null;
  }[];
  never: number;
  window: number;
}

export interface Checkpoint {
  step: number;
  attempt: number;
  path: string;
  bytes: number;
  duration_ms: number;
  reason: string;
  time_ms: number;
  removed?: boolean;
  pinned?: boolean;
}

export interface JobShow {
  summary: JobSummary;
  phases: Phase[];
  attempts: Attempt[];
  evaluations: Evaluation[];
  checkpoints: Checkpoint[];
  looks?: Look<unknown>[];
  trial: {
    phase: number;
    from_step: number;
    steps: number;
    of: number;
    loss_ceiling: number | null;
  } | null;
  last_switch: { verdict: string; phase: number; from_step: number; why: string } | null;
  instability: { cause: string; count: number; step: number; action: string }[];
  spec: Record<string, unknown>;
  directory: string;
}

/** A group of neighbouring steps, as job.curve gives it. */
export interface Point {
  first_step: number;
  last_step: number;
  steps: number;
  phase: number;
  time_ms: number;
  tokens: number;
  loss_min: number | null;
  loss_mean: number | null;
  loss_max: number | null;
  grad_norm_min: number | null;
  grad_norm_mean: number | null;
  grad_norm_max: number | null;
  lr_min: number;
  lr_mean: number;
  lr_max: number;
  tokens_per_s_min: number;
  tokens_per_s_mean: number;
  tokens_per_s_max: number;
}

/** One step, as pushed or as in job.steps. */
export interface Step {
  job: number;
  attempt: number;
  step: number;
  phase: number;
  time_ms: number;
  loss: number | null;
  grad_norm: number | null;
  lr: number;
  tokens: number;
  step_ms: number;
  tokens_per_s: number;
}

export interface JobEvent {
  id: number;
  job: number | null;
  attempt: number | null;
  step: number | null;
  time_ms: number;
  kind: string;
  text: string;
  data: Record<string, unknown>;
}

export interface Command {
  command: number;
  job: number | null;
  method: string;
  args: Record<string, unknown>;
  uid: number;
  program: string;
  message: string;
  accepted_ms: number;
  outcome: string | null;
  step: number | null;
  text: string;
}

export interface Logs {
  attempt: number;
  live: boolean;
  bytes: number;
  offset: number;
  next_offset: number;
  more: boolean;
  text: string;
}

export interface DaemonInfo {
  version: string;
  pid: number;
  generation: number;
  started_ms: number;
  state_dir: string;
  jobs: number;
  gpu: string;
  workers: number;
  foreign_workers: { pid: number; job: number; why: string }[];
}

export interface Gpu {
  index: number;
  name: string | null;
  uuid: string | null;
  memory_used_bytes: number | null;
  memory_total_bytes: number | null;
  utilisation: number | null;
  power_watts: number | null;
  power_limit_watts: number | null;
  temperature_celsius: number | null;
}

export interface Devices {
  time_ms: number;
  host: {
    cpu: string | null;
    cpus: number;
    utilisation: number | null;
    load: number | null;
    memory_used_bytes: number | null;
    memory_total_bytes: number | null;
    disk_free_bytes: number | null;
    disk_total_bytes: number | null;
  };
  gpus: Gpu[];
  why_no_gpus: string | null;
  workers: {
    job: number;
    name: string;
    pid: number;
    host_bytes: number | null;
    gpu_bytes: number | null;
  }[];
}

export interface Forecast {
  as_planned: { seconds: number | null; end_ms: number | null };
  switched_now: { seconds: number | null; end_ms: number | null } | null;
  gap: { step: number; gap: number | null } | null;
}

export interface Preflight {
  phase: string;
  need_bytes: number;
  have_bytes: number;
  fits: boolean;
  step_s: number | null;
}

export const LIVE_STATES = ['STARTING', 'RUNNING', 'PAUSED', 'SWITCHING', 'STOPPING', 'RESTARTING'];
export const isLive = (state: string): boolean => LIVE_STATES.includes(state);
