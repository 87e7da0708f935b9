// tfevents.mjs: reads event files as TensorBoard does: TFRecords with their checksums, in
// each an Event of scalars. Of protocol buffers as much as that takes.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

/** CRC-32C bit by bit: slow, and nothing like the writer's table. */
function crc32c(bytes) {
  let crc = 0xffffffff;
  for (const b of bytes) for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ ((((crc ^ (b >> i)) & 1) * 0x82f63b78) >>> 0);
  return (crc ^ 0xffffffff) >>> 0;
}
const unmask = (m) => { const rot = (m - 0xa282ead8) >>> 0; return ((rot << 15) | (rot >>> 17)) >>> 0; };

assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283); // the published check value

/** [[field number, value]]: numbers of varints, bytes of all else. */
function fields(bytes) {
  const out = [];
  let at = 0;
  const varint = () => { let v = 0n; for (let shift = 0n; ; shift += 7n) { const b = bytes[at++]; v |= BigInt(b & 127) << shift; if (b < 128) return Number(v); } };
  while (at < bytes.length) {
    const key = varint(), type = key & 7;
    if (type === 0) { out.push([key >> 3, varint()]); continue; }
    const n = type === 1 ? 8 : type === 5 ? 4 : type === 2 ? varint() : assert.fail(`wire type ${type}`);
    assert.ok(at + n <= bytes.length, 'a field ends in its message');
    out.push([key >> 3, bytes.subarray(at, at += n)]);
  }
  return out;
}

/** [{wall_time, step, file_version?, values: [{tag, value}]}] */
export function readEvents(path) {
  const file = readFileSync(path), events = [];
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at));
    assert.equal(unmask(file.readUInt32LE(at + 8)), crc32c(file.subarray(at, at + 8)), 'crc of a length');
    const data = file.subarray(at + 12, at + 12 + length);
    assert.equal(data.length, length);
    assert.equal(unmask(file.readUInt32LE(at + 12 + length)), crc32c(data), 'crc of an event');
    at += 16 + length;
    const event = { step: 0, values: [] };
    for (const [number, value] of fields(data)) {
      if (number === 1) event.wall_time = value.readDoubleLE();
      else if (number === 2) event.step = value;
      else if (number === 3) event.file_version = value.toString();
      else if (number === 5) event.values.push(...fields(value).map(([n, v]) => { assert.equal(n, 1); const f = new Map(fields(v)); return { tag: f.get(1).toString(), value: f.get(2).readFloatLE() }; }));
      else assert.fail(`field ${number} of an event`);
    }
    events.push(event);
  }
  return events;
}
