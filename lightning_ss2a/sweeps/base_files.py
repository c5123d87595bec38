"""Configuration files as sweep files name them: relative to the folder of the file that does."""

import os
from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import register_type

from lightning_ss2a.config_files import SUFFIXES
from lightning_ss2a.errors import InputError, did_you_mean


class ConfigFile(str):
    """The name of a configuration file as it is written, and the folder that it is relative to.

    That is the folder of the sweep file, and on the command line (and in Python) the working directory.
    """

    folder: Path

    def __new__(cls, text: str) -> "ConfigFile":
        """Keep the working directory: the parser reads a file from within that file's folder."""
        if isinstance(text, ConfigFile):
            return text
        if not isinstance(text, str):  # the parser tries this for a list, too
            raise TypeError(f"{text} is no file name")
        made = super().__new__(cls, text)
        made.folder = Path.cwd()
        return made

    @property
    def path(self) -> Path:
        """The file, relative to the working directory where it lies below it."""
        if os.path.isabs(self):
            return Path(self)
        path = os.path.normpath(self.folder / self)
        below = os.path.relpath(path)
        return Path(path if below.startswith("..") else below)

    def seen_from(self, folder: Path) -> str:
        """Names the file in a sweep file of another folder."""
        return str(self) if os.path.isabs(self) else os.path.relpath(self.path, folder)

    def check(self, key: str, names: Sequence[str] = ()) -> None:
        """Refuses a file that is not there.

        Args:
            key: of the sweep file, for the message.
            names: what could have been meant instead of a file.

        Raises:
            InputError: names the key, the folder and the nearest right name.
        """
        if self.path.is_file():
            return
        what = f"{key}: {self} is no file"
        if not self.endswith(SUFFIXES):
            raise InputError(f"{what} and no name in bases; {did_you_mean(self, names)}; add a sweep file that has it")
        there = sorted(self.path.parent.glob("*.y*ml"))
        if os.path.isabs(self):
            raise InputError(f"{what}; {did_you_mean(self, map(str, there))}")
        there += [Path(self)] * Path(self).is_file()  # written as if relative to the working directory
        known = [os.path.relpath(path, self.folder) for path in there]
        raise InputError(f"{what} relative to {self.folder}; {did_you_mean(self, known)}")


register_type(ConfigFile)
