"""Ingest into real stores through faults, and compare the collection with the input: `make faults`.

    python -m integration.faults                                       # each scenario on each engine, 25 minutes
    python -m integration.faults --engine edge --scenario kill --seed 7

A scenario ends by a scan of the collection: each id once, with the right payload and vectors, and exactly the refused
documents in the dead letters. The results are written to ``bench/results/faults.json`` and ``.md``. The seed decides
the documents, the faults and the moments; what they meet also depends on the time that requests take.
"""
