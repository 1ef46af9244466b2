"""Who makes the shards of an embedding job: processes of this machine, or the workers of Ray or Daft.

What a shard holds is no business of this room: `clipq.embedding.jobs` says that, and what an engine is. A new engine is
a module with a class of `workers` and `threads`, and an entry in `table.py`.
"""
