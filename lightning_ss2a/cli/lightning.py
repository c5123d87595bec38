"""``lightning fit|validate|test|predict``: training from YAML files and the command line."""

import warnings
from collections.abc import Sequence

from jsonargparse import ArgumentError
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import lightning_ss2a.callbacks
import lightning_ss2a.data.datamodule
import lightning_ss2a.training  # noqa: F401  (short class names in configs)
from lightning_ss2a.cli.errors import explain, run_reporting_errors
from lightning_ss2a.data import field_width
from lightning_ss2a.errors import InputError


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

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse.

        Raises:
            InputError: one line that says what is wrong and which name is nearest.
        """
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise InputError(explain(error, parser, args)) from error


def build_cli(arguments: Sequence[str], run: bool = True) -> ShardCLI:
    """Parse and, if asked to, run; without running, ``trainer``, ``model`` and ``datamodule`` are there to be used.

    Args:
        arguments: command-line arguments, with the subcommand first where ``run`` is true and without it otherwise.
        run: whether to run the subcommand.

    Raises:
        InputError: arguments or input are wrong.
    """
    return ShardCLI(
        args=list(arguments),
        run=run,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        parser_kwargs={"parser_mode": "omegaconf", "exit_on_error": False},
        save_config_kwargs={"overwrite": True},
    )


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``lightning`` command with these arguments (None: those of the process)."""
    # What Lightning says about its own use of torch; nothing that a user could change.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    run_reporting_errors("lightning", build_cli, args)
