"""Which precision for which block: sensitivities, budgets, the search between them, and the choice as schemes.

Nothing here rounds a number: that is `methods/`, which knows nothing of this room.
"""
