"""Quantization-aware training: a student with fake-quantized linears, which learns to embed as its float teacher does.

Nothing here defines a number's rounding (that is `arithmetic/`) or replaces a module (that is `methods/`).
"""
