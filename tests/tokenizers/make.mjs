// make.mjs: the tokenizers of the tests and the ids that upstream gives, made anew:
//
//   make && apt-get install sentencepiece python3-sentencepiece && node tests/tokenizers/make.mjs
//
// Each has the parts that make its family: how text is cut before merges, what it is
// normalized to, special tokens. The merges are learnt by Hugging Face's library and by
// spm_train from the project's own texts and a few lines of other scripts. ids.json has
// what the libraries themselves make of corners.txt: Hugging Face's by its `encode`,
// SentencePiece's by its Python module.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url)), MERGES = 500;
const { Tokenizer } = createRequire(join(here, '../../ctl/tokenizers/hf/main.mjs'))('tokenizers');
const scratch = mkdtempSync(join(tmpdir(), 'lh-tokenizers-'));

const scripts = `Ünïcödé naïve façade, Straße, 你好世界，今天天气很好。こんにちは世界。안녕하세요 세계.
Привет, мир! Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم. नमस्ते दुनिया। 👩‍👩‍👧‍👦 🚢🌊 👍🏽
`;
const corpus = ['README.md', 'schema/README.md', 'include/lighthouse/ops.h', 'ctl/pack.h'].map((f) => readFileSync(join(here, '../..', f), 'utf8')).join('\n') + scripts.repeat(20);

// Whatever a tokenizer may trip over; bytes that are no UTF-8 and NUL among it.
const corners = Buffer.concat([
  "Hello world! It's THEY'LL we\u2019d  don't\n",
  'e\u0301 \u00e9 n\u0303 \u1100\u1161\u11a8 \uac01 a\u0300\u0301\u0302 \u212b \ufb01 \ufdfa\n',
  '\u{1f469}\u200d\u{1f469}\u200d\u{1f467}\u200d\u{1f466} \u{1f44d}\u{1f3fd} \u{1f1e9}\u{1f1ea} \u2764\ufe0f \u{1f6a2}\n',
  '你好世界，今天天气很好。こんにちは\u3000世界。안녕하세요 \u{20000}\u{2a6d6}\n',
  '\u202bשלום עולם\u202c \u0645\u0631\u062d\u0628\u0627 \u200f\u200e\u2066x\u2069\n',
  'dos\r\nlines\r\n\r\nold\rmac\n\n\n',
  ' lead   three    four\ttab\t\ttwo \u00a0nbsp\u2003em\u2028line\u2029 trail   \n',
  '1 12 123 1234 12345678901234567890 3.14 \u0663\u0664\u0665 \u2167 \u00bd x2y3\n',
  'a\0b\0\0c \x01\x1b[2J\x7f\n',
  '<|endoftext|>x<|end_of_text|><|im_start|>user<|im_end|></s><s><unk> <|nothing|>\n',
  '\ufeffBOM \ufffd \uffff \u{10ffff}\n',
  Buffer.from([0x6c, 0xed, 0xa0, 0xbd, 0x6c, 0xed, 0xb0, 0x80, 0xe2, 0x82, 0x0a]), // lone surrogates, a cut character
  Buffer.from([0xff, 0xfe, 0xc0, 0xaf, 0xf0, 0x9f, 0x9a, 0x20, 0x80, 0x0a]),
  'SELECT * FROM t WHERE a<=>b; #include <x.h>\n\tif (a && !b) { return c[i++]; }\n',
  'https://example.org/\u00fc?q=1&r=%20 ___ --- ... !!!??? \u2026\u2014\u201cx\u201d',
].map((s) => Buffer.from(s)));

const WORDS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|DIGITS| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const byteLevel = (use_regex) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex });
const cut = (digits) => ({
  type: 'Sequence',
  pretokenizers: [{ type: 'Split', pattern: { Regex: WORDS.replace('DIGITS', digits) }, behavior: 'Isolated', invert: false }, byteLevel(false)],
});
const before = (token) => ({
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: token, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
  special_tokens: { [token]: { id: token, ids: [256 + MERGES], tokens: [token] } },
});

