"""The constrained optimizer: AdamW in rotated coordinates, frozen coefficients untouched.

WSR-Tune, phase 3, trains C in W = C Uᵀ with the coefficients under the mask M held fixed. U is
constant, so dL/dC = (dL/dW) U: the model trains its plain weights W and the rotation happens here,
twice per optimizer step, instead of in every forward pass. The trajectory is the published one
(tests/test_optimizer.py compares them in float64) and the checkpoint is an ordinary model at every
moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from torch import Tensor

from holdfast.warp.bits import BitMask

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Rotation:
    """How one weight (m, n) is constrained, in the coordinates C = Vᵀ W U: `u` (n, n) on the input side and
    `v` (m, m) on the output side, orthogonal or None for the identity; `frozen` (m, n), None for nothing
    frozen (a boolean tensor is packed into bits).

    `corrected` is the truncated form: `u` (n, k) holds k leading directions and `frozen` is (m, k), C = W U, or None
    for all of them. The optimizer then works in the original coordinates and its update loses what would move frozen
    coefficients: ΔW −= ((ΔW U) ⊙ M) Uᵀ. `early`: the gradient loses it too, before its moments are taken.
    """

    u: Tensor | None = None
    frozen: BitMask | None = None
    v: Tensor | None = None
    corrected: bool = False
    early: bool = False

    if TYPE_CHECKING:  # what may be given for `frozen` is more than what it then is

        def __init__(
            self,
            u: Tensor | None = None,
            frozen: BitMask | Tensor | None = None,
            v: Tensor | None = None,
            corrected: bool = False,
            early: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.frozen, Tensor):
            object.__setattr__(self, "frozen", BitMask.of(self.frozen))

    @property
    def acts(self) -> bool:
        """Whether it is more than the identity with nothing frozen."""
        return not (self.u is None and self.v is None and self.frozen is None)

    def rotate(self, w: Tensor) -> Tensor:
        """Vᵀ W U."""
        w = w if self.u is None else w @ self.u
        return w if self.v is None else self.v.T @ w

    def exactly(self, w: Tensor) -> Tensor:
        """`rotate` in float64."""
        u, v = (None if x is None else x.double() for x in (self.u, self.v))
        return Rotation(u=u, v=v).rotate(w.double())

    def correct(self, update: Tensor) -> Tensor:
        """An update in the original coordinates without its part on frozen coefficients, in place."""
        assert self.u is not None  # the truncated form has one
        if self.frozen is None:
            return torch.addmm(update, update @ self.u, self.u.T, alpha=-1, out=update)
        return update.sub_((update @ self.u).masked_fill_(~self.frozen.bools, 0) @ self.u.T)

    def back(self, c: Tensor) -> Tensor:
        """V C Uᵀ."""
        c = c if self.u is None else c @ self.u.T
        return c if self.v is None else self.v @ c


def _local(t: Tensor) -> Tensor:
    """The rows of a sharded tensor that live on this rank; any other tensor as it is."""
    return t.to_local() if hasattr(t, "to_local") else t


def _rows(whole: Tensor, p: Tensor) -> Tensor:
    """Of a tensor of the form of `p` what of `p` lives on this rank, on its device: all of it where `p` is whole."""
    if not hasattr(p, "device_mesh"):
        return whole.to(p.device)
    from torch.distributed.tensor import distribute_tensor

    weight = cast("DTensor", p)
    return distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None).to_local()


class RotatedAdamW(torch.optim.Optimizer):
    """AdamW whose moments and update live in the coordinates C = Vᵀ W U (V = I in WaRP), with C[frozen] fixed.

    W itself is the float32 master and receives the rotated update, W += ΔC Uᵀ; moments are the only
    state, so memory is that of AdamW plus one U per distinct input and the masks. Parameters without
    a `Rotation` get plain AdamW. Weight decay acts on the coefficients that may move, and never on
    frozen ones.

    A bfloat16 weight reproduces the authors' code instead: C itself is kept, in bfloat16, and W = C Uᵀ is
    written from it, so an update below half a unit in the last place of C is lost and the round trip changes W.

    Under FSDP2 a rank holds some rows of W, of the masks and of every U. U acts on columns, so every rank rotates
    and updates its rows alone, with a U that is gathered for it and forgotten; the gradient norm is one number
    summed over the ranks, as in any FSDP training.

    Args:
        parameters: every parameter to train, or groups of them with a `weight_decay` each.
        rotations: parameter -> Rotation.
        max_grad_norm: global norm, taken over the gradients that can act: rotated, frozen entries
            zeroed, together with the plain ones. None leaves gradients as they are. The training
            loop must not clip before (`clips_itself`).
    """

    clips_itself = True

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        rotations: Mapping[Tensor, Rotation],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        given = dict(rotations)
        # By position: FSDP puts sharded parameters in the place of those it was given.
        self._rotations = [given.pop(p, Rotation()) for _, p in self._parameters()]
        if given:
            raise ValueError("a rotation names a parameter that is not trained")
        self._sharded = False
        self._gathered: tuple[Tensor, Tensor] | None = None  # a U in shards, and whole
        self.max_grad_norm = max_grad_norm
        self.grad_norm = 0.0

    def _parameters(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        return ((group, p) for group in self.param_groups for p in group["params"])

    def _constrained(self) -> Iterator[tuple[Tensor, Rotation]]:
        found = ((p, r) for (_, p), r in zip(self._parameters(), self._rotations, strict=True))
        return ((p, r) for p, r in found if r.acts)

    def _shard(self) -> None:
        """Keep of every mask the rows whose weights this rank holds, and as many of every basis; nothing is sent."""
        from torch.distributed.tensor import Shard, distribute_tensor

        kept: dict[int, Tensor] = {}  # modules of one input share their U in shards too
        for i, (_, p) in enumerate(self._parameters()):
            rotation = self._rotations[i]
            if rotation.v is not None:
                raise ValueError("an output rotation mixes rows, which FSDP keeps on different ranks")
            u, frozen = rotation.u, rotation.frozen
            if u is not None:
                if id(u) not in kept:
                    mesh = cast("DTensor", p).device_mesh
                    kept[id(u)] = distribute_tensor(u, mesh, [Shard(0)], src_data_rank=None)
                u = kept[id(u)]
            if frozen is not None:
                frozen = BitMask.of(_rows(frozen.bools, p))
            self._rotations[i] = replace(rotation, u=u, frozen=frozen)
        self._sharded = True

    def _whole(self, rotation: Rotation) -> Rotation:
        """The rotation with all of its U, gathered where it is in shards. Modules of one input come one after another,
        so that the last one gathered is kept for the next."""
        if rotation.u is None or not hasattr(rotation.u, "full_tensor"):
            return rotation
        if self._gathered is None or self._gathered[0] is not rotation.u:
            self._gathered = None  # before there are two
            self._gathered = rotation.u, rotation.u.full_tensor()
        return replace(rotation, u=self._gathered[1])

    def _acting_gradient(self, p: Tensor, rotation: Rotation) -> Tensor:
        """The gradient in the coordinates the parameter is trained in, zero where frozen. It takes the place
        of `p.grad`, so that no second set of gradients is held until the norm is known."""
        assert p.grad is not None  # `step` leaves out parameters without one
        gradient, p.grad = _local(p.grad), None
        if rotation.early:
            return self._whole(rotation).correct(gradient)
        if rotation.corrected or not rotation.acts:
            return gradient
        gradient = self._whole(rotation).rotate(gradient)
        return gradient if rotation.frozen is None else gradient.masked_fill_(rotation.frozen.bools, 0)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update. It uses the gradients up: they are None afterwards."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        shards = hasattr(next(self._parameters())[1], "device_mesh")
        if shards and not self._sharded:
            self._shard()
        used = [(g, p, r) for (g, p), r in zip(self._parameters(), self._rotations, strict=True) if p.grad is not None]
        if not used:
            return loss
        mesh = cast("DTensor", used[0][1]).device_mesh if shards else None
        work = deque((group, p, rotation, self._acting_gradient(p, rotation)) for group, p, rotation in used)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for *_, g in work]))
        if mesh is not None:
            norm = norm.square()
            torch.distributed.all_reduce(norm, group=mesh.get_group())
            norm = norm.sqrt()
        self.grad_norm = float(norm)
        scale = 1.0 if self.max_grad_norm is None else min(1.0, self.max_grad_norm / (self.grad_norm + 1e-6))
        del used
        while work:  # a gradient is freed as soon as it was used
            group, p, rotation, gradient = work.popleft()
            weight, state = _local(p), self.state[p]
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(gradient)
                state["exp_avg_sq"] = torch.zeros_like(gradient)
                if p.dtype == torch.bfloat16 and rotation.acts and not rotation.corrected:
                    state["coefficients"] = self._whole(rotation).rotate(weight)
            state["step"] += 1
            beta1, beta2 = group["betas"]
            if scale < 1:
                gradient.mul_(scale)
            state["exp_avg"].lerp_(gradient, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
            del gradient
            update = state["exp_avg_sq"].sqrt().div_(correction2**0.5).add_(group["eps"])
            update = torch.div(state["exp_avg"], update, out=update).mul_(-group["lr"] / correction1)
            decay = group["lr"] * group["weight_decay"]
            _apply(weight, update, decay, self._whole(rotation), state.get("coefficients"))
        self._gathered = None
        return loss

    def frozen_drift(self, before: Mapping[Tensor, Tensor]) -> float:
        """Largest |(Vᵀ (W - W0) U)[frozen]| over all constrained weights: how far rounding moved what must not.

        Args:
            before: parameter -> its value before training.
        """
        worst = torch.zeros(())
        for p, rotation in self._constrained():
            if rotation.frozen is None and not rotation.corrected:
                continue
            moved = self._whole(rotation).exactly(_local(p.detach()) - _rows(before[p], p))
            moved = moved if rotation.frozen is None else moved[rotation.frozen.bools]
            if moved.numel():
                worst = torch.maximum(worst, moved.abs().max().cpu())  # which keeps what is no number
        return float(max(self._everywhere(float(worst)), key=lambda x: (x != x, x)))

    def moved_fraction(self, before: Mapping[Tensor, Tensor]) -> float:
        """Share of the coefficients free to move that did, by more than 1e-12 as the authors' code checks it; of the
        entries of a weight whose k directions are all frozen. With float32 masters it is close to 1; in bfloat16
        most updates can be lost.

        Args:
            before: parameter -> its value before training.
        """
        moved = free = 0
        for p, rotation in self._constrained():
            old, kept = _rows(before[p], p), self.state[p].get("coefficients")
            rotation = Rotation() if rotation.corrected and rotation.frozen is None else self._whole(rotation)
            change = rotation.exactly(_local(p.detach()) - old) if kept is None else kept - rotation.rotate(old)
            may = torch.ones_like(change, dtype=torch.bool) if rotation.frozen is None else ~rotation.frozen.bools
            moved, free = moved + int((change.abs() > 1e-12)[may].sum()), free + int(may.sum())
        counts: list[tuple[int, int]] = self._everywhere((moved, free))
        return sum(m for m, _ in counts) / max(1, sum(f for _, f in counts))

    def frozen_fraction(self) -> float:
        """Share of the coefficients of all constrained weights that are frozen."""
        frozen = every = 0
        for p, rotation in self._constrained():
            weight = _local(p)
            every += weight.numel()
            if rotation.frozen is not None:
                frozen += rotation.frozen.count
            elif rotation.corrected:
                assert rotation.u is not None  # the truncated form has one
                frozen += weight.shape[0] * rotation.u.shape[1]
        counts: list[tuple[int, int]] = self._everywhere((frozen, every))
        return sum(f for f, _ in counts) / max(1, sum(n for _, n in counts))

    def _everywhere(self, value: Any) -> list[Any]:
        """A value of every rank, or the one that there is."""
        if not self._sharded:
            return [value]
        mesh = cast("DTensor", next(self._parameters())[1]).device_mesh
        values: list[Any] = [None] * mesh.size()
        torch.distributed.all_gather_object(values, value, group=mesh.get_group())
        return values


def _apply(w: Tensor, update: Tensor, decay: float, rotation: Rotation, kept: Tensor | None) -> None:
    """Add an update in the coordinates of `rotation` to the weight `w`; `kept` is the C of a bfloat16 weight."""
    if rotation.corrected:
        w.add_(rotation.correct(update.sub_(w, alpha=decay)))
        return
    if decay and rotation.frozen is None:  # decay of all coefficients commutes with the rotation
        (w if kept is None else kept).mul_(1 - decay)
    elif decay and rotation.frozen is not None:
        c = rotation.rotate(w) if kept is None else kept
        update = update.sub_((c * decay).masked_fill_(rotation.frozen.bools, 0))
    if kept is None:
        w.add_(rotation.back(update))
    else:
        w.copy_(rotation.back(kept.add_(update)))
