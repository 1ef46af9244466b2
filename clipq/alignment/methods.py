"""The names of the ways to fit a map, without torch."""

from ..errors import unknown_name

METHODS = ("best", "orthogonal", "ridge")


def check_method(method: str) -> str:
    """Raises `UnknownNameError` for another."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return method
