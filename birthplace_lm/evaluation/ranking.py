"""The order that a signal puts answers into, and the measures of that order.

A signal is a number an answer, higher when the model is surer. Answering only the surest share of the questions (the
*coverage*) should leave a lower share of wrong answers among them (the *selective risk*): El-Yaniv & Wiener 2010 (JMLR
11:1605–1641); the most that can be answered at a given risk, Geifman & El-Yaniv 2017 (arXiv 1705.08500).

Equal signals say nothing of their order: such questions form one block, and every measure is the mean over all orders
within blocks, exactly and without drawing any. A block of L questions, m of them wrong, that follows a others, E of
them wrong, is expected to bring the wrong ones among the first k to E + (k − a)·m/L.

Legend: R draws, N questions, G blocks of equal signal; counts (R, N) as in `resampling`.
"""

from dataclasses import dataclass

import numpy as np

from birthplace_lm.evaluation.resampling import Array

RISKS = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Tally:
    """How many questions and wrong answers each block holds, and how many stand up to its end; all (R, G)."""

    taken: Array
    errors: Array
    ends: Array
    wrong: Array

    @property
    def before(self) -> Array:
        """Questions before the block: the a of the file's docstring."""
        return self.ends - self.taken

    @property
    def wrong_before(self) -> Array:
        """Wrong answers before the block: the E of the file's docstring."""
        return self.wrong - self.errors


