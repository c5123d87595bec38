"""A prior of the true architecture, small and of random weights, against diffusers' own pipeline."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.protocols import TextFeatures, TextToImagePrior
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.perception.priors.diffusion_prior import FILES, DiffusionPrior, _generator

pytest.importorskip("transformers")
WIDTH = 32
TEXTS = ("a dog barks", "rain on a tin roof", "bell", "")


class ClipText:
    """The text half of a small random CLIP, by transformers."""

    identity = "test/clip@0123+v1"
    width = WIDTH

    def __init__(self) -> None:
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

        letters = [chr(code) for code in range(97, 123)]
        words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        numbers = {word: number for number, word in enumerate(words)}
        self.tokenizer = CLIPTokenizer(vocab=numbers, merges=[], model_max_length=77)
        torch.manual_seed(1)
        config = CLIPTextConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=64, projection_dim=WIDTH, num_hidden_layers=2,
            num_attention_heads=4, bos_token_id=52, eos_token_id=53, pad_token_id=53,
        )  # fmt: skip
        self.model = CLIPTextModelWithProjection(config).eval()

    def encode(self, texts: Sequence[str]) -> Tensor:
        return normalize(self.features(texts).embeddings, dim=-1)

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> TextFeatures:
        tokens = self.tokenizer(list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        output = self.model(tokens.input_ids)
        return TextFeatures(tuple(texts), output.text_embeds, output.last_hidden_state, tokens.attention_mask.bool())


def random_prior(width: int = WIDTH) -> torch.nn.Module:
    from diffusers import PriorTransformer

    torch.manual_seed(2)
    network = PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=width)
    with torch.no_grad():
        for matrix in (parameter for parameter in network.parameters() if parameter.ndim == 2):
            matrix *= 4  # so that noise, text and step count in what it predicts ...
        network.proj_to_clip_embeddings.weight *= 0.1  # ... and stay below where the scheduler clips
        for parameter in (network.positional_embedding, network.prd_embedding, network.clip_mean):  # they start at zero
            parameter.normal_(std=0.3)
        network.clip_std.uniform_(0.5, 1.5)
    return network.eval()


def save(folder: Path, network: torch.nn.Module, prediction_type: str = "sample") -> Path:
    """Saves a prior in the layout of kandinsky-2-1-prior, with the options of its scheduler."""
    from diffusers import UnCLIPScheduler

    network.save_pretrained(folder / "prior")
    scheduler = UnCLIPScheduler(clip_sample_range=5.0, prediction_type=prediction_type)
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def clip() -> ClipText:
    return ClipText()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("prior"), random_prior())


def pipeline_embeddings(clip: ClipText, folder: Path, texts: Sequence[str], samples: int, guidance: float) -> Tensor:
    """Samples with diffusers' pipeline, from the noise that the prior takes: [texts, samples, width]."""
    from diffusers import KandinskyPriorPipeline, PriorTransformer, UnCLIPScheduler
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=WIDTH, num_hidden_layers=1, num_attention_heads=2,
        image_size=8, patch_size=8,
    )  # fmt: skip
    pipeline = KandinskyPriorPipeline(
        prior=PriorTransformer.from_pretrained(folder / "prior"),
        image_encoder=CLIPVisionModelWithProjection(vision),
        text_encoder=clip.model,
        tokenizer=clip.tokenizer,
        scheduler=UnCLIPScheduler.from_pretrained(folder / "scheduler"),
        image_processor=CLIPImageProcessor(),
    )
    pipeline.set_progress_bar_config(disable=True)
    generators = [_generator(0, text, sample) for text in texts for sample in range(samples)]
    output = pipeline(list(texts), num_images_per_prompt=samples, generator=generators, guidance_scale=guidance)
    return output.image_embeds.unflatten(0, (len(texts), samples))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_one_sample_is_that_of_diffusers_pipeline(clip: ClipText, folder: Path, guidance: float):
    expected = pipeline_embeddings(clip, folder, TEXTS, samples=1, guidance=guidance)[:, 0]
    found = DiffusionPrior(clip, str(folder), samples=1, guidance=guidance).predict(clip.features(TEXTS))
    torch.testing.assert_close(found, normalize(expected, dim=-1), rtol=1e-4, atol=1e-5)
    assert expected.norm(dim=-1).sub(1).abs().min() > 0.1  # so that unit length was worth saying


