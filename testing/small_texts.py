"""A real, tiny curation of texts for tests: an untrained Llama with a tokenizer of its own, made-up sums, seconds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from mgd_core.training.order import generator

WORDS = [str(number) for number in range(20)] + ["plus", "is", "not", "the", "sum"]

CATALOG = """
name = "sums"
[pool]
source = "pool.jsonl"
[targets.target]
source = "target.jsonl"
[targets.heldout]
source = "heldout.jsonl"
[targets.tests.sums]
source = "test.jsonl"
[model]
kind = "causal_lm"
folder = "model"
max_tokens = 16
[learner]
steps = 8
batch = 16
learning_rate = 3e-3
warmup = 2
[descent]
rounds = 2
window_start = 4
probe_steps = [4, 6]
rule = "exchange"
p = 0.5
share = 0.2
momentum = 1.0
[comparison]
subsets = ["everything", "random", "loss_filter", "gradient_filter", "embedding_filter", "mgd", "oracle"]
seeds = [1]
[runtime]
threads = 1
"""


def small_texts(directory: Path, *changes: tuple[str, str]) -> Path:
    """Write pool, questions, model and catalog into ``directory``; ``changes`` replace text of the catalog."""
    draw = generator(0, 0)
    sums = [(int(a), int(b)) for a, b in draw.permutation([(a, b) for a in range(10) for b in range(10)])]
    parts = {"pool": sums[:30], "target": sums[60:72], "heldout": sums[72:84], "test": sums[84:]}
    for name, pairs in parts.items():
        rows = [sample(a, b, right) for a, b in pairs for right in (True, False)] if name == "pool" else None
        lines = [json.dumps(row) for row in (rows or [question(a, b) for a, b in pairs])]
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    write_model(directory / "model")
    text = CATALOG
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    (directory / "sums.toml").write_text(text)
    return directory / "sums.toml"


def sample(a: int, b: int, right: bool) -> dict[str, Any]:
    """A sum of the pool; a wrong one is off by one."""
    answer = a + b if right else a + b + 1
    return {"prompt": f"{a} plus {b} is", "completion": f"{answer}", "task": "sums", "truth_clean": right}


def question(a: int, b: int) -> dict[str, Any]:
    """A sum to ask, with two options."""
    return {"prompt": f"{a} plus {b} is", "options": [f"{a + b}", f"{a + b + 1}"], "answer": 0}


def write_model(folder: Path, vocabulary: int | None = None, **config: Any) -> None:
    """An untrained Llama of two layers, and a tokenizer of whole words."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    _model(vocabulary or len(tokenizer), tuple(config.items())).save_pretrained(folder)


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    known = {word: i for i, word in enumerate(["<end>", "<unknown>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(known, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unknown>")


@cache
def _model(vocabulary: int, config: tuple[tuple[str, Any], ...]) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    special: dict[str, Any] = dict(bos_token_id=0, eos_token_id=0, max_position_embeddings=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes, **special, **dict(config)))
