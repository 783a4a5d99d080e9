"""The flags of one command, by absl, each command with its own."""

from collections.abc import Sequence
from typing import Any

from absl import flags


class Flags(flags.FlagValues):
    """Each method defines a flag, by name, default and meaning, and returns what holds its value."""

    def string(self, name: str, default: str | None, meaning: str) -> flags.FlagHolder[Any]:
        """Text."""
        return flags.DEFINE_string(name, default, meaning, flag_values=self)

    def integer(
        self, name: str, default: int | None, meaning: str, least: int | None = None, largest: int = 2**31 - 1
    ) -> flags.FlagHolder[Any]:
        """A whole number, within bounds."""
        return flags.DEFINE_integer(name, default, meaning, least, largest, flag_values=self)

    def real(self, name: str, default: float, meaning: str, *bounds: float) -> flags.FlagHolder[Any]:
        """A number, within bounds."""
        return flags.DEFINE_float(name, default, meaning, *bounds, flag_values=self)

    def yes(self, name: str, default: bool | None, meaning: str) -> flags.FlagHolder[Any]:
        """--name or --noname."""
        return flags.DEFINE_bool(name, default, meaning, flag_values=self)

    def choice(self, name: str, default: str | None, of: Sequence[str], meaning: str) -> flags.FlagHolder[Any]:
        """One of several words."""
        return flags.DEFINE_enum(name, default, of, meaning, flag_values=self)

    def words(self, name: str, default: Any, meaning: str) -> flags.FlagHolder[Any]:
        """Words with commas between them."""
        return flags.DEFINE_list(name, default, meaning, flag_values=self)
