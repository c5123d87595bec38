"""Reads and writes what the evaluator av-benchmark (hkchengrex/av-benchmark, MIT) keeps, without any of its code.

Its first step leaves a folder of ``torch.save`` files for each folder of sounds, one or two an encoder, each a dict
from a sound's name without suffix to a tensor; its second step reads these, and leaves scores by fixed names. Facts are
those of its commit 050a5cd.
"""
