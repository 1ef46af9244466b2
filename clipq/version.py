"""The version, said once: the build, `clipq --version`, checkpoints and results all read it here."""

VERSION = "0.8.0"
