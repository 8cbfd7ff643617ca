"""The radial basis function (RBF) kernel by matrix products."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fishfeat.records import Float, Int

# Rows that are compared with all others at once: it limits the memory.
_CHUNK_ROWS = 2048
# Added to the diagonal of the components' kernel, so that it has a Cholesky factor.
_JITTER = 1e-5


def compute_gamma(X: NDArray[np.float32], gamma: str | float) -> float:
    """Compute scikit-learn's gamma: 'scale' is 1 / (number of columns * variance of X)."""
    if gamma == "scale":
        variance = float(X.var(dtype=np.float64)) or 1.0
        return float(1 / (X.shape[1] * variance))
    return float(gamma)


def compute_gram(X: NDArray[np.float32], gamma: float) -> Float:
    """Compute exp(-gamma |x - z|²) for all pairs of rows, float64 (n, n), in single precision."""
    product = X @ X.T  # numpy computes half of a symmetric product
    squares = product.diagonal().copy()
    product *= 2
    product -= squares[:, None]
    product -= squares
    np.minimum(product, 0, out=product)
    product *= np.float32(gamma)
    np.exp(product, out=product)
    np.fill_diagonal(product, 1)
    return product.astype(np.float64)


def compute_kernel(X: NDArray[Any], Z: NDArray[Any], gamma: float) -> NDArray[Any]:
    """Compute exp(-gamma |x - z|²) for each row of X with each row of Z, (n, m), in their dtype."""
    squares = (X * X).sum(axis=1)[:, None] + (Z * Z).sum(axis=1) - 2 * (X @ Z.T)
    kernel: NDArray[Any] = np.exp(-gamma * np.maximum(squares, 0))
    return kernel


def split_rows(X: NDArray[Any]) -> list[NDArray[Any]]:
    """Split X into chunks of at most 2,048 rows."""
    n_chunks = max(1, -(-len(X) // _CHUNK_ROWS))
    return np.array_split(X, n_chunks)


def decide_pairs(kernel: Float, dual_coef: Float, intercept: Float, n_support: Int) -> Float:
    """Compute libsvm's pairwise decisions, float64 (n, n_pairs).

    Parameters
    ----------
    kernel
        float64 (n, n_support), support vectors in the order of their classes.
    dual_coef, intercept, n_support
        As `sklearn.svm.SVC` has them.
    """
    n_classes = len(n_support)
    if n_classes == 2:
        # scikit-learn flips the sign of a single pair.
        flipped: Float = -(kernel @ dual_coef[0] + intercept[0])[:, None]
        return flipped
    ends = np.concatenate([[0], np.cumsum(n_support)])
    sums = [kernel[:, start:end] @ dual_coef[:, start:end].T for start, end in pairwise(ends)]
    decisions = []
    for pair, (first, second) in enumerate(combinations(range(n_classes), 2)):
        # For the pair (i, j) the coefficients of class i are in row j - 1, those of j in row i.
        decisions.append(sums[first][:, second - 1] + sums[second][:, first] + intercept[pair])
    return np.stack(decisions, axis=1)


def find_smallest(pairs: Float, n_classes: int) -> Float:
    """Find the smallest decision of each class over its pairs, float64 (n, n_classes)."""
    smallest = np.full((len(pairs), n_classes), np.inf)
    for values, (first, second) in zip(pairs.T, combinations(range(n_classes), 2), strict=True):
        smallest[:, first] = np.minimum(smallest[:, first], values)
        smallest[:, second] = np.minimum(smallest[:, second], -values)
    return smallest


def factor_kernel(components: NDArray[np.float32], gamma: float) -> NDArray[np.float32]:
    """Compute the Cholesky factor of the components' kernel, float32 (n_components, n_components).

    It makes the Nyström map of `map_rows`.
    """
    from scipy.linalg import cholesky  # saved machines start without scipy

    spanned = components.astype(np.float64)
    kernel = compute_kernel(spanned, spanned, gamma)
    kernel[np.diag_indices_from(kernel)] += _JITTER
    root: NDArray[np.float32] = cholesky(kernel, lower=True).astype(np.float32)
    return root


def map_rows(
    X: NDArray[np.float32],
    components: NDArray[np.float32],
    root: NDArray[np.float32],
    gamma: float,
) -> NDArray[np.float32]:
    """Map rows so that inner products approximate the kernel, float32 (n, n_components).

    `root` float32 (n_components, n_components) is the Cholesky factor of the components' kernel.
    """
    from scipy.linalg import solve_triangular  # other saved machines start without scipy

    chunks = []
    for chunk in split_rows(X):
        kernel = compute_kernel(chunk, components, gamma)
        mapped = solve_triangular(root, kernel.T, lower=True).T
        chunks.append(mapped.astype(np.float32))
    return np.concatenate(chunks)
