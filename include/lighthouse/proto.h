/* proto.h: what lhd and a worker say to each other.
 *
 * A worker dials STATE/worker.sock and keeps dialling for ever. Both sides send
 * JSON objects, one a line (daemon/base/frame.h). Field "m" names the message.
 *
 *   worker -> lhd
 *     hello     {proto, job, attempt, token, pid, start_time, generation,
 *                first_seq, next_seq, step, phase, state}
 *     records   {records: [{seq, t, ...}, ...]}  at most LH_PROTO_BATCH, in order
 *     progress  {step, phase, state, doing, beat}  at least once a second, and
 *                                              when "doing" changes; never
 *                                              stored. "doing" is a short verb,
 *                                              "beat" a counter that only the
 *                                              training thread advances
 *     reply     {call, result} or {call, error: {code, text, hint}}
 *     piece     {call, ...}                    streamed part of a reply
 *   lhd -> worker
 *     welcome   {proto, generation, stored_seq}   as ack; resend from stored_seq + 1
 *     refuse    {code, text}                      do not train on; exit
 *     ack       {seq}                  records <= seq are committed, and outlive
 *                                      a power cut
 *     command   {id, verb, args}       journalled; answered by a record
 *     call      {call, method, args}   not journalled; answered by reply
 *
 * Records are durable: the worker keeps each in its spool (a file of the attempt)
 * until lhd has acknowledged it, and numbers them 1, 2, ... within the attempt.
 * lhd stores a record and the attempt's last seq in one transaction, so a
 * record is stored exactly once whatever crashes. Every record has seq, t,
 * step (completed optimizer steps of the job) and time_ms (Unix). Kinds, "t":
 *
 *     step        loss grad_norm lr tokens step_ms tokens_per_s phase
 *                 data_epoch
 *     eval        phase attention ("full"|"lighthouse") set_no set_name loss tokens
 *                 duration_ms cost (null: no step yet) reason ("start"|"interval"|
 *                 "before_switch"|"after_switch"|"end"|"command")
 *     look        kind ("selection": train/selection.h; "positions": train/positions.h,
 *                 and set_name; "passkey": contexts depths samples found right;
 *                 "choices": sets of set_name items acc acc_norm chance cut)
 *                 phase attention reason duration_ms cost data
 *     pace        phase step_ms: what a step of that phase, to come yet, would take
 *     checkpoint  path bytes duration_ms stall_ms reason; step is the one saved
 *     phase       phase (index) name reason command trial step_s (predicted)
 *     switch      verdict ("committed"|"reverted") command phase from_phase from_step
 *                 steps text: of a phase record that said `trial`, or a command that
 *                 a rollback takes back; command 0: the phase before was over
 *     state       state ("running"|"paused"|"switching"|"stopping"|"starting")
 *                 reason command; starting: it has not begun, the reason is why
 *     command     command outcome ("applied"|"refused"; "reverted": a set that a
 *                 rollback takes back) text hint
 *     settings    settings (whole, train/settings.h): at the start, and when they
 *                 have changed
 *     event       level ("info"|"warn"|"error") text
 *     instability cause action ("revert": of a switch on trial, or as in a job file)
 *                 count recent loss grad_norm z text; the step after `step` was
 *                 refused
 *     end         outcome ("done"|"cancelled"|"stopped"|"failed"|"rewound"|
 *                 "held") phase code text hint. Rewound: step and phase are those
 *                 of the checkpoint that another attempt is to go on from. Held:
 *                 it cannot go on now, and a resume begins another attempt
 *
 * Commands (verbs): switch {phase, at_step (applied at that very boundary; refused when
 * it is past), now (true: the step under way is abandoned and done again, and nothing is
 * evaluated before)}, set {phase, NAME: value, ...} (train/settings.h; refused once that
 * phase was left), pause {release}, resume {}, checkpoint {pin}, eval {attention, passkey,
 * choices}, cancel {}, stop {} (checkpoint and end as "stopped"). A worker applies each id
 * once, at a step boundary; repeats after a reconnect are answered from memory. For
 * cancel and stop it leaves unfinished what it does besides: an evaluation, a
 * step, its preparations. A stop is lhd's own: not journalled yet when it is sent,
 * so its id is LH_PROTO_UNANSWERED and no record answers it.
 * Calls: sample {prompt, max_tokens, temperature, top_k, top_p, seed}; preflight
 * {phase} -> {phase, need_bytes, have_bytes, fits, step_s (null: not known)}: what a
 * switch there would meet now.
 *
 * Version. `proto` is LH_PROTO_VERSION; it, job, attempt, token, pid, start_time,
 * generation and step of a hello mean the same in every version. An lhd speaks its
 * own version and the one before. A worker of any other, of a job or attempt that
 * lhd does not know, or that has obeyed a newer lhd, is listed and left alone: its
 * hello stays unanswered, it trains on and keeps its records. Refused is one whose
 * attempt is known to be over. Before 2 a worker applies a switch at once, whatever
 * at_step says: it does not get one.
 */
