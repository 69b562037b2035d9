"""Objectives and targets of models: CLIP, classifiers, causal language models."""
