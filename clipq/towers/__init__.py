"""A tower as a stack of pre-norm blocks over rows, and whole stacks as one native call.

Nothing here knows which library a tower is from: that is `hosts/`.
"""
