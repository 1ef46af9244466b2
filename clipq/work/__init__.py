"""Long work in resumable shards, done by one process or by several.

What the work is, is none of this room's business.
"""
