"""Causal language models of transformers: against naive double backward, torch's own loss, and transformers' logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from mgd_core.autodiff.derivatives import curvature_product, value_and_gradient
from mgd_core.autodiff.dual_rules import plain_rules
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.models.causal_lm import NOT_PREDICTED, CausalLmObjective
from mgd_core.models.clip import initial_parameters
from mgd_core.models.model_folders import (
    CausalLmOptions,
    LanguageModelError,
    LoraOptions,
    build_causal_lm,
    build_stem,
    load_causal_lm,
)

SHARED = {"vocab_size": 61, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 0}
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, **SHARED}
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32, "vocab_size": 61, "bos_token_id": 0}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "eos_token_id": 0}
LORA = LoraOptions(2, 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models of three families, as save_pretrained writes them."""
    base = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**GPT2, **NO_DROPOUT)).save_pretrained(base / "gpt2")
    GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)).save_pretrained(base / "neox")
    LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)).save_pretrained(base / "llama")
    return base


def rows_of(states: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of five rows, with prompts of different lengths and filling at the end of one."""
    torch.manual_seed(1)
    tokens = torch.randint(0, 61, (5, 9))
    labels = tokens.roll(-1, 1)
    labels[:, -1] = NOT_PREDICTED
    for row in range(5):
        labels[row, : row + 1] = NOT_PREDICTED
    labels[0, 6:] = NOT_PREDICTED
    return (torch.randn(5, 9, 16, dtype=torch.float64) if states else tokens), labels


@pytest.mark.parametrize(
    ("family", "trained", "lora", "accuracy"),
    [
        ("gpt2", None, None, 1e-13),
        ("gpt2", None, LORA, 1e-13),
        ("neox", None, None, 1e-13),
        ("neox", 2, None, 1e-13),
        ("neox", 2, LORA, 1e-13),
        ("llama", None, LORA, 1e-6),  # its norms go through float32 whatever the model's precision
        ("llama", 2, None, 1e-6),
    ],
)
def test_curvature_products_equal_naive_double_backward(
    folders: Path, family: str, trained: int | None, lora: LoraOptions | None, accuracy: float
) -> None:
    decoder = build_causal_lm(CausalLmOptions(folders / family, trained, lora), seed=3).double()
    objective, layout = CausalLmObjective(decoder), ParameterLayout.of(decoder)
    theta = initial_parameters(decoder, layout, torch.float64)
    theta = theta + 0.05 * torch.randn_like(theta)  # adapters begin as zero, where half of their derivatives vanish
    rows, weights, v = rows_of(trained is not None), torch.rand(5, dtype=torch.float64), torch.randn_like(theta)
    leaf, w = theta.clone().requires_grad_(True), weights.clone().requires_grad_(True)
    with plain_rules():
        params = layout.unflatten(leaf)
        (g,) = torch.autograd.grad(objective.couple(params, objective.encode(params, rows), w), leaf, create_graph=True)
        h, dw = torch.autograd.grad((g * v).sum(), (leaf, w))
    torch.testing.assert_close(value_and_gradient(objective, layout, theta, rows, weights)[1], g.detach())
    for chunk in (None, 2):
        found = curvature_product(objective, layout, theta, v, rows, weights, chunk)
        assert (found.theta - h).norm() <= accuracy * h.norm()
        assert (found.weights - dw).norm() <= accuracy * dw.norm()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_those_of_transformers(folders: Path, reduction: Any) -> None:
    options = CausalLmOptions(folders / "llama")
    decoder = build_causal_lm(options, seed=0)
    tokens, labels = rows_of(states=False)
    objective = CausalLmObjective(decoder, reduction)
    (losses,) = objective.encode(dict(decoder.named_parameters()), (tokens, labels))
    logits = load_causal_lm(options)(input_ids=tokens).logits
    each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=NOT_PREDICTED, reduction="none")
    count = (labels != NOT_PREDICTED).sum(1)
    torch.testing.assert_close(losses, each.sum(1) / (count if reduction == "mean" else 1))


def test_an_embedding_that_serves_both_ends_gets_the_gradient_of_both(folders: Path) -> None:
    options = CausalLmOptions(folders / "gpt2")
    decoder = build_causal_lm(options, seed=0)
    layout = ParameterLayout.of(decoder)
    assert not any("head" in name for name in layout.names)
    tokens, labels = rows_of(states=False)
    theta = initial_parameters(decoder, layout)
    _, g = value_and_gradient(CausalLmObjective(decoder), layout, theta, (tokens, labels), torch.ones(5))
    whole = load_causal_lm(options)
    logits = whole(input_ids=tokens).logits
    each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=NOT_PREDICTED, reduction="none").sum(1)
    (each / (labels != NOT_PREDICTED).sum(1)).mean().backward()
    torch.testing.assert_close(layout.unflatten(g)["body.wte.weight"], whole.transformer.wte.weight.grad)


def test_the_stem_and_the_trained_layers_are_the_model(folders: Path) -> None:
    options = CausalLmOptions(folders / "llama", trained_layers=2, lora=LORA)
    stem, decoder = build_stem(options), build_causal_lm(options, seed=0)
    assert stem is not None
    tokens, _ = rows_of(states=False)
    everywhere = torch.arange(9).expand(5, 9)
    torch.testing.assert_close(decoder(stem(tokens), everywhere), load_causal_lm(options)(input_ids=tokens).logits)
    trained = [name for name, p in decoder.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)


def test_adapters_are_drawn_from_the_seed_alone(folders: Path) -> None:
    options = CausalLmOptions(folders / "gpt2", lora=LORA)
    state = torch.get_rng_state()
    one, same, other = (build_causal_lm(options, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    layout = ParameterLayout.of(one)
    first, second, third = (initial_parameters(model, layout) for model in (one, same, other))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_what_cannot_be_trained_is_refused(folders: Path, tmp_path: Path) -> None:
    def told(options: CausalLmOptions) -> str:
        with pytest.raises(LanguageModelError) as error:
            build_causal_lm(options, seed=0)
        return str(error.value)

    assert "no model folder" in told(CausalLmOptions(tmp_path / "nowhere"))
    assert "has 3 layers" in told(CausalLmOptions(folders / "llama", trained_layers=9))
    assert "linear layers are" in told(CausalLmOptions(folders / "llama", lora=LoraOptions(2, 4, ("nothing",))))
    assert "differ" in told(CausalLmOptions(folders / "gpt2", trained_layers=2))  # adds positions to whatever enters
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "not a causal language model" in told(CausalLmOptions(tmp_path))
    GPT2LMHeadModel(GPT2Config(**GPT2, eos_token_id=0)).save_pretrained(tmp_path / "drops")
    assert "resid_pdrop = 0.1" in told(CausalLmOptions(tmp_path / "drops"))
    build_causal_lm(CausalLmOptions(tmp_path / "drops", dropout="off"), seed=0)
