"""The paper's claims against what our code shows: docs/claims.md, its tables and its figures.

    python benchmarks/claims.py gap|ccmr|depth|filter|teacher [--seeds 3] [--processes 2]      # the manifold
    python benchmarks/claims.py remixer|cycle_mix|temporal|sensitivity   # what comes after
    python benchmarks/claims.py tables              # the paper's ablation tables, from finished sweeps in runs/sweeps
    python benchmarks/claims.py all
    python benchmarks/claims.py                     # train nothing: tables and figures of docs/claims.md from its files

Each claim is a file of benchmarks/claims/. Runs go to two processes of one thread; the numbers of each are saved in
docs/claims/ at once, and runs that are there already are not made again. Simulated data go to a temporary folder, as do
the manifolds that several claims build on; those stay until they are removed.
"""

from claims.command import main

if __name__ == "__main__":
    main()
