"""From what users have (pictures, folders, archives, strings) to tensors.

Nothing here knows a model or runs one.
"""
