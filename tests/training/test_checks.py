import warnings

import pytest

from tests.manifold_examples import make_module


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 4, "embedding": "mean"}, "model.sampling.draws=4 has no effect"),
        ({"ccmr_mask_diagonal": False, "ccmr_alpha": 0.0}, "model.contrastive.ccmr_mask_diagonal=false has no effect"),
    ],
)
def test_options_without_effect_warn(options: dict, message: str):
    with pytest.warns(UserWarning, match=message):
        make_module(**options)


@pytest.mark.parametrize("options", [{}, {"draws": 4}, {"ccmr_mask_diagonal": False, "ccmr_alpha": 0.35}])
def test_options_with_effect_do_not_warn(options: dict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_module(**{"embedding": "sample", **options})
