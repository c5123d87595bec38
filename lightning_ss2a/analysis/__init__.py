"""Studies of what a module has learnt: measurements of its validation (probes) and changes of its training.

``probes`` are callbacks that log more ``val/*`` scalars, which the tables of a sweep read like any other metric;
``interventions`` are callbacks that change what no option can. Both serve the files in ``configs/sweeps`` and
``configs/studies``, whose results are in ``docs/claims``.
"""
