// clients.mjs: 200 clients of an lhd, in a process of their own: 50 are pushed every step,
// the others ask for the jobs once a second. Says so once all are there; ends with its
// stdin, and then prints how many steps the fifty were pushed and how many they missed.
//
//   node tests/bench/clients.mjs SOCKET
import { Client } from '../e2e/lib/lhd.mjs';

const CLIENTS = 200, SUBSCRIBED = 50;
const seen = { steps: 0, missed: 0 };
const all = await Promise.all(Array.from({ length: CLIENTS }, () => Client.connect(process.argv[2])));

for (const c of all.slice(0, SUBSCRIBED)) {
  let last = 0;
  const take = c.take;
  c.take = function (m) {
    if (m.method !== 'step') return m.method ? undefined : take.call(this, m);
    if (last && m.params.step !== last + 1) seen.missed += m.params.step - last - 1;
    last = m.params.step;
    seen.steps++;
  };
  await c.call('job.subscribe', { steps: true });
}
const asking = all.slice(SUBSCRIBED).map((c, i) => setTimeout(() => {
  asking.push(setInterval(() => c.call('job.list', {}), 1000));
}, i * 1000 / (CLIENTS - SUBSCRIBED)));
console.log('ready');
process.stdin.resume().once('end', () => {
  console.log(JSON.stringify(seen));
  process.exit(0);
});