class Ranking:
    """Questions from the surest to the least sure, in blocks of equal signal, and the measures of that order.

    Takes finite signals (N,) and whether each answer was right (N,). Every measure takes a `Tally` and returns (R,).
    """

    def __init__(self, signal: Array, right: Array) -> None:
        signal = np.asarray(signal, dtype=float)
        self.order = np.argsort(-signal, kind="stable")
        descending = signal[self.order]
        self.starts = np.flatnonzero(np.r_[True, descending[1:] != descending[:-1]])
        self.thresholds = descending[self.starts]  # (G,)
        self.wrong = ~np.asarray(right, dtype=bool)[self.order]
        self.harmonic = np.r_[0.0, np.cumsum(1 / np.arange(1, len(signal) + 1))]  # H_k = 1 + 1/2 + … + 1/k

    def tally(self, counts: Array | None = None) -> Tally:
        """Count the blocks of every draw (R, N); of the questions as they are (R = 1) without counts."""
        counts = np.ones((1, len(self.order))) if counts is None else counts
        ordered = counts[:, self.order]
        taken = np.add.reduceat(ordered, self.starts, axis=1)  # (R, G)
        errors = np.add.reduceat(ordered * self.wrong, self.starts, axis=1)
        return Tally(taken, errors, np.cumsum(taken, axis=1), np.cumsum(errors, axis=1))

    def auroc(self, t: Tally) -> Array:
        """Area under the receiver operating characteristic: P(signal of a right one > signal of a wrong one) + ½ P(=).

        The Mann–Whitney statistic over the number of pairs (Hanley & McNeil 1982, Radiology 143:29–36): 1 for a signal
        that tells all right from all wrong, ½ for one that says nothing. NaN where all are right or all wrong.
        """
        above = (t.before - t.wrong_before) + (t.taken - t.errors) / 2
        wrong = t.wrong[:, -1]
        pairs = wrong * (t.ends[:, -1] - wrong)
        return np.where(pairs > 0, (t.errors * above).sum(1) / np.maximum(pairs, 1), np.nan)

    def aurc(self, t: Tally) -> Array:
        """Area under the risk–coverage curve: (1/n) Σ_{k=1}^{n} E_k/k, E_k the wrong among the k surest; 0 is best.

        Geifman & El-Yaniv 2017 (arXiv 1705.08500). With a, E, m, L of the file's docstring, a block adds
        Σ_{k=a+1}^{a+L} (E + (k − a)m/L)/k = m + (E − a·m/L)(H_{a+L} − H_a). A random order has the overall risk.
        """
        slope = t.errors / np.maximum(t.taken, 1)
        lengths = self.harmonic[t.ends.astype(int)] - self.harmonic[t.before.astype(int)]
        return (t.errors + (t.wrong_before - t.before * slope) * lengths).sum(1) / t.ends[:, -1]

    def e_aurc(self, t: Tally) -> Array:
        """Excess AURC: how far above the best order's, all right answers first (Geifman et al. 2019, arXiv 1805.08206).

        The best order of n answers, r of them right, has (1/n) Σ_{k=r+1}^{n} (k − r)/k. Unlike AURC it does not reward
        a model for being right more often. NaN where all are right or all wrong: every order is then the best.
        """
        wrong, total = t.wrong[:, -1], t.ends[:, -1]
        both = (wrong > 0) & (wrong < total)
        return np.where(both, self.aurc(t) - self.best_aurc(t), np.nan)

    def best_aurc(self, t: Tally) -> Array:
        """AURC of the order that has all right answers first."""
        wrong, total = t.wrong[:, -1], t.ends[:, -1]
        right = total - wrong
        return (wrong - right * (self.harmonic[total.astype(int)] - self.harmonic[right.astype(int)])) / total

    def augrc(self, t: Tally) -> Array:
        """Area under the generalized risk–coverage curve: the share answered wrongly, E_k/n, over the coverage k/n.

        Traub et al. 2024 (arXiv 2407.01032): unlike AURC it weighs every wrong answer alike instead of overrating the
        few surest. By trapezoids, which for equal signals is the mean over their orders; with risk ρ it is
        (1 − AUROC)·ρ(1 − ρ) + ½ρ²: ½ρ for a random order, ½ρ² for the best.
        """
        return (t.taken * (t.wrong_before + t.errors / 2)).sum(1) / t.ends[:, -1] ** 2

    def answerable(self, t: Tally, risk: float) -> Array:
        """Blocks (R, G) down to which one may answer with at most this selective risk, whole blocks only.

        The allowance of 1e-9 wrong answers is for rounding: 3 wrong of 30 are 10 %.
        """
        return (t.wrong <= risk * t.ends + 1e-9) & (t.ends > 0)

    def coverage(self, t: Tally, risk: float) -> Array:
        """The largest share of questions answered above a threshold with at most this selective risk; 0 if none is."""
        return np.where(self.answerable(t, risk), t.ends, 0.0).max(1) / t.ends[:, -1]

    def threshold(self, risk: float) -> float | None:
        """The signal from which on one answers to reach that coverage; None if even the surest answers risk more."""
        fit = np.flatnonzero(self.answerable(self.tally(), risk)[0])
        return float(self.thresholds[fit[-1]]) if len(fit) else None

    def risk_steps(self) -> list[dict[str, float]]:
        """{"risk", "threshold", "answered"} that give `threshold` for every risk: the last of no more than it, if any.

        All are in order, risks and answers given rising and thresholds falling: what one may answer grows with the risk
        taken.
        """
        t = self.tally()
        risk = t.wrong[0] / t.ends[0]
        later = np.r_[np.minimum.accumulate(risk[::-1])[::-1][1:], np.inf]  # the least risk that more answers have
        steps = np.flatnonzero(risk < later)
        return [
            {"risk": float(risk[i]), "threshold": float(self.thresholds[i]), "answered": int(t.ends[0, i])}
            for i in steps
        ]

    def selective_risk(self, t: Tally, places: Array) -> Array:
        """E_k/k, the mean over the orders of ties, for each k of `places` (whole, from 1 to N): (R, len(places)).

        One search serves all draws: the ends of draw i, moved up by i·(N + 1), form a single ascending list.
        """
        draws, blocks = t.ends.shape
        lift = (t.ends[0, -1] + 1) * np.arange(draws)[:, None]
        found = np.searchsorted((t.ends + lift).ravel(), (places + lift).ravel())
        block = np.minimum(found.reshape(draws, -1) - blocks * np.arange(draws)[:, None], blocks - 1)
        taken, errors, before, wrong = (
            np.take_along_axis(part, block, 1) for part in (t.taken, t.errors, t.before, t.wrong_before)
        )
        return (wrong + (places - before) * errors / np.maximum(taken, 1)) / places

    def measures(self, t: Tally) -> dict[str, Array]:
        """All of them, by name (R,); the coverages as "coverage" and the risk."""
        found = {"auroc": self.auroc(t), "aurc": self.aurc(t), "e_aurc": self.e_aurc(t), "augrc": self.augrc(t)}
        return found | {f"coverage {risk}": self.coverage(t, risk) for risk in RISKS}
