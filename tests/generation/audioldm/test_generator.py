"""Small random AudioLDMs of the true architecture, against diffusers' own pipeline."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.audioldm import AudioLDM, AudioLDMOptions, generator
from lightning_ss2a.generation.audioldm.sampling import draw_generator
from lightning_ss2a.generation.audioldm.schedulers import make_scheduler
from lightning_ss2a.generation.protocols import SoundGenerator, SoundRequest
from lightning_ss2a.perception import CLAPAudioEncoder
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.perception.weights import Described, Loadable
from tests.generation.audioldm.audioldm_files import (
    ORIGINAL,
    WIDTH,
    Parts,
    pipeline,
    random_parts,
    write_folder,
    write_original,
)
from tests.perception.encoders.clap_files import write_tokenizer

SECONDS = 0.25  # 25 frames, which the autoencoder cannot halve twice
STEPS = 3
QUICK = AudioLDMOptions(steps=STEPS, candidates=1)
ROUNDING = 5e-4
"""Of sounds with a deviation of 0.56: in batches of another size the pipeline differs from itself by up to 1.5e-4."""


class Ear:
    """Hears the loudness of parts of a sound, in no time."""

    identity, width, sample_rate = "ear", WIDTH, 16_000

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        parts = [[part.std() for part in np.array_split(waveform, WIDTH)] for waveform in waveforms]
        return normalize(torch.tensor(parts).float(), dim=-1)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return random_parts()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_tokenizer(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def original(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_original(parts, tmp_path_factory.mktemp("original") / ORIGINAL)


@pytest.fixture(scope="module")
def folder(parts: Parts, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(parts, tmp_path_factory.mktemp("diffusers"), tokenizer)


@pytest.fixture(scope="module")
def loaded(original: Path) -> AudioLDM:
    """Whose networks the others use, too."""
    audioldm = AudioLDM(str(original), options=QUICK)
    assert audioldm.width == WIDTH
    return audioldm


def with_options(loaded: AudioLDM, batch_size: int | None = None, real_ear: bool = False, **options: Any) -> AudioLDM:
    """The same networks with other options."""
    options = {"steps": STEPS, "candidates": 1, **options}
    other = AudioLDM(loaded.path, options=AudioLDMOptions(**options), batch_size=batch_size)
    for name in ("_networks", "_hearing", "_empty_text", "_weights"):
        vars(other)[name] = getattr(loaded, name)
    if not real_ear:
        vars(other)["_hearing"] = Ear()
    return other


def requests(number: int = 3) -> list[SoundRequest]:
    generator = torch.Generator().manual_seed(5)
    embeddings = normalize(torch.randn(number, WIDTH, generator=generator), dim=-1)
    return [
        SoundRequest(f"item{n}", embedding, torch.empty(0, WIDTH), torch.empty(0), (), seed=10 + n)
        for n, embedding in enumerate(embeddings)
    ]


def pipeline_sounds(
    parts: Parts, tokenizer: Any, wanted: Sequence[SoundRequest], options: AudioLDMOptions, candidate: int = 0
) -> Tensor:
    """What diffusers' pipeline makes of the same embeddings and noise: [sounds, samples]."""
    made = pipeline(parts, tokenizer)
    made.scheduler = make_scheduler(options.scheduler, parts.scheduler.config)
    output = made(
        prompt_embeds=torch.stack([request.embedding for request in wanted]),
        generator=[draw_generator(request.seed, candidate) for request in wanted],
        num_inference_steps=options.steps,
        eta=options.eta,
        guidance_scale=options.guidance_scale,
        audio_length_in_s=SECONDS,
        output_type="pt",
    )
    return output.audios


