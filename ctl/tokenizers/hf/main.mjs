// main.mjs: Hugging Face's `tokenizers` for lhctl, over its stdin and stdout; the frames
// are in ctl/tokenizer.h. One request at a time, in one thread: lhctl starts more of it.
import { readSync, writeSync } from 'node:fs';

const READY = 1, ENCODE = 2, IDS = 3, DECODE = 4, TEXT = 5, ERROR = 6, VERSION = 1;

/** n bytes, or null at the end of the input. */
function read(n) {
  const bytes = Buffer.allocUnsafe(n);
  for (let at = 0; at < n;) {
    const got = readSync(0, bytes, at, n - at);
    if (!got) return null;
    at += got;
  }
  return bytes;
}

function write(kind, body) {
  const head = Buffer.allocUnsafe(8);
  head.writeUInt32LE(body.length, 0);
  head.writeUInt32LE(kind, 4);
  for (const bytes of [head, body])
    for (let at = 0; at < bytes.length;) at += writeSync(1, bytes, at);
}

const words = (...numbers) => Buffer.from(Uint32Array.from(numbers).buffer);

async function encode(tokenizer, body) {
  const n = body.readUInt32LE(0), texts = [];
  for (let i = 0, at = 4 + 4 * n; i < n; i++) {
    const bytes = body.readUInt32LE(4 + 4 * i);
    texts.push(body.toString('utf8', at, at + bytes));
    at += bytes;
  }
  const all = (await tokenizer.encodeBatch(texts, { addSpecialTokens: false })).map((e) => e.getIds());
  const out = new Uint32Array(n + all.reduce((sum, ids) => sum + ids.length, 0));
  let at = n;
  all.forEach((ids, i) => {
    out[i] = ids.length;
    out.set(ids, at);
    at += ids.length;
  });
  return Buffer.from(out.buffer);
}

function decode(tokenizer, body) {
  const ids = Array.from({ length: body.length / 4 }, (_, i) => body.readUInt32LE(4 * i));
  return tokenizer.decode(ids, false);
}

async function load(file) {
  // Read when the library starts.
  process.env.RAYON_NUM_THREADS = '1';
  process.env.TOKENIZERS_PARALLELISM = 'false';
  const { Tokenizer } = (await import('tokenizers')).default;
  const tokenizer = Tokenizer.fromFile(file);
  // A file may ask for both; a text has all of its ids here.
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  return tokenizer;
}

try {
  const tokenizer = await load(process.argv[2]);
  write(READY, words(VERSION, tokenizer.getVocabSize(true)));
  for (let head; (head = read(8));) {
    const body = read(head.readUInt32LE(0));
    if (head.readUInt32LE(4) === ENCODE) write(IDS, await encode(tokenizer, body));
    else if (head.readUInt32LE(4) === DECODE) write(TEXT, Buffer.from(await decode(tokenizer, body)));
    else throw new Error('a frame of another version');
  }
} catch (e) {
  write(ERROR, Buffer.from(String(e.message).slice(0, 1000)));
}
