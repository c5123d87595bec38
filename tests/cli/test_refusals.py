"""What neither the parser nor a class of ours refuses still ends in one line: switches, checkpoints, lost processes."""

import multiprocessing
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from lightning_ss2a.cli.errors import run_reporting_errors
from lightning_ss2a.cli.lightning import build_cli
from tests.cli.test_lightning import command, error_of, folder, trained  # noqa: F401  (a fixture)

TEACHERLESS = ("--trainer.callbacks.EMATeacher=false", "--trainer.callbacks.PairFilter=false")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--seed_everything=-1", "--seed_everything: -1 is not in bounds"),
        ("--seed_everything=99999999999", "--seed_everything: 99999999999 is not in bounds"),
        ("--trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch is 0, needs more than 0"),
        ("--trainer.check_val_every_n_epoch=-1", "trainer.check_val_every_n_epoch is -1, needs more than 0"),
        ("--trainer.val_check_interval=0", "trainer.val_check_interval is 0, needs more than 0"),
        ("--trainer.val_check_interval=1000", "`val_check_interval` (1000) must be less than or equal to"),
        ("--trainer.devices=-1", "`devices` selected with `CPUAccelerator` should be an int > 0"),
    ],
)
def test_a_switch_of_the_trainer_out_of_range(folder: Path, capsys, option: str, expected: str):  # noqa: F811
    assert f"lightning: error: {expected}" in error_of(command("fit", option, *TEACHERLESS), capsys)


@pytest.mark.parametrize("option", ["--data.datasets", "--trainer.logger.save_dir"])
def test_a_name_that_no_configuration_could_hold(folder: Path, capsys, option: str):  # noqa: F811
    line = error_of(command("fit", f"{option}=not\udcff"), capsys)
    assert f"{option[2:].rpartition('.')[0]}: " in line
    assert "a configuration holds UTF-8 only: rename the file or folder" in line
    assert not Path("runs").exists()


def test_an_interval_of_time_is_none_of_batches(folder: Path):  # noqa: F811
    build_cli(command("fit", "--trainer.max_epochs=1", "--trainer.val_check_interval=00:00:00:01", *TEACHERLESS))


def test_another_models_checkpoint(folder: Path, capsys):  # noqa: F811
    checkpoint = trained(*TEACHERLESS) / "checkpoints" / "last.ckpt"
    stage = ["fit", "-c", str(Path(__file__).parents[2] / "configs" / "audio_to_visual.yaml"), "--data.datasets=pairs"]
    line = error_of([*stage, "--data.fold=null", f"--ckpt_path={checkpoint}"], capsys)
    assert f"{checkpoint} is a checkpoint of ManifoldModule, the configuration is of AudioToVisualModule" in line


def test_two_callbacks_of_one_state(folder: Path, capsys):  # noqa: F811
    twice = "--trainer.callbacks+={class_path: ModelCheckpoint, init_args: {monitor: val/ssms, mode: max}}"
    assert "Found more than one stateful callback" in error_of(command("fit", twice, *TEACHERLESS), capsys)


class KillWorker(Callback):
    """Kills a process that reads ahead, as the system does where memory ends."""

    def on_train_batch_end(self, *_: object) -> None:
        for process in multiprocessing.active_children():
            process.kill()


def test_a_killed_process_that_reads_ahead(folder: Path, capsys):  # noqa: F811
    stream = ["--data.residency=stream", "--data.num_workers=1", "--data.shuffle_rows=16", "--trainer.max_epochs=9"]
    arguments = command("fit", *stream, *TEACHERLESS)
    with pytest.raises(SystemExit, match="2"):
        run_reporting_errors("lightning", lambda words: build_cli(words, callbacks=[KillWorker()]), arguments)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lightning: error: a process that reads ahead was killed (")
    assert "data.num_workers" in line
