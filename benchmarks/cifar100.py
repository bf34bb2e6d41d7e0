"""The whole story on CIFAR-100 on a CPU, command by command, for several seeds.

    TAGGANT_DATA=… python benchmarks/cifar100.py --seeds 100-104 --json docs/results/cifar100.json

Each seed draws its own keys, trains Alice's surrogate, signs, releases, and trains and tests two Bobs with one further seed:
one on the release, one on the originals. Seeds 0 to 9 were used to choose the defaults.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median
from typing import Any

from common import write_figures

CONF = Path(__file__).resolve().parent.parent / "conf"


def pipeline(seed: int, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Run all commands of one seed in this process."""
    from taggant_lightning.cli import main
    from taggant_lightning.release.signature import Signature

    def taggant(*words: str) -> None:
        if code := main(list(words)):
            raise SystemExit(code)

    def fragments(*names: str) -> list[str]:
        return [word for name in names for word in ("--config", str(CONF / name))]

    def train(folder: str, seed: int, *words: str) -> list[str]:
        model = arguments.alice if folder == "alice" else arguments.bob
        base = fragments("trainer/cpu.yaml", "data/cifar100_cpu.yaml", f"model/{model}.yaml")
        return [*base, *words, "--seed_everything", str(seed), "--trainer.default_root_dir", str(out / folder)]

    keys, signature, release = str(out / "keys"), str(out / "signature"), str(out / "release")
    times, started = {}, time.monotonic()
    secret = out / "secret.hex"
    out.mkdir(parents=True)
    import hashlib

    secret.write_text(hashlib.sha256(f"cifar100 benchmark {seed}".encode()).hexdigest())
    taggant(
        *["keys", "new", "--out", keys, "--num-keys", str(arguments.num_keys), "--num-classes", "100"],
        *["--shape", "3,32,32", "--grid", str(arguments.grid), "--top-k", "10", "--secret-file", str(secret)],
        *["--statement", f"CIFAR-100 benchmark, seed {seed}"],
    )
    signing = [
        *fragments("signing/default.yaml"),
        *["--trainer.callbacks.keys", keys, "--trainer.callbacks.out", signature],
        *["--trainer.callbacks.images_per_key", str(arguments.images_per_key)],
        *["--trainer.callbacks.steps", str(arguments.steps), "--trainer.callbacks.selection", arguments.selection],
        *["--trainer.callbacks.seed", str(seed)],
    ]
    taggant("fit", *train("alice", 2 * seed), *signing, "--data.seed", str(2 * seed))
    times["alice"] = time.monotonic() - started
    lpips = ["--lpips-weights", arguments.lpips_weights] if arguments.lpips_weights else []
    released = ["--signature", signature, "--out", release, "--workers", "1"]
    taggant("release", *fragments("data/cifar100_cpu.yaml"), *released, *lpips)
    result: dict[str, Any] = {"seed": seed, "audit": json.loads((Path(signature) / "audit.json").read_text())}
    for name in ("signed", "clean"):
        begun = time.monotonic()
        words = ["--data.seed", str(2 * seed + 1), *fragments("detection/default.yaml"), "--trainer.callbacks.keys", keys]
        if name == "signed":
            words = ["--data", "SignedDataModule", "--data.release", release, *words]
        taggant("fit", *train(name, 2 * seed + 1, *words))
        checkpoint = str(next((out / name / "checkpoints").glob("*.ckpt")))
        taggant("test", *train(name, 2 * seed + 1, *words), "--ckpt_path", checkpoint)
        record = json.loads((out / name / "detection.json").read_text())
        accuracy = [row.split(",") for row in (out / name / "test" / "metrics.csv").read_text().splitlines()]
        column = accuracy[0].index("test/acc")
        result[name] = {**record["details"], "log10_p": record["log10_p"], "test_acc": float(accuracy[-1][column])}
        times[name] = time.monotonic() - begun
    stored = Signature.load(signature)
    result["signing"] = {"images_signed": len(stored), "fraction": len(stored) / 20000, **stored.facts}
    result["seconds"] = {**times, "total": time.monotonic() - started}
    return result


def child(seed: int, words: list[str]) -> dict[str, Any]:
    """Run one seed in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, __file__, *words, "--seeds", f"{seed}-{seed}", "--child", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        if done.returncode:
            raise SystemExit(f"seed {seed} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        result = json.loads((out / "result.json").read_text())
        shutil.rmtree(out)
    s, c = result["signed"], result["clean"]
    print(
        f"{seed:4d} signed {s['hits']:2d}/{s['num_keys']} {s['log10_p']:7.2f} acc {s['test_acc']:.3f}"
        f" | clean {c['hits']:2d}/{c['num_keys']} {c['log10_p']:6.2f} acc {c['test_acc']:.3f}"
        f" | cosine {result['signing']['cosine_mean']:.3f} signed {result['signing']['fraction']:.2%}"
        f" | {result['seconds']['total']:.0f} s (alice {result['seconds']['alice']:.0f})",
        flush=True,
    )
    return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-4", help="first-last")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, one thread each")
    parser.add_argument("--alice", default="small_cnn_and_vit", help="surrogates: name of a fragment in conf/model")
    parser.add_argument("--bob", default="small_cnn", help="name of a fragment in conf/model")
    parser.add_argument("--num-keys", type=int, default=10)
    parser.add_argument("--images-per-key", type=int, default=100)
    parser.add_argument("--grid", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--selection", default="gradient_norm", choices=["random", "gradient_norm"])
    parser.add_argument("--lpips-weights", help="AlexNet's weights, for the audit's LPIPS")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    first, last = (int(part) for part in arguments.seeds.split("-"))
    if arguments.child:
        out = Path(arguments.child)
        result = pipeline(first, arguments, out)
        (out / "result.json").write_text(json.dumps(result))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = {n: getattr(arguments, n) for n in ("alice", "bob", "num_keys", "images_per_key", "grid", "steps", "selection")}
    words = [w for n, v in options.items() for w in (f"--{n.replace('_', '-')}", str(v))]
    words += ["--lpips-weights", arguments.lpips_weights] if arguments.lpips_weights else []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(lambda seed: child(seed, words), range(first, last + 1)))
    signed, clean = [r["signed"]["log10_p"] for r in rows], [r["clean"]["log10_p"] for r in rows]
    summary = {
        "options": options,
        "jobs": arguments.jobs,
        "signed_log10_p_median": median(signed),
        "signed_log10_p_worst": max(signed),
        "clean_at_least_minus_2": sum(p >= -2 for p in clean),
        "runs": len(rows),
        "accuracy_difference_points": 100 * mean(r["signed"]["test_acc"] - r["clean"]["test_acc"] for r in rows),
        "seconds_max": max(r["seconds"]["total"] for r in rows),
    }
    print(json.dumps(summary))
    if arguments.json:
        write_figures(arguments.json, {"summary": summary, "rows": rows})


if __name__ == "__main__":
    main()
