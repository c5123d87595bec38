"""``lightning fit|validate|test|predict``: training from YAML files and the command line."""

import json
import logging
import os
import threading
import warnings
from collections.abc import Sequence
from contextvars import copy_context
from traceback import walk_tb
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError, Namespace, set_parsing_settings
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

import lightning_ss2a.analysis.interventions
import lightning_ss2a.analysis.probes
import lightning_ss2a.callbacks
import lightning_ss2a.data.loading.datamodule
import lightning_ss2a.training  # noqa: F401  (short class names in configs)
from lightning_ss2a.callbacks import RunSummary
from lightning_ss2a.callbacks.predictions import PredictionWriter
from lightning_ss2a.callbacks.slurm import requeued_checkpoint
from lightning_ss2a.checkpoints import architecture_of, other_architecture, read_checkpoint
from lightning_ss2a.cli.arguments import after_config_files, files_first
from lightning_ss2a.cli.based_parser import BasedArgumentParser
from lightning_ss2a.cli.callback_options import with_callback_options
from lightning_ss2a.cli.checkpoint_option import NAMES, check_is_given, find_named, folder_without_logger, has_logger
from lightning_ss2a.cli.errors import (
    explain,
    explain_interpolation,
    naming_base_files,
    output_error,
    run_reporting_errors,
)
from lightning_ss2a.data import ShardError, field_width
from lightning_ss2a.data.loading.streaming import FEWER_WORKERS
from lightning_ss2a.errors import FULL, InputError, causes
from lightning_ss2a.files import local_path, to_path, write_whole
from lightning_ss2a.training import ManifoldModule
from lightning_ss2a.training.base import MeasuredModule

MatmulPrecision = Literal["highest", "high", "medium"]

LINKED = ("visual_width", "audio_width")
"""Parameters of a model that come from the data's manifest."""


def _visual_width(datasets: str | list[str]) -> int | None:
    try:
        return field_width(datasets, "visual")
    except ShardError:
        field_width(datasets, "audio")  # no manifest at all is an error; videos of audio embeddings are none
        return None


def _audio_width(datasets: str | list[str]) -> int:
    return field_width(datasets, "audio")


class ShardArgumentParser(BasedArgumentParser, LightningArgumentParser):
    """A parser of files that may name their bases, whose saved configuration also shows what links have set."""

    def save(self, namespace: Namespace, path: str, skip_unset: bool = True, **_: Any) -> None:
        """Write the configuration to one file, without the checkpoint that this run began with."""
        kept = namespace.clone()
        kept.pop("ckpt_path", None)
        write_whole(to_path(path), self.dump(kept, skip_unset=skip_unset, skip_link_targets=False))


