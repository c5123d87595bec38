"""Measures folders of sounds: encoders of waveforms, the metrics on them, tables."""
