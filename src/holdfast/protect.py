"""How does a training loop of one's own keep the refusals of its model? By a protection: which coefficients of the
weights, in the coordinates of the model's safety activations, must not move (WaRP), or which directions (`leading`).

    protection = protect.from_refusals(model, tokenizer, rows)
    optimizer = protection.optimizer(model.parameters(), lr=1e-4)

The model stays an ordinary one; the optimizer is given to any loop: `transformers.Trainer(optimizers=(optimizer,
None))`, TRL, accelerate. Papers and equations: `warp` and `lead` of docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import names
from holdfast.errors import ArtifactError, DataError
from holdfast.model import chat, checkpoint, layers
from holdfast.model.layers import Layer
from holdfast.record import artifact
from holdfast.warp import basis, gram, importance, masks
from holdfast.warp.bits import BitMask
from holdfast.warp.optimizer import RotatedAdamW, Rotation

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODULES = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
BASIS, MASK = "basis.safetensors", "mask.safetensors"
LEADING = "leading"  # what a file of a basis says it is where it holds leading directions
Say = Callable[[str], None]


class Protection:
    """Of every protected weight (m, n) of one model: the basis U (n, n) of its input and the mask (m, n) over W U; or
    k leading directions (n, k) of its input, all of them held, and no masks.

    It knows the model's parameters themselves: make it, or load it, for the model that is trained, before anything
    wraps or shards that one.
    """

    def __init__(
        self, targets: Sequence[Layer], bases: Mapping[str, torch.Tensor], frozen: Mapping[str, BitMask]
    ) -> None:
        self._targets, self._bases, self._frozen = list(targets), dict(bases), dict(frozen)

    def parameters(self) -> list[torch.Tensor]:
        """The protected weights, in model order. To train only these is what the paper does."""
        return [x.module.weight for x in self._targets]

    @property
    def frozen_fraction(self) -> float:
        """Share of their coefficients that must not move."""
        held = {x.name: x.module.out_features * self._bases[x.input].shape[1] for x in self._targets}
        held |= {name: mask.count for name, mask in self._frozen.items()}
        return sum(held.values()) / sum(x.module.weight.numel() for x in self._targets)

    def _rotation(self, layer: Layer) -> Rotation:
        u = self._bases[layer.input].to(layer.module.weight)
        if not self._frozen:
            return Rotation(u, corrected=True, early=True)
        return Rotation(u, self._frozen[layer.name].to(layer.module.weight.device))

    def optimizer(
        self,
        parameters: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> RotatedAdamW:
        """AdamW that leaves frozen coefficients where they are; of parameters that are not protected, plain AdamW.

        Args:
            parameters: what is trained, or groups of it, as of any optimizer.
            max_grad_norm: clips what can act on the weights, in their coordinates; then nobody else should clip.

        Raises:
            ArtifactError: none of them is protected: the model was wrapped or loaded again in between; or in float16.
        """
        import torch

        held: list[Any] = list(parameters)
        groups = held if held and isinstance(held[0], dict) else [{"params": held}]
        groups = [{**group, "params": list(group["params"])} for group in groups]
        trained = {p for group in groups for p in group["params"]}
        rotations = {}
        for x in self._targets:
            weight = x.module.weight
            if weight in trained:
                if weight.dtype == torch.float16:  # of which AdamW makes what is no number
                    raise ArtifactError(
                        "A protected weight is in float16, which Adam cannot train.", found=f"{x.name} float16",
                        expected="float32 or bfloat16", do="model.float(), and autocast in the loop",
                    )  # fmt: skip
                rotations[weight] = self._rotation(x)
        if not rotations:
            raise ArtifactError(
                "No parameter that is to be trained is protected.", found=f"{len(trained)} parameters of another model",
                expected="parameters of the model that the protection was made for",
                do="make or load the protection for this very model, before it is wrapped",
            )  # fmt: skip
        return RotatedAdamW(
            groups, rotations, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, max_grad_norm=max_grad_norm
        )

    def save(self, folder: Path | str) -> None:
        """Write `basis.safetensors` and, where there are masks, `mask.safetensors`, files like those of a study."""
        shapes = {name: list(mask.shape) for name, mask in self._frozen.items()}
        header: dict[str, Any] = {"layers": list(layers.inputs(self._targets))}
        if not shapes:
            header |= {"kind": LEADING, "modules": list(dict.fromkeys(x.kind for x in self._targets))}
        artifact.write(Path(folder) / BASIS, self._bases, family="basis", header=header)
        if not shapes:
            (Path(folder) / MASK).unlink(missing_ok=True)
            return
        artifact.write(
            Path(folder) / MASK, {name: mask.bits for name, mask in self._frozen.items()}, family="mask",
            header={"layers": list(shapes), "shapes": shapes, "frozen_fraction": self.frozen_fraction},
        )  # fmt: skip


def from_refusals(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping[str, str]],
    *,
    freeze_fraction: float = 0.1,
    leading: float | None = None,
    modules: Sequence[str] = MODULES,
    batch_size: int = 8,
    say: Say = lambda _: None,
) -> Protection:
    """The protection of an aligned model by its refusals (WSR-Tune, phases 1 and 2): U from the Gram matrices of their
    activations; frozen is the share `freeze_fraction` of the coefficients of W U with the largest gradients on them.

    Args:
        model: the aligned model, before fine-tuning. Its weights, gradients and flags are left as they are.
        rows: `prompt` and `response` (the refusal) of each; a few hundred.
        leading: hold whole directions instead, this share of every input's, those in which refusals have most of their
            energy (the method `lead`): no scores, no masks, cheaper steps. `freeze_fraction` is not read then.
        modules: kinds of linear modules that are protected, in every block.
        batch_size: rows whose mean gradient is scored together; the scores depend on it.

    Raises:
        DataError: no rows, or one without prompt and response. LayerMismatch: the model has not these modules.
        ArtifactError: it is wrapped, or computes what is no number. ChatTemplateError: the tokenizer has no usable
            chat template.
    """
    _refuse_wrapped(model)
    if batch_size < 1:
        raise DataError("batch_size is a number of rows.", found=str(batch_size), expected="at least 1",
                        do="correct it")  # fmt: skip
    pairs = [_pair(i, row) for i, row in enumerate(rows)]
    if not pairs:
        raise DataError("There is no refusal to protect.", found="no rows", expected="rows with prompt and response",
                        do="give the refusals that the model should keep")  # fmt: skip
    if not 0 < freeze_fraction < 1:
        raise DataError("freeze_fraction is a share.", found=str(freeze_fraction), expected="between 0 and 1",
                        do="correct it; 0.1 is the paper's")  # fmt: skip
    if leading is not None and not 0 < leading <= 1:
        raise DataError("leading is a share.", found=str(leading), expected="above 0, at most 1",
                        do="correct it; 0.3 is what docs/lead.md measured")  # fmt: skip
    unknown = sorted(set(modules) - set(names.MODULE_KINDS))
    if unknown:
        raise DataError("A kind of module is not known.", found=", ".join(unknown),
                        expected=", ".join(names.MODULE_KINDS), do="correct modules")  # fmt: skip
    training = model.training
    targets = layers.resolve(model, modules)
    encoded = chat.encode_rows(tokenizer, pairs)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    try:
        grams, _ = gram.capture(model, targets, encoded, batch_size=batch_size, pad_id=pad_id, say=say)
        if leading is not None:
            return Protection(targets, {name: basis.held(g, name, leading) for name, g in grams.items()}, {})
        bases = {name: basis.from_gram(g)[0] for name, g in grams.items()}
        scores = importance.score(model, targets, bases, encoded, batch_size=batch_size, pad_id=pad_id, say=say)
    finally:
        model.train(training)
    for name, found in scores.items():
        checkpoint.refuse_not_finite(name, found, "the gradients of the model on these rows")
    frozen = {}
    for name in list(scores):
        mask = masks.build(scores.pop(name).cpu().numpy(), "entry", freeze_fraction)
        frozen[name] = BitMask.packed(mask)
    return Protection(targets, bases, frozen)


def _refuse_wrapped(model: PreTrainedModel) -> None:
    """Refuse a model inside DataParallel, torch.compile or PEFT: its parameters have other names than the model's, or
    are not trained."""
    if not hasattr(model, "config") or hasattr(model, "_orig_mod") or hasattr(model, "peft_config"):
        raise ArtifactError(
            "The model is inside a wrapper.", found=type(model).__name__, expected="the model itself",
            do="make or load the protection first, and wrap the model then",
        )  # fmt: skip


def _pair(position: int, row: Mapping[str, str]) -> dict[str, str]:
    found = {key: row.get(key) if isinstance(row, Mapping) else None for key in ("prompt", "response")}
    if not all(isinstance(v, str) and v.strip() for v in found.values()):
        raise DataError(
            f"Row {position} is no refused request.", found=str(row)[:160],
            expected="prompt and response, both with words", do="correct or remove the row",
        )  # fmt: skip
    return {"id": f"row {position}", **{k: str(v) for k, v in found.items()}}


def load(
    folder: Path | str, model: PreTrainedModel, *, basis_file: Path | str | None = None,
    mask_file: Path | str | None = None, modules: Sequence[str] = MODULES,
) -> Protection:  # fmt: skip
    """A protection that was saved, or two files of a study, for a model of the same shape; of leading directions
    the one file, which says so.

    Args:
        folder: where `save` wrote; basis_file, mask_file: other places, such as work/<study>/basis/safety.safetensors.
        modules: kinds of linear modules that a study's file of leading directions is for: its basis.modules.

    Raises:
        ArtifactError: missing or damaged. LayerMismatch: made for other layers than the model has.
    """
    _refuse_wrapped(model)
    basis_file, mask_file = Path(basis_file or Path(folder) / BASIS), Path(mask_file or Path(folder) / MASK)
    if not basis_file.is_file():  # a study's own error says how it is made
        raise ArtifactError(
            f"{basis_file} is missing.", found="no file", expected="a protection that was saved, or files of a study",
            do="name the folder that Protection.save wrote, or basis_file and mask_file",
        )  # fmt: skip
    of = artifact.header(basis_file, family="basis")
    if of.get("kind") == LEADING:
        targets = layers.resolve(model, of.get("modules", modules))
        bases, _ = artifact.read(basis_file, family="basis", layers=list(layers.inputs(targets)))
        for x in targets:
            if bases[x.input].shape[0] != x.module.in_features:
                raise _of_another_shape(basis_file, x.input, tuple(bases[x.input].shape), (x.module.in_features, "k"))
        return Protection(targets, dict(bases), {})
    known = artifact.header(mask_file, family="mask")["layers"]
    targets = layers.resolve(model, list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in known)))
    inputs = list(layers.inputs(targets))
    bases, _ = artifact.read(basis_file, family="basis", layers=inputs)
    bits, head = artifact.read(mask_file, family="mask", layers=[x.name for x in targets])
    frozen = {name: BitMask(bits[name], (head["shapes"][name][0], head["shapes"][name][1])) for name in bits}
    for x in targets:
        if tuple(x.module.weight.shape) != frozen[x.name].shape:
            raise ArtifactError(
                f"{mask_file} was made for a model of another shape.", found=f"{x.name} {frozen[x.name].shape}",
                expected=f"{tuple(x.module.weight.shape)}", do="load it for the model it was made for",
            )  # fmt: skip
        there, wanted = tuple(bases[x.input].shape), (x.module.in_features,) * 2
        if there != wanted:
            raise _of_another_shape(basis_file, x.input, there, wanted)
    return Protection(targets, {name: bases[name] for name in inputs}, frozen)


def _of_another_shape(file: Path, reads: str, there: tuple[int, ...], wanted: tuple[Any, ...]) -> ArtifactError:
    return ArtifactError(
        f"{file} was made for a model of another shape.", found=f"{reads} {there}", expected=f"{wanted}",
        do="name the file that was made for this model, a basis beside the mask that was made in it",
    )  # fmt: skip
