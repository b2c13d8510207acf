"""Which directions does a linear module write into, on inputs of which only the Gram matrix is kept?"""

from __future__ import annotations

import torch

from holdfast.warp import basis


def left(w: torch.Tensor, gram: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(U (m, k), σ (k,)), float64, σ falling: left singular vectors and singular values of W H, or of W itself.

    W H and W √G with G = H Hᵀ have the same, because (W H)(W H)ᵀ = W G Wᵀ; the root instead of that product keeps
    small singular values apart, and is (m, n) where the product is (m, m). A singular value that rounding alone could
    make, of W or of the root of G, is 0: a module that writes in one direction has one.

    Args:
        w: (m, n). gram: G (n, n), symmetric.
    """
    rounding = max(w.shape) * torch.finfo(torch.float64).eps
    if gram is not None:
        values, vectors = torch.linalg.eigh(gram.double())
        least = (rounding * values[-1:]).clamp(min=basis.noise(gram))
        w = w.double() @ (vectors * torch.where(values > least, values, 0).sqrt())
    u, s, _ = torch.linalg.svd(w.double(), full_matrices=False)
    return u, torch.where(s > rounding * s[:1], s, 0)
