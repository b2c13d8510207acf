"""The constrained optimizer: AdamW in rotated coordinates, frozen coefficients untouched.

WSR-Tune, phase 3, trains C in W = C Uᵀ with the coefficients under the mask M held fixed. U is
constant, so dL/dC = (dL/dW) U: the model trains its plain weights W and the rotation happens here,
twice per optimizer step, instead of in every forward pass. The trajectory is the published one
(tests/test_optimizer.py compares them in float64) and the checkpoint is an ordinary model at every
moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from holdfast.warp import masks


@dataclass(frozen=True)
class BitMask:
    """A boolean (m, n) kept as its bits, 1/32 of a float32 weight; `bools` is made when it is needed."""

    bits: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: Tensor) -> BitMask:
        """Pack a boolean (m, n); the bits stay on its device."""
        return cls(torch.from_numpy(masks.pack(mask.cpu().numpy())).to(mask.device), tuple(mask.shape))

    @property
    def bools(self) -> Tensor:
        if self.bits.device.type == "cpu":
            return torch.from_numpy(masks.unpack(self.bits.numpy(), self.shape))
        order = torch.arange(7, -1, -1, device=self.bits.device, dtype=torch.uint8)
        flat = (self.bits[:, None] >> order).bitwise_and_(1).bool().flatten()
        return flat[: self.shape[0] * self.shape[1]].view(self.shape)

    def to(self, device) -> BitMask:
        return BitMask(self.bits.to(device), self.shape)

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def count(self) -> int:
        """How many entries are frozen."""
        return int(self.bools.sum())


@dataclass(frozen=True)
class Rotation:
    """How one weight (m, n) is constrained, in the coordinates C = Vᵀ W U: `u` (n, n) on the input side and
    `v` (m, m) on the output side, orthogonal or None for the identity; `frozen` (m, n), None for nothing
    frozen (a boolean tensor is packed into bits).

    `corrected` is the truncated form: `u` (n, k) holds k leading directions and `frozen` is (m, k), C = W U.
    The optimizer then works in the original coordinates and its update loses what would move frozen
    coefficients: ΔW −= ((ΔW U) ⊙ M) Uᵀ.
    """

    u: Tensor | None = None
    frozen: BitMask | None = None
    v: Tensor | None = None
    corrected: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.frozen, Tensor):
            object.__setattr__(self, "frozen", BitMask.of(self.frozen))

    def rotate(self, w: Tensor) -> Tensor:
        """Vᵀ W U."""
        w = w if self.u is None else w @ self.u
        return w if self.v is None else self.v.T @ w

    def correct(self, update: Tensor) -> Tensor:
        """An update in the original coordinates without its part on frozen coefficients, in place."""
        return update.sub_((update @ self.u).masked_fill_(~self.frozen.bools, 0) @ self.u.T)

    def back(self, c: Tensor) -> Tensor:
        """V C Uᵀ."""
        c = c if self.u is None else c @ self.u.T
        return c if self.v is None else self.v @ c


class RotatedAdamW(torch.optim.Optimizer):
    """AdamW whose moments and update live in the coordinates C = Vᵀ W U (V = I in WaRP), with C[frozen] fixed.

    W itself is the float32 master and receives the rotated update, W += ΔC Uᵀ; moments are the only
    state, so memory is that of AdamW plus one U per distinct input and the masks. Parameters without
    a `Rotation` get plain AdamW. Weight decay acts on the coefficients that may move, and never on
    frozen ones.

    Args:
        parameters: every parameter to train.
        rotations: parameter -> Rotation.
        max_grad_norm: global norm, taken over the gradients that can act: rotated, frozen entries
            zeroed, together with the plain ones. None leaves gradients as they are. The training
            loop must not clip before (`clips_itself`).
    """

    clips_itself = True

    def __init__(
        self,
        parameters: Iterable[Tensor],
        rotations: Mapping[Tensor, Rotation],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        known = {p for group in self.param_groups for p in group["params"]}
        if not rotations.keys() <= known:
            raise ValueError("a rotation names a parameter that is not trained")
        self.rotations = dict(rotations)
        self.max_grad_norm = max_grad_norm
        self.grad_norm = 0.0

    def _acting_gradient(self, p: Tensor) -> Tensor:
        """The gradient in the coordinates the parameter is trained in, zero where frozen. It takes the place
        of `p.grad`, so that no second set of gradients is held until the norm is known."""
        rotation = self.rotations.get(p)
        if rotation is not None and not rotation.corrected:
            p.grad = rotation.rotate(p.grad)
            if rotation.frozen is not None:
                p.grad.masked_fill_(rotation.frozen.bools, 0)
        return p.grad

    @torch.no_grad()
    def step(self, closure=None):
        """One update. Gradients are left clipped and in the coordinates of the update."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [
            (group, p, self._acting_gradient(p))
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        if not work:
            return loss
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for _, _, g in work]))
        self.grad_norm = float(norm)
        scale = 1.0 if self.max_grad_norm is None else min(1.0, self.max_grad_norm / (self.grad_norm + 1e-6))
        for group, p, gradient in work:
            state = self.state[p]
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(gradient)
                state["exp_avg_sq"] = torch.zeros_like(gradient)
            state["step"] += 1
            beta1, beta2 = group["betas"]
            if scale < 1:
                gradient.mul_(scale)
            state["exp_avg"].lerp_(gradient, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
            denominator = (state["exp_avg_sq"].sqrt() / correction2**0.5).add_(group["eps"])
            update = state["exp_avg"].div(denominator).mul_(-group["lr"] / correction1)
            self._apply(p, update, group["lr"] * group["weight_decay"])
        return loss

    def _apply(self, p: Tensor, update: Tensor, decay: float) -> None:
        rotation = self.rotations.get(p, Rotation())
        if rotation.corrected:
            p.add_(rotation.correct(update.sub_(p, alpha=decay)))
            return
        if decay and rotation.frozen is None:  # decay of all coefficients commutes with the rotation
            p.mul_(1 - decay)
        elif decay:
            update = update.sub_((rotation.rotate(p) * decay).masked_fill_(rotation.frozen.bools, 0))
        p.add_(rotation.back(update))

    def frozen_drift(self, before: Mapping[Tensor, Tensor]) -> float:
        """max |(Vᵀ (W - W0) U)[frozen]| over all constrained weights: how far rounding moved what must not.

        Args:
            before: parameter -> its value before training.
        """
        worst = 0.0
        for p, rotation in self.rotations.items():
            if rotation.frozen is None or not rotation.frozen.count:
                continue
            u, v = (None if x is None else x.double() for x in (rotation.u, rotation.v))
            moved = Rotation(u=u, v=v).rotate((p.detach() - before[p].to(p.device)).double())
            worst = max(worst, float(moved[rotation.frozen.bools].abs().max()))
        return worst
