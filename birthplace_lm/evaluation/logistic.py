"""Logistic regression by Newton's steps: what calibration and the combined detector are fitted with.

Legend: N questions, D features.
"""

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), without overflow at either end; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0.0, -x))


def fit_logistic(
    features: Array, targets: Array, penalty: Array, prior: Array | None = None, offset: Array | float = 0.0
) -> tuple[Array, Array]:
    """The weights w (D,) that minimise a penalised log-loss, and their covariance (D, D).

    With z = `offset` + Xw, X the features (N, D), and targets t (N,) in [0, 1],

        L(w) = Σ_n [log(1 + e^{z_n}) − t_n z_n] + ½ Σ_d penalty_d (w_d − prior_d)²,

    is convex. A Newton step solves H s = ∇L, H = Xᵀ diag(σ(z)(1 − σ(z))) X + diag(penalty), which is iteratively
    reweighted least squares (McCullagh & Nelder 1989, section 2.5). It is halved until the loss falls as its slope
    promises, in part (Armijo 1966), and the first one starts at 0, where σ is steepest: a step from a flat is wild.
    The covariance is H⁻¹ at the end (Laplace's approximation). ArithmeticError if a hundred steps do not suffice.
    """
    centre = np.zeros(features.shape[1]) if prior is None else np.asarray(prior, dtype=float)

    def loss(w: Array) -> float:
        z = offset + features @ w
        return float((np.logaddexp(0.0, z) - targets * z).sum() + (penalty * (w - centre) ** 2).sum() / 2)

    w = np.zeros(features.shape[1])
    for _ in range(100):
        p = sigmoid(offset + features @ w)  # (N,)
        gradient = features.T @ (p - targets) + penalty * (w - centre)
        hessian = (features.T * (p * (1 - p))) @ features + np.diag(penalty)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        promised = float(gradient @ step)  # to first order; the loss can fall by half of it
        if promised <= 1e-18 * (1 + len(targets)):
            return w, np.linalg.pinv(hessian)
        here, size = loss(w), 1.0
        while size > 1e-12 and loss(w - size * step) > here - 1e-4 * size * promised + 1e-12 * abs(here):
            size /= 2
        w = w - size * step
    raise ArithmeticError(f"100 Newton steps on {features.shape} features did not settle: the last was {step}")
