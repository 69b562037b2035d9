"""Curations of texts: the whole flow of work on a tiny model, its invariances, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mgd_core.engine.replay import train
from mgd_core.models.causal_lm import NOT_PREDICTED
from mgd_core.models.model_folders import CausalLmOptions, LanguageModelError, load_causal_lm
from tasks.catalog.catalogs import CatalogError, check_sources, load_catalog, load_pair_catalog
from tasks.catalog.smoothness_options import MenuOptions
from tasks.curation.rounds import load_parameters
from tasks.export.reshard import ReshardOptions
from tasks.files.export_directories import ExportError
from tasks.modality.registry import open_recipe
from tasks.modality.texts.recipe import TextRecipe
from tasks.modality.texts.sequences import TextTokenizer
from tasks.report.reports import write_report
from tasks.report.results import result_table
from tasks.runs.listing import export_run
from tasks.smoothness.menu import variants
from tasks.tables.published import read
from tasks.tables.run_folders import chosen_round
from tasks.tables.uids import content_uid
from testing.small_catalog import begun, curate_plainly, published
from testing.small_texts import small_texts, write_model

LAST_LAYER = ('folder = "model"', 'folder = "model"\ntrained_layers = 1\nlora = {rank = 2, alpha = 4}')


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny catalog."""
    place = tmp_path_factory.mktemp("texts")
    return curate_plainly(small_texts(place), place / "home")


def test_a_knob_that_a_language_model_has_not_is_refused(tmp_path: Path) -> None:
    with open_recipe(begun(small_texts(tmp_path), tmp_path / "home")) as bench:
        assert bench.turned("batch", 8).catalog.learner.batch == 8
        with pytest.raises(CatalogError, match="'width' is a knob of other models; this recipe has the learner's only"):
            variants(bench, MenuOptions(width=(2.0,)))
        with pytest.raises(CatalogError, match="evaluation sets are put to CLIPs only"):
            bench.encoder(torch.zeros(1), "")


def test_the_tables_tell_what_was_done(curated: Path) -> None:
    home, run = curated.parents[1], curated.name
    rounds = read(home, run, "rounds").to_pylist()
    assert [row["round"] for row in rounds] == [0, 1, 2] and all(row["temperature"] is None for row in rounds)
    rows = {row["subset"]: row for row in result_table(home, run)}
    assert set(rows) == {"everything", "random", "loss_filter", "gradient_filter", "embedding_filter", "mgd", "oracle"}
    assert all(0 <= row["sums accuracy"] <= 1 and row["distinct"] for row in rows.values())
    assert rows["oracle"]["distinct"] == 30
    accuracies = [row for row in read(home, run, "evaluations").to_pylist() if row["metric"] == "accuracy"]
    shares = {(row["subset"], row["task"]): row["value"] for row in accuracies if row["seed"] == accuracies[0]["seed"]}
    for row in read(home, run, "answers").to_pylist():
        assert row["metric"] == "accuracy" and len(row["correct"]) == row["n"]
        if row["seed"] == accuracies[0]["seed"]:
            assert row["correct"].count("1") / row["n"] == pytest.approx(shares[row["subset"], row["task"]])
    page = write_report(home, run).read_text()
    assert "By task" in page and "plus" in page and "Those dropped with the largest g" in page


def test_the_subset_is_exported_as_the_samples_themselves(curated: Path, tmp_path: Path) -> None:
    home, run = curated.parents[1], curated.name
    told = export_run(home, run, "jsonl", tmp_path / "out.jsonl", None, ReshardOptions())
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    counts = read(home, run, "counts", chosen_round(home, run))
    assert f"{len(rows):,} samples" in told
    assert Counter(content_uid(row["prompt"].encode(), row["completion"].encode()) for row in rows) == {
        row["uid"].hex: row["count"] for row in counts.to_pylist() if row["count"]
    }
    assert {*(tmp_path / "out.jsonl").read_text().splitlines()} <= {
        *(home.parent / "pool.jsonl").read_text().splitlines()
    }
    with pytest.raises(ExportError, match="mgd export --format jsonl"):
        export_run(home, run, "webdataset", tmp_path / "out", None, ReshardOptions())


