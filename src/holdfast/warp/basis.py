"""From Gram matrices to orthonormal bases: eigenvectors in descending order, signs fixed.

WSR-Tune, phase 1: Gram = U S Uᵀ. `eigh` of the symmetric matrix replaces the published `svd`: the
same vectors without the left / right ambiguity, and several times faster.
"""

from __future__ import annotations

import zlib

import torch

from holdfast.warp import masks


def fix_signs(u: torch.Tensor) -> torch.Tensor:
    """Make the component of largest magnitude of every column positive, so equal input gives equal bytes."""
    pivot = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
    return torch.where(pivot < 0, -u, u)


def from_gram(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(U, eigenvalues): U (n, n) float32 with orthonormal columns, eigenvalues (n,) descending, >= 0.

    Computed in float64: the trailing eigenvalues of activations are 1e-6 and less of the leading.
    """
    values, u = torch.linalg.eigh(gram.double())
    u = fix_signs(u.flip(1))
    return u.float().contiguous(), values.flip(0).clamp(min=0).float()


def leading(gram: torch.Tensor, k: int, seed: int = 0) -> torch.Tensor:
    """(n, k) float32 with orthonormal columns that span the k leading eigenvectors of a Gram matrix (n, n), nearly:
    two rounds of subspace iteration from a seeded start (Halko, Martinsson and Tropp 2011, arXiv 0909.4061,
    algorithm 4.4), which lose about a tenth of the energy that lies beyond the k-th (docs/lead.md). The columns
    themselves are no eigenvectors; who projects needs the span alone.
    """
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(gram.shape[0], k, generator=generator).to(gram)
    for _ in range(2):
        q = torch.linalg.qr(gram @ q).Q
    return q.contiguous()


def subspace(eigenvalues: torch.Tensor, energy: float, noise: float = 0.0) -> int:
    """How many leading directions carry the share `energy` of the activations' energy; at least one, and none that
    is there by rounding alone: all the energy of fewer tokens than directions is in as many as there are tokens.

    Args:
        eigenvalues: (n,), the largest first. noise: what the rounding of the matrix's own entries may make.
    """
    values = eigenvalues.double()
    rounding = (len(values) * torch.finfo(values.dtype).eps * values[0]).clamp(min=noise)
    carried = torch.where(values > rounding, values, 0).cumsum(0)
    share = carried / carried[-1].clamp(min=1e-300)
    return min(len(values), int((share < energy).sum()) + 1)


def carrying(gram: torch.Tensor, energy: float) -> torch.Tensor:
    """(n, k) float32: the fewest leading eigenvectors that carry the share `energy` of a Gram matrix's trace. How many
    that are only a whole decomposition tells."""
    u, values = from_gram(gram)
    return u[:, : subspace(values, energy, noise(gram))].contiguous()


def noise(gram: torch.Tensor) -> float:
    """How large an eigenvalue of a Gram matrix may be by the rounding of its entries alone: ε ‖G‖_F, ε of the type it
    was summed up and stored in."""
    return torch.finfo(gram.dtype).eps * float(torch.linalg.matrix_norm(gram.double()))


def held(gram: torch.Tensor, name: str, share: float, energy: float | None = None) -> torch.Tensor:
    """(n, k): the leading directions of one input that `lead` holds: a `share` of the n, or as many as carry `energy`.

    Args:
        name: of the input, which the start of the iteration hangs on.
    """
    if energy is not None:
        return carrying(gram, energy)
    return leading(gram, masks.leading(gram.shape[0], share), zlib.crc32(name.encode()))


def leading_outputs(weight: torch.Tensor, gram: torch.Tensor | None, k: int) -> torch.Tensor:
    """V (m, k), float64: the leading eigenvectors of W G Wᵀ, which is never formed, for a weight (m, n) and the Gram
    matrix (n, n) of its inputs; without one of W Wᵀ, the left singular vectors of W.

    Thirty rounds of subspace iteration with ten columns more than are asked for, then a decomposition within them:
    exact where the module has no more outputs than that.
    """
    w = weight.double()
    g = None if gram is None else gram.to(w)

    def product(x: torch.Tensor) -> torch.Tensor:
        x = w.T @ x
        return w @ (x if g is None else g @ x)

    generator = torch.Generator().manual_seed(0)
    q = torch.randn(w.shape[0], min(w.shape[0], k + 10), generator=generator, dtype=w.dtype).to(w)
    for _ in range(30):
        q = torch.linalg.qr(product(q)).Q
    _, inner = torch.linalg.eigh(q.T @ product(q))
    return fix_signs(q @ inner.flip(1)[:, :k])


def random_orthogonal(n: int, seed: int) -> torch.Tensor:
    """A Haar-random orthogonal (n, n) float32 matrix: the control that says what rotation alone does."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return fix_signs(q * torch.sign(torch.diagonal(r))[None, :]).float().contiguous()


def output_gram(weight: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Gram matrix (m, m) of a layer's outputs W h, from the Gram (n, n) of its inputs: W (H Hᵀ) Wᵀ."""
    w = weight.double()
    return w @ gram.to(w.device).double() @ w.T


def signed_permutation(m: int, seed: int) -> torch.Tensor:
    """A random signed permutation (m, m): an output rotation that must change nothing at all."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (m,), generator=generator) * 2.0 - 1.0
    return torch.eye(m)[torch.randperm(m, generator=generator)] * signs


def orthogonality_error(u: torch.Tensor) -> float:
    """Largest |UᵀU - I|."""
    u = u.double()
    return float((u.T @ u - torch.eye(u.shape[1], dtype=torch.float64, device=u.device)).abs().max())
