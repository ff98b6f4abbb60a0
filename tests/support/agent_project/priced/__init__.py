"""A local dependency: types that states hold."""

from dataclasses import dataclass


@dataclass
class Price:
    """In a schema."""

    cents: int


@dataclass
class Declared:
    """In no schema, but in the setting."""

    name: str


@dataclass
class Undeclared:
    """Nowhere."""

    name: str