@pytest.mark.parametrize(
    ("scheduler", "eta", "guidance_scale"),
    [("ddim", 0.0, 2.5), ("ddim", 1.0, 2.5), ("ddim", 0.5, 1.0), ("dpm-solver++", 0.0, 2.5), ("unipc", 0.0, 3.0)],
)
def test_sounds_are_those_of_diffusers_pipeline(
    parts: Parts, tokenizer: Any, loaded: AudioLDM, scheduler: str, eta: float, guidance_scale: float
):
    audioldm = with_options(loaded, scheduler=scheduler, eta=eta, guidance_scale=guidance_scale)
    expected = pipeline_sounds(parts, tokenizer, requests(), audioldm.options)
    found = audioldm.generate(requests(), SECONDS)
    assert expected.shape == (3, 4_000)
    assert expected.std(dim=1).min() > 0.05, "loud enough to be compared"
    assert (expected[0] - expected[1]).abs().mean() > 0.01, "embedding and noise count"
    for rendering, sound in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(rendering.waveform), sound, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("scheduler", ["ddim", "unipc"])
def test_a_sound_depends_neither_on_the_batch_nor_on_its_place(loaded: AudioLDM, scheduler: str):
    options = {"scheduler": scheduler, "eta": float(scheduler == "ddim"), "candidates": 2}
    wanted = requests(2)
    together = with_options(loaded, 4, **options).generate(wanted, SECONDS)
    backwards = with_options(loaded, 3, **options).generate(wanted[::-1], SECONDS)
    alone = with_options(loaded, 1, **options).generate(wanted[1:], SECONDS)
    for other in (backwards[0], alone[0]):
        np.testing.assert_allclose(other.waveform, together[1].waveform, rtol=0, atol=ROUNDING)
        assert other.details["candidate"] == together[1].details["candidate"]
    np.testing.assert_allclose(backwards[1].waveform, together[0].waveform, rtol=0, atol=ROUNDING)
    assert np.abs(together[0].waveform - together[1].waveform).mean() > 0.01


def test_both_layouts_sound_the_same(loaded: AudioLDM, folder: Path, original: Path):
    clap = CLAPAudioEncoder(str(original), sample_rate=16_000, peak=0.5)
    other = AudioLDM(str(folder), clap=clap, options=QUICK)
    one, two = (audioldm.generate(requests(1), SECONDS)[0] for audioldm in (loaded, other))
    np.testing.assert_allclose(two.waveform, one.waveform, rtol=0, atol=1e-6)
    assert one.score == pytest.approx(two.score, abs=1e-6)
    assert other.audio_encoder == loaded.audio_encoder
    assert other.identity != loaded.identity


def test_identity_and_the_clap_that_it_understands_need_the_files_only(original: Path):
    audioldm = AudioLDM(str(original))
    assert isinstance(audioldm, Described)
    assert audioldm.identity == (
        f"diffusers/AudioLDM@{sha256_of(original)[:12]}+ddim200-eta1-guidance2.5-best3-wanted-v1"
    )
    assert audioldm.audio_encoder == CLAPAudioEncoder(str(original), sample_rate=16_000, peak=0.5).identity
    assert not {"_networks", "_empty_text"} & set(vars(audioldm))
    assert (audioldm.sample_rate, audioldm.is_retrieval) == (16_000, False)


def test_it_goes_to_other_processes_without_its_networks_and_loads_when_told(original: Path, tmp_path: Path):
    audioldm = AudioLDM(str(original), options=QUICK)
    audioldm.load()
    assert {"_networks", "_hearing", "_empty_text"} <= set(vars(audioldm))
    other = pickle.loads(pickle.dumps(audioldm))
    assert not {"_networks", "_hearing", "_empty_text", "_unet"} & set(vars(other))
    assert (other.identity, other.audio_encoder) == (audioldm.identity, audioldm.audio_encoder)
    with pytest.raises(InputError, match=r"gone.ckpt does not exist"):
        AudioLDM(str(tmp_path / "gone.ckpt")).load()


def test_it_is_a_sound_generator(loaded: AudioLDM):
    assert isinstance(loaded, SoundGenerator)
    assert isinstance(loaded, Loadable)
    assert loaded.generate([], SECONDS) == []


