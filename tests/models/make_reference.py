#!/usr/bin/env python3
"""make_reference.py: tiny random models of every family, and what transformers
computes with them.

    python3 tests/models/make_reference.py [DIR]

writes DIR/NAME/ (default: beside this file) for each case below: config.json and
safetensors as transformers saves them, and reference.safetensors with the tokens of
one sequence and their logits in float32. test_logits.c imports each and compares.
Needs torch and transformers; no GPU. Made once and kept: the test needs neither."""
import copy
import os
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file

TOKENS = 40
BASE = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
            rms_norm_eps=1e-5, rope_theta=100.0, initializer_range=0.2,
            tie_word_embeddings=False, bos_token_id=None, eos_token_id=None)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
LINEAR = dict(rope_type="linear", factor=2.5)
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16

# name: class, what differs, type of the saved weights, bytes of a file
CASES = {
    "llama2": ("Llama", dict(num_key_value_heads=2, rope_theta=10000.0), F32, "1GB"),
    "llama3": ("Llama", dict(rope_scaling=LLAMA3, tie_word_embeddings=True), F32, "1GB"),
    "linear": ("Llama", dict(rope_scaling=LINEAR), F16, "1GB"),
    "yarn": ("Llama", dict(rope_scaling=YARN), BF16, "1GB"),
    "mistral": ("Mistral", dict(head_dim=12, sliding_window=None), F32, "1GB"),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True, use_sliding_window=False), F32,
              "8KB"),
    "qwen3": ("Qwen3", dict(head_dim=12, use_sliding_window=False), BF16, "8KB"),
}


def check_angles(model, values):
    """What was asked for under a name that this version ignores would go unnoticed."""
    head = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    plain = 1.0 / values["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
    turns = model.model.rotary_emb.inv_freq.float().cpu()
    same = torch.allclose(turns, plain)
    assert same != ("rope_scaling" in values), f"angles are not as asked for: {turns}"


def make(name, directory):
    family, more, dtype, file_bytes = CASES[name]
    values = {**BASE, **more}
    # A copy: a config may change what it is given.
    config = getattr(transformers, f"{family}Config")(**copy.deepcopy(values))
    config._attn_implementation = "eager"
    torch.manual_seed(sum(name.encode()))
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    check_angles(model, values)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "norm" in key or key.endswith("bias"):  # else ones and zeros
                p.add_(0.3 * torch.randn_like(p))
            p.copy_(p.to(dtype).float())
    path = os.path.join(directory, name)
    shutil.rmtree(path, ignore_errors=True)
    tokens = torch.randint(0, values["vocab_size"], (1, TOKENS))
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[0].float().contiguous()
    model.to(dtype).save_pretrained(path, max_shard_size=file_bytes)
    save_file({"tokens": tokens[0].to(torch.int32).contiguous(), "logits": logits},
              os.path.join(path, "reference.safetensors"),
              {"transformers": transformers.__version__, "torch": torch.__version__})
    if os.path.exists(os.path.join(path, "generation_config.json")):
        os.remove(os.path.join(path, "generation_config.json"))
    bytes_ = sum(os.path.getsize(os.path.join(path, f)) for f in os.listdir(path))
    print(f"{name}: {', '.join(sorted(os.listdir(path)))}; {bytes_} bytes; "
          f"logits {logits.min():.2f} .. {logits.max():.2f}")


def main():
    directory = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    for name in CASES:
        make(name, directory)


if __name__ == "__main__":
    main()
