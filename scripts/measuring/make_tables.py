"""Write the tables of measured results into README.md, eval/ and docs/, from eval/results/.

python scripts/measuring/make_tables.py            # rewrites the pages between their markers
python scripts/measuring/make_tables.py --check    # exit code 1 if a page is not what it would write
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from result_tables import accuracy, drift, engines, exports, hosts, native_steps, peer_pages, runtime, vectors
from result_tables.markdown import RESULTS

ROOT = Path(__file__).resolve().parents[2]

Section = Callable[[Path], str]
"""From the folder with the results to what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""


def through_hosts(folder: Path) -> str:
    """ViT-B/32 through clipq.Model, and by the hosts' own calls."""
    tables = (
        hosts.speed_table(folder / "vit-b-32-random.jsonl"),
        hosts.host_calls_table(folder / "host-calls-vit-b-32.jsonl"),
    )
    return "\n\n".join(tables)


PAGES: dict[str, dict[str, Section]] = {
    "README.md": {"speed": peer_pages.short_table, "accuracy": accuracy.short_table, "exports": exports.short_table},
    "eval/SPEED.md": {"peers": peer_pages.pages, "hosts": through_hosts, "steps": native_steps.tables},
    "eval/README.md": {"results": accuracy.full_tables},
    "docs/drift.md": {"drift": drift.tables},
    "docs/engines.md": {
        "engines": engines.runs_table,
        "memory": engines.memory_table,
        "costs": engines.costs_table,
    },
    "docs/use-it-with.md": {"vectors": vectors.tables},
    "docs/exports.md": {"exports": exports.tables},
    "docs/precisions.md": {"precisions": accuracy.precisions_table, "costs": runtime.costs_table},
    "docs/runtime.md": {"start": runtime.start_table, "calls": runtime.calls_table, "files": runtime.files_table},
}


def written(text: str, sections: Mapping[str, Section], folder: Path = RESULTS) -> str:
    """`text` with every section written anew. Raises `ValueError` if its markers are missing."""
    for name, section in sections.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"a page needs {start} and {end} around its tables")
        text = f"{before}{start}\n{section(folder)}\n{end}{after}"
    return text


def stale(root: Path = ROOT) -> dict[str, str]:
    """The pages that are not what the results say, and what they should be."""
    old = {name: (root / name).read_text(encoding="utf-8") for name in PAGES}
    new = {name: written(old[name], sections) for name, sections in PAGES.items()}
    return {name: text for name, text in new.items() if text != old[name]}


def main() -> None:
    """Rewrite or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    pages = stale()
    if check and pages:
        sys.exit(f"{', '.join(pages)}: not what eval/results says; run python scripts/measuring/make_tables.py")
    for name, text in pages.items():
        (ROOT / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
