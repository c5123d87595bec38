"""A parser whose configuration files may name their bases."""

import os
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from lightning_ss2a.config_files import names_bases, read_config


class BasedArgumentParser(ArgumentParser):
    """A parser of files that may build on others, see :mod:`lightning_ss2a.config_files`."""

    def parse_path(
        self,
        path: str | os.PathLike[str],
        ext_vars: dict[str, Any] | None = None,
        env: bool | None = None,
        defaults: bool = True,
        **options: Any,
    ) -> Namespace:
        """Parse a configuration file, merged with its bases if it names some."""
        if names_bases(path):
            text = yaml.safe_dump(read_config(path), sort_keys=False, allow_unicode=True)
            return self.parse_string(text, ext_vars=ext_vars, env=env, defaults=defaults, **options)
        return super().parse_path(path, ext_vars=ext_vars, env=env, defaults=defaults, **options)
