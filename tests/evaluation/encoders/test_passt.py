import numpy as np
import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders import CachedPaSST
from lightning_ss2a.evaluation.protocols import LabellingEncoder, hears_sounds


def test_it_is_an_encoder_that_hears_no_sounds():
    encoder = CachedPaSST()
    assert isinstance(encoder, LabellingEncoder)
    assert not hears_sounds(encoder)
    assert (encoder.width, len(encoder.labels)) == (768, 527)
    for hear in (encoder.embed, encoder.embed_and_label):
        with pytest.raises(InputError, match="PaSST hears no sounds here: give folders of av-benchmark's caches"):
            hear([np.zeros(32_000, np.float32)])
