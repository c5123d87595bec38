"""``ss2a checkpoint VERB``: checkpoints from released or downloaded weights, and folders for a hub."""

from collections.abc import Callable

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path


def import_checkpoint(
    source: str, output: str | None = None, config: list[str] | None = None, aggregator: str | None = None
) -> None:
    """Make checkpoints of the authors' released weights, or of a folder that ss2a checkpoint export has written.

    The released weights become manifold.ckpt, remixer.ckpt and temporal_aggregation.ckpt, a folder one of these.
    Nothing is unpickled; what was there under these names is replaced.

    Args:
        source: the authors' ssv2a.pth, or the folder.
        output: folder of the checkpoints.
        config: the authors' ssv2a.json; not for a folder.
        aggregator: the authors' agg.pth, if temporal aggregation is wanted; not for a folder.
    """
    if output is None:
        raise InputError("output is missing: name a folder for the checkpoints, as in --output runs/published")
    folder = to_path(output)
    if to_path(source).is_dir():
        from lightning_ss2a.training.hub import import_folder  # imports Lightning, which the other verbs do without

        if config or aggregator:
            raise InputError(f"{source}: a folder has its options in itself; leave config and aggregator out")
        print(import_folder(source, folder))
        return
    if config is None or len(config) != 1:
        raise InputError("config is missing: name one file, the authors' configuration, as in --config ssv2a.json")
    from lightning_ss2a.training.published import import_published

    for path in import_published(source, config[0], aggregator, folder):
        print(path)


def export_checkpoint(checkpoint: str, output: str, licence: str | None = None) -> None:
    """Write a checkpoint as a folder for a model hub: safetensors, JSON and a model card; nothing pickled.

    Args:
        checkpoint: the file; optimisers and the run's place in an epoch are left out.
        output: the folder; it must not be there.
        licence: of the weights, as the hub names it (apache-2.0, cc-by-4.0, other ...); default: not stated.
    """
    from lightning_ss2a.training import hub

    weights = hub.export_checkpoint(checkpoint, to_path(output), licence)
    print(
        f"{output}: {sum(tensor.numel() for tensor in weights.values()):,} numbers; read {hub.CARD} before sharing it"
    )


CHECKPOINT_VERBS: dict[str, Callable[..., int | None]] = {"import": import_checkpoint, "export": export_checkpoint}
