"""``--trainer.callbacks.NAME.option value``: one option of one callback of a configuration's list.

A list of a configuration can otherwise only be replaced as a whole, so that neither a person nor a sweep could change
``EMATeacher.decay``. ``--trainer.callbacks.NAME=false`` takes the callback out.
"""

import inspect
import json
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from lightning_ss2a.errors import InputError, did_you_mean

_OPTION = re.compile(
    r"--trainer\.callbacks\.(?P<name>[A-Z]\w*)(?:\.(?:init_args\.)?(?P<option>\w+))?(?:=(?P<value>.*))?$", re.S
)

Override = tuple[str, str | None, Any]
"""Name of a callback, its option (None: the callback itself), value."""


def with_callback_options(parser: ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The arguments, those of callbacks replaced by one with the whole list that they make.

    Args:
        parser: parses the other arguments.
        arguments: command-line arguments.

    Raises:
        InputError: the configuration lists no such callback, or several.
    """
    overrides, others = _split(arguments)
    if not overrides:
        return list(arguments)
    # The subcommand's own switch, which would print and exit before the overrides are in.
    config = parser.parse_args([argument for argument in others if not argument.startswith("--print_config")])
    trainer = (config[config.subcommand] if "subcommand" in config else config).trainer
    listed = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    callbacks: list[dict[str, Any]] = [c.as_dict() if isinstance(c, Namespace) else c for c in listed if c]
    for override in overrides:
        _apply(override, callbacks)
    return [*others, f"--trainer.callbacks={json.dumps(callbacks, default=str)}"]


def _split(arguments: Sequence[str]) -> tuple[list[Override], list[str]]:
    overrides, others, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        match = _OPTION.match(argument)
        if match is None:
            others.append(argument)
            continue
        text = match["value"] if match["value"] is not None else rest.pop(0) if rest else ""
        if not text:
            raise InputError(f"{argument}: expected one value")
        overrides.append((match["name"], match["option"], _value(text)))
    return overrides, others


def _apply(override: Override, callbacks: list[dict[str, Any]]) -> None:
    """Change one callback of the list, or take it out."""
    name, option, value = override
    callback = _find(callbacks, name)
    if option is not None:
        _check_option(callback["class_path"], option, value)
        callback.setdefault("init_args", {})[option] = value
    elif value is False:
        callbacks.remove(callback)
    else:
        raise InputError(f"--trainer.callbacks.{name}={value}: false takes it out; options are .OPTION=VALUE")


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _find(callbacks: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    names = [callback["class_path"].rpartition(".")[2] for callback in callbacks]
    if names.count(name) == 1:
        return callbacks[names.index(name)]
    if name in names:
        raise InputError(
            f"--trainer.callbacks.{name}: the configuration lists {names.count(name)} of them; edit it there"
        )
    advice = did_you_mean(name, names, "it lists")
    raise InputError(f"--trainer.callbacks.{name}: the configuration lists no such callback; {advice}")


def _check_option(class_path: str, option: str, value: Any) -> None:
    module, _, name = class_path.rpartition(".")
    known = inspect.signature(getattr(import_module(module), name)).parameters
    if option not in known:
        advice = did_you_mean(option, known, "it has")
        raise InputError(f"--trainer.callbacks.{name}.{option}: no such option; {advice}")
    if value is None and not re.search("None|Optional", str(known[option].annotation)):  # the parser lets it pass
        raise InputError(f"--trainer.callbacks.{name}.{option}: null is no value that it takes")
