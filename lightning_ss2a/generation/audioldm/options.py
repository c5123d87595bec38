"""How AudioLDM draws sounds."""

from dataclasses import dataclass
from typing import Literal, get_args

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.audioldm.schedulers import SCHEDULERS
from lightning_ss2a.options import OptionCheck

Ranking = Literal["wanted", "published"]

TRAINING_STEPS = 1000
"""Of AudioLDM's diffusion; a sampler takes some of them."""
VERSION = 1
"""Goes up when the same options give other sounds."""


@dataclass(frozen=True)
class AudioLDMOptions:
    """How sounds are drawn; the defaults are those of the published runs, but for the ranking.

    Attributes:
        steps: of the diffusion, 1 to 1000.
        eta: noise that DDIM adds at each step, 0 (none) to 1 (as much as DDPM; Song et al. 2021, Eq. 16). Other
            schedulers know none: they need 0.
        guidance_scale: how far the embedding pulls, 1 or more: 1 is without guidance (Ho and Salimans 2022).
        scheduler: which of diffusers' samplers: ddim, pndm, lms, heun, euler, euler-ancestral, dpm-solver++,
            dpm-solver++-sde, unipc or deis. Those behind ddim need fewer steps, some 20 to 50.
        candidates: sounds drawn for each item, of which the best is kept.
        ranking: what is best: wanted, the cosine of the sound's CLAP embedding to the wanted one; published, that to
            the CLAP embedding of the empty text, which is what the published runs ranked by. Here sounds are heard as
            ``clap`` prepares them, by their first 10 s; there 10 s at random, and one in ten not at all.
    """

    steps: int = 200
    eta: float = 1.0
    guidance_scale: float = 2.5
    scheduler: str = "ddim"
    candidates: int = 3
    ranking: Ranking = "wanted"

    def __post_init__(self) -> None:
        check = OptionCheck("generator.options")
        check.within(1, TRAINING_STEPS, steps=self.steps)
        check.one_of(tuple(SCHEDULERS), scheduler=self.scheduler)
        check.within(0, 1, eta=self.eta)
        if self.eta and self.scheduler != "ddim":
            raise InputError(f"generator.options.eta is {self.eta}, needs 0 with {self.scheduler}: only ddim has one")
        check.at_least(1, guidance_scale=self.guidance_scale, candidates=self.candidates)
        check.one_of(get_args(Ranking), ranking=self.ranking)

    @property
    def summary(self) -> str:
        """All of them in one word, for an identity."""
        sampler = f"{self.scheduler}{self.steps}-eta{self.eta:g}-guidance{self.guidance_scale:g}"
        return f"{sampler}-best{self.candidates}-{self.ranking}-v{VERSION}"
