"""Priors: what a text encoder makes of a text to what an image encoder would make of a picture of it."""
