"""What a decoder that ends its process does to a batch: nothing but to its own item."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ss2a.builders.engine.deaths import FATAL
from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.generate import generate
from lightning_ss2a.generation.items import Item
from lightning_ss2a.generation.options import Checkpoints, SoundOptions
from lightning_ss2a.generation.own_process import OwnProcess
from lightning_ss2a.perception.media.video import Clip, PyAVReader
from tests.generation.small_world import save_checkpoints, small_generator, small_perception
from tests.perception.media_files import sine
from tests.perception.media_zoo import write_video


class Deadly(PyAVReader):
    """Some files end the process that reads them."""

    def read(self, path: Path, **options: Any) -> Clip:
        end(path.name)
        return super().read(path, **options)


def end(name: str) -> str:
    if name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("bad"):
        raise InputError(f"{name}: is bad")
    return name


def test_without_a_process_of_its_own_a_function_is_called_here():
    process = OwnProcess(is_used=False)
    assert process.call(os.getpid, name="") == os.getpid()


@pytest.mark.slow
def test_a_process_is_replaced_when_it_has_ended():
    process = OwnProcess(is_used=True)
    try:
        assert process.call(os.getpid, name="") not in (os.getpid(), 0)
        with pytest.raises(InputError, match=f"^a film: {FATAL}"):
            process.call(end, "deadly", name="a film")
        assert process.call(end, "fine", name="") == "fine"
        with pytest.raises(InputError, match=r"^bad: is bad"):
            process.call(end, "bad", name="")
    finally:
        process.close()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["oracle", "mean"])  # which read videos in workers, and beside the models
def test_videos_that_end_the_process_that_reads_them_stop_no_batch(tmp_path: Path, method: Any):
    names = ("a", "deadly1", "b", "deadly2", "c")
    for number, name in enumerate(names):
        write_video(tmp_path / f"{name}.mkv", np.arange(20) / 25, sine(300 + number, 0.8, 44_100))
    report = generate(
        [Item(name, videos=(str(tmp_path / f"{name}.mkv"),)) for name in names],
        str(tmp_path / "out"),
        replace(small_perception(), video_reader=Deadly()),
        small_generator(),
        options=SoundOptions(method, seconds=1.0),
        checkpoints=Checkpoints(manifold=save_checkpoints(tmp_path)["manifold"] if method == "mean" else None),
        trainer=BuildTrainer("cpu", 1, num_workers=1),
        batch_size=2,
        progress=False,
    )
    assert report is not None
    assert report.made == ("a", "b", "c")
    assert [(key, FATAL in reason) for key, _, reason in report.failed] == [("deadly1", True), ("deadly2", True)]
    assert not (tmp_path / "out" / ".generate").exists()
