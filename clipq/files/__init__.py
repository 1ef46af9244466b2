"""A model as one self-describing file: header, reading, writing, cards.

Nothing here is unpickled, fetched or half-written.
"""
