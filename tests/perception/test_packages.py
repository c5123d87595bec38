import json
import subprocess
import sys

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import packages
from lightning_ss2a.perception.packages import media_package


def test_a_package_that_is_there():
    assert media_package("json") is json
    assert media_package("json.decoder") is json.decoder


def test_a_package_that_is_not_says_how_to_install_it():
    with pytest.raises(InputError, match=r"no_such_codec: cannot be used .*pip install 'lightning-ss2a\[media\]'"):
        media_package("no_such_codec")


def test_a_missing_c_library_says_so(monkeypatch):
    def fail(name):
        raise OSError("cannot load library 'libcairo.so.2'")

    monkeypatch.setattr(packages, "import_module", fail)
    with pytest.raises(InputError, match=r"cairosvg: cannot be used .*libcairo\.so\.2"):
        media_package("cairosvg")


def test_naming_all_models_imports_no_media_package():
    heavy = (
        "PIL", "av", "diffusers", "efficientnet_lite_pytorch", "huggingface_hub", "laion_clap", "onnxruntime",
        "open_clip", "soundfile", "tokenizers", "torchvision", "transformers", "ultralytics",
    )  # fmt: skip
    code = f"import sys, lightning_ss2a.perception; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
