"""The radial basis function (RBF) kernel by matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fishfeat.records import Float

# Rows that are compared with all others at once: it limits the memory.
_CHUNK_ROWS = 2048


def compute_gamma(X: NDArray[np.float32], gamma: str | float) -> float:
    """Compute scikit-learn's gamma: 'scale' is 1 / (number of columns * variance of X)."""
    if gamma == "scale":
        variance = float(X.var(dtype=np.float64)) or 1.0
        n_columns: int = X.shape[1]
        return 1 / (n_columns * variance)
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
