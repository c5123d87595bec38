"""The paper's claims about the manifold against what our code shows: docs/claims.md, its tables and its figures.

    python benchmarks/claims.py gap|ccmr|depth|filter|teacher|all [--seeds 3]
    python benchmarks/claims.py                     # train nothing: tables and figures of docs/claims.md from its files

Each claim is a file of benchmarks/claims/. Runs go to two processes of one thread; the numbers of each are saved in
docs/claims/ at once, and runs that are there already are not made again. Simulated data go to a temporary folder.
"""

from claims.command import main

if __name__ == "__main__":
    main()
