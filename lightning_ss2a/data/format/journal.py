"""Notes what of a data set is finished while it is built, so that a build that stopped goes on."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_ss2a.data.format.manifest import Shard
from lightning_ss2a.data.format.strict_json import load_json, parse
from lightning_ss2a.errors import ShardError
from lightning_ss2a.files import naming


@dataclass(frozen=True)
class FinishedShard:
    """A line of the journal.

    Attributes:
        split: split of the shard.
        shard: the shard.
        sources: what its rows were read from, and the mark of each at that time (those new since the line before).
    """

    split: str
    shard: Shard
    sources: dict[str, str]


class Journal:
    """A file with a line for what is built and one for each finished shard; lines are added, never rewritten.

    Args:
        path: the file.
        description: all that decides which bytes the rows become.
    """

    def __init__(self, path: Path, description: str) -> None:
        self.path = path
        self._first = json.dumps({"build": hashlib.sha256(description.encode()).hexdigest()})

    def read(self) -> list[FinishedShard]:
        """Reads the finished shards; none if there is no journal. Cuts off a last line that was not written whole.

        Raises:
            ShardError: damaged, or the journal of something else.
        """
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        os.truncate(self.path, end)
        lines = data[:end].splitlines()
        if lines and lines[0] != self._first.encode():
            raise ShardError(
                f"{self.path.parent.parent}: holds the unfinished build of another data set (other kind, fields, "
                "classes, layout, sizes, provenance or licence, or rows from elsewhere or in another order); go on "
                "with the same description, or overwrite it"
            )
        return [
            parse(FinishedShard, load_json(line, where), where)
            for line, where in ((lines[i], f"{self.path}, line {i + 1}") for i in range(1, len(lines)))
        ]

    def append(self, finished: FinishedShard) -> None:
        """Notes a finished shard.

        Raises:
            OSError: the line cannot be written.
        """
        with naming(self.path), self.path.open("ab") as file:
            first = f"{self._first}\n" if not file.tell() else ""
            file.write(f"{first}{json.dumps(asdict(finished))}\n".encode())
