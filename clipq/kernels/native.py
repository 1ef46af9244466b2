"""Placeholder until the native library lands."""


def available() -> bool:
    return False


def why_not() -> str:
    return "not built"
