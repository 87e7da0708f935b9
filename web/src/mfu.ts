// mfu.ts: model FLOP utilisation, with what it is made of. Pure.
//
// Counted are the matrix products of the model's parameters, 6 FLOP each a token (2
// forward, 4 backward), and not attention: what that costs differs between phases, and
// a number that counts it cannot be compared across a switch.

/** Dense bf16 with fp32 accumulation, FLOP/s, as the vendor states it. */
const PEAKS: [RegExp, string, number][] = [
  [/\bH[12]00\b(?!.*(PCIe|NVL))/, 'H100/H200 SXM', 989.4e12],
  [/\bA100\b/, 'A100', 312e12],
];

interface Model {
  vocab: number;
  dim: number;
  layers: number;
  heads: number;
  kv_heads: number;
  head_dim: number;
  ffn_dim: number;
}

/** Parameters that are multiplied with each token: layers and the output, no embedding. */
export function matrixParameters(m: Model): number {
  const attention = m.dim * m.head_dim * (2 * m.heads + 2 * m.kv_heads);
  return m.layers * (attention + 3 * m.dim * m.ffn_dim) + m.vocab * m.dim;
}

/** A share and how it came about; null where the device's peak is not known. */
export function mfu(
  spec: Record<string, unknown>,
  gpu: string,
  tokensPerS: number | null,
): { share: number; how: string } | null {
  const peak = PEAKS.find(([name]) => name.test(gpu));
  const model = spec.model as Model | undefined;

  if (spec.device === 'cpu' || !peak || !model || !tokensPerS) return null;
  const n = matrixParameters(model);
  const share = (tokensPerS * 6 * n) / peak[2];
  return {
    share,
    how: `${Math.round(tokensPerS)} tokens/s × 6 × ${(n / 1e6).toFixed(1)} M parameters, without embedding and attention, over ${peak[2] / 1e12} TFLOP/s, ${peak[1]} dense bf16`,
  };
}
