"""The native library without torch: ctypes and numpy. Steps, packed blocks, and whole towers put together from them.

`clipq.kernels` brings torch's tensors here; `clipq.runtime` needs nothing else. A tower is put together from tensors
and a description of which of them plays which part, JSON that `clipq.hosts.descriptions` writes and a file keeps in its
header, so that whoever reads the file needs to know no host:

    image: pixels [channels, height, width], patch [down, across], patches (linear), prefix (names), positions
           {tensor, prefix: how many of the first rows belong to the prefix}, norm, blocks, keep, steps,
           rotary {grid, prefix, axes, cos, sin: see `rotary.py`}
    text:  context, vocabulary, tokens {weight, scale}, positions, causal, pool {kind, id}, blocks, steps

`keep` is the token that is read, None for all. `steps` follow the blocks: {"norm"}, {"mean": first token, or
[first, behind the last]}, {"linear"} (float: weight, bias, transposed; or int8), {"attention": the attention pool of
SigLIP}.
"""
