"""Lists of data sets: what is seen, what is heard, in which files, whose media are there."""

from lightning_ss2a.builders.listing.item import Box, Item, ItemReader, Listing, Seen, hash_ids, ids_text

__all__ = ["Box", "Item", "ItemReader", "Listing", "Seen", "hash_ids", "ids_text"]
