"""Texts: a causal language model, tuned on prompts and completions."""
