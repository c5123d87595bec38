"""A YOLOv8 of the true architecture, of few channels and random weights, saved as ultralytics saves them."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import lightning_ss2a
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.protocols import Detections, Detector
from lightning_ss2a.perception.detectors.yolo import YOLO, import_ultralytics
from lightning_ss2a.perception.identity import sha256_of
from tests.perception.prepared_elsewhere import assert_pictures_may_be_prepared_elsewhere

if find_spec("ultralytics") is None:  # importing it here would change Pillow and torch for all other tests
    pytest.skip("ultralytics is not installed", allow_module_level=True)
LABELS = ("Person", "Man", "Dog", "Guitar", "Car", "Bell")
SIDE = 128


def pictures() -> list[np.ndarray]:
    """Pictures of blobs: wide, square, wide again, and as good as a line."""
    generator = np.random.default_rng(0)

    def picture(height: int, width: int) -> np.ndarray:
        blobs = generator.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
        return np.array(Image.fromarray(blobs).resize((width, height)))

    return [picture(120, 200), picture(96, 96), picture(120, 200), picture(3, 90)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import_ultralytics()  # before the tests import it themselves, so that it leaves this machine as it is
    import ultralytics

    folder = tmp_path_factory.mktemp("yolo")
    plan = yaml.safe_load((Path(ultralytics.__file__).parent / "cfg/models/v8/yolov8.yaml").read_text())
    plan |= {"scales": {"t": [0.33, 0.0625, 128]}, "scale": "t", "nc": len(LABELS)}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(plan))
    torch.manual_seed(0)
    model = ultralytics.YOLO(folder / "tiny.yaml", task="detect")
    for module in model.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that folding it into the convolution must heed
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.3, 1.5)
            torch.nn.init.uniform_(module.weight, 0.7, 1.4)
            torch.nn.init.normal_(module.bias, std=0.2)
    for boxes, classes in zip(model.model.model[-1].cv2, model.model.model[-1].cv3, strict=True):
        torch.nn.init.normal_(boxes[-1].weight, std=0.5)
        torch.nn.init.normal_(classes[-1].weight, std=20)
        torch.nn.init.constant_(classes[-1].bias, -1.0)
    model.model.names = dict(enumerate(LABELS))
    model.save(folder / "tiny.pt")
    return folder / "tiny.pt"


def detector(checkpoint: Path, **options) -> YOLO:
    return YOLO(str(checkpoint), image_side=SIDE, **options)


def assert_equal(found: Detections, expected: Detections) -> None:
    assert found.labels == expected.labels
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-3)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("iou", [0.0, 0.7])
def test_equals_ultralytics_own_prediction(checkpoint: Path, iou: float, augment: bool):
    import ultralytics

    found = detector(checkpoint, iou=iou, augment=augment).detect(pictures())
    predictor = ultralytics.YOLO(checkpoint)
    for image, detections in zip(pictures(), found, strict=True):
        bgr = np.ascontiguousarray(image[..., ::-1])
        options = {"imgsz": SIDE, "conf": 0.25, "iou": iou, "max_det": 64, "augment": augment}
        (result,) = predictor.predict(bgr, **options, verbose=False, save=False)
        labels = tuple(LABELS[int(number)] for number in result.boxes.cls)
        assert len(labels) > 0
        assert_equal(detections, Detections(result.boxes.xyxy, result.boxes.conf, labels))


def test_detections_are_as_the_protocol_says(checkpoint: Path):
    yolo = detector(checkpoint, iou=0.7)
    assert isinstance(yolo, Detector)
    assert yolo.labels == LABELS
    for image, found in zip(pictures(), yolo.detect(pictures()), strict=True):
        height, width = image.shape[:2]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (found.scores.diff() <= 0).all()
        assert ((found.scores > 0.25) & (found.scores <= 1)).all()
        assert 0 < len(found) <= 64
    assert yolo.detect([]) == []


def test_what_is_found_does_not_depend_on_the_batch(checkpoint: Path):
    yolo = detector(checkpoint, iou=0.7, augment=False)
    images = pictures()
    together = yolo.detect(images)
    for image, found in zip(images, together, strict=True):
        assert_equal(yolo.detect([image])[0], found)
        assert_equal(yolo.detect([image[:, ::-1].copy()[:, ::-1]])[0], found)  # in whatever order it lies in memory
    for found, expected in zip(yolo.detect(images[::-1]), together[::-1], strict=True):
        assert_equal(found, expected)
    assert together[0].boxes.shape != together[2].boxes.shape or not torch.equal(together[0].boxes, together[2].boxes)


def test_only_boxes_of_the_same_class_suppress_each_other(checkpoint: Path):
    def overlaps(found: Detections) -> list[tuple[str, str]]:
        boxes = found.boxes
        corners = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
        pairs = (corners[1] - corners[0] > 0).all(dim=-1).triu(1).nonzero().tolist()
        return [(found.labels[i], found.labels[j]) for i, j in pairs]

    pairs = [pair for found in detector(checkpoint, iou=0.0).detect(pictures()) for pair in overlaps(found)]
    assert pairs
    assert all(one != other for one, other in pairs)


def test_slow_suppression_leaves_no_picture_without_boxes(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    yolo = detector(checkpoint, iou=0.7, augment=False)
    image = pictures()[0]
    expected = yolo.detect([image])[0]
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(import_ultralytics().nms.time, "time", lambda: next(clock))  # each look at it 100 s later
    for found in yolo.detect([image] * 3):
        assert_equal(found, expected)


def test_at_most_so_many_and_only_so_sure(checkpoint: Path):
    everything = detector(checkpoint, iou=0.7).detect(pictures())[0]
    few = detector(checkpoint, iou=0.7, max_det=3).detect(pictures())[0]
    assert_equal(few, Detections(everything.boxes[:3], everything.scores[:3], everything.labels[:3]))
    least = float(everything.scores.median())
    assert (detector(checkpoint, iou=0.7, conf=least).detect(pictures())[0].scores > least).all()


def test_its_identity_tells_weights_and_options_apart_without_loading_them(checkpoint: Path):
    yolo = detector(checkpoint)
    assert yolo.identity == f"ultralytics/YOLO@{sha256_of(checkpoint)[:12]}+side128-conf0.25-iou0-most64-augment-v1"
    others = [detector(checkpoint, conf=0.3), detector(checkpoint, augment=False), detector(checkpoint, max_det=9)]
    assert len({yolo.identity, *(other.identity for other in others)}) == 4
    assert "_network" not in vars(yolo)
    card = yolo.describe()
    assert (card.part, card.weights.found, card.weights.present) == ("detector", (checkpoint,), True)
    assert "AGPL" in card.licence


def test_missing_weights_are_named_before_anything_loads():
    problem = YOLO().describe().weights.problem
    assert "yolov8x-oiv7.pt" in problem
    assert "detector.path" in problem
    with pytest.raises(InputError, match=r"yolov8x-oiv7.pt"):
        YOLO().detect(pictures())


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "truncated"])
def test_a_damaged_file_is_named_in_one_line(checkpoint: Path, tmp_path: Path, content: bytes | str):
    whole = checkpoint.read_bytes()
    file = tmp_path / "broken.pt"
    file.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(InputError, match=r"broken.pt: cannot be loaded as a YOLO checkpoint") as error:
        YOLO(str(file)).load()
    assert "\n" not in str(error.value)


class Payload:
    """What would make a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_what_is_pickled_beside_known_layers_is_not_run(tmp_path: Path):
    torch.save({"model": Payload(tmp_path / "run")}, tmp_path / "hostile.pt")
    with pytest.raises(InputError, match=r"hostile.pt: cannot be loaded"):
        YOLO(str(tmp_path / "hostile.pt")).detect(pictures())
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path):
    import_ultralytics()
    import ultralytics

    ultralytics.YOLO("yolov8n-cls.yaml", task="classify").save(tmp_path / "classifier.pt")
    with pytest.raises(InputError, match=r"classifier.pt: holds a ClassificationModel, needs a YOLOv8 DetectionModel"):
        YOLO(str(tmp_path / "classifier.pt")).detect(pictures())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_side": 100}, "detector.image_side is 100, needs a multiple of 32"),
        ({"conf": 1.5}, "detector.conf is 1.5, needs 0 to 1"),
        ({"iou": -0.1}, "detector.iou is -0.1"),
        ({"max_det": 0}, "detector.max_det is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_out_of_range(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        YOLO(**options)


def test_pictures_may_be_prepared_by_processes_without_the_network(checkpoint: Path):
    assert_pictures_may_be_prepared_elsewhere(YOLO(str(checkpoint), image_side=SIDE), pictures())


@pytest.mark.slow  # 28 s: imports all of ultralytics
def test_its_import_leaves_nothing_behind(tmp_path: Path):
    program = (
        "import os, torch; from PIL import Image; before, save, opened = dict(os.environ), torch.save, Image.open\n"
        "from lightning_ss2a.perception.detectors.yolo import import_ultralytics; import_ultralytics()\n"
        "from ultralytics.utils import ONLINE; from ultralytics.utils.events import Events\n"
        "assert dict(os.environ) == before and torch.save is save and Image.open is opened\n"
        "assert not ONLINE and not Events().enabled"
    )
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "PYTEST"))}
    run = subprocess.run([sys.executable, "-c", program], env=environment | home, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*ltralytics*")) == []


def test_without_the_package_it_says_which_extra_holds_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ultralytics.nn.tasks", None)
    with pytest.raises(InputError, match=r"ultralytics.*lightning-ss2a\[yolo\]"):
        detector(checkpoint).detect(pictures())


def test_no_other_module_imports_the_package():
    uses = re.compile(r"(import|from) ultralytics|media_package\(f?.ultralytics")
    modules = Path(lightning_ss2a.__file__).parent.rglob("*.py")
    assert [module.name for module in modules if uses.search(module.read_text())] == ["yolo.py"]