#ifndef LIGHTHOUSE_PROTO_H
#define LIGHTHOUSE_PROTO_H

#define LH_PROTO_VERSION 2
#define LH_PROTO_AT_STEP 2 /* the first that knows it */
#define LH_PROTO_BATCH 256
#define LH_PROTO_UNANSWERED 0 /* no command of the journal has this id */

/* Verbs that shape training: what was applied of them is applied again by a run that
 * resumes from before it. V(verb) each. */
#define LH_PROTO_SHAPING_VERBS(V) V("switch") V("set")

/* Longest line either side may send; a longer one closes the connection. */
#define LH_PROTO_LINE_MAX_BYTES (4u << 20)

/* Files of a state directory. Paths are relative to it. */
#define LH_STATE_LOCK "lock"               /* flock of the one lhd */
#define LH_STATE_GENERATION "generation"   /* how often it was opened */
#define LH_STATE_DB "lighthouse.db"
#define LH_STATE_CONTROL_SOCKET "control.sock"
#define LH_STATE_WORKER_SOCKET "worker.sock"
#define LH_STATE_PAGE_PORT "page.port"     /* of the page, last time */
#define LH_STATE_METRICS_KEY "metrics.key" /* that reads /metrics; daemon/http/http.h */
#define LH_STATE_CACHE "cache"             /* kernels chosen for this machine */
#define LH_STATE_JOBS "jobs"               /* jobs/<id>/ */

/* Files of a job directory, jobs/<id>/. */
#define LH_JOB_SPEC "job.json"             /* resolved job, written at each start */
#define LH_JOB_FILE "job.yaml"             /* as submitted */
#define LH_JOB_JOIN "join"                 /* how ranks come in, join/joinfile.h */
#define LH_JOB_LOCK "lock"                 /* flock of the one live worker */
#define LH_JOB_TRIAL "trial.json"          /* a switch on trial, train/trial.h */
#define LH_JOB_CHECKPOINTS "checkpoints"   /* checkpoints/step-%010d/ */

/* Files of an attempt directory, jobs/<id>/attempt-<n>/. */
#define LH_ATTEMPT_START "start.json"      /* written by lhd, see below */
#define LH_ATTEMPT_LOG "worker.log"        /* stdout and stderr of the worker */
#define LH_ATTEMPT_SPOOL "spool.jsonl"     /* unacknowledged records */
#define LH_ATTEMPT_PID "pid.json"          /* {pid, start_time, keeper_pid, keeper_start_time} */
#define LH_ATTEMPT_RANKS "ranks"           /* where each rank is, train/peers.h */
#define LH_ATTEMPT_DONE "done"             /* of one that is joined: the job is done */
#define LH_ATTEMPT_FAULT "fault"           /* one line: which rank was lost, and where */
#define LH_ATTEMPT_EXIT "exit.json"        /* {code, signal, started_ms, ended_ms}, by the keeper */

/* start.json: {job, attempt, token, generation, socket, cache (absolute paths),
 * paused (bool: start paused), saved (bool: a checkpoint is known, so there must be
 * one), replay: [{id, verb, args, step}], held: [{id, verb, args}]}.
 * `replay` lists the shaping commands that earlier attempts applied, in order: a
 * worker resuming at step s re-applies those with step >= s, each at its step,
 * and ignores the others. `held` lists pending commands that are for a later step, so
 * that its worker knows of them before it makes one. At one step boundary a due
 * checkpoint comes first, then commands, then the step. */

/* Ranks. A job of `devices` > 1 is so many workers, started with the same command line
 * by MPI's launcher (mpiexec.hydra, under the keeper), which says in PMI_RANK and
 * PMI_SIZE who they are: without them, or with another size, a worker ends with code 1.
 * The pid of pid.json is the launcher's; with it the keeper ends all that came of it.
 * Rank 0 is the one spoken of above; the others have no line to lhd, no lock and no
 * spool, and do what rank 0 says (train/team.h). All of them are one attempt: the loss of
 * one is that of all. Of a job with `join` the user's launcher starts them, on any hosts:
 * join/join.h tells how, and which process the pid is.
 *
 * Command line of a worker:
 *   lhworker-cpu --attempt DIR     train; DIR is jobs/<id>/attempt-<n>
 *   lhworker-cpu --sample CKPT     sample from a checkpoint: one JSON object of
 *                                  sample's args on stdin, pieces and then the
 *                                  reply as lines on stdout
 *   lhworker-cpu --gather DIR LAUNCHER  the door of an attempt that ranks join
 *   lhworker-cpu --join FILE [SECONDS]  a rank's: FILE is jobs/<id>/join, or a copy
 * Exit status: 0 the job ended (see the end record), 1 failed, 2 usage; of --join see join/join.h. */

#endif
