"""What the released inference code computes, in plain functions of a state dict, and state dicts of its layout.

Written from the facts of the authors' repository (wguo86/SSV2A, 7f01d5f) and independent of the package: the tests'
second opinion. x[i] means W x + b of the layer called i.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, gelu, layer_norm, normalize

State = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Widths of the released model; by default small, odd ones."""

    clip: int = 7
    clap: int = 8
    manifold: int = 9
    projector: tuple[int, ...] = (5, 6, 7, 8, 9, 11)
    generator: tuple[int, ...] = (6, 5, 7)
    width: int = 12
    heads: int = 3
    layers: int = 1
    expansion: int = 1
    slots: int = 6
    dropout: float = 0.2

    def config(self) -> dict:
        """What ssv2a.json holds of it."""
        mlp = {"arch": "mlp", "variational": True, "resnet": True, "dropout": self.dropout, "kl_weight": 5e-5}
        styler = {"arch": "transformer", "variational": True, "embed_dim": self.width, "nhead": self.heads}
        styler |= {"num_layers": self.layers, "exp_rate": self.expansion, "dropout": self.dropout, "kl_weight": 3e-5}
        return {
            "clip_dim": self.clip,
            "clap_dim": self.clap,
            "manifold_dim": self.manifold,
            "audioldm_version": "audioldm-s-full-v2",
            "manifold": mlp | {"layers": list(self.projector), "cr_weight": 0.3},
            "generator": mlp | {"layers": list(self.generator), "disabled": False},
            "remixer": {"slot": self.slots, "cfg": 0.1, "guidance": "manifold", "styler": styler},
        }


# ------------------------------------------------------------------------------------------------ state dicts


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> State:
    made = {f"{name}.weight": torch.randn(outputs, inputs) / inputs**0.5}
    return made | ({f"{name}.bias": 0.3 * torch.randn(outputs)} if bias else {})


def norm(name: str, width: int) -> State:
    return {f"{name}.weight": 1 + 0.3 * torch.randn(width), f"{name}.bias": 0.3 * torch.randn(width)}


def variational_state(inputs: int, widths: tuple[int, ...], outputs: int, bias: bool, dropout: float) -> State:
    """Keys of an encoder or of the generator; dropout, which has no weights, takes a number where there is some."""
    state, skip = linear("model.0", inputs, widths[0], bias), 1 if dropout else 0
    place = 0
    for at in range(0, len(widths) - 2, 2):
        first, middle, last = widths[at : at + 3]
        name = f"model.1.model.{place}"
        state |= linear(f"{name}.mod.0", first, middle) | norm(f"{name}.mod.1", middle)
        state |= linear(f"{name}.mod.{3 + skip}", middle, last) | norm(f"{name}.mod.{4 + skip}", last)
        state |= linear(f"{name}.proj", first, last)
        place += 2
    if len(widths) % 2 == 0:
        state |= linear(f"model.1.model.{place}", *widths[-2:]) | norm(f"model.1.model.{place + 1}", widths[-1])
    return state | linear("out_mu", widths[-1], outputs) | linear("out_sigma", widths[-1], outputs)


def transformer_state(name: str, width: int, expansion: int, layers: int) -> State:
    state: State = {}
    for at in range(layers):
        block = f"{name}.encoder.{at}"
        for part in ("query", "key", "value", "highway"):
            state |= linear(f"{block}.esa.{part}", width, width)
        state |= norm(f"{block}.esa.norm", width) | norm(f"{block}.ffn.norm", width)
        state |= linear(f"{block}.ffn.linear1", width, expansion * width)
        state |= linear(f"{block}.ffn.linear2", expansion * width, width)
    return state


def readout_state(width: int, outputs: int) -> State:
    state = {"pred_token": torch.randn(2, width)}
    for part in ("mu", "sigma"):
        state |= linear(f"head_{part}.model.0", width, width) | norm(f"head_{part}.model.1", width)
        state |= linear(f"out_{part}", width, outputs)
    return state


def under(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": value for name, value in state.items()}


def part(prefix: str, state: State) -> State:
    return {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(f"{prefix}.")}


def make_weights(sizes: Sizes, seed: int = 0) -> dict:
    """ssv2a.pth with random weights."""
    torch.manual_seed(seed)
    manifold: State = {"logit_scale": torch.tensor(3.1), "self_logit_scale": torch.tensor(2.6)}
    for name, width in (("clip_encoder", sizes.clip), ("clap_encoder", sizes.clap)):
        encoder = variational_state(width, sizes.projector, sizes.manifold, False, sizes.dropout)
        manifold |= under(name, encoder)
    styler = linear("in_proj", sizes.manifold + sizes.clip, sizes.width)
    styler |= transformer_state("style_encoder", sizes.width, sizes.expansion, sizes.layers)
    styler |= readout_state(sizes.width, sizes.clap)
    return {
        "timestamp": "2024-09-21-03-11-27",
        "manifold_state": manifold,
        "generator_state": variational_state(sizes.manifold, sizes.generator, sizes.clap, True, sizes.dropout),
        "remixer_state": under("styler", styler),
    }


def make_aggregator(width: int, seed: int = 0, expansion: int = 2) -> State:
    """agg.pth with random weights."""
    torch.manual_seed(seed)
    state = {"pe.pe": encoding(1024, width)[:, None]}
    return state | transformer_state("encoder", width, expansion, 1) | readout_state(width, width)


# ------------------------------------------------------------------------------------------------ what is computed


def apply(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))


