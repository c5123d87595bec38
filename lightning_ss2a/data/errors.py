"""The error of data that is not what it should be."""

from lightning_ss2a.errors import InputError


class ShardError(InputError):
    """A shard, a manifest or rows to be written are not what they should be; names file, row and field."""