def test_of_several_samples_the_closest_to_the_text_is_kept(clip: ClipText, folder: Path):
    samples = pipeline_embeddings(clip, folder, TEXTS, samples=5, guidance=4.0)
    similarity = cosine_similarity(samples, clip.encode(TEXTS)[:, None], dim=-1)
    expected = samples[torch.arange(len(TEXTS)), similarity.argmax(dim=1)]
    found = DiffusionPrior(clip, str(folder), samples=5).predict(clip.features(TEXTS))
    torch.testing.assert_close(found, normalize(expected, dim=-1), rtol=1e-4, atol=1e-5)
    assert len(set(similarity.argmax(dim=1).tolist())) > 1
    fewer = DiffusionPrior(clip, str(folder), samples=2).predict(clip.features(TEXTS))
    torch.testing.assert_close(
        cosine_similarity(fewer, clip.encode(TEXTS)), similarity[:, :2].amax(dim=1), rtol=0, atol=1e-4
    )
    assert (similarity.amax(dim=1) - similarity.amin(dim=1))[:3].min() > 0.01


def test_a_text_has_one_translation_in_any_batch_and_place(clip: ClipText, folder: Path):
    prior = DiffusionPrior(clip, str(folder), batch_size=3)
    together = prior.predict(clip.features(TEXTS))  # three and one
    assert together.shape == (4, WIDTH)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(4))
    for number, text in enumerate(TEXTS):
        torch.testing.assert_close(prior.predict(clip.features([text]))[0], together[number], rtol=1e-4, atol=1e-5)
    twice = prior.predict(clip.features([TEXTS[2], *TEXTS, TEXTS[2]]))
    for place, number in enumerate((2, 0, 1, 2, 3, 2)):
        torch.testing.assert_close(twice[place], together[number], rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01
    assert prior.predict(clip.features(TEXTS)).equal(together)


def test_what_lies_behind_the_end_of_a_text_does_not_count(clip: ClipText, folder: Path):
    features = clip.features(TEXTS)
    assert features.hidden is not None
    assert features.mask is not None
    other = torch.where(features.mask[..., None], features.hidden, torch.randn_like(features.hidden))
    prior = DiffusionPrior(clip, str(folder))
    expected = prior.predict(features)
    found = prior.predict(TextFeatures(TEXTS, features.embeddings, other, features.mask))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_lower_precision_changes_little(clip: ClipText, folder: Path):
    features = clip.features(TEXTS)
    exact = DiffusionPrior(clip, str(folder), samples=1).predict(features)
    rough = DiffusionPrior(clip, str(folder), samples=1, precision="bfloat16").predict(features)
    assert rough.dtype == torch.float32
    similarity = cosine_similarity(rough, exact)
    assert similarity.min() > 0.98
    assert similarity.max() < 1 - 1e-6


def test_another_seed_gives_another_translation(clip: ClipText, folder: Path):
    features = clip.features(TEXTS[:1])
    one, other = (DiffusionPrior(clip, str(folder), seed=seed).predict(features) for seed in (0, 1))
    assert (one - other).abs().max() > 0.01


def test_no_texts_give_no_embeddings(clip: ClipText, folder: Path):
    none = TextFeatures((), torch.empty(0, WIDTH), torch.empty(0, 77, WIDTH), torch.empty(0, 77, dtype=torch.bool))
    assert DiffusionPrior(clip, str(folder)).predict(none).shape == (0, WIDTH)


def test_its_identity_holds_weights_sampling_and_the_text_encoders(clip: ClipText, folder: Path):
    prior = DiffusionPrior(clip, str(folder))
    assert isinstance(prior, TextToImagePrior)
    sha256 = sha256_of(*(folder / name for name in FILES))[:12]
    sampling = "steps25-guidance4-best2-seed0-v1"
    assert prior.identity == f"diffusers/PriorTransformer@{sha256}+{sampling}(test/clip@0123+v1)"
    assert DiffusionPrior(clip, str(folder), seed=1).identity != prior.identity
    assert "_network" not in vars(prior)
    card = prior.describe()
    assert (card.part, card.licence, card.weights.present) == ("prior", "Apache-2.0", True)


def test_the_prior_of_kandinsky_2_2_is_refused_before_its_weights_are_read(clip: ClipText, tmp_path: Path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"embedding_dim": 1280}))
    with pytest.raises(InputError, match=r"config.json: embedding_dim is 1280, .* 32; .* Kandinsky 2.2") as error:
        DiffusionPrior(clip, str(tmp_path)).predict(clip.features(TEXTS))
    assert "\n" not in str(error.value)


