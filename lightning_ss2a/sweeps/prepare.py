"""Steps that trials build on: data to simulate, a manifold to train; each runs once for what it depends on."""

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_ss2a.config_files import with_bases
from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.sweeps.definition import Repeat

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Step:
    """A step for one repeat, or for several that it does not differ between.

    Args:
        name: in the sweep file.
        arguments: the command, its placeholders filled in: ``lightning`` or ``ss2a``, then its arguments.
        output: what it makes.
        needs: outputs that it builds on.
    """

    name: str
    arguments: tuple[str, ...]
    output: Path
    needs: tuple[Path, ...]

    @property
    def mark(self) -> Path:
        """A file that says that the output is complete."""
        return _mark(self.output)

    @property
    def is_done(self) -> bool:
        """Whether the output is there, complete."""
        return self.mark.is_file()

    @property
    def is_ready(self) -> bool:
        """Whether what it builds on is there."""
        return all(_mark(need).is_file() for need in self.needs)


def _mark(output: Path) -> Path:
    return output.with_name(f"{output.name}.done")


class Preparation:
    """The steps of a sweep file.

    Args:
        commands: by name.
        folder: holds the outputs, for all sweeps: a step that two sweeps share runs once.

    Raises:
        InputError: a command that is none, or steps that wait for each other.
    """

    def __init__(self, commands: Mapping[str, str], folder: Path) -> None:
        self.commands = dict(commands)
        self.folder = folder
        for name, command in self.commands.items():
            if command.split()[:1] not in (["lightning"], ["ss2a"]):
                raise InputError(f"prepare.{name}: a command begins with lightning or ss2a, found {command!r}")
            self._check_order(name, ())

    def values(self, repeat: Repeat) -> dict[str, str]:
        """Finds the text for every placeholder, of a repeat."""
        return repeat.placeholders | {name: str(self._output(name, repeat)) for name in self.commands}

    def steps(self, texts: Iterable[str], repeat: Repeat) -> list[Step]:
        """Lists the steps that texts name, and those that these build on, which come first."""
        found: dict[str, Step] = {}

        def add(text: str) -> None:
            for name in self._named(text):
                if name not in found:
                    add(self.commands[name])
                    found[name] = self._step(name, repeat)

        for text in texts:
            add(text)
        return list(found.values())

    def _step(self, name: str, repeat: Repeat) -> Step:
        output = self._output(name, repeat)
        filled = self._filled(name, self.values(repeat) | {"output": str(output)})
        needs = tuple(self._output(other, repeat) for other in self._named(self.commands[name]))
        return Step(name, tuple(shlex.split(filled)), output, needs)

    def _named(self, text: str) -> list[str]:
        """Lists the steps that a text names."""
        return [name for name in placeholders(text) if name in self.commands]

    def _filled(self, name: str, values: Mapping[str, str]) -> str:
        return fill(self.commands[name], values, f"prepare.{name}")

    def _output(self, name: str, repeat: Repeat) -> Path:
        return self.folder / f"{name}-{self._digest(name, repeat)}"

    def _digest(self, name: str, repeat: Repeat) -> str:
        """Changes with the command, the files that it names, and the steps that it builds on."""
        needs = {other: self._digest(other, repeat) for other in self._named(self.commands[name])}
        filled = self._filled(name, repeat.placeholders | needs | {"output": ""})
        parts = [filled.encode()]
        for argument in shlex.split(filled):
            path = Path(argument.partition("=")[2] if argument.startswith("--") else argument)
            files = (*with_bases(path), path / "manifest.json")
            parts += [file.read_bytes() for file in files if file.is_file()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:8]

    def _check_order(self, name: str, before: tuple[str, ...]) -> None:
        if name in before:
            raise InputError(f"prepare.{name}: waits for itself, through {' and '.join(before)}")
        for other in self._named(self.commands[name]):
            self._check_order(other, (*before, name))


def placeholders(text: str) -> list[str]:
    """Lists the names in braces."""
    return _PLACEHOLDER.findall(text)


def fill(text: str, values: Mapping[str, str], where: str) -> str:
    """Fills in the placeholders of a text.

    Raises:
        InputError: there is no such placeholder.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise InputError(f"{where}: {{{name}}} stands for nothing; {did_you_mean(name, values)}")
        return values[name]

    return _PLACEHOLDER.sub(value, text)