@torch.no_grad()
def test_the_best_candidate_is_the_one_that_sounds_as_wanted(parts: Parts, tokenizer: Any, loaded: AudioLDM):
    audioldm = with_options(loaded, real_ear=True, candidates=3)
    sounds = [pipeline_sounds(parts, tokenizer, requests(), audioldm.options, candidate) for candidate in range(3)]
    clap = CLAPAudioEncoder(loaded.path, sample_rate=16_000, peak=0.5)
    heard = torch.stack([clap.encode([sound.numpy() for sound in each]) for each in sounds], dim=1)  # [items, 3, D]
    wanted = torch.stack([request.embedding for request in requests()])
    scores = cosine_similarity(heard, wanted[:, None], dim=-1)
    found = audioldm.generate(requests(), SECONDS)
    assert [each.details["candidate"] for each in found] == scores.argmax(dim=1).tolist()
    assert len(set(scores.argmax(dim=1).tolist())) > 1
    np.testing.assert_allclose([each.score for each in found], scores.amax(dim=1), atol=1e-3)
    np.testing.assert_allclose([each.details["scores"] for each in found], scores, atol=1e-3)
    chosen = sounds[found[0].details["candidate"]][0]
    np.testing.assert_allclose(found[0].waveform, chosen, rtol=0, atol=ROUNDING)

    published = with_options(loaded, real_ear=True, candidates=3, ranking="published").generate(requests(), SECONDS)
    tokens = tokenizer([""], padding="max_length", max_length=512, return_tensors="pt")
    empty = normalize(pipeline(parts, tokenizer).text_encoder(**tokens).text_embeds, dim=-1)
    torch.testing.assert_close(loaded._empty_text, empty[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([each.details["scores"] for each in published], heard @ empty[0], atol=1e-3)
    assert [each.details["candidate"] for each in published] == (heard @ empty[0]).argmax(dim=1).tolist()
    by_hand = [scores[n, each.details["candidate"]].item() for n, each in enumerate(published)]
    np.testing.assert_allclose([each.score for each in published], by_hand, atol=1e-3)


def test_more_candidates_are_drawn_besides_the_same(loaded: AudioLDM):
    one, three = (with_options(loaded, candidates=n).generate(requests(1), SECONDS)[0] for n in (1, 3))
    assert three.details["scores"][0] == pytest.approx(one.details["scores"][0], abs=1e-4)
    assert len({round(score, 5) for score in three.details["scores"]}) == 3


def test_details_say_how_a_sound_was_made(loaded: AudioLDM):
    rendering = loaded.generate(requests(1), SECONDS)[0]
    assert rendering.waveform.dtype == np.float32
    assert rendering.details == {
        "generator": loaded.identity,
        "precision": "float32",
        "seed": 10,
        "seconds": SECONDS,
        "candidate": 0,
        "scores": [rendering.score],
    }


@pytest.mark.parametrize(("seconds", "samples"), [(0.1, 1600), (0.29, 4640), (0.64, 10_240)])
def test_sounds_are_as_long_as_asked(loaded: AudioLDM, seconds: float, samples: int):
    options = with_options(loaded, steps=1)
    assert options.generate(requests(1), seconds)[0].waveform.shape == (samples,)


def test_a_lower_precision_changes_little(original: Path, loaded: AudioLDM):
    half = AudioLDM(str(original), options=QUICK, precision="bfloat16")
    rough = half.generate(requests(1), SECONDS)[0]
    assert {each.dtype for each in half._networks.unet.parameters()} == {torch.bfloat16}
    exact = loaded.generate(requests(1), SECONDS)[0]
    assert rough.waveform.dtype == np.float32
    assert np.abs(rough.waveform - exact.waveform).max() > 1e-6
    assert np.corrcoef(rough.waveform, exact.waveform)[0, 1] > 0.95


def test_what_goes_beyond_one_is_scaled_and_told(loaded: AudioLDM, monkeypatch: pytest.MonkeyPatch):
    loaded = with_options(loaded)
    exact = loaded.generate(requests(1), SECONDS)[0].waveform
    decode = generator.decode
    monkeypatch.setattr(generator, "decode", lambda *arguments: decode(*arguments) * 5)
    found = loaded.generate(requests(1), SECONDS)[0]
    assert found.details["scaled_from_peak"] == pytest.approx(5 * np.abs(exact).max(), rel=1e-5)
    np.testing.assert_allclose(found.waveform, exact / np.abs(exact).max(), rtol=1e-5, atol=1e-6)


def test_a_batch_is_halved_where_memory_runs_out(loaded: AudioLDM, monkeypatch: pytest.MonkeyPatch):
    expected = with_options(loaded).generate(requests(5), SECONDS)
    rows, decode = [], generator.decode

    def small(vae: Any, vocoder: Any, latents: Tensor) -> Tensor:
        rows.append(len(latents))
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(vae, vocoder, latents)

    monkeypatch.setattr(generator, "decode", small)
    audioldm = with_options(loaded, 5)
    found = audioldm.generate(requests(5), SECONDS)
    assert (rows, audioldm.batch_size) == ([5, 2, 2, 1], 2)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.waveform, other.waveform, rtol=0, atol=ROUNDING)

    monkeypatch.setattr(generator, "decode", lambda *_: small(None, None, torch.empty(3)))
    with pytest.raises(InputError, match=r"memory does not suffice for one sound"):
        audioldm.generate(requests(1), SECONDS)


@pytest.mark.slow
@pytest.mark.compiles
def test_a_compiled_unet_sounds_the_same(loaded: AudioLDM):
    compiled = with_options(loaded, steps=2)
    compiled.compile = True
    expected = with_options(loaded, steps=2).generate(requests(1), SECONDS)[0]
    np.testing.assert_allclose(compiled.generate(requests(1), SECONDS)[0].waveform, expected.waveform, atol=1e-3)


def test_bad_embeddings_are_named_by_item(loaded: AudioLDM):
    good, bad = requests(2)
    bad.embedding[3] = float("nan")
    with pytest.raises(InputError, match=r"^item1: its embedding is not finite$"):
        loaded.generate([good, bad], SECONDS)
    wide = SoundRequest("wide", torch.ones(768), torch.empty(0, 768), torch.empty(0), (), 0)
    with pytest.raises(InputError, match=r"^wide: its embedding has shape \[768\], AudioLDM sounds \[24\]$"):
        loaded.generate([good, wide], SECONDS)
    with pytest.raises(InputError, match=r"seconds must be at least 0.1, found 0.01"):
        loaded.generate([good], 0.01)


def test_a_sound_that_is_not_finite_is_named(loaded: AudioLDM, monkeypatch: pytest.MonkeyPatch):
    decode = generator.decode
    monkeypatch.setattr(generator, "decode", lambda *arguments: decode(*arguments) * float("nan"))
    with pytest.raises(InputError, match=r"^item0: its sound is not finite in precision float32$"):
        loaded.generate(requests(2), SECONDS)


def test_a_folder_needs_the_clap_that_it_holds_half_of(folder: Path, tokenizer: Any, tmp_path: Path):
    audioldm = AudioLDM(str(folder))
    with pytest.raises(InputError, match=r"holds only the text half of its CLAP; generator.clap must name"):
        print(audioldm.audio_encoder)
    other = write_original(random_parts(seed=1), tmp_path / ORIGINAL)
    stranger = AudioLDM(str(folder), clap=CLAPAudioEncoder(str(other)))
    with pytest.raises(
        InputError, match=r"was trained with another CLAP than generator.clap: text_model.*differs"
    ) as e:
        stranger.generate(requests(1), SECONDS)
    assert "\n" not in str(e.value)


def test_describing_loads_nothing(folder: Path, original: Path, tmp_path: Path):
    card = AudioLDM(str(original)).describe()
    assert (card.part, card.model, card.licence) == ("generator", "diffusers/AudioLDM", "CC-BY-NC-SA-4.0")
    assert card.weights.present
    both = AudioLDM(str(folder), clap=CLAPAudioEncoder(str(tmp_path / "gone.ckpt"))).describe()
    assert both.weights.missing == ("gone.ckpt",)
    missing = AudioLDM(str(tmp_path / "gone.ckpt"))
    with pytest.raises(InputError, match=r"^generator: .*gone.ckpt does not exist; generator.path must name"):
        missing.generate(requests(1))


def test_offline_and_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    problem = AudioLDM(repository="nobody/audioldm-of-no-one").describe().weights.problem
    assert "the hub is offline" in problem
    assert "\n" not in problem
