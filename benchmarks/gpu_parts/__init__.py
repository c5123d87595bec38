"""Parts of benchmarks/gpu.py: each module but ``process`` and ``inputs`` is one, with ``run(inputs, report)``."""