class ShardCLI(LightningCLI):
    """LightningCLI whose model widths come from the data's manifest when the command line is parsed."""

    def __init__(self, args: Sequence[str], **options: Any) -> None:
        self._first = next(iter(args), None)
        super().__init__(args=list(args), **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # no static method: it knows the arguments
        """List the one that the arguments begin with, or all: making the parser of one takes a tenth of a second."""
        every = super().subcommands()
        return {self._first: every[self._first]} if self._first in every else every

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the manifest knows, so that nobody types it and the saved config shows it."""
        links = {"model.init_args.visual_width": _visual_width, "model.init_args.audio_width": _audio_width}
        for target, width_of in links.items():
            parser.link_arguments("data.init_args.datasets", target, compute_fn=width_of)
        parser.add_argument(
            "--matmul_precision",
            type=MatmulPrecision,
            default="highest",
            help="of float32 products on a GPU: highest, or high (TF32) or medium (bf16), faster and less precise",
        )

    def before_instantiate_classes(self) -> None:
        """Set the precision of float32 products, which torch has for a whole process."""
        torch.set_float32_matmul_precision(self._get(self.config, "matmul_precision"))

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse.

        Raises:
            InputError: one line that says what is wrong and which name is nearest.
        """
        if not isinstance(args, list):
            raise TypeError(f"arguments come as a list of texts, found {type(args).__name__}")
        self._arguments = files_first(args, self.subcommands())
        try:
            self.config = parser.parse_args(with_callback_options(parser, self._arguments))
        except ArgumentError as error:
            raise InputError(explain(error, parser, naming_base_files(self._arguments))) from error
        except Exception as error:
            if (message := explain_interpolation(error)) is None:
                raise
            raise InputError(message) from error
        _check_linked(self.config.get(self.config.get("subcommand")) or self.config)

    def instantiate_classes(self) -> None:
        """Make trainer, model and data.

        Raises:
            InputError: one of them refuses its arguments; in its own words, without the parser's around them.
        """
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, ImportError) as error:
            raise InputError(_refusal(error)) from error
        except RuntimeError as error:
            if not _is_raised_by_lightning(error):
                raise
            raise InputError(str(error)) from error
        if self._checkpoint is not None:
            _check_model(self.model, *self._checkpoint)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise InputError(f"--seed_everything: {error}") from error

    def _run_subcommand(self, subcommand: str) -> None:
        """Run, and say in one line what neither we nor Lightning could name before.

        Raises:
            InputError: a process that reads ahead was killed, or Lightning refuses a switch that goes on with the data.
            OSError: with the run's folder, where something is full and what failed (a logger, say) names no file.
        """
        try:
            super()._run_subcommand(subcommand)
        except RuntimeError as error:
            # torch has no class for it, and may raise it between any two lines, from its handler of signals.
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise InputError(f"a process that reads ahead was killed ({error}); {FEWER_WORKERS}") from error
        except ValueError as error:
            if not _is_raised_by_lightning(error):
                raise
            raise InputError(str(error)) from error
        except OSError as error:
            if error.filename is not None or error.errno not in FULL:
                raise
            if (of_output := output_error()) is not None:
                raise of_output from error
            # Not trainer.log_dir, for which this rank would wait for the others.
            folder = next((logger.log_dir for logger in self.trainer.loggers), None)
            raise OSError(error.errno, error.strerror, folder or self.trainer.default_root_dir) from error

    @property
    def _callbacks(self) -> list[Callback]:
        return self.trainer.callbacks  # type: ignore[attr-defined]  # set, but not declared, by Lightning

    def before_fit(self) -> None:
        """Tell before the first epoch, not after it, that a metric will be missing; go on with a requeued Slurm job.

        Raises:
            InputError: a callback monitors SSMS, and the data have no label head.
        """
        monitored = {getattr(callback, "monitor", None) for callback in self._callbacks}
        if "val/ssms" in monitored and getattr(self.datamodule, "label_head", ...) is None:
            raise InputError(
                f"{', '.join(self.datamodule.datasets)}: no label head, so there is no val/ssms for ModelCheckpoint to "
                "monitor; in a copy of the configuration, set its monitor to val/reconstruction_cosine"
            )
        self._go_on_in_requeued_job()

    def _go_on_in_requeued_job(self) -> None:
        options = self.config_init[self.subcommand]
        requeued = requeued_checkpoint(self.trainer)
        if requeued is not None:
            rank_zero_info(f"This job was requeued, and goes on from {requeued}")
            options.ckpt_path = str(requeued)
        elif options.ckpt_path is None:
            # None is meant: under Slurm, Lightning would resume from what any job has left in the working directory.
            self.trainer._checkpoint_connector._user_managed = True

    def before_validate(self) -> None:
        """Print the numbers once: as a table with their baselines, where a RunSummary does it."""
        if any(isinstance(callback, RunSummary) for callback in self._callbacks):
            self.config_init[self.subcommand].verbose = False

    before_test = before_validate

    def before_predict(self) -> None:
        """Keep no predictions in memory: a callback writes them.

        Raises:
            InputError: none does.
        """
        if not any(isinstance(callback, PredictionWriter | BasePredictionWriter) for callback in self._callbacks):
            needed = "CMSSShardWriter" if isinstance(self.model, ManifoldModule) else "PredictionShardWriter"
            raise InputError(
                f"no callback writes the predictions; add one with --trainer.callbacks+={needed} (for the frames of "
                "videos: ss2a shards frames)"
            )
        self.config_init[self.subcommand].return_predictions = False

    def _parse_ckpt_path(self) -> None:
        """Evaluate a checkpoint with its own hyperparameters, except for those given on the command line.

        Lightning's method (of this name) lets those of the checkpoint win over everything, while training too: a
        changed option would silently not count.
        """
        self._checkpoint: tuple[str, str, dict[str, Any]] | None = None  # file, class of the model, architecture
        subcommand = self.config.get("subcommand")
        path = self._checkpoint_path(subcommand) if subcommand else None
        if subcommand in ("validate", "test", "predict") and path is None:
            raise InputError(
                f"lightning {subcommand} needs --ckpt_path FILE, such as runs/.../checkpoints/best.ckpt (best or last: "
                "of the newest run): an untrained model tells nothing"
            )
        if path is None:
            return
        checkpoint = read_checkpoint(path, "--ckpt_path")
        given = checkpoint["hyper_parameters"]
        self._checkpoint = path, given["_class_path"], architecture_of(checkpoint)
        if subcommand == "fit":
            _remember_manifold(self.config.fit.model.init_args, given)
            return
        options = {name: value for name, value in given.items() if not name.startswith("_") and name not in LINKED}
        config = {"model": {"class_path": given["_class_path"], "init_args": options}}
        at = after_config_files(self._arguments)
        self.parse_arguments(self.parser, [*self._arguments[:at], "-c", json.dumps(config), *self._arguments[at:]])

    def _checkpoint_path(self, subcommand: str) -> str | None:
        """The checkpoint that the command line names, by its file; a name in the newest run becomes an option."""
        options = self.config[subcommand]
        path: str | None = options.get("ckpt_path")
        if path is not None:
            check_is_given(self._arguments, path)
        if path == "hpc":
            raise InputError("--ckpt_path hpc: there is no such name here; use last, best or a file")
        if path in NAMES:
            file = find_named(path, options.trainer)
            rank_zero_info(f"--ckpt_path {path}: {file}")
            options.ckpt_path = path = file
            self._arguments.append(f"--ckpt_path={path}")
        return path

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer; without a logger, with a folder of its own for the run."""
        options = self._get(self.config_init, "trainer")
        if not has_logger(options):
            kwargs["default_root_dir"] = str(folder_without_logger(options))
        return super().instantiate_trainer(**kwargs)


def build_cli(arguments: Sequence[str], run: bool = True, callbacks: Sequence[Callback] = ()) -> ShardCLI:
    """Parse and, if asked to, run; without running, ``trainer``, ``model`` and ``datamodule`` are there to be used.

    Args:
        arguments: command-line arguments, with the subcommand first where ``run`` is true and without it otherwise.
        run: whether to run the subcommand.
        callbacks: of the trainer, besides those of the configuration; saved nowhere.

    Raises:
        InputError: arguments or input are wrong.
    """
    # Interpolation as in ``${model.init_args.kl_weight}`` comes last, when all files and options are in.
    set_parsing_settings(add_print_completion_argument=True, omegaconf_absolute_to_relative_paths=True)
    # In a context of its own: the parser's outlives its use, and would keep trainer, model and data alive.
    return copy_context().run(
        ShardCLI,
        args=arguments,
        run=run,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        parser_kwargs={
            "prog": "lightning",
            "parser_mode": "omegaconf+",
            "exit_on_error": False,
            "allow_abbrev": False,
        },
        parser_class=ShardArgumentParser,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": list(callbacks)},
    )


def _remember_manifold(config: Any, checkpoint: dict[str, Any]) -> None:
    """Resume a Remixer whose manifold's file is gone: the checkpoint has its weights, and knows their shapes."""
    file = config.get("manifold_checkpoint")
    if file is not None and not os.path.isfile(local_path(file)) and config.get("manifold_architecture") is None:
        config.manifold_architecture = checkpoint.get("manifold_architecture")


