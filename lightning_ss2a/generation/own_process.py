"""Runs what may end a process, such as a decoder of videos, in one of its own, so that a batch goes on."""

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from lightning_ss2a.builders.engine.deaths import FATAL, TRIES
from lightning_ss2a.builders.engine.media_worker import end_with_parent
from lightning_ss2a.builders.engine.running import worker_context
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.video import Clip, VideoReader

Result = TypeVar("Result")


class OwnProcess:
    """A process that calls functions for this one, and is replaced when one has ended it.

    Args:
        is_used: start it, at the first call; else functions are called here.
    """

    def __init__(self, is_used: bool) -> None:
        self._is_used = is_used
        self._pool: ProcessPoolExecutor | None = None

    def call(self, function: Callable[..., Result], *arguments: Any, name: str, **options: Any) -> Result:
        """Calls a function; function, arguments and result are pickled.

        Args:
            function: what is called.
            arguments: of it.
            name: of the file that it reads, for messages.
            options: of it, too.

        Raises:
            InputError: it has ended the process, each time that it was tried.
        """
        if not self._is_used:
            return function(*arguments, **options)
        for _ in range(TRIES):
            if self._pool is None:
                context = worker_context(__name__)
                self._pool = ProcessPoolExecutor(1, context, initializer=_begin)
            try:
                return self._pool.submit(function, *arguments, **options).result()
            except BrokenProcessPool:
                self.close()
        raise InputError(f"{name}: {FATAL}")

    def close(self) -> None:
        """Ends the process; a later call starts another."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class GuardedReader:
    """Reads videos as another reader does, in a process of its own.

    Args:
        reader: reads them.
        process: where.
    """

    def __init__(self, reader: VideoReader, process: OwnProcess) -> None:
        self.reader, self.process = reader, process

    @property
    def decoder(self) -> str:
        """The decoding library, its version and what else decides about pixels."""
        return self.reader.decoder

    def read(self, path: Path, **options: Any) -> Clip:
        """Reads a clip; see :class:`~lightning_ss2a.perception.media.video.VideoReader`."""
        return self.process.call(_read, self.reader, path, options, name=options.get("name") or str(path))


def _read(reader: VideoReader, path: Path, options: dict[str, Any]) -> Clip:
    return reader.read(path, **options)


def _begin() -> None:
    """Lets Ctrl-C end the process through its parent, which ends in any way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(0)
