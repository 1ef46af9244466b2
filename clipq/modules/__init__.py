"""The modules that stand in place of a host's, and the names of their tensors on disk.

They know no host, no tower and no file.
"""