def _check_linked(config: Any) -> None:
    """Refuse data without visual embeddings for a model that has a width for them.

    Raises:
        InputError: names both.
    """
    model, data = config.get("model"), config.get("data")
    options = model and model.get("init_args")
    if options and options.get("visual_width", 0) is None:
        datasets = data.init_args.datasets
        raise InputError(
            f"{datasets if isinstance(datasets, str) else datasets[0]}: no field of visual embeddings, which "
            f"{model.class_path.rpartition('.')[2]} needs"
        )


def _refusal(error: BaseException) -> str:
    """What our own classes said, where they are the cause; else the error itself."""
    return str(next((cause for cause in causes(error) if isinstance(cause, InputError)), error))


def _is_raised_by_lightning(error: BaseException) -> bool:
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith("lightning.")


def _check_model(model: MeasuredModule, path: str, class_path: str, architecture: dict[str, Any]) -> None:
    """Name the class or the option that makes the weights not fit; torch would list every tensor, or none."""
    # A class of one's own may go on with a checkpoint of the one that it builds on.
    if class_path not in {f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__}:
        other = class_path.rpartition(".")[2]
        raise InputError(f"{path} is a checkpoint of {other}, the configuration is of {type(model).__name__}")
    for name, ours, theirs in other_architecture(model.architecture, architecture):
        advice = "other data" if name in LINKED else f"--model.{name} {json.dumps(theirs)}"
        raise InputError(f"{path} has model.{name} {theirs}, here it is {ours}; use {advice}")


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``lightning`` command with these arguments (None: those of the process)."""
    quiet()
    run_reporting_errors("lightning", build_cli, args)


def quiet() -> None:
    """Hide warnings that no user can act on, and tracebacks of errors that are reported by themselves."""
    threading.excepthook = _report_thread
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(f"{name}.utilities.rank_zero").addFilter(_is_no_tip)
    # What Lightning says about its own use of torch; nothing that a user could change.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # The best of the run that goes on is carried over in spite of it; see training/resume.py.
    warnings.filterwarnings("ignore", message="The dirpath has changed from")
    # The metrics have gathered all ranks' rows already.
    warnings.filterwarnings("ignore", message=".*recommended to use `self.log.*sync_dist=True.*")


def _is_no_tip(record: logging.LogRecord) -> bool:
    """Leaves out advice to install what else Lightning's makers offer, and to set what matmul_precision sets here."""
    return not ("Tip:" in record.getMessage() or "has Tensor Cores" in record.getMessage())


def _report_thread(arguments: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread that failed; the error of TensorBoard's is raised again by what next logs."""
    if not type(arguments.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(arguments)
