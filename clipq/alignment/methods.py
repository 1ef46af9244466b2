"""The names of the ways to fit a map, without torch."""

METHODS = ("best", "orthogonal", "ridge")
