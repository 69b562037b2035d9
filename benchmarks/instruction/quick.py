"""The instruction benchmark where nothing is at hand: a tiny untrained model, and made-up tasks with wrong answers.

The model is a Llama of two layers, drawn from a seed, whose tokenizer is trained on the Python language reference, as
`pydoc` carries it. The target task asks what kind a word of a sentence is of; the pool holds right answers, wrong ones
to questions of the same form, and two other tasks (the first word, the last word). No sentence is used twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from pydoc_data.topics import topics

from benchmarks.instruction.data import InstructionData, Question, Sample
from mgd_core.training.order import generator

KINDS = {
    "animal": ("dog", "horse", "mouse", "goose", "spider", "rabbit"),
    "tool": ("hammer", "needle", "saw", "shovel", "drill", "ladder"),
    "meal": ("soup", "bread", "cheese", "salad", "cake", "rice"),
}
MANNERS = ("old", "small", "new", "green", "heavy", "plain", "fine", "round", "strange", "clean")
PLACES = ("door", "river", "table", "window", "tree", "road", "wall", "box", "bridge", "field")
VOCABULARY = 600


def quick_data(pool: int = 480, asked: int = 60, seed: int = 0) -> InstructionData:
    """A pool with a third of right and of wrong answers and of other tasks, and ``asked`` questions of each set."""
    sentences = [
        (kind, f"The {manner} {word} by the {place}.")
        for kind, words in KINDS.items()
        for word, manner, place in product(words, MANNERS, PLACES)
    ]
    order = generator(seed, 0).permutation(len(sentences))
    drawn = iter([sentences[i] for i in order])
    sets = [[_question(*next(drawn)) for _ in range(asked)] for _ in range(3)]
    samples = [sample for _ in range(pool // 3) for sample in _samples(drawn, seed)]
    return InstructionData([samples[i] for i in generator(seed, 1).permutation(len(samples))], *sets)


def write_quick_model(folder: Path, seed: int = 0) -> None:
    """Save the tiny model and its tokenizer as a Hugging Face folder; the ambient RNG is left as it was."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts = (topics[name] for name in sorted(topics))
    bpe.train_from_iterator(texts, VOCABULARY, special_tokens=["<end>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<end>", pad_token="<end>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _question(kind: str, sentence: str) -> Question:
    kinds = tuple(KINDS)
    return Question(_prompt(sentence, "kind"), tuple(f" {k}." for k in kinds), kinds.index(kind), "kind")


def _samples(drawn: Iterator[tuple[str, str]], seed: int) -> Iterator[Sample]:
    """One sample with a right answer, one with a wrong answer, and one of another task."""
    kind, sentence = next(drawn)
    yield Sample(_prompt(sentence, "kind"), f" {kind}.", "kind", True)
    kind, sentence = next(drawn)
    others = [k for k in KINDS if k != kind]
    wrong = others[generator(seed, 2, *sentence.encode()).integers(len(others))]
    yield Sample(_prompt(sentence, "kind"), f" {wrong}.", "wrong kind", False)
    _, sentence = next(drawn)
    asked = ("manner", "place")[len(sentence) % 2]
    words = sentence.rstrip(".").split()
    yield Sample(_prompt(sentence, asked), f" {words[1] if asked == 'manner' else words[-1]}.", asked)


def _prompt(sentence: str, asked: str) -> str:
    return f"Sentence: {sentence}\nQuestion: which {asked}?\nAnswer:"
