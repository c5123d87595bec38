"""Builds banks of real sounds: folders of labelled Ogg files with their credits and embeddings."""

from lightning_ss2a.builders.sound_bank.bank import Bank, BankSound, read_bank
from lightning_ss2a.builders.sound_bank.build import BankReport, build_bank

__all__ = ["Bank", "BankReport", "BankSound", "build_bank", "read_bank"]
