"""The `lightning` command: configs, checkpoints, messages; parsed as a user's command line is."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from lightning_ss2a.cli.lightning import build_cli, main
from lightning_ss2a.data import FieldSpec, LabelHead, ShardWriter
from lightning_ss2a.training import ManifoldModule
from tests.limits import largest_file
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH, write_learnable_pairs
from tests.processes import call_command, status_of, write_imported

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs" / "manifold.yaml")
PAPER = str(ROOT / "configs" / "paper" / "manifold.yaml")
TINY = """
model:
  init_args: {manifold: {width: 6, projector_widths: [8, 8], reconstructor_widths: [8, 8]}, measuring: {top_n: 3}}
data:
  init_args: {batch_size: 8, residency: memory, fold: null, rows_per_group: all}
trainer: {accelerator: cpu, devices: 1, enable_progress_bar: false, check_val_every_n_epoch: 1, log_every_n_steps: 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a data set `pairs` and an overlay `tiny.yaml`."""
    monkeypatch.chdir(tmp_path)
    write_learnable_pairs(tmp_path / "pairs")
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def command(*arguments: str, config: str = CONFIG) -> list[str]:
    return [arguments[0], "-c", config, "-c", "tiny.yaml", "--data.datasets=pairs", *arguments[1:]]


def printed_config(arguments: list[str], capsys) -> dict:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--print_config"])
    assert exit_.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)


def error_of(arguments: list[str], capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if "error" in line]
    return line


def trained(*arguments: str) -> Path:
    """The folder of a run of one epoch, without the half second of drawing."""
    build_cli(command("fit", "--trainer.max_epochs=1", "--trainer.callbacks.ManifoldFigures=false", *arguments))
    return sorted(Path("runs/manifold").glob("version_*"))[-1]


# -------------------------------------------------------------------- configs


def test_the_widths_of_the_data_reach_the_model(folder: Path):
    cli = build_cli(command("fit")[1:], run=False)
    assert (cli.model.visual_width, cli.model.audio_width) == (VISUAL_WIDTH, AUDIO_WIDTH)


@pytest.mark.parametrize("step", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_paper_config_with_widths_of_clip_and_clap(folder: Path, step: str):
    fields = {"visual": FieldSpec(768, "clip"), "audio": FieldSpec(512, "clap")}
    random = torch.Generator().manual_seed(0)
    head = LabelHead(torch.randn(20, 512, generator=random), torch.zeros(20), tuple(f"label{i}" for i in range(20)))
    with ShardWriter("vggs3", "pairs", fields, ["dog"], label_head=head) as writer:
        for split, rows in (("train", 24), ("validation", 6)):
            columns = {name: torch.randn(rows, spec.width, generator=random).numpy() for name, spec in fields.items()}
            writer.write(split, {"key": [f"{split}{i}" for i in range(rows)], **columns})
    options = ["-c", PAPER, "--data.datasets=vggs3", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    module = build_cli(options, run=False).model
    manifold = module.manifold
    # The paper's sizes, from the parameters themselves.
    first = next(p for p in manifold.visual_projector.parameters() if p.ndim == 2)
    assert tuple(first.shape) == (768, 768)
    assert {p.shape[0] for p in manifold.audio_projector.parameters() if p.ndim == 2} == {768, 1536, 3072}
    sizes = {p.shape[0] for p in manifold.audio_reconstructor.parameters() if p.ndim == 2}
    assert sizes == {768, 896, 1024, 2048, 512}
    assert module.hparams.step == "compiled"

    tiny = [
        "--model.manifold.width=8",
        "--model.manifold.projector_widths=[8,8]",
        "--model.manifold.reconstructor_widths=[8,8]",
    ]
    short = ["--data.batch_size=12", "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
    cli = build_cli(["fit", *options, *tiny, *short, f"--model.step={step}"])
    assert cli.trainer.global_step == 2
    assert cli.trainer.precision == "bf16-mixed"
    assert {"val/clip_score", "val/modality_gap"} <= cli.trainer.callback_metrics.keys()


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_the_precision_of_float32_products_is_an_option(folder: Path, precision: str):
    before = torch.get_float32_matmul_precision()
    try:
        build_cli(command("fit", f"--matmul_precision={precision}")[1:], run=False)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_lightnings_tips_are_left_out(folder: Path, capsys, caplog):
    with caplog.at_level("INFO"):
        main(command("fit", "--trainer.max_epochs=1"))
    printed = "".join(capsys.readouterr()) + caplog.text
    assert "GPU available" in printed  # what it says of the run stays
    assert "Tip" not in printed


@pytest.mark.parametrize("config", [CONFIG, PAPER])
def test_a_printed_config_gives_itself(folder: Path, capsys, config):
    printed = printed_config(command("fit", "--model.kl_weight=0.5", config=config), capsys)
    Path("again.yaml").write_text(yaml.safe_dump(printed))
    assert printed_config(["fit", "-c", "again.yaml"], capsys) == printed
    assert printed["model"]["init_args"]["kl_weight"] == 0.5
    assert printed["model"]["init_args"]["manifold"]["width"] == 6  # the later file wins
    written = yaml.safe_load(Path(config).read_text())["model"]["init_args"]
    assert printed["model"]["init_args"]["manifold"]["dropout"] == written["manifold"]["dropout"]


def test_a_saved_config_runs_again_and_gives_the_same(folder: Path):
    first = trained()
    build_cli(["fit", "-c", str(first / "config.yaml")])
    second = first.with_name("version_1")
    one, other = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (first, second)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


# -------------------------------------------------------------------- checkpoints


def test_a_checkpoint_loads_without_config_or_data(folder: Path):
    run = trained("--model.kl_weight=0.5")
    module = ManifoldModule.load_from_checkpoint(run / "checkpoints" / "best.ckpt", map_location="cpu")
    assert module.kl_weight == 0.5
    assert module.manifold.project_visual(torch.zeros(2, VISUAL_WIDTH)).mean.shape == (2, 6)


def test_an_evaluation_uses_the_checkpoints_hyperparameters_except_for_those_on_the_command_line(folder: Path, capsys):
    run = trained("--model.manifold.width=5", "--model.kl_weight=0.5")
    path = str(run / "checkpoints" / "last.ckpt")
    options = ["--data.test_split=validation", "--model.measuring.top_n=2", f"--ckpt_path={path}"]
    cli = build_cli(command("test", *options))  # tiny.yaml says width 6
    assert (cli.model.manifold.options.width, cli.model.kl_weight, cli.model.measuring.top_n) == (5, 0.5, 2)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(state[name], value) for name, value in cli.model.state_dict().items() if name in state)
    printed = capsys.readouterr().out
    assert "Test (baselines" in printed  # our table, and not Lightning's beside it
    assert "DataLoader 0" not in printed


def test_a_checkpoint_named_by_a_url_is_measured_as_by_its_path(folder: Path, capsys):
    path = folder / trained("--model.manifold.width=5") / "checkpoints" / "last.ckpt"
    for name in (f"file://{path}", f"file:{path}", str(path)):
        cli = build_cli(command("test", "--data.test_split=validation", f"--ckpt_path={name}"))  # tiny.yaml: width 6
        assert cli.model.manifold.options.width == 5
    path.write_bytes(path.read_bytes()[:-100])
    fit = command("fit", "--trainer.max_epochs=2")
    for arguments in (command("test"), fit):
        error = error_of([*arguments, f"--ckpt_path=file://{path}"], capsys)
        assert f"--ckpt_path file://{path}: not a checkpoint of Lightning, or a damaged one" in error
    assert "memory://none.ckpt: cannot be read" in error_of([*fit, "--ckpt_path=memory://none.ckpt"], capsys)


def test_training_goes_on_with_the_options_given_now(folder: Path):
    run = trained("--model.kl_weight=0.5")
    checkpoint = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    cli = build_cli(command("fit", "--trainer.max_epochs=2", "--model.kl_weight=0.25", checkpoint))
    assert cli.model.kl_weight == 0.25
    assert cli.trainer.current_epoch == 2


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_an_untrained_model_is_not_measured(folder: Path, capsys, verb):
    assert f"lightning {verb} needs --ckpt_path FILE" in error_of(command(verb), capsys)


def test_a_prediction_that_nothing_would_write_is_refused(folder: Path, capsys):
    path = trained() / "checkpoints" / "last.ckpt"
    bare = command("predict", f"--ckpt_path={path}", "--trainer.callbacks=[]")
    line = error_of(bare, capsys)
    assert "no callback writes the predictions; add one with --trainer.callbacks+=CMSSShardWriter" in line
    build_cli([*bare, "--trainer.callbacks+=CMSSShardWriter"])
    assert len([*Path("runs/manifold").glob("version_*/cmss/manifest.json")]) == 1


def test_checkpoints_that_do_not_fit(folder: Path, capsys):
    run = trained()
    path = str(run / "checkpoints" / "last.ckpt")
    line = error_of(command("fit", "--model.manifold.projector_widths=[8,4]", f"--ckpt_path={path}"), capsys)
    name = "model.manifold.projector_widths"
    assert f"{path} has {name} [8, 8], here it is [8, 4]; use --{name} [8, 8]" in line
    fields = {"visual": FieldSpec(VISUAL_WIDTH + 1, "eye"), "audio": FieldSpec(AUDIO_WIDTH, "ear")}
    with ShardWriter("others", "pairs", fields, ["a"]) as writer:
        columns = {name: torch.ones(3, spec.width).numpy() for name, spec in fields.items()}
        writer.write("validation", {"key": ["a", "b", "c"], **columns})
    line = error_of(
        ["validate", "-c", str(run / "config.yaml"), "--data.datasets=others", f"--ckpt_path={path}"], capsys
    )
    assert f"model.visual_width {VISUAL_WIDTH}, here it is {VISUAL_WIDTH + 1}; use other data" in line
    assert "nowhere.ckpt: no such file" in error_of(command("test", "--ckpt_path=nowhere.ckpt"), capsys)
    assert "tiny.yaml: not a checkpoint" in error_of(command("fit", "--ckpt_path=tiny.yaml"), capsys)


# -------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.kl_wieght=1"], "model: Option 'kl_wieght' is not accepted; did you mean model.kl_weight?"),
        (
            ["--model.ccmr_alpha=1"],
            "error: model: Option 'ccmr_alpha' is not accepted; did you mean model.contrastive.ccmr_alpha?",
        ),
        (["--model.manifold_width=1"], "did you mean model.manifold.width?"),
        (["--model.contrastive.ccmr_alhpa=1"], "did you mean model.contrastive.ccmr_alpha?"),
        (["--model.optimisation.learning_rate=1"], "did you mean model.optimization.learning_rate?"),
        (["-c", "flat.yaml"], "flat.yaml: model: Option 'top_n' is not accepted; did you mean model.measuring.top_n?"),
        (
            ["-c", "group.yaml"],
            "group.yaml: model: Group 'sampling' does not accept option 'drws'; did you mean model.sampling.draws?",
        ),
        (["--data.batchsize=1"], "did you mean data.batch_size?"),
        (["--trainer.max_epoks=1"], "did you mean trainer.max_epochs?"),
        (["--model=ManifoldModul"], "did you mean ManifoldModule?"),
        (["--trainer.callbacks+=RunSumary"], "did you mean RunSummary?"),
        (["--model.kl_weight=much"], "model.kl_weight: Expected a float. Got value: much"),
        (
            ["--model.optimization.schedule=linear"],
            "model.optimization.schedule: Expected a one of ['constant', 'cosine']. Got value: linear",
        ),
        (["--model.sampling.draws=0"], "lightning: error: model.sampling.draws must be at least 1, found 0 ("),
        (
            ["--model.manifold.projector_widths=[]"],
            "error: model.manifold.projector_widths must name at least one layer",
        ),
        (["--data.weights=[1,2]"], "lightning: error: data.weights needs one number of at least 0 for each of the 1"),
        (["--trainer.strategy=foo"], "invalid strategy name"),
        (["--trainer.precision=bf16-true"], "trainer.precision: bf16-true is not supported; use"),
        (["--data.datasets=nowhere"], "nowhere/manifest.json: missing"),
        (["--data.fold=7"], "data.fold is 7, but the data set has no folds"),
        (["--data.batch_size=4096"], "data.batch_size is 4096 rows, but an epoch draws only 53"),
        (["-c", "nowhere.yaml"], "File does not exist"),
        (["-c", "broken.yaml"], "broken.yaml: Problems parsing config"),
        (["-c", "text.yaml"], "text.yaml: Unexpected config: hello"),
        (["-c", "typo.yaml"], "typo.yaml: "),
        (["--data.datasets=future"], "future/manifest.json"),
        (["--trainer.devices=9", "--trainer.accelerator=gpu"], "gpu"),
        (["--optimizer=AdamW"], "unrecognized arguments: --optimizer"),
        (["--ckpt=last"], "unrecognized arguments: --ckpt=last; did you mean ckpt_path?"),
    ],
)
def test_wrong_input_is_one_line(folder: Path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("broken.yaml").write_text("model: [")
    Path("text.yaml").write_text("hello")
    Path("typo.yaml").write_text("model: {init_args: {kl_wieght: 1}}")
    Path("flat.yaml").write_text("model: {init_args: {top_n: 1}}")
    Path("group.yaml").write_text("model: {init_args: {sampling: {drws: 1}}}")
    write_learnable_pairs(folder / "future")
    manifest = (folder / "future" / "manifest.json").read_text()
    (folder / "future" / "manifest.json").write_text(re.sub(r'"format_version": \d+', '"format_version": 99', manifest))
    line = error_of(command("fit", "--trainer.max_epochs=1", *arguments), capsys)
    assert message in line
    assert line.startswith("lightning: error: ")
    assert line.endswith("(traceback: --debug)")


def test_a_checkpoint_that_cannot_be_written_is_an_error_that_names_it(folder: Path, capsys):
    (folder / "runs/manifold/version_0").mkdir(parents=True)
    (folder / "runs/manifold/version_0/checkpoints").touch()  # a folder that cannot be written to, for root too
    fit = command("fit", "--trainer.max_epochs=1", "--trainer.logger.version=0")
    assert "runs/manifold/version_0/checkpoints'" in error_of(fit, capsys)


def test_an_event_file_that_cannot_grow_is_an_error_that_names_it(folder: Path, capsys):
    fit = command("fit", "--trainer.max_epochs=60", "--trainer.enable_checkpointing=false")
    fit += ["--trainer.callbacks=[]"]
    with largest_file(40_000):
        error = error_of(fit, capsys)
    (events,) = folder.glob("runs/manifold/version_0/events*")
    assert f"File too large: '{events.relative_to(folder)}'" in error


def test_a_full_run_folder_is_an_error_whatever_was_being_written(folder: Path, capsys):
    with largest_file(1000):
        assert "File too large: 'runs/manifold/version_0/config.yaml'" in error_of(command("fit"), capsys)
    fit = command("fit", "--trainer.callbacks=[]", "--trainer.enable_checkpointing=false", "--trainer.logger=CSVLogger")
    with largest_file(8000):  # its metrics.csv
        assert "File too large: 'runs/manifold/version_1'" in error_of([*fit, "--trainer.max_epochs=60"], capsys)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_not_taken_for_the_run_folder(folder: Path):
    fit, errors = ["lightning", *command("fit", "--trainer.max_epochs=1")], folder / "errors"
    assert status_of(call_command, fit, folder, dict(os.environ), Path("/dev/full"), errors) == 2
    assert "No space left on device: 'standard output'" in errors.read_text().splitlines()[-1]
    assert (folder / "runs/manifold/version_0/checkpoints/last.ckpt").exists()


def test_data_without_a_label_head_cannot_be_monitored_by_ssms(folder: Path, capsys):
    write_learnable_pairs(folder / "plain", with_head=False)
    line = error_of(command("fit", "--data.datasets=plain"), capsys)
    assert "plain: no label head, so there is no val/ssms for ModelCheckpoint to monitor" in line


def test_a_verb_without_a_config_says_how_to_name_one(folder: Path, capsys):
    assert "name a configuration, for example -c configs/manifold.yaml" in error_of(["fit"], capsys)


@pytest.mark.parametrize("verb", [[], ["fit"], ["validate"], ["test"], ["predict"]])
def test_help_of_every_verb(capsys, verb):
    with pytest.raises(SystemExit) as exit_:
        main([*verb, "--help"])
    assert exit_.value.code in (0, None)
    assert ("--trainer.max_epochs" if verb else "predict") in capsys.readouterr().out


# -------------------------------------------------------------------- around the command


def test_tab_completion_completes_in_a_bash(tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        main(["--print_completion", "shtab-bash"])
    (tmp_path / "lightning.bash").write_text(capsys.readouterr().out)
    script = """
    source lightning.bash
    function=$(complete -p lightning | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    COMP_WORDS=(lightning "$@"); COMP_CWORD=$#
    $function lightning "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """

    def complete(*words: str) -> list[str]:
        shell = ["bash", "-c", script, "bash", *words]
        return subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()

    assert complete("pre") == ["predict"]
    assert complete("fit", "--model.kl") == ["--model.kl_weight"]
    assert complete("fit", "--data.wei") == ["--data.weights"]
    assert complete("fit", "-c", "light") == ["lightning.bash"]


def test_starting_imports_nothing_heavy_beyond_what_lightning_imports(tmp_path: Path):
    assert status_of(write_imported, "lightning_ss2a.cli.lightning", tmp_path / "imported") == 0
    added = (tmp_path / "imported").read_text().split()
    assert "lightning_ss2a.cli.lightning" in added
    heavy = ("PIL", "soundfile", "onnxruntime", "cairosvg", "scipy", "sklearn", "matplotlib", "pandas", "tensorboard")
    assert not {name.partition(".")[0] for name in added} & set(heavy)
    assert not any(name.startswith("lightning_ss2a.perception") for name in added)
