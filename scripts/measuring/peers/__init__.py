"""clipq's peers: what else one could run the same model with, and how all of them are measured."""
