"""Names of what a discrete world has: factors and their states, modalities and their outcomes, actions."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx

Named = Mapping[str, Sequence[str] | None] | Sequence[str]


class Labels(eqx.Module):
    """Names, all of them static: `factors` and `modalities`, and for each the names of its members.

    `states[f]`, `outcomes[m]` and `actions[f]` are tuples of names, one for every state, outcome, control.

    **Example:** `model.labels.states[0][2]`.
    """

    factors: tuple[str, ...] = eqx.field(static=True)
    modalities: tuple[str, ...] = eqx.field(static=True)
    states: tuple[tuple[str, ...], ...] = eqx.field(static=True)
    outcomes: tuple[tuple[str, ...], ...] = eqx.field(static=True)
    actions: tuple[tuple[str, ...], ...] = eqx.field(static=True)


def labels(
    factors: Named | None,
    modalities: Named | None,
    actions: Mapping[str, Sequence[str]] | None,
    sizes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> Labels:
    """Names as given, or made up: factors s0, s1, …, modalities o0, o1, …, members by number.

    **Arguments:** `sizes`: numbers of states, outcomes and controls.

    **Raises:** `ValueError` for too many or too few names, or names that occur twice.

    **Example:** `labels({"place": ["left", "right"]}, None, None, ((2,), (3,), (2,)))`.
    """
    states, outcomes, controls = sizes
    factor_names, state_names = _read("factors", factors, "s", states)
    modality_names, outcome_names = _read("modalities", modalities, "o", outcomes)
    both = {*factor_names} & {*modality_names}
    if both:
        raise ValueError(
            f"POMDP: got {sorted(both)} as names of factors and of modalities; they must differ (F has "
            "one entry for each)."
        )
    unknown = {*(actions or {})} - {*factor_names}
    if unknown:
        raise ValueError(f"POMDP: got actions of {sorted(unknown)}; the factors are {list(factor_names)}.")
    given = {f: (actions or {}).get(f) for f in factor_names}
    _, action_names = _read("actions", given, "", controls)
    return Labels(factor_names, modality_names, state_names, outcome_names, action_names)


def _read(
    word: str, given: Any, letter: str, sizes: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    if given is None:
        given = {f"{letter}{k}": None for k in range(len(sizes))}
    elif isinstance(given, str) or len({*given}) != len(given):
        raise ValueError(f"POMDP: got {word} {given!r}; wanted names that differ.")
    elif not isinstance(given, Mapping):
        given = dict.fromkeys(given)
    if len(given) != len(sizes):
        raise ValueError(f"POMDP: got names of {len(given)} {word}, {[*given]}; wanted {len(sizes)}.")
    members = []
    for (name, found), size in zip(given.items(), sizes, strict=True):
        names = tuple(str(k) for k in range(size)) if found is None else tuple(str(n) for n in found)
        if len(names) != size or len({*names}) != size:
            raise ValueError(
                f"POMDP: got the names {list(names)} for {word} {name!r}; wanted {size}, all different."
            )
        members.append(names)
    return tuple(str(name) for name in given), tuple(members)
