// calls.mjs: any call of the control protocol, legal or not, drawn from schema/rpc/ and
// what these jobs are made of. All of it depends on the numbers drawn alone.
import { jobYaml, schemas } from './lhd.mjs';

const JOBS = [1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 99];
const PHASES = ['lighthouse', 'recovery', '0', '1', '2', 'nowhere', ''];
const CONDITIONS = ['step > 20', 'step >= 60 AND phase = \'lighthouse\'', 'loss < 3', 'gap IS NULL', 'los < 2', 'step >', '(SELECT count(*) FROM evals) > 1'];
const ACTIONS = ['checkpoint', 'checkpoint pin', 'pause', 'pause release', 'resume', 'switch recovery', 'switch nowhere', 'set lr=1e-3', 'set lr=fast', 'exec note', 'exec ../note', 'cancel', 'reboot', ''];
const STEPS = (r) => r.pick([r.int(0, 40), r.int(0, 400), 1_000_000]);

/** A small job, one in some with a key that is wrong. */
function yamlOf(r) {
  const phases = [
    { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps: r.pick([30, 150, 100_000]) } },
    { name: 'recovery', attention: 'full', until: r.chance(0.2) ? { manual: true } : { steps: r.pick([10, 100]) } },
  ];
  return jobYaml({
    name: r.pick(['a', 'b', 'c']), phases,
    checkpoint: { every_steps: r.pick([0, 10, 50]), keep: r.int(1, 3) },
    evaluation: { sequences: 1, every_steps: r.pick([0, 25]), gap: r.chance(0.5) },
    rules: r.chance(0.3) ? [{ name: 'own', when: r.pick(CONDITIONS), do: r.pick(ACTIONS) }] : [],
    ...(r.chance(0.2) && { seed: 'x' }), ...(r.chance(0.3) && { preemptible: false }),
  });
}

/** What is worth giving under these names; others are made of the schema. */
const VALUES = {
  job: (r) => r.pick(JOBS), after: (r) => r.pick(JOBS),
  phase: (r) => r.pick(PHASES), at_step: STEPS, from_step: STEPS, to_step: STEPS,
  yaml: yamlOf, base_dir: (r, dir) => r.chance(0.9) ? dir : '/nowhere',
  set: (r) => r.pick([[], ['optimizer.lr=1e-3'], ['phases.recovery.until.steps=20'], ['nonsense'], ['model.heads=3']]),
  not_before_ms: (r) => r.pick([0, 1, Date.UTC(2100, 0)]), priority: (r) => r.int(-2, 2),
  micro_sequences: (r) => r.pick([0, 1, 2, 3]),
  lr: (r) => r.pick([1e-3, 2e-3, 0, -1]), lr_factor: (r) => r.pick([1, 0.5]), clip: (r) => r.pick([0, 1]),
  weight_decay: (r) => r.pick([0, 0.1]), eval_every: (r) => r.pick([0, 10, -1]), checkpoint_every: (r) => r.pick([0, 10]), phase_steps: STEPS,
  max_tokens: (r) => r.int(1, 6), prompt: (r) => r.pick(['', 'line ', 'é']), temperature: (r) => r.pick([0, 0.8]),
  name: (r) => r.pick(['one', 'two', 'own']), when: (r) => r.pick(CONDITIONS), on: (r) => r.pick(['job.*', 'job.eval', '*']), do: (r) => r.pick(ACTIONS), cooldown_s: (r) => r.pick([0, 0.1, 5]),
  request_id: (r) => `again-${r.int(1, 40)}`, program: (r) => r.pick(['random', '\u001b[2J']), message: (r) => r.pick(['why not', '', 'a\nb']),
  state: (r) => r.pick(['RUNNING', 'QUEUED', 'ASLEEP']), method: (r) => r.pick(['job.*', 'job.pause', 'none']), kind: (r) => r.pick(['job.*', 'command.applied']),
  subscription: (r) => r.int(1, 4),
};

function legal(r, name, p, dir) {
  if (VALUES[name]) return VALUES[name](r, dir);
  if (p.enum) return r.pick(p.enum);
  if (p.type === 'boolean') return r.chance(0.5);
  if (p.type === 'string') return r.pick(['', 'text']);
  return r.pick([p.min ?? 0, Math.min(p.max ?? 1e9, (p.min ?? 0) + r.int(0, 20))]);
}

const illegal = (r, p) => r.pick([null, {}, [1], 'x'.repeat((p.max_bytes ?? 100) + 1), -1e6, 1.5, 2 ** 53, (p.max ?? 1e12) + 1, true]);

/** {method, params}: one in eight is not what its schema allows. */
export function anyCall(r, methods, dir) {
  const method = r.pick(methods), schema = schemas.get(method);
  if (!schema) return { method, params: {} };
  const spoiled = r.chance(0.12), params = {};
  const often = { request_id: 0.15, now: 0.15, dry_run: 0.15, at_step: 0.2, not_before_ms: 0.2, after: 0.2 };
  for (const [name, p] of Object.entries(schema.params)) {
    const given = p.required ? !(spoiled && r.chance(0.2)) : r.chance(often[name] ?? 0.35);
    if (given) params[name] = spoiled && r.chance(0.3) ? illegal(r, p) : legal(r, name, p, dir);
  }
  if (spoiled && r.chance(0.2)) params.nobody_knows = 1;
  return { method, params };
}
