"""What every experiment is: a class of annotated attributes that can be overridden from the command line, strictly."""

from __future__ import annotations

import ast
import difflib
import math
import types
import typing
from typing import Any

from yolox_lt.errors import UserError


class BaseExp:
    """Attributes with types, and `merge` for KEY VALUE pairs.

    Attributes are declared in a class body (`max_epoch: int = 300`) or set in `__init__` as in YOLOX; a file may do
    either.
    """

    _file: str = ""
    """Name of the file that the experiment comes from, empty for a class of its own."""

    family: typing.ClassVar[str] = ""
    """Which class a checkpoint's settings belong to, see `exp_from_settings`."""

    positive_fields: typing.ClassVar[frozenset[str]] = frozenset()
    """Names of counts that must be 1 or more."""

    def attributes(self) -> dict[str, Any]:
        """Every public setting and its value, those of the base class first."""
        names: dict[str, None] = {}
        for cls in reversed(type(self).__mro__):
            for name, value in vars(cls).items():
                if not callable(value) and not isinstance(value, (property, classmethod, staticmethod)):
                    names[name] = None
        names.update(dict.fromkeys(vars(self)))
        return {n: getattr(self, n) for n in names if not n.startswith("_") and n not in ("positive_fields", "family")}

    def merge(self, pairs: list[str]) -> None:
        """Override attributes by [key, value, key, value, ...], values as text.

        Raises:
            UserError: an odd number of words, an unknown key, a value of another type than the attribute's.
        """
        if len(pairs) % 2:
            raise UserError(f"override {pairs[-1][:80]!r} has no value; overrides come as KEY VALUE pairs")
        known = self.attributes()
        for key, text in zip(pairs[::2], pairs[1::2]):
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "see yolox_lt/exp/ for all settings"
                raise UserError(f"override {key[:80]!r} is not a setting of {type(self).__name__}; {hint}")
            value = parse_value(key, text, known[key], self.type_of(key))
            if key in self.positive_fields and value is not None and value < 1:
                raise UserError(f"override {key} {text[:80]!r}: give a number of at least 1")
            setattr(self, key, value)

    def update(self, values: dict[str, Any]) -> None:
        """Set attributes from a checkpoint; lists become tuples where the attribute is one, unknown names are kept."""
        known = self.attributes()
        for key, value in values.items():
            is_tuple = isinstance(known.get(key), tuple) or key not in known
            setattr(self, key, tuple(value) if isinstance(value, list) and is_tuple else value)

    def type_of(self, key: str) -> Any:
        """The declared type of an attribute, None for one that a file has added without a declaration."""
        return typing.get_type_hints(type(self)).get(key)

    def __str__(self) -> str:
        width = max(map(len, self.attributes()))
        return "\n".join(f"{name:<{width}}  {value!r}" for name, value in self.attributes().items())


def parse_value(key: str, text: str, current: Any, hint: Any) -> Any:
    """`text` as a value of the attribute's type: the declared one, else that of the current value.

    Raises:
        UserError: the text is no such value.
    """
    allowed = allowed_types(current, hint)
    if type(None) in allowed and text.lower() == "none":
        return None
    if bool in allowed:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UserError(f"override {key} {text[:80]!r}: give True or False")
        return text.lower() in ("true", "1")
    if str in allowed and not (tuple in allowed and text[:1] in ("(", "[")):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # whatever a line of text may be
        value = text
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        value = as_float(value) if int not in allowed else value
    if tuple in allowed and isinstance(value, list):
        value = tuple(value)
    if typing.get_args(hint) == (str, ...) and isinstance(value, str):
        value = tuple(value.split(","))  # words need no quotes: trackers wandb,mlflow
    if not isinstance(value, tuple(allowed)) or not fits(value, type(value) if hint is None else hint):
        wanted = " or ".join(sorted(t.__name__ for t in allowed if t is not type(None)))
        raise UserError(f"override {key} {text[:80]!r}: give a value of type {wanted}, for example {key} {current}")
    return value


def as_float(value: int) -> float:
    """The whole number as a float, infinite where float64 ends."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a declared type, the entries of tuples too; numbers have to be finite."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if origin is tuple and parts:
        wanted = parts[:1] * len(value) if isinstance(value, tuple) and parts[1:] == (...,) else parts
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(fits, value, wanted))
    if hint is float and isinstance(value, int):
        return not isinstance(value, bool)
    kind = origin or hint
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def allowed_types(current: Any, hint: Any) -> set[type]:
    """Plain types that an attribute may hold."""
    if hint is None:
        return {type(current)} if current is not None else {type(None), str}
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return {typing.get_origin(option) or option for option in options}
