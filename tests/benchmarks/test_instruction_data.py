"""Data and models of the instruction benchmark: what is apart, what is right, and what a cut vocabulary changes."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.instruction.data import (
    IRRELEVANT,
    RIGHT,
    InstructionDataError,
    Sizes,
    assembled,
)
from benchmarks.instruction.model import write_trimmed
from benchmarks.instruction.quick import quick_data, write_quick_model

SIZES = Sizes(test=30, heldout=10, target=10, right=60, wrong=90, irrelevant=80)


def made_up_tasks() -> dict[str, dict[str, tuple[str, ...]]]:
    """Tasks of the source's form: 40 passages with one question of each kind, some answers too long."""
    tasks: dict[str, dict[str, tuple[str, ...]]] = {}
    for kind in RIGHT:
        asked = [f"Sentence: passage {i}.\nQuestion: {kind} {i}?" for i in range(40)]
        tasks[f"mctaco_answer_generation_{kind}"] = {x: (f"right {x[-3:]}", "x" * 90) for x in asked}
        tasks[f"mctaco_wrong_answer_generation_{kind}"] = {x: ("wrong", "bad", "x" * 90) for x in asked}
        tasks[f"mctaco_question_generation_{kind}"] = {f"Sentence: passage {i}.": (f"{kind}?",) for i in range(40)}
    for names in IRRELEVANT[1:]:
        tasks |= {name: {f"{name} {i}": ("yes",) for i in range(40)} for name in names}
    return tasks


def passage(prompt: str) -> str:
    return prompt.removesuffix("\nAnswer:").split("\nQuestion:")[0]


def test_no_passage_is_used_twice_and_right_is_right() -> None:
    data = assembled(made_up_tasks(), SIZES, seed=3)
    rows = {name: {passage(row.prompt) for row in found} for name, found in vars(data).items()}
    assert all(not rows[a] & rows[b] for a in rows for b in rows if a != b)
    assert (len(data.test), len(data.heldout), len(data.target)) == (30, 10, 10)
    for question in (*data.test, *data.target, *data.heldout):
        assert question.options[question.answer].startswith(" right") and len(question.options) == 3
    for sample in data.pool:
        assert (sample.completion.startswith(" right"), sample.completion in (" wrong", " bad")) == (
            sample.truth_clean is True,
            sample.truth_clean is False,
        )
    counted = [sum(sample.truth_clean is x for sample in data.pool) for x in (True, False, None)]
    assert counted == [60, 90, 80]


def test_data_are_a_function_of_the_seed(tmp_path: Path) -> None:
    one, same, other = (assembled(made_up_tasks(), SIZES, seed) for seed in (1, 1, 2))
    assert one == same and one.pool != other.pool
    one.write(tmp_path)
    read = [json.loads(line) for line in (tmp_path / "pool.jsonl").read_text().splitlines()]
    assert [row.get("truth_clean") for row in read] == [sample.truth_clean for sample in one.pool]


def test_too_few_questions_or_samples_are_told() -> None:
    for sizes, told in ((Sizes(test=999), "too few questions"), (Sizes(20, 5, 5, right=999), "999 are wanted")):
        with pytest.raises(InstructionDataError, match=told):
            assembled(made_up_tasks(), sizes, seed=0)
    with pytest.raises(InstructionDataError, match="is missing"):
        assembled({}, SIZES, seed=0)


def test_a_cut_vocabulary_gives_the_same_tokens_and_logits(tmp_path: Path) -> None:
    write_quick_model(tmp_path / "whole")
    texts = [topics[name][:300] for name in sorted(topics)[:3]]
    write_trimmed(tmp_path / "whole", tmp_path / "cut", texts)
    whole, cut = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("whole", "cut"))
    assert len(cut) < len(whole) and cut.eos_token == whole.eos_token
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("whole", "cut")]
    assert models[1].config.vocab_size == len(cut) and models[1].config.eos_token_id == cut.eos_token_id
    for text in texts:
        assert cut.tokenize(text) == whole.tokenize(text)
        theirs, ours = (
            model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits
            for model, tokenizer in zip(models, (whole, cut), strict=True)
        )
        kept = torch.tensor(whole.convert_tokens_to_ids(cut.convert_ids_to_tokens(range(len(cut)))))
        torch.testing.assert_close(ours, theirs[:, :, kept])
    other = "Quixotic zebras, unseen before: ßøµ"
    assert cut.decode(cut(other)["input_ids"]) == other


def test_made_up_data_share_no_sentence() -> None:
    data = quick_data(pool=60, asked=20)
    prompts = [passage(row.prompt) for found in vars(data).values() for row in found]
    assert len(prompts) == len(set(prompts)) == 120 and data == quick_data(pool=60, asked=20)
