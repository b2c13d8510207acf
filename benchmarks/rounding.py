"""Which settings of the environment decide the bits of this processor's results, and what they cost.

    python -m benchmarks.rounding

One line per setting: digests of a product, an exponential, SiLU, a sum, a softmax and attention, and the time of the
product as a multiple of the plain one. Where two machines print the same line, they compute the same bits
(docs/reproducibility.md has the lines of one).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

SETTINGS: tuple[dict[str, str], ...] = (
    {},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"MKL_CBWR": "AVX2"},
    {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
    {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ATEN_CPU_CAPABILITY": "default"},
    {"MKL_CBWR": "COMPATIBLE"},
    {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
)
REPEATS = 200


def measure() -> tuple[list[str], float]:
    """(digests, seconds of a product) in this process."""
    import torch

    torch.set_num_threads(1)
    # Not drawn: torch's own normal numbers depend on the instructions too.
    a = (torch.arange(512 * 192, dtype=torch.float64).mul(0.7548776662).frac() * 4 - 2).reshape(512, 192).float()
    b = (torch.arange(192 * 512, dtype=torch.float64).mul(0.5698402910).frac() * 4 - 2).reshape(192, 512).float()
    q, k, v = (a[None, None, i : i + 64, :48] for i in (0, 64, 128))
    attention = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    found = (a @ b, a.exp(), torch.nn.functional.silu(a), a.sum(1), a.softmax(1), attention)
    seconds = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        a @ b
        seconds = min(seconds, time.perf_counter() - start)
    return [hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest()[:6] for t in found], seconds


def main() -> int:
    """Print the table; with an argument, one line of it for this process."""
    if len(sys.argv) > 1:
        digests, seconds = measure()
        print(*digests, seconds)
        return 0
    plain = 0.0
    print(f"{'environment':52}{'product':>9}{'exp':>9}{'silu':>9}{'sum':>9}{'softmax':>9}{'attention':>11}{'time':>7}")
    steering = {name for setting in SETTINGS for name in setting}
    for setting in SETTINGS:
        env = {k: v for k, v in os.environ.items() if k not in steering} | setting
        line = subprocess.run(
            [sys.executable, "-m", "benchmarks.rounding", "one"], env=env, capture_output=True, text=True, check=True
        ).stdout.split()
        plain = plain or float(line[-1])
        named = " ".join(f"{k}={v}" for k, v in setting.items()) or "(none)"
        widths = (9, 9, 9, 9, 9, 11)
        print(
            f"{named:52}"
            + "".join(f"{d:>{w}}" for d, w in zip(line[:-1], widths, strict=True))
            + f"{float(line[-1]) / plain:>7.1f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
