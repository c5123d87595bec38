"""Builds data sets of embeddings from media files: lists of pairs, folds, compositions, the demo."""

from lightning_ss2a.builders.compositions import ComposeReport, compose_dataset
from lightning_ss2a.builders.demo import build_demo
from lightning_ss2a.builders.pairs import BuildReport, build_pairs

__all__ = ["BuildReport", "ComposeReport", "build_demo", "build_pairs", "compose_dataset"]
