"""Hyper-parameter search: which settings answer most held-out train people, found with Optuna's ask and tell.

    space.py      what a search may try, read from YAML, and how a choice becomes an override
    choosing.py   who proposes the next trial, who stops one that lags
    study.py      the trials on disk, which several processes share
    trials.py     one trial after the other: a run like any other, watched
    checks.py     what is refused before the first trial
    table.py      what came of it: rows, table, CSV
    pictures.py   history, parameters, importance

A trial is the run that a plain birthplace-train command would make, in the folder that it would make, to the same bits.
"""
