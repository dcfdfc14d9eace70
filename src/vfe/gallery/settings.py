"""Settings of a job from text: `key=value`, by the types of a frozen dataclass."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

S = TypeVar("S")


def about(text: str, default: Any = None) -> Any:
    """A field of settings with its default and what `--help` says of it.

    **Example:** `epochs: int = about("how many", 20)` in a frozen dataclass.
    """
    return dataclasses.field(default=default, metadata={"help": text})


def parse_settings(kind: type[S], given: Sequence[str]) -> S:
    """The settings with these changes, each `key=value`.

    Fields may be int, float, bool, str, `Literal`, tuples of these (`sizes=32,16`), or any of them
    or None (`none`).

    **Raises:** `ValueError` that lists the known keys, or says what the value should be.

    **Example:** `parse_settings(Settings, ["epochs=3", "sizes=32,16"])`.
    """
    changes: dict[str, Any] = {}
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals:
            raise ValueError(f"--set {text}: wanted key=value.")
        if key not in names:
            close = difflib.get_close_matches(key, names, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"--set {text}: no setting {key!r}.{hint} Known: {', '.join(names)}.")
        if key in changes:
            raise ValueError(f"--set {text}: {key} is set twice.")
        try:
            changes[key] = _parse(hints[key], value.strip())
        except ValueError as error:
            raise ValueError(
                f"--set {text}: {key} wants {type_name(hints[key])}. {error}".strip()
            ) from None
    return _build(kind, changes)


def settings_from(kind: type[S], stored: Mapping[str, Any]) -> S:
    """Settings from what JSON gave back (lists become tuples).

    **Raises:** `ValueError` where keys are unknown.
    """
    names = [f.name for f in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    unknown = sorted(set(stored) - set(names))
    if unknown:
        raise ValueError(f"settings {', '.join(unknown)} are unknown to this version.")
    return _build(kind, {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})


def as_arguments(settings: Any) -> list[str]:
    """The settings that differ from the defaults, as `key=value` texts.

    **Raises:** `TypeError` where a setting has no default.

    **Example:** `as_arguments(Settings(epochs=3))` is `["epochs=3"]`.
    """
    default = type(settings)()
    names = [f.name for f in dataclasses.fields(settings)]
    return [
        f"{n}={as_text(getattr(settings, n))}" for n in names if getattr(settings, n) != getattr(default, n)
    ]


def as_text(value: Any) -> str:
    """A value as `--set` takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(as_text, value)) if isinstance(value, tuple) else str(value)


def type_name(hint: Any) -> str:
    """A type in words. **Example:** `type_name(tuple[int, ...])` is `"numbers a,b,…"`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(as_text, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if a is type(None) else type_name(a) for a in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"values a,b,…, each {type_name(arguments[0])}"
        return "values " + ", ".join(map(type_name, arguments))
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(
        hint, str(hint)
    )


def _build(kind: type[S], changes: Mapping[str, Any]) -> S:
    return kind(**changes)


def _parse(hint: Any, text: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        for choice in arguments:
            if text == as_text(choice):
                return choice
        raise ValueError("")
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        for choice in arguments:
            if choice is not type(None):
                try:
                    return _parse(choice, text)
                except ValueError:
                    continue
        raise ValueError("")
    if origin is tuple:
        parts = [p.strip() for p in text.split(",")] if text else []
        kinds = [arguments[0]] * len(parts) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(parts):
            raise ValueError(f"Got {len(parts)} values.")
        return tuple(_parse(k, p) for k, p in zip(kinds, parts, strict=True))
    return _parse_one(hint, text)


def _parse_one(hint: Any, text: str) -> Any:
    if hint is bool:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in known:
            raise ValueError("")
        return known[text.lower()]
    if hint is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError("") from None
    if hint is float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError("") from None
        if not math.isfinite(number):
            raise ValueError("It must be finite.")
        return number
    if hint is str:
        return text
    raise ValueError(f"It cannot be set from the command line ({hint}).")
