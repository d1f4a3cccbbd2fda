"""Who proposes the next trial and who stops one that lags: Optuna's samplers and pruners that a search can name."""

from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler


def tpe(seed: int, startup_trials: int = 8) -> BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al. 2011): near what was good, far from what was bad.

    The first `startup_trials` are random. Trials of other workers that still run count as bad, so that two workers do
    not try the same.
    """
    return TPESampler(n_startup_trials=startup_trials, seed=seed)


def random(seed: int) -> BaseSampler:
    """Every trial anywhere, whatever came of the others: what a cleverer sampler has to beat."""
    return RandomSampler(seed=seed)


def median(startup_trials: int = 5, warmup_validations: int = 1) -> BasePruner:
    """Stops a trial whose best validation so far is below the median of the finished trials at the same validation.

    Nobody is stopped before `startup_trials` have finished, nor at the first `warmup_validations`.
    """
    return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_validations + 1)


def lowest_quarter(startup_trials: int = 5, warmup_validations: int = 1) -> BasePruner:
    """As `median`, for the worst quarter alone: for measures that jump, such as the exact match of few people."""
    return PercentilePruner(75.0, n_startup_trials=startup_trials, n_warmup_steps=warmup_validations + 1)


def none() -> BasePruner:
    """Every trial is trained to its end."""
    return NopPruner()
