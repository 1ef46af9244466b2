"""Names of models, where their files are, downloads and caches.

Nothing here opens a model's file: that is `files/`.
"""
