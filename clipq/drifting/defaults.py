"""What `clipq drift --help` shows, without torch."""

SAMPLE = 2000
"""Inputs that are embedded again and searched with; twice as many more fit a map, where one is asked for."""
