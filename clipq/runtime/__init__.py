"""The same models with numpy, Pillow and clipq's own native code: no torch, no open_clip, no transformers.

Nothing here knows a host's classes, and nothing is quantized here: what a file says is read and run.
"""
