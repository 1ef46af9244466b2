"""What `measure_engines.py` runs: tables of little pictures, and `clipq embed` over them, watched and killed."""
