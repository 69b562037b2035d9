"""Prompts and completions as tokens: ragged sequences, and the rows of a batch that are cut from them.

What is predicted is the completion and the token that ends it; the prompt is given. Samples are not packed: each is a
row of its own, filled at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgd_core.models.causal_lm import NOT_PREDICTED
from mgd_core.models.model_folders import LanguageModelError
from tasks.catalog.text_options import TextModelOptions

SAMPLE = "What is asked?"
Ids = npt.NDArray[np.int64]
States = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sequences:
    """n samples: all tokens after each other, where each begins (n + 1,), and how many of each are its prompt (n,)."""

    tokens: Ids
    starts: Ids
    prompts: Ids
    cut: int = 0
    """Samples that were longer than the model's `max_tokens` and lost a part."""
    states: States | None = None
    """Hidden states below the trained layers (tokens, d), where only the last layers are trained; may be mapped."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> Ids:
        """Tokens of each sample (n,)."""
        return np.diff(self.starts)

    def with_states(self, states: States) -> Sequences:
        """The same samples with the hidden states of their tokens."""
        return replace(self, states=states)

    def only(self, ids: Ids) -> Sequences:
        """These of the samples, in this order."""
        places = np.concatenate([np.arange(*self.starts[i : i + 2]) for i in ids])
        starts = np.cumsum([0, *self.lengths[ids]])
        states = None if self.states is None else self.states[places]
        return replace(self, tokens=self.tokens[places], starts=starts, prompts=self.prompts[ids], states=states)

    def rows(self, ids: Ids) -> tuple[Tensor, Tensor]:
        """Inputs (len(ids), L) of tokens or (len(ids), L, d) of states, and labels (len(ids), L), at these positions.

        L is one less than the longest of them: the last token is predicted only.
        """
        places, inside = self._places(ids, self.lengths[ids] - 1)
        labels = np.where(inside, self.tokens[places + 1], NOT_PREDICTED)
        given = np.arange(places.shape[1])[None] < self.prompts[ids][:, None] - 1
        labels[given] = NOT_PREDICTED
        if self.states is None:
            return torch.from_numpy(np.where(inside, self.tokens[places], 0)), torch.from_numpy(labels)
        states = self.states[places]
        states[~inside] = 0.0
        return torch.from_numpy(states), torch.from_numpy(labels)

    def padded(self, ids: Ids) -> tuple[Tensor, npt.NDArray[np.bool_]]:
        """All tokens of samples (len(ids), L), 0 after their ends, and where there are any."""
        places, inside = self._places(ids, self.lengths[ids])
        return torch.from_numpy(np.where(inside, self.tokens[places], 0)), inside

    def _places(self, ids: Ids, lengths: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Positions in ``tokens`` (len(ids), L), those beyond a sample's end standing at its first token."""
        inside = np.arange(int(lengths.max()))[None] < lengths[:, None]
        starts = self.starts[ids][:, None]
        return np.where(inside, starts + np.arange(inside.shape[1])[None], starts), inside


def joined(parts: Sequence[Sequences]) -> Sequences:
    """Samples after each other, without hidden states."""
    edges = np.cumsum([0, *(len(part.tokens) for part in parts)])
    starts = [part.starts[:-1] + edge for part, edge in zip(parts, edges, strict=False)]
    tokens, prompts = (np.concatenate([getattr(part, name) for part in parts]) for name in ("tokens", "prompts"))
    return Sequences(tokens, np.concatenate([*starts, edges[-1:]]), prompts, sum(part.cut for part in parts))


class TextTokenizer:
    """The tokenizer of a model folder, with the catalog's template.

    Raises:
        LanguageModelError: there is none, no token of it ends a text, it has more tokens than the model embeddings, a
            text may be longer than the model has positions for, or the template cannot be used.
    """

    def __init__(self, options: TextModelOptions) -> None:
        from transformers import AutoConfig, AutoTokenizer

        folder = Path(options.folder)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            vocabulary = int(config.vocab_size)
        except Exception as error:  # transformers and tokenizers each raise their own
            told = str(error).strip().split("\n")[0][:300]
            raise LanguageModelError(
                f"{folder}: no tokenizer that transformers can load ({told}); its save_pretrained() writes one"
            ) from error
        if len(self._tokenizer) > vocabulary:
            raise LanguageModelError(
                f"{folder}: tokenizer mismatch: the tokenizer has {len(self._tokenizer):,} tokens, the model "
                f"embeddings for {vocabulary:,}. They are of two models; save both from the same one"
            )
        if self._tokenizer.eos_token_id is None:
            raise LanguageModelError(
                f"{folder}: the tokenizer has no eos_token, so a completion would never end; set one"
            )
        if options.template == "chat" and not self._tokenizer.chat_template:
            raise LanguageModelError(f"{folder}: the tokenizer has no chat template; write model.template yourself")
        positions = getattr(config, "max_position_embeddings", None)  # GPT-2's n_positions goes by this name too
        if isinstance(positions, int) and 0 < positions < options.max_tokens:
            raise LanguageModelError(
                f"model.max_tokens = {options.max_tokens:,}: the model in {folder} has {positions:,} positions, and a "
                f"longer text would have no place in it. Take at most {positions}"
            )
        self._folder, self._template, self._longest = folder, options.template, options.max_tokens
        if SAMPLE not in self._templated([SAMPLE])[0]:
            raise LanguageModelError(
                f"{folder}: the tokenizer's chat template leaves out what the user says, so all prompts would be the "
                "same; write model.template yourself"
            )

    def sequences(self, prompts: Sequence[str], completions: Sequence[str]) -> Sequences:
        """The samples as tokens."""
        tokens, sizes, given, cut = list[int](), [0], list[int](), 0
        for prompt, completion in zip(self._prompts(prompts), self._completions(completions), strict=True):
            before = prompt[-max(1, self._longest - len(completion)) :]
            after = completion[: self._longest - len(before)]
            cut += len(before) < len(prompt) or len(after) < len(completion)
            tokens += before + after
            sizes.append(len(before) + len(after))
            given.append(len(before))
        return Sequences(np.array(tokens, np.int64), np.cumsum(sizes), np.array(given, np.int64), cut)

    def _prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        texts = self._templated(prompts)
        if self._template == "chat":
            return self._ids(texts, add_special_tokens=False)  # the template writes them itself
        return self._ids(texts)

    def _templated(self, prompts: Sequence[str]) -> list[str]:
        if self._template != "chat":
            return [self._template.replace("{prompt}", prompt) for prompt in prompts]
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        try:
            return list(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # templates are programs: jinja's own errors, and whatever they raise themselves
            told = " ".join(str(error).split())[:300]
            raise LanguageModelError(
                f"{self._folder}: the tokenizer's chat template cannot be used for a prompt ({type(error).__name__}: "
                f"{told}); mend it in the folder, or write model.template yourself"
            ) from error

    def _completions(self, completions: Sequence[str]) -> list[list[int]]:
        end = [self._tokenizer.eos_token_id]
        return [ids + end for ids in self._ids(list(completions), add_special_tokens=False)]

    def _ids(self, texts: list[str], **options: bool) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(texts, **options)["input_ids"]
        return found