def standardize(state: State, name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def in_order(state: State, prefix: str) -> list[str]:
    """Names of what is directly below a prefix and has weights, by their numbers."""
    numbers = {int(rest.split(".")[0]) for rest in part(prefix, state) if rest.split(".")[0].isdigit()}
    return [f"{prefix}.{number}" for number in sorted(numbers)]


def trunk(state: State, prefix: str, x: Tensor) -> Tensor:
    """Pairs of layers with a learned shortcut, GELU after the sum; then layers without."""
    names = in_order(state, prefix)
    while names:
        if f"{names[0]}.proj.weight" in state:
            first, first_norm, second, second_norm = in_order(state, f"{names[0]}.mod")
            inner = gelu(standardize(state, first_norm, apply(state, first, x)))
            x = gelu(
                apply(state, f"{names.pop(0)}.proj", x) + standardize(state, second_norm, apply(state, second, inner))
            )
        else:
            layer, layer_norm_ = names.pop(0), names.pop(0)
            x = gelu(standardize(state, layer_norm_, apply(state, layer, x)))
    return x


def variational(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of υ, φ or χ."""
    features = trunk(state, "model.1.model", apply(state, "model.0", x))
    return apply(state, "out_mu", features), apply(state, "out_sigma", features)


def attend(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    """One block of attention whose queries and keys are softmax over a head's features; x is [B, S, D]."""
    normed = standardize(state, f"{name}.esa.norm", x)
    query, key, value = (
        apply(state, f"{name}.esa.{which}", normed).unflatten(-1, (heads, -1)).transpose(1, 2)
        for which in ("query", "key", "value")
    )  # [B, heads, S, d]
    mixed = (query.softmax(-1) @ key.softmax(-1).mT) @ value
    y = apply(state, f"{name}.esa.highway", x) + mixed.transpose(1, 2).flatten(-2)
    inner = gelu(apply(state, f"{name}.ffn.linear1", standardize(state, f"{name}.ffn.norm", y)))
    return y + apply(state, f"{name}.ffn.linear2", inner)


def read_out(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """The first token to the mean, the second to the log-variance."""
    found = []
    for token, which in enumerate(("mu", "sigma")):
        hidden = apply(state, f"head_{which}.model.0", x[:, token])
        found.append(apply(state, f"out_{which}", gelu(standardize(state, f"head_{which}.model.1", hidden))))
    return found[0], found[1]


def remix(state: State, e: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the Remixer's mixture of all slots given, [B, S, *]."""
    styler = part("styler", state)
    tokens = apply(styler, "in_proj", torch.cat([e, v], dim=-1))
    tokens = torch.cat([styler["pred_token"].expand(len(e), -1, -1), tokens], dim=1)
    for block in in_order(styler, "style_encoder.encoder"):
        tokens = attend(styler, block, tokens, heads)
    return read_out(styler, tokens)


def encoding(length: int, width: int) -> Tensor:
    """sin and cos of t / 2048^(2i / width), t from 0, [length, width]; width is even."""
    rates = 2048.0 ** (-torch.arange(0, width, 2, dtype=torch.double) / width)
    angles = torch.arange(length, dtype=torch.double)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def aggregate(state: State, frames: Tensor, heads: int = 8) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the video's embedding, frames [B, T, A]."""
    tokens = torch.cat([state["pred_token"].expand(len(frames), -1, -1), frames], dim=1)
    tokens = tokens + state["pe.pe"][: tokens.shape[1], 0]
    for block in in_order(state, "encoder.encoder"):
        tokens = attend(state, block, tokens, heads)
    return read_out(state, tokens)


def mix_in_cycles(
    weights: dict, clips: Tensor, heads: int, its: int, noise: list[Tensor] | None = None, given: Tensor | None = None
) -> Tensor:
    """The released Cycle Mix of scenes whose empty slots have v = 0, without noise in υ, φ and χ, [B, A].

    Args:
        weights: of the file.
        clips: v of all slots, [B, slots, V]; the first is that of the whole picture.
        heads: of the attention.
        its: rounds after the first.
        noise: standard normal numbers of each round's draws, [B, N, A]; None: one draw without noise.
        given: e of composed sources, [B, slots, M], which counts where v = 0; None: υ(0) counts.
    """
    manifold, generator = weights["manifold_state"], weights["generator_state"]
    e = variational(part("clip_encoder", manifold), clips)[0]
    empty = ~clips.bool().any(-1)
    best, lowest = torch.full((len(clips), 1), torch.nan), torch.ones(len(clips))
    for turn in range(its + 1):
        if given is not None:
            e = torch.where(empty[..., None], given, e)
        sources = normalize(variational(generator, e)[0], dim=-1)
        sources[:, 0] = 0
        if turn:
            e = torch.cat([variational(part("clap_encoder", manifold), best)[0][:, None], e[:, 1:]], dim=1)
        mean, log_variance = (moment[:, None] for moment in remix(weights["remixer_state"], e, clips, heads))
        draws = normalize(mean if noise is None else mean + noise[turn] * (log_variance / 2).exp(), dim=-1)
        spread = cosine_similarity(draws[:, :, None], sources[:, None], dim=-1).std(-1)
        merit, chosen = spread.min(1)
        found = draws[torch.arange(len(draws)), chosen]
        best = torch.where((merit < lowest)[:, None], found, best)
        lowest = torch.minimum(merit, lowest)
    return best
