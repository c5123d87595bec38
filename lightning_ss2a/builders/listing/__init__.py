"""Lists of data sets: what is seen, what is heard, in which files, and which of these are there."""

from lightning_ss2a.builders.listing.folders import CaptionItems, FolderItems, MusicItems
from lightning_ss2a.builders.listing.fsd50k import FSD50K
from lightning_ss2a.builders.listing.item import Box, Item, ItemReader, Listing, Seen, hash_ids, ids_text
from lightning_ss2a.builders.listing.reading import list_items
from lightning_ss2a.builders.listing.tables import CsvItems, PairItems
from lightning_ss2a.builders.listing.vggsound import VGGSound, VGGSoundSource

__all__ = [
    "FSD50K",
    "Box",
    "CaptionItems",
    "CsvItems",
    "FolderItems",
    "Item",
    "ItemReader",
    "Listing",
    "MusicItems",
    "PairItems",
    "Seen",
    "VGGSound",
    "VGGSoundSource",
    "hash_ids",
    "ids_text",
    "list_items",
]
