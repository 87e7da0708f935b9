#!/usr/bin/env python3
"""compare.py: the greatest difference between our logits and those of transformers.

    python3 tests/models/compare.py HF_DIR [--logits PROGRAM] [--tokens N] [--bar X]

HF_DIR is any model that `lhctl import` reads: one of `lhctl export --dtype fp32`, or
one from elsewhere. Both sides compute in float32 on the CPU with the weights in it.
Exits with 1 above the bar. Needs torch and transformers."""
import argparse
import os
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("dir")
    p.add_argument("--logits", default=os.path.join(here, "../../build/tests/models/logits"))
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--bar", type=float, default=1e-4)
    a = p.parse_args()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        a.dir, attn_implementation="eager").float().eval()
    torch.manual_seed(1)
    tokens = torch.randint(0, model.config.vocab_size, (1, a.tokens))
    with torch.no_grad():
        theirs = model(input_ids=tokens, use_cache=False).logits[0].float()
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "logits.safetensors")
        subprocess.run([a.logits, a.dir, out], check=True, text=True,
                       input=" ".join(map(str, tokens[0].tolist())))
        ours = load_file(out)["logits"]
    worst = (ours - theirs).abs().max().item()
    print(f"{type(model).__name__}, {a.tokens} tokens: greatest difference {worst:.3g}, "
          f"of logits up to {theirs.abs().max().item():.3g} (bar {a.bar:g})")
    sys.exit(worst >= a.bar)


if __name__ == "__main__":
    main()