@pytest.mark.parametrize("change", [LAST_LAYER, ("[pool]", '[pool]\nhow_to_get = "write it"')])
def test_equal_runs_give_equal_bytes(curated: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    def run(name: str) -> Path:
        (tmp_path / name).mkdir()
        return curate_plainly(small_texts(tmp_path / name, change), tmp_path / name / "home")

    first, again = run("one") if change is LAST_LAYER else curated, run("two")
    assert first.name == again.name and published(first) == published(again)


def test_only_what_is_trained_moves_and_is_kept(tmp_path: Path) -> None:
    with open_recipe(begun(small_texts(tmp_path, LAST_LAYER), tmp_path / "home")) as bench:
        assert isinstance(bench, TextRecipe) and bench.sequences.states is not None
        learner, state = bench.learner(np.ones(len(bench), np.int64), 0)
        assert all("lora_" in name for name in learner.layout.names)
        final, losses = train(learner, state)
        assert not torch.equal(final.theta, state.theta) and losses[-1] < losses[0]


def test_a_batch_is_completions_after_their_prompts(tmp_path: Path) -> None:
    """Losses by transformers itself, sample by sample, nothing filled up."""
    with open_recipe(begun(small_texts(tmp_path), tmp_path / "home")) as bench:
        assert isinstance(bench, TextRecipe)
        learner, state = bench.learner(np.ones(len(bench), np.int64), 0)
        (batch,) = bench.batches([np.arange(5)])
        (losses,) = learner.objective.encode(learner.layout.unflatten(state.theta), batch.rows)
        whole = load_causal_lm(CausalLmOptions(Path(bench.catalog.model.folder)))
        for i in range(5):
            sequences = bench.sequences
            tokens = torch.from_numpy(sequences.tokens[sequences.starts[i] : sequences.starts[i + 1]])[None]
            logits = whole(input_ids=tokens).logits[0, :-1]
            labels = tokens[0, 1:].clone()
            labels[: sequences.prompts[i] - 1] = NOT_PREDICTED
            torch.testing.assert_close(losses[i], F.cross_entropy(logits, labels, ignore_index=NOT_PREDICTED))


def test_accuracy_is_that_of_the_likeliest_option_and_exact_match_that_of_greedy_decoding(curated: Path) -> None:
    with open_recipe(curated) as bench:
        assert isinstance(bench, TextRecipe)
        learner, _ = bench.learner(np.ones(len(bench), np.int64), 0)
        theta = load_parameters(bench.run.work("round-002", "replayed.json"))
        score = bench.targets(learner).target.score(theta)
        whole = load_causal_lm(CausalLmOptions(Path(bench.catalog.model.folder))).eval()
        named = {name.removeprefix("body."): p for name, p in learner.layout.unflatten(theta).items()}
        whole.load_state_dict({f"model.{n}" if n != "head.weight" else "lm_head.weight": p for n, p in named.items()})
        tokenizer = TextTokenizer(bench.catalog.model)
        likely, exact = [], []
        for question in bench.task_data.target.questions:
            scores = []
            for option in question.options:
                one = tokenizer.sequences([question.prompt], [option])
                tokens, given = torch.from_numpy(one.tokens)[None], int(one.prompts[0])
                logp = whole(input_ids=tokens).logits[0, given - 1 : -1].log_softmax(-1)
                scores.append(logp.gather(1, tokens[0, given:, None]).mean().item())
            likely.append(int(np.argmax(scores)) == question.right)
            right = tokenizer.sequences([question.prompt], [question.options[question.right]])
            prompt, wanted = (torch.from_numpy(x) for x in np.split(right.tokens, [int(right.prompts[0])]))
            for _ in range(len(wanted)):
                prompt = torch.cat([prompt, whole(input_ids=prompt[None]).logits[0, -1].argmax()[None]])
            exact.append(torch.equal(prompt[-len(wanted) :], wanted))
        assert (score.accuracy, score.exact_match) == (np.mean(likely), np.mean(exact))  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", [(), (LAST_LAYER,)], ids=["tokens", "states"])
def test_a_part_of_a_target_is_asked_as_it_is_in_the_whole(change: tuple[tuple[str, str], ...], tmp_path: Path) -> None:
    with open_recipe(begun(small_texts(tmp_path, *change), tmp_path / "home")) as recipe:
        learner, state = recipe.learner()
        data = recipe.task_data.target
        kept = [5, 2, 7]
        part, singles = recipe.bind(data.only(kept), learner), [recipe.bind(data.only([i]), learner) for i in kept]
        alone = [one.score(state.theta) for one in singles]
        both = part.score(state.theta)
        assert both.loss == pytest.approx(np.mean([one.loss for one in alone]), rel=1e-5)
        assert both.accuracy == pytest.approx(np.mean([one.accuracy for one in alone]))
        whole = recipe.bind(data.only(range(len(data))), learner).score(state.theta)
        assert whole == recipe.targets(learner).target.score(state.theta)


def test_long_samples_are_cut_and_counted(tmp_path: Path) -> None:
    catalog = load_catalog(small_texts(tmp_path, ("max_tokens = 16", "max_tokens = 4")))
    sequences = TextTokenizer(catalog.model).sequences(["1 plus 2 is", "1"], ["3", "1 2 3 4 5 6"])  # type: ignore[attr-defined]
    assert sequences.lengths.tolist() == [4, 4] and sequences.prompts.tolist() == [2, 1] and sequences.cut == 2


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("no folder", lambda d: (d / "model" / "config.json").unlink(), "no tokenizer|no model folder"),
    ("mismatch", lambda d: write_model(d / "model", vocabulary=11), "tokenizer mismatch: the tokenizer has 27 tokens"),
    ("dropout", lambda d: write_model(d / "model", attention_dropout=0.1), "Dropout destroys a metagradient"),
    ("empty target", lambda d: (d / "target.jsonl").write_text(""), "has no samples"),
    (
        "mixed",
        lambda d: (d / "test.jsonl").open("a").write('{"prompt": "1 plus 1 is", "completion": "2"}\n'),
        "some of .* have options, others not",
    ),
    ("no question", lambda d: (d / "target.jsonl").write_text('{"prompt": "x"}\n'), "no text in 'completion'"),
    (
        "wrong answer",
        lambda d: (d / "target.jsonl").write_text(json.dumps({"prompt": "x", "options": ["a", "b"], "answer": 2})),
        "neither one of the 2 options",
    ),
    (
        "shared",
        lambda d: (d / "test.jsonl").write_text((d / "target.jsonl").read_text()),
        "what is tested on must be apart",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_trained_or_asked_is_a_clear_stop(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    catalog = small_texts(tmp_path)
    spoil(tmp_path)
    with (
        pytest.raises((CatalogError, LanguageModelError), match=message),
        open_recipe(begun(catalog, tmp_path / "home")) as bench,
    ):
        bench.learner(np.ones(len(bench), np.int64), 0)


def test_a_choice_needs_options(tmp_path: Path) -> None:
    catalog = small_texts(tmp_path, ("[model]", '[targets]\nloss = "choice"\n[model]'))
    (tmp_path / "target.jsonl").write_text('{"prompt": "the sum is", "completion": "2"}\n')
    with (
        pytest.raises(CatalogError, match="completions without options"),
        open_recipe(begun(catalog, tmp_path / "home")),
    ):
        pass


def test_catalogs_of_texts_say_what_is_wrong(tmp_path: Path) -> None:
    def told(*change: tuple[str, str]) -> str:
        with pytest.raises(CatalogError) as error:
            check_sources(load_catalog(small_texts(tmp_path, *change)))
        return str(error.value)

    assert "model.folder" in told(('folder = "model"', 'folder = "elsewhere"'))
    assert "did you mean 'trained_layers'?" in told(('folder = "model"', 'folder = "model"\ntrain_layers = 1'))
    assert "needs {prompt} once" in told(('folder = "model"', 'folder = "model"\ntemplate = "Q:"'))
    assert "would be tested on itself" in told(('source = "heldout.jsonl"', 'source = "target.jsonl"'))
    with pytest.raises(CatalogError, match="mgd census works on image-text pairs"):
        load_pair_catalog(small_texts(tmp_path), "mgd census")
