from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.synchformer import Synchformer, prepare_frames
from lightning_ss2a.evaluation.protocols import SyncEstimator
from lightning_ss2a.perception import PyAVReader
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.perception.weights import Described, Loadable
from tests.evaluation.encoders.moving_square import RATE, clicks, jumping_square

pytest.importorskip("av")
pytest.importorskip("torchaudio")


class Export(nn.Module):
    """What an export is like: both inputs pooled and projected to the logits of 21 offsets."""

    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.vis, self.aud = nn.Linear(14 * 16 * 3, classes), nn.Linear(14 * 128, classes)

    def forward(self, vis: Tensor, aud: Tensor) -> Tensor:
        return self.vis(vis.mean((4, 5)).flatten(1)) + self.aud(aud.mean(4).flatten(1))


@pytest.fixture(scope="module")
def network() -> Export:
    torch.manual_seed(0)
    return Export().eval()


@pytest.fixture(scope="module")
def file(network: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("synchformer") / "synchformer.pt"
    torch.jit.script(network).save(str(file))
    return file


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jumping_square(tmp_path_factory.mktemp("square") / "square.mp4", seconds=6.0)


def mel_by_hand(segment: np.ndarray) -> np.ndarray:
    """Power in 128 triangles, straight lines in hertz between points that are even on HTK's mel scale: [128, 65]."""
    padded = np.pad(segment.astype(np.float64), 512, mode="reflect")
    window = np.pad(np.hanning(401)[:-1], 312)
    frames = np.stack([padded[160 * n : 160 * n + 1024] * window for n in range(65)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 130)
    corners = 700 * (10 ** (mels / 2595) - 1)
    bins = np.linspace(0, 8000, 513)
    bank = np.stack([np.interp(bins, corners[k : k + 3], [0, 1, 0]) for k in range(128)])
    return bank @ power.T


def by_hand(network: Export, sound: np.ndarray, video: Path) -> Tensor:
    """The first and the last 14 segments, cut by index."""
    frames = torch.from_numpy(PyAVReader(longest_side=640).read(video, frames=150, window=(0.0, 6.0)).frames)
    pixels = prepare_frames(frames.permute(0, 3, 1, 2))
    last = (150 - 16) // 8 - 13  # of 17 segments
    logits = []
    for first in (0, last):
        numbers = range(first, first + 14)
        vis = torch.stack([pixels[8 * n : 8 * n + 16] for n in numbers])
        power = np.stack([mel_by_hand(sound[5120 * n : 5120 * n + 10240]) for n in numbers])
        mel = np.pad(np.log(power + 1e-6), ((0, 0), (0, 0), (0, 1)))
        aud = torch.from_numpy((mel + 4.2677393) / (2 * 4.5689974)).float()[:, None]
        with torch.inference_mode():
            logits.append(network(vis[None], aud[None]))
    return torch.cat(logits)


def test_it_shows_an_export_what_synchformer_sees_and_hears(network: Export, file: Path, video: Path):
    estimator = Synchformer(str(file))
    assert isinstance(estimator, SyncEstimator)
    assert isinstance(estimator, Described)
    assert isinstance(estimator, Loadable)
    sound = clicks(0.4, seconds=6.0)
    logits = estimator.offset_logits([sound], [video])
    assert logits.shape == (1, 2, 21)
    wanted = by_hand(network, sound, video)
    print(f"Synchformer's inputs, in logits of {wanted.abs().max():.2f}: {(logits[0] - wanted).abs().max():.1e}")
    torch.testing.assert_close(logits[0], wanted, rtol=1e-3, atol=1e-4)


def test_the_identity_tells_of_the_export_and_the_decoder(file: Path):
    identity = Synchformer(str(file)).identity
    assert f"@{sha256_of(file)[:12]}+" in identity
    assert "PyAV" in identity
    assert Synchformer(str(file)).describe().weights.found == (file,)


@pytest.mark.slow  # six windows of 120 frames
def test_a_pair_does_not_depend_on_the_others(file: Path, video: Path):
    estimator, sounds = Synchformer(str(file)), [clicks(0.4, seconds=6.0), clicks(1.0, seconds=5.2)]
    together = estimator.offset_logits(sounds, [video, video])
    assert together[1:].equal(estimator.offset_logits(sounds[1:], [video]))
    assert estimator.offset_logits([], []).shape == (0, 2, 21)


def test_an_onnx_export_serves_too(network: Export, file: Path, video: Path, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    state = {name: value.numpy() for name, value in network.state_dict().items()}
    nodes = [
        helper.make_node("ReduceMean", ["vis", "axes45"], ["v"], keepdims=0),
        helper.make_node("ReduceMean", ["aud", "axes4"], ["a"], keepdims=0),
        helper.make_node("Flatten", ["v"], ["vf"]),
        helper.make_node("Flatten", ["a"], ["af"]),
        helper.make_node("Gemm", ["vf", "vis.weight", "vis.bias"], ["x"], transB=1),
        helper.make_node("Gemm", ["af", "aud.weight", "aud.bias"], ["y"], transB=1),
        helper.make_node("Add", ["x", "y"], ["logits"]),
    ]
    sizes = {"vis": [1, 14, 16, 3, 224, 224], "aud": [1, 14, 1, 128, 66], "logits": [1, 21]}
    info = {name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size) for name, size in sizes.items()}
    constants = {**state, "axes45": np.array([4, 5]), "axes4": np.array([4])}
    initial = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "export", [info["vis"], info["aud"]], [info["logits"]], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "export.onnx")
    sound = clicks(0.4, seconds=6.0)
    found = Synchformer(str(tmp_path / "export.onnx")).offset_logits([sound], [video])
    torch.testing.assert_close(found, Synchformer(str(file)).offset_logits([sound], [video]), rtol=1e-4, atol=1e-4)


def test_frames_are_cut_out_of_the_middle():
    wide = torch.zeros(1, 3, 256, 512, dtype=torch.uint8)
    wide[..., 144:368] = 255
    found = prepare_frames(wide)
    assert found.shape == (1, 3, 224, 224)
    torch.testing.assert_close(found, torch.ones(1, 3, 224, 224))
    assert prepare_frames(torch.zeros(2, 3, 90, 60, dtype=torch.uint8)).eq(-1).all()


def test_what_is_wrong_is_one_line(file: Path, video: Path, tmp_path: Path):
    assert Synchformer().describe().problem == (
        "Synchformer: synchformer.pt is not on the hub; Synchformer.path must say where it is"
    )
    with pytest.raises(InputError, match=r"square\.mp4: 4 s of picture and sound, needs 4\.8 s"):
        Synchformer(str(file)).offset_logits([clicks(0.0)[: 4 * RATE]], [video])
    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"neither TorchScript nor \.onnx; a checkpoint alone has no code"):
        Synchformer(str(tmp_path / "checkpoint.pt")).load()
    torch.jit.script(Export(classes=3)).save(str(tmp_path / "few.pt"))
    with pytest.raises(InputError, match=r"few\.pt: gives \[1, 3\], needs \[1, 21\]"):
        Synchformer(str(tmp_path / "few.pt")).offset_logits([clicks(0.0, seconds=6.0)], [video])
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "other.pt"))
    with pytest.raises(InputError, match=r"other\.pt: cannot be run"):
        Synchformer(str(tmp_path / "other.pt")).offset_logits([clicks(0.0, seconds=6.0)], [video])
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"damaged\.onnx: not an ONNX model"):
        Synchformer(str(tmp_path / "damaged.onnx")).load()
