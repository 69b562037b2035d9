"""Questions as a target: both losses against their definitions, their gradients against central differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.models.causal_lm import NOT_PREDICTED, CausalLmObjective
from mgd_core.models.clip import initial_parameters
from mgd_core.models.model_folders import CausalLmOptions, build_causal_lm
from mgd_core.models.multiple_choice import AnswerTask, Asked

SIZES = (3, 2, 4)  # options of three questions
RIGHT = (1, 0, 3)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPTNeoXConfig(vocab_size=13, max_position_embeddings=16, initializer_range=0.5, **sizes)
        GPTNeoXForCausalLM(config).save_pretrained(folder)
    return build_causal_lm(CausalLmOptions(folder), seed=0).double()


def task_of(decoder: Any, **options: Any) -> tuple[AnswerTask, torch.Tensor, torch.Tensor]:
    """A task of three questions in two parts, its tokens (9, 6), and labels with completions of two or three tokens."""
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(13, (sum(SIZES), 6), generator=draw)
    labels = tokens.roll(-1, 1)
    labels[:, :2] = NOT_PREDICTED
    labels[::2, 4:] = NOT_PREDICTED
    labels[:, 5] = NOT_PREDICTED
    first = torch.tensor([0, *torch.tensor(SIZES).cumsum(0)[:-1].tolist()])
    right = first + torch.tensor(RIGHT)
    parts = [
        Asked((tokens[:5], labels[:5]), torch.tensor([0, 0, 0, 1, 1]), right[:2]),
        Asked((tokens[5:], labels[5:]), torch.zeros(4, dtype=torch.int64), right[2:] - 5),
    ]
    layout = ParameterLayout.of(decoder)
    rows = [(tokens[right[:1]], labels[right[:1]]), (tokens[right[1:]], labels[right[1:]])]
    return AnswerTask(CausalLmObjective(decoder), layout, 3, rows, parts, **options), tokens, labels


def scores(decoder: Any, tokens: torch.Tensor, labels: torch.Tensor, mean: bool) -> torch.Tensor:
    """Log-likelihood of every option by torch's own cross-entropy."""
    logits = decoder(tokens, torch.arange(6).expand(9, 6))
    total = -F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=NOT_PREDICTED, reduction="none").sum(1)
    return total / (labels != NOT_PREDICTED).sum(1) if mean else total


@pytest.mark.parametrize("likelihood", ["mean", "sum"])
def test_losses_and_accuracy_are_their_definitions(decoder: Any, likelihood: Any) -> None:
    task, tokens, labels = task_of(decoder, loss="choice", likelihood=likelihood)
    theta = initial_parameters(decoder, task.layout, torch.float64)
    found = scores(decoder, tokens, labels, likelihood == "mean").split(SIZES)
    each = [F.cross_entropy(s[None], torch.tensor([r])) for s, r in zip(found, RIGHT, strict=True)]
    torch.testing.assert_close(task.target(theta)[0], torch.stack(each).mean().detach())
    score = task.score(theta)
    assert score.loss == pytest.approx(torch.stack(each).mean().item(), rel=1e-12)
    assert score.accuracy == sum(s.argmax() == r for s, r in zip(found, RIGHT, strict=True)) / 3
    plain, _, _ = task_of(decoder)
    both, _, _ = task_of(decoder, loss="both", likelihood=likelihood)
    total = score.loss + plain.score(theta).loss
    assert both.score(theta).loss == pytest.approx(total, rel=1e-12)
    assert both.target(theta)[0].item() == pytest.approx(total, rel=1e-12)
    own = scores(decoder, tokens, labels, mean=True)[torch.tensor([1, 3, 8])]
    assert plain.score(theta).loss == pytest.approx(-own.mean().item(), rel=1e-12)
    torch.testing.assert_close(plain.target(theta)[0], -own.mean().detach())


@pytest.mark.parametrize("loss", ["completion", "choice", "both"])
def test_gradients_are_central_differences(decoder: Any, loss: Any) -> None:
    task, _, _ = task_of(decoder, loss=loss)
    theta = initial_parameters(decoder, task.layout, torch.float64)
    direction = torch.randn(theta.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    h = 1e-5
    ahead, behind = (task.target(theta + sign * h * direction)[0] for sign in (1, -1))
    assert (task.target(theta)[1] @ direction).item() == pytest.approx(((ahead - behind) / (2 * h)).item(), rel=1e-7)


def test_without_options_a_question_is_right_where_greedy_decoding_gives_it(decoder: Any) -> None:
    task, _, _ = task_of(decoder)
    theta = initial_parameters(decoder, task.layout, torch.float64)
    bare = AnswerTask(task.objective, task.layout, 3, task.right, [])
    assert bare.score(theta).accuracy == bare.score(theta).exact_match == task.score(theta).exact_match
    tokens = task.right[0][0]
    greedy = tokens.clone()
    for at in range(3, 6):
        greedy[0, at] = decoder(greedy, torch.tensor([[at - 1]])).argmax()
    labels = greedy.roll(-1, 1)
    labels[:, [0, 1, 5]] = NOT_PREDICTED
    sure = AnswerTask(task.objective, task.layout, 1, [(greedy, labels)], [])
    assert sure.score(theta).exact_match == 1.0
