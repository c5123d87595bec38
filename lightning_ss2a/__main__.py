"""``python -m lightning_ss2a`` is the ``lightning`` command."""

from lightning_ss2a.cli.lightning import main

if __name__ == "__main__":
    main()
