import pytest

from lightning_ss2a.sweeps.text import setting_text, short_names


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (0, "0"),
        (0.001, "0.001"),
        (1e-5, "1e-05"),
        ("a", "a"),
    ],
)
def test_settings(value, text):
    assert setting_text(value) == text


def test_names_are_as_short_as_can_be_told_apart():
    assert short_names(["model.optimizer.lr", "data.size", "model.encoder.size", "lr_start"]) == {
        "model.optimizer.lr": "lr",
        "data.size": "data.size",
        "model.encoder.size": "encoder.size",
        "lr_start": "lr_start",
    }
    assert short_names(["a.x", "x"]) == {"a.x": "a.x", "x": "x"}