def test_weights_that_were_never_trained_are_refused(clip: ClipText, tmp_path: Path):
    network = random_prior()
    torch.nn.init.zeros_(network.clip_std)
    with pytest.raises(InputError, match="clip_std is zero"):
        DiffusionPrior(clip, str(save(tmp_path, network))).predict(clip.features(TEXTS))


def test_weights_that_lack_a_part_are_refused(clip: ClipText, folder: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    save(tmp_path, random_prior())
    weights = load_file(tmp_path / FILES[1])
    del weights["clip_std"], weights["proj_in.bias"]
    save_file(weights, tmp_path / FILES[1])
    with pytest.raises(InputError, match=r"lacks weights of a PriorTransformer: clip_std, proj_in.bias"):
        DiffusionPrior(clip, str(tmp_path)).predict(clip.features(TEXTS))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (FILES[0], "cannot be read"),
        (FILES[1], "cannot be loaded as a PriorTransformer"),
        (FILES[2], "cannot be loaded as an UnCLIPScheduler"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(clip: ClipText, tmp_path: Path, name: str, message: str):
    file = save(tmp_path, random_prior()) / name
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=message) as error:
        DiffusionPrior(clip, str(tmp_path)).load()
    assert str(file.parent) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_scheduler_that_is_not_a_priors_is_refused(clip: ClipText, tmp_path: Path):
    save(tmp_path, random_prior(), "epsilon")
    with pytest.raises(InputError, match=r"scheduler: prediction_type is 'epsilon'"):
        DiffusionPrior(clip, str(tmp_path)).predict(clip.features(TEXTS))


def test_missing_files_are_named(clip: ClipText, folder: Path, tmp_path: Path):
    problem = DiffusionPrior(clip, str(tmp_path)).describe().weights.problem
    assert all(name in problem for name in FILES)
    assert "prior.path" in problem


def test_a_text_encoder_without_hidden_states_is_refused(clip: ClipText, folder: Path):
    prior = DiffusionPrior(clip, str(folder))
    with pytest.raises(InputError, match=r"test/clip@0123.* gives no hidden states"):
        prior.predict(TextFeatures(TEXTS, clip.encode(TEXTS)))
    features = clip.features(TEXTS)
    assert features.hidden is not None
    assert features.mask is not None
    short = TextFeatures(TEXTS, features.embeddings, features.hidden[:, :50], features.mask[:, :50])
    with pytest.raises(InputError, match=r"hidden states of \[50, 32\], it reads \[77, 32\]"):
        prior.predict(short)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "prior.samples is 0, needs at least 1"),
        ({"steps": 1}, "prior.steps is 1, needs at least 2"),
        ({"guidance": 0.5}, "prior.guidance is 0.5, needs at least 1"),
        ({"batch_size": 0}, "batch_size is 0, needs at least 1"),
    ],
)
def test_options_out_of_range(clip: ClipText, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        DiffusionPrior(clip, **options)
