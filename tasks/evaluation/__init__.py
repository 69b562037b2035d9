"""Evaluation of trained models on sets of clip_benchmark's and DataComp's kind, and its metrics."""
