"""What other libraries know of clipq through their own ways of being extended: transformers' quantizers.

Nothing here computes or reads tensors by itself, and importing `registration` imports none of those libraries.
"""
