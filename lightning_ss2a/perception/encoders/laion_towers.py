"""Loads the two towers of a CLAP into LAION's own package ``laion_clap``: the second implementation of the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.clap_towers import Towers, laion_state, roberta_sizes
from lightning_ss2a.perception.encoders.torch_files import fill
from lightning_ss2a.perception.packages import media_package

_ARCHITECTURES = {96: "HTSAT-tiny", 128: "HTSAT-base", 256: "HTSAT-large"}
"""By the width of a patch's embedding."""


class LaionTowers(Towers):
    """The towers of laion_clap's model."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.width = network.joint_embed_shape
        self.vocabulary = network.text_branch.config.vocab_size

    def hear(self, sounds: Tensor) -> Tensor:
        """See :meth:`~lightning_ss2a.perception.encoders.clap_towers.Towers.hear`."""
        embeddings: Tensor = self.network.get_audio_embedding([{"waveform": sound} for sound in sounds])
        return embeddings

    def read(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`~lightning_ss2a.perception.encoders.clap_towers.Towers.read`."""
        output = self.network.text_branch(input_ids=tokens, attention_mask=mask)
        return self.network.text_projection(output.pooler_output), output.last_hidden_state


def load_laion_towers(file: Path, where: str) -> LaionTowers:
    """Loads a CLAP.

    Args:
        file: LAION's ``.pt`` or AudioLDM's ``.ckpt``.
        where: its option, for messages.

    Raises:
        InputError: laion_clap is not installed (it wants numpy 1), or the file holds no CLAP of a kind that it knows.
    """
    state = laion_state(file, where)
    width = state["audio_branch.patch_embed.proj.weight"].shape[0]
    if width not in _ARCHITECTURES:
        raise InputError(f"{where}: {file}: laion_clap knows no HTSAT of width {width}; there are {_ARCHITECTURES}")
    media_package("laion_clap", extra="laion")  # puts its parts where they import each other
    with _random_roberta(media_package("clap_module.model", extra="laion"), roberta_sizes(state)):
        network, _ = media_package("clap_module", extra="laion").create_model(
            _ARCHITECTURES[width], "roberta", enable_fusion=False
        )
    ignored = "text_branch.embeddings.position_ids"  # which newer versions of transformers compute
    weights = {name: value for name, value in state.items() if name != ignored}
    fill(network, weights, f"{where}: {file}", lambda name: name.endswith(("position_ids", "token_type_ids")))
    return LaionTowers(network)


@contextmanager
def _random_roberta(module: ModuleType, sizes: dict[str, Any]) -> Iterator[None]:
    """Lets laion_clap make its text tower without asking the hub for weights that the file's own replace at once."""
    transformers = media_package("transformers", extra="laion")

    class Random:
        @staticmethod
        def from_pretrained(_name: str) -> Any:
            return transformers.RobertaModel(transformers.RobertaConfig(**sizes))

    original = module.RobertaModel
    module.RobertaModel = Random  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.RobertaModel = original  # type: ignore[attr-defined]
