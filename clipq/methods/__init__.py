"""How a model gets its integers, and the account of which it got.

Nothing here multiplies: that is `kernels/`.
"""
