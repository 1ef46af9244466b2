"""The tables of README.md, eval/SPEED.md and eval/README.md, made from eval/results/. Nothing is measured here."""
