"""Pretends that this machine has a GPU: tensors on "cuda" compute here, and refuse to meet those that are not.

    with pretend.gpu():
        model.cuda()                       # its numbers stay in memory, its tensors say they are on cuda:0
        model(torch.zeros(1, dtype=int))   # RuntimeError: tensors of cuda:0 and cpu meet in aten.embedding

Values are real, those of the CPU's kernels to the last bit where its attention is `plain`. Refused is what CUDA
refuses: tensors of both devices in one operation, but for copies, an index on the host into a tensor on the GPU, and
numbers (tensors without dimensions) of the host; to write on the host what is computed on the GPU; to draw there
by a generator of the host; numpy().
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
# Copies between devices are what they are for.
_CROSSING = ("aten._to_copy", "aten.to", "aten.copy_", "aten.copy")
# of, indices and perhaps a value
_INDEXING = ("aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_", "aten._unsafe_index",
             "aten._unsafe_index_put")  # fmt: skip
_WHOLE = ("aten.cat", "aten.stack")  # which take no number from elsewhere either


class OnDevice(torch.Tensor):
    """A tensor that says it is on a GPU; what it holds is on the host."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device="meta",
            requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if not isinstance(value, OnDevice):
            raise NotImplementedError("this pretence does not know how to bring a tensor to the host in its place")
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor on cuda:0 to numpy")

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_places(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_places(index), value)

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self) -> str:
        return f"OnDevice({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


def _places(index: Any) -> tuple[Any, ...]:
    """An index whose lists are tensors: torch would make them where it thinks that ours is, which holds nothing."""
    of = index if isinstance(index, tuple) else (index,)
    return tuple(torch.tensor(x) if isinstance(x, list) else x for x in of)


def _is_there(device: torch.device) -> bool:
    """Whether a device is the pretended one; what is made like one of its tensors asks for the device torch knows."""
    return device.type in ("cuda", "meta")


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operation writes into."""
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    into = [given.get(a.name) for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [x for x in tree_flatten(into)[0] if isinstance(x, torch.Tensor)]


def _misplaced(name: str, args: Any, tensors: list[torch.Tensor], written: list[torch.Tensor]) -> bool:
    """Whether CUDA refuses an operation for where its tensors are."""
    if name in _CROSSING or len({isinstance(x, OnDevice) for x in tensors}) < 2:
        return False
    if name in _INDEXING:
        there, (indices, *value) = isinstance(args[0], OnDevice), args[1:3]
        return any(isinstance(x, OnDevice) != there and x.dim() for x in value) or (
            not there and any(isinstance(x, OnDevice) for x in indices)
        )
    host = [x for x in tensors if not isinstance(x, OnDevice)]
    return name in _WHOLE or any(x.dim() or any(x is w for w in written) for x in host)


def dispatched(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on what tensors hold; its result is where its tensors are, or where it was asked to be."""
    leaves, tree = tree_flatten((args, kwargs))
    name = str(func).rsplit(".", 1)[0]
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, OnDevice)]
    asked = next((x for x in leaves if isinstance(x, torch.device)), None)
    written = _written(func, args, kwargs)
    if any(x.device.type == "meta" for x in tensors if not isinstance(x, OnDevice)):
        raise NotImplementedError(f"a tensor in {name} was made where nothing is held: this pretence does not know how")
    if _misplaced(name, args, tensors, written):
        raise RuntimeError(f"tensors of {CUDA} and {CPU} meet in {name}")
    if written or name in _INDEXING or name == "aten.copy":
        to_device = isinstance((written or args)[0], OnDevice)
    else:
        to_device = _is_there(asked) if asked is not None else bool(there)
    if to_device and any(isinstance(x, torch.Generator) for x in leaves):
        raise RuntimeError(f"{name} draws on {CUDA}, and its generator is on {CPU}")
    held = [x.held if isinstance(x, OnDevice) else CPU if isinstance(x, torch.device) else x for x in leaves]
    args, kwargs = tree_unflatten(held, tree)
    out = func(*args, **kwargs)
    if not to_device:
        return out
    # What works in place gives back the tensor that it was given.
    known = {id(x.held): x for x in there}

    def wrapped(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return known[id(x)] if id(x) in known else OnDevice(x)

    return tree_map(wrapped, out)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves, _ = tree_flatten((args, kwargs))
        if any(isinstance(x, OnDevice) or (isinstance(x, torch.device) and _is_there(x)) for x in leaves):
            return dispatched(func, args, kwargs)
        return func(*args, **kwargs)


def _numbered(value: Any) -> Any:
    """The one device that there is, for all that name its kind."""
    kind = value.type if isinstance(value, torch.device) else value
    return CUDA if isinstance(kind, str) and kind.split(":")[0] == "cuda" else value


def _first_here(make: Any) -> Any:
    """What makes a tensor of numbers lets no mode see how it goes to a device: it is made here, and then goes."""

    def made(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        found: torch.Tensor = make(*args, **kwargs)
        return found if device is None else found.to(torch.device(device))

    return made


def _tied(move: Any) -> Any:
    """What moves a module gives each of its matrices one of its own where types differ, as ours do: they are one again
    where they were one before, as on a GPU."""

    def moved(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        places: dict[int, list[Any]] = {}
        for module in self.modules():
            for name, p in module._parameters.items():
                places.setdefault(id(p), []).append((module._parameters, name))
        found = move(self, *args, **kwargs)
        for (first, named), *others in places.values():
            for parameters, name in others:
                parameters[name] = first[named]
        return found

    return moved


def plain() -> contextlib.AbstractContextManager[None]:
    """Attention on the CPU by the kernel that this pretence has: fused ones add in another order."""
    found: contextlib.AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return found


@contextlib.contextmanager
def gpu() -> Iterator[None]:
    """A machine with one GPU."""
    to = torch.Tensor.to

    def moved(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return to(self, *map(_numbered, args), **{k: _numbered(v) for k, v in kwargs.items()})

    with contextlib.ExitStack() as patched:
        for where, name, value in (
            (torch.cuda, "_lazy_init", lambda: None), (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "device_count", lambda: 1), (torch.cuda, "current_device", lambda: 0),
            (torch.cuda, "set_device", lambda _: None), (torch.cuda, "get_device_name", lambda *_: "pretended"),
            (torch.cuda, "max_memory_allocated", lambda *_: 0),
            # A torch that was built for GPUs has a driver that these would ask.
            (torch.accelerator, "is_available", lambda: False),
            (torch.accelerator, "current_accelerator", lambda *_, **__: None),
            # A device without a number would ask its driver for one.
            (torch.Tensor, "cuda", lambda self, *_, **__: self.to(CUDA)),
            (torch.Tensor, "to", moved),
            (torch.nn.Module, "cuda", _tied(torch.nn.Module.cuda)), (torch.nn.Module, "to", _tied(torch.nn.Module.to)),
            (torch, "tensor", _first_here(torch.tensor)), (torch, "as_tensor", _first_here(torch.as_tensor)),
        ):  # fmt: skip
            patched.enter_context(mock.patch.object(where, name, value))
        patched.enter_context(_Mode())
        yield
