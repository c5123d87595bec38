import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.audioldm import AudioLDM, AudioLDMOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"generator.options.steps must be in \[1, 1000\], found 0"),
        ({"steps": 1001}, r"generator.options.steps must be in \[1, 1000\], found 1001"),
        ({"eta": 1.5}, r"generator.options.eta must be in \[0, 1\], found 1.5"),
        ({"scheduler": "unipc"}, "generator.options.eta is 1.0, needs 0 with unipc: only ddim has one"),
        ({"scheduler": "magic"}, "generator.options.scheduler must be one of ddim, .*, found 'magic'"),
        ({"guidance_scale": 0.5}, "generator.options.guidance_scale must be at least 1, found 0.5"),
        ({"candidates": 0}, "generator.options.candidates must be at least 1, found 0"),
        ({"ranking": "loudest"}, "generator.options.ranking must be one of wanted, published, found 'loudest'"),
    ],
)
def test_options_out_of_range(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        AudioLDMOptions(**options)


def test_every_option_is_in_the_summary():
    summaries = [
        AudioLDMOptions(**options).summary
        for options in (
            {},
            {"steps": 100},
            {"eta": 0.0},
            {"guidance_scale": 3.0},
            {"scheduler": "unipc", "eta": 0.0},
            {"candidates": 1},
            {"ranking": "published"},
        )
    ]
    assert summaries[0] == "ddim200-eta1-guidance2.5-best3-wanted-v1"
    assert len(set(summaries)) == len(summaries)


def test_ways_to_run_are_checked():
    with pytest.raises(InputError, match="batch_size is 0, needs at least 1"):
        AudioLDM(batch_size=0)
    with pytest.raises(InputError, match="precision is 'int8'"):
        AudioLDM(precision="int8")  # type: ignore[arg-type]
