"""Finds the items whose decoder ends the process that reads them, so that no list stops at them for ever."""

import os
import re
from pathlib import Path

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import write_whole

TRIES = 2
"""Times that an item ends the process that reads it before it is rejected; once may be chance, as of full memory."""
FATAL = f"it ended the process that read it, {TRIES} times; its decoder does not survive it"

_DEAD = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
"""What torch says when a worker has died."""


class Deaths:
    """What workers are reading, and how often they died of it, in a folder that all processes share.

    Args:
        folder: it need not be there before something is noted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note_work(self, item: str) -> None:
        """Notes that this process begins to read an item, in case it does not survive that.

        Args:
            item: its name, which can be a part of a file's.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"worker-{os.getpid()}").write_text(item)

    def forget_work(self) -> None:
        """Forgets what workers of an earlier call were reading: nobody knows what that ended of."""
        for note in self.folder.glob("worker-*"):
            note.unlink()

    def count(self, error: RuntimeError, devices: int) -> None:
        """Counts the deaths that an error tells of against the items that were being read; then all may be tried again.

        Args:
            error: of a loader.
            devices: processes that compute.

        Raises:
            RuntimeError: the same, if it tells of no death, or of one that no item is to blame for.
            InputError: there are other devices, whose processes do not come back from it.
        """
        dead = _DEAD.search(str(error))
        processes = re.findall(r"\d+", dead[1]) if dead is not None else []
        notes = [note for process in processes if (note := self.folder / f"worker-{process}").exists()]
        for note in notes:
            deaths = self.folder / f"deaths-{note.read_text()}"
            write_whole(deaths, (deaths.read_text() if deaths.exists() else "") + "died\n")
            note.unlink()
        if not notes:
            raise error
        if devices > 1:
            raise InputError(
                "a process that decodes has died, of a file or for want of memory; run the same command again: it goes "
                "on, and leaves out what is fatal twice"
            ) from error

    def fatal(self) -> dict[str, str]:
        """Lists the items that have ended every process that read them, and says so of each."""
        deaths = {path.name.removeprefix("deaths-"): path.read_text() for path in self.folder.glob("deaths-*")}
        return {item: FATAL for item, text in deaths.items() if len(text.splitlines()) >= TRIES}
