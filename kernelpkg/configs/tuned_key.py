"""Tuned keys as functions that pick configs get them: case keys that can be keys of a dict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

from kernelpkg.errors import ConfigError, shown
from kernelpkg.manifest.spec import Scalar

_JSON: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class TunedKey(dict[str, Scalar]):
    """A case key that cannot be changed, as vLLM's `CaseKey`; its text is JSON, names sorted.

    Args:
        values: The values of the axes, as for a dict; at least one.
        named: More of them, by name.

    Raises:
        TypeError: No axis is named; `TunedKey.default()` is the key of the default config.
    """

    def __init__(self, values: Any = (), /, **named: Scalar) -> None:
        super().__init__(values, **named)
        if not self:
            raise TypeError(
                "a tuned key has at least one key-value pair; the default config has "
                "TunedKey.default()"
            )

    @classmethod
    def default(cls) -> TunedKey:
        """Return the key of the default config, which names no axis.

        Returns:
            An empty key.
        """
        return cls.__new__(cls)

    @classmethod
    def of(cls, key: Mapping[str, Scalar]) -> TunedKey:
        """Return a case key as a tuned key.

        Args:
            key: The values of its axes; none for the default config.

        Returns:
            The key.
        """
        return cls(key) if key else cls.default()

    def is_default(self) -> bool:
        """Whether this is the key of the default config.

        Returns:
            True where no axis is named.
        """
        return not self

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none
        return hash(frozenset(self.items()))

    def __str__(self) -> str:
        return _JSON(self)

    def __repr__(self) -> str:
        return f"TunedKey({dict(self)})" if self else "TunedKey.default()"

    def __reduce__(self) -> tuple[Any, ...]:
        return TunedKey.of, (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a tuned key is immutable; make another one")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = setdefault = clear = _refuse


ConfigPicker = Callable[[tuple[Any, ...], list[TunedKey]], Mapping[str, Scalar] | str | None]
"""Takes the arguments of a call and the tuned keys, sorted by their texts; returns one of these, or
its text, or None for the default config."""


class KeyPicker:
    """Asks a function for the key of a call, and takes none but the tuned ones from it."""

    def __init__(
        self, picker: ConfigPicker | None, op_name: str, keys: Iterable[Mapping[str, Scalar]]
    ) -> None:
        self._picker = picker
        self._op_name = op_name
        self._keys = {str(key): key for key in map(TunedKey.of, keys)}
        self._offered = [self._keys[text] for text in sorted(self._keys) if self._keys[text]]

    def pick(self, args: Sequence[Any]) -> TunedKey | None:
        """Return the key that the function takes for a call, or that of the default config.

        None where there is neither. Raises ConfigError where what it takes is not tuned.
        """
        picked = None
        if self._picker is not None and self._offered:
            picked = self._picker(tuple(args), self._offered)
        if picked is None:
            return self._keys.get("{}")
        for text, key in self._keys.items() if isinstance(picked, Mapping | str) else ():
            if picked in (text, key):
                return key
        raise ConfigError(
            f"Config picker returned invalid config key {shown(picked)} for kernel "
            f"'{self._op_name}', which is none of the tuned keys; return one of them, or None"
        )
