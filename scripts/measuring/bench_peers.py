"""clipq int8 against what else one could run the same model with, on this machine, in one run.

    python scripts/measuring/bench_peers.py --output eval/results/peers-vit-b-32.jsonl
    python scripts/measuring/bench_peers.py --model ViT-L-14 --towers image --batch-sizes 8
    python scripts/measuring/bench_peers.py --weights path/to/open_clip/folder --images photos/ --quick

Needs, besides clipq, whichever peers are to be compared: openvino, nncf, onnxruntime, onnx, onnxscript, torchao. What
is not installed, or what the processor cannot do, is skipped by name. Peers get padded token ids of the full context,
as their users would give them. One JSON line is appended to --output, unless the run was too noisy to be kept: where
the quartiles of a cell's fastest contestant lie more than 15 % apart, the machine was busy with something else.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from peers.contestants import CONTESTANTS, chosen
from peers.racing import Race, quiet, say
from peers.trust import WARM_SECONDS

from clipq.cli.options import positive, positives
from clipq.errors import ClipqError
from clipq.machine import cores


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="ViT-B-32", help="an open_clip architecture, with random weights (default: %(default)s)")
    add("--weights", help="an open_clip model to use instead: what clipq.load takes")
    add("--images", type=Path, help="a folder of pictures to embed and calibrate on (default: clipq's drawings)")
    add("--towers", type=names, default=("image", "text"), help="default: image,text")
    add("--batch-sizes", type=positives, default=(1, 8, 32), help="default: 1,8,32")
    add("--runs", type=positive, default=5, help="samples of each (default: %(default)s)")
    add("--warm-up", type=float, default=WARM_SECONDS, metavar="S", help="seconds at most, each (default: %(default)s)")
    add("--threads", type=positive, default=cores(), help="for every contestant (default: all cores)")
    add("--calibration", type=positive, default=64, help="inputs for static quantization (default: %(default)s)")
    add("--only", type=names, default=(), metavar="NAME,NAME", help=f"of {', '.join(c.name for c in CONTESTANTS)}")
    add("--without", type=names, default=(), metavar="NAME,NAME")
    add("--compile", action="store_true", help="also torch fp32 under torch.compile")
    add("--all", action="store_true", help="also what this processor has no instructions for")
    add("--no-memory", action="store_true", help="skip the fresh process for each contestant")
    add("--quick", action="store_true", help="3 runs at batch 1 and 8")
    add("--output", type=Path, help="the .jsonl file to append to (default: none)")
    add("--accept-noise", action="store_true", help="append also a run whose own spread is too large, marked as such")
    return parser


def names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, append."""
    args = parser().parse_args(argv)
    args.command = shlex.join(["bench_peers.py", *(sys.argv[1:] if argv is None else argv)])
    if args.quick:
        args.runs, args.batch_sizes = 3, (1, 8)
    try:
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            compete(args, Path(folder))
    except ClipqError as error:
        sys.exit(f"bench_peers: {error}")


def compete(args: argparse.Namespace, folder: Path) -> None:
    """One run with everything it writes on the way in `folder`."""
    import torch
    from peers import results
    from peers.workspace import Workspace, open_model, prepare

    begun = time.perf_counter()
    contestants = chosen(args.only, args.without)
    torch.set_num_threads(args.threads)
    say("preparing the model and the inputs")
    with quiet():
        model = open_model(args.model, args.weights)
        towers = tuple(tower for tower in model.towers if tower in args.towers)
        workspace = Workspace(folder, args.threads, towers, max(args.batch_sizes))
        inputs = prepare(workspace, model, args.calibration, args.images)
    del model
    flags = frozenset({"compile"} if args.compile else ())
    race = Race(workspace, contestants, args.batch_sizes, args.runs, flags, args.all, args.warm_up)
    race.run()
    if not args.no_memory:
        race.measure_memory()
    weights = "random" if args.weights is None else "given"
    result = {**results.described(race, inputs, weights, time.perf_counter() - begun), "command": args.command}
    results.show(result)
    if args.output:
        results.append(result, args.output, args.accept_noise)


if __name__ == "__main__":
    main()
