"""The manifold at the paper's sizes, as several benchmarks time it: its numbers, data, steps and work a step."""

PAIRS, EPOCHS = 106_514, 168
"""Pairs of VGGS3, and epochs that the paper trains on them."""

BATCH_SIZE = 1024
"""The paper gives none."""

VISUAL_WIDTH, AUDIO_WIDTH = 768, 512
"""CLIP ViT-L/14 and CLAP."""

GOAL_SECONDS = 75.0
"""What the design allows for all epochs on one H200 in bf16."""


def steps_of(pairs: int, epochs: int, batch_size: int) -> int:
    """Steps of a training run; less than a batch is left out each epoch."""
    return pairs // batch_size * epochs