const families = {
  gpt2: { pre: byteLevel(true), post: byteLevel(true), special: ['<|endoftext|>'], config: { bos_token: '<|endoftext|>', eos_token: '<|endoftext|>' } },
  llama3: {
    pre: cut('\\p{N}{1,3}'), post: { type: 'Sequence', processors: [byteLevel(true), before('<|begin_of_text|>')] },
    special: ['<|begin_of_text|>', '<|end_of_text|>'], model: { ignore_merges: true },
    config: { bos_token: '<|begin_of_text|>', eos_token: { __type: 'AddedToken', content: '<|end_of_text|>', special: true } },
  },
  qwen: { normalizer: { type: 'NFC' }, pre: cut('\\p{N}'), post: byteLevel(false), special: ['<|endoftext|>', '<|im_start|>', '<|im_end|>'], config: { eos_token: '<|endoftext|>' } },
};

const model = (vocab, merges, more) => ({
  type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false,
  byte_fallback: false, ignore_merges: false, ...more, vocab, merges,
});
const tokenizerOf = (f, vocab, merges, special) => ({
  version: '1.0', truncation: null, padding: null,
  added_tokens: special.map((content, i) => ({ id: 256 + MERGES + i, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
  normalizer: f.normalizer ?? null, pre_tokenizer: f.pre, post_processor: special.length ? f.post : null, decoder: byteLevel(true),
  model: model(vocab, merges, f.model),
});

/** GPT-2's letters for bytes, in the order of its vocabulary. */
function letters() {
  const plain = [...Array(256).keys()].filter((b) => (b > 32 && b < 127) || (b > 160 && b !== 173));
  const rest = [...Array(256).keys()].filter((b) => !plain.includes(b));
  return [...plain.map((b) => String.fromCharCode(b)), ...rest.map((_, i) => String.fromCharCode(256 + i))];
}

/** The first merges that the library learns. */
function learn(f, text) {
  const learner = Tokenizer.fromString(JSON.stringify(tokenizerOf(f, {}, [], [])));
  learner.train([text]);
  learner.save(join(scratch, 'learnt.json'));
  return JSON.parse(readFileSync(join(scratch, 'learnt.json'))).model.merges.slice(0, MERGES);
}

try {
  const text = join(scratch, 'text'), ids = {};
  writeFileSync(text, corpus);
  writeFileSync(join(here, 'corners.txt'), corners);
  for (const [name, f] of Object.entries(families)) {
    const merges = learn(f, text), dir = join(here, name);
    const vocab = Object.fromEntries([...letters(), ...merges.map((m) => m.join(''))].map((token, i) => [token, i]));
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'tokenizer.json'), JSON.stringify(tokenizerOf(f, vocab, merges, f.special)) + '\n');
    writeFileSync(join(dir, 'tokenizer_config.json'), JSON.stringify(f.config, null, 2) + '\n');
    const encoded = await Tokenizer.fromFile(join(dir, 'tokenizer.json')).encode(corners.toString('utf8'), null, { addSpecialTokens: false });
    ids[name] = encoded.getIds();
  }
  const dir = join(here, 'sentencepiece');
  mkdirSync(dir, { recursive: true });
  execFileSync('spm_train', [`--input=${text}`, `--model_prefix=${scratch}/m`, '--vocab_size=800', '--model_type=bpe', '--byte_fallback', '--split_digits',
    '--normalization_rule_name=identity', '--remove_extra_whitespaces=false', '--num_threads=1', '--minloglevel=2']);
  writeFileSync(join(dir, 'tokenizer.model'), readFileSync(`${scratch}/m.model`));
  ids.sentencepiece = JSON.parse(execFileSync('/usr/bin/python3', ['-c', `import json, sys, sentencepiece
m = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
print(json.dumps(m.encode(open(sys.argv[2], 'rb').read().decode(errors='replace'))))`, join(dir, 'tokenizer.model'), join(here, 'corners.txt')]));
  writeFileSync(join(here, 'ids.json'), JSON.stringify(ids) + '\n');
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
