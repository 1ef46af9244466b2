"""From a name to a `Model`: clipq's files, the zoo, open_clip, transformers; and whether int8 is worth it here.

Nothing here quantizes or parses by itself: it chooses who does.
"""
