"""``lightning fit|validate|test|predict``: training from YAML files and the command line."""

from collections.abc import Sequence

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_ss2a.callbacks
import lightning_ss2a.training  # noqa: F401
from lightning_ss2a.cli.errors import run_reporting_errors
from lightning_ss2a.data import field_width


def _visual_width(datasets: str | list[str]) -> int:
    return field_width(datasets, "visual")


def _audio_width(datasets: str | list[str]) -> int:
    return field_width(datasets, "audio")


class ShardCLI(LightningCLI):
    """LightningCLI whose model widths come from the data's manifest when the command line is parsed."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the manifest knows, so that nobody types it and the saved config shows it."""
        links = {"model.init_args.visual_width": _visual_width, "model.init_args.audio_width": _audio_width}
        for target, width_of in links.items():
            parser.link_arguments("data.init_args.datasets", target, compute_fn=width_of)


def build_cli(arguments: Sequence[str], run: bool = True) -> ShardCLI:
    """Parse and, if asked to, run; without running, ``trainer``, ``model`` and ``datamodule`` are there to be used.

    Args:
        arguments: command-line arguments, with the subcommand first where ``run`` is true and without it otherwise.
        run: whether to run the subcommand.
    """
    return ShardCLI(
        args=list(arguments),
        run=run,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        parser_kwargs={"parser_mode": "omegaconf"},
        save_config_kwargs={"overwrite": True},
    )


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``lightning`` command with these arguments (None: those of the process)."""
    run_reporting_errors("lightning", build_cli, args)
