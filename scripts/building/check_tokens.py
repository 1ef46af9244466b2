"""Compare clipq.runtime's token ids with open_clip's and transformers' own on many mixed strings.

    python scripts/building/check_tokens.py --count 100000 --seed 0

The strings are the tests' (tests/helpers/tokenizer_cases.py), which compare some thousands. Prints what differs first;
exit status 1 if anything does.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from clipq.inputs.tokenization import build_tokenizer, describe_tokenizer
from clipq.inputs.tokenizer_files import TokenizerSpec
from clipq.runtime.tokenizing import build_tokens

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))  # tests/ is no package

import tokenizer_cases  # noqa: E402

AT_ONCE = 10_000


def specs() -> dict[str, TokenizerSpec]:
    """Every way of open_clip's tokenizer, and a small tokenizer of every class of transformers."""
    cleans = ("lower", "whitespace", "canonicalize")
    found = {
        f"open_clip, {clean}": TokenizerSpec({"kind": "open_clip", "context_length": 77, "clean": clean})
        for clean in cleans
    }
    made = {"CLIP": tokenizer_cases.clip, "T5": tokenizer_cases.t5, "Gemma": tokenizer_cases.gemma}
    made |= {"SigLIP 2": lambda: tokenizer_cases.gemma("Siglip2Tokenizer"), "BERT": tokenizer_cases.bert}
    for name, make in made.items():
        found[f"transformers, {name}"] = describe_tokenizer(make(), 64)
    canonical = {**found["transformers, T5"].settings, "clean": "canonicalize", "strip_sep_token": False}
    return found | {"open_clip's wrapper, T5": TokenizerSpec(canonical, found["transformers, T5"].files)}


def differing(spec: TokenizerSpec, strings: list[str]) -> list[str]:
    """The strings whose ids are not the same."""
    theirs, ours = build_tokenizer(spec), build_tokens(spec.settings, spec.files)
    wrong = []
    for start in range(0, len(strings), AT_ONCE):
        part = strings[start : start + AT_ONCE]
        same = (theirs(part).numpy() == ours(part)).all(axis=1)
        wrong += [text for text, equal in zip(part, same, strict=True) if not equal]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    strings = tokenizer_cases.texts(options.count, options.seed)
    failed = False
    for name, spec in specs().items():
        start = time.perf_counter()
        wrong = differing(spec, strings)
        failed |= bool(wrong)
        print(f"{name}: {len(wrong)} of {len(strings)} differ ({time.perf_counter() - start:.0f} s)", flush=True)
        for text in wrong[:3]:
            print(f"    {text!r}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
