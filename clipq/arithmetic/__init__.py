"""What a number becomes: schemes say it, `functional` defines it.

Plain torch; no module, no model, no kernel.
"""
