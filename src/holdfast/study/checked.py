"""What every part of a study file has in common: unknown keys are refused, and true is not the number 1."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator

from holdfast import names

LARGEST_SEED = 2**32 - 1
NAME = r"^[a-z][a-z0-9-]{0,39}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]


def _each_once(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or len(set(value)) != len(value):
        raise ValueError("name at least one module, each once")
    return tuple(m for m in names.MODULE_KINDS if m in value)


# Kinds of linear modules, in their order in a block.
Modules = Annotated[
    tuple[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], ...],
    AfterValidator(_each_once),
]


class Strict(BaseModel):
    """Base of everything that a study file sets: frozen, unknown keys refused, and true is not the number 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, data: Any) -> Any:
        for name, value in data.items() if isinstance(data, dict) else ():
            field = cls.model_fields.get(name)
            if field is not None and _has_truth(value) and _is_of_numbers(field.annotation):
                raise ValueError(f"{name} is a number, and true or false are none")
        return data


def _has_truth(value: Any) -> bool:
    return any(map(_has_truth, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def _is_of_numbers(annotation: Any) -> bool:
    """Whether a field takes numbers and no truth values."""
    if get_origin(annotation) is Literal:
        return all(type(value) is int for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        parts = [a for a in get_args(annotation) if a not in (type(None), ...)]
        return any(map(_is_of_numbers, parts)) and bool not in parts
    return annotation in (int, float)
