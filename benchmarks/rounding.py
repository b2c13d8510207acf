"""Which settings of the environment decide the bits of this processor's results, and what they cost.

    python -m benchmarks.rounding

One line per setting: digests of a product, a long one, an exponential, a softmax, attention, a double-precision
product, its decomposition, and the weights of a small Llama after twenty steps; and the time of these as a multiple
of the plain one. Where two machines print the same, they compute the same bits (docs/reproducibility.md has both).
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
    {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
    {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2,STRICT"},
    {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE"},
    {"MKL_CBWR": "COMPATIBLE"},
    {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
)
COLUMNS = ("product", "long", "exp", "softmax", "attention", "double", "eigh", "training")
STEPS = 20


def measure() -> tuple[list[str], float]:
    """(digests in the order of COLUMNS, seconds of the training) in this process, on one thread."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)

    def spread(*shape: int, by: float = 0.7548776662) -> torch.Tensor:
        """Numbers between -2 and 2 that look drawn and are the same everywhere."""
        count = torch.Size(shape).numel()
        return (torch.arange(count, dtype=torch.float64).mul(by).frac() * 4 - 2).reshape(shape).float()

    def digest(*tensors: torch.Tensor) -> str:
        """Six digits of the bytes."""
        return hashlib.md5(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:6]

    a, b = spread(512, 192), spread(192, 512, by=0.5698402910)
    long = spread(2048, 1024, by=0.5698402910)
    q, k, v = (a[None, None, i : i + 64, :48] for i in (0, 64, 128))
    double = long.double().T @ long.double()
    found = [
        digest(a @ b), digest(spread(256, 2048) @ long), digest(a.exp()), digest(a.softmax(1)),
        digest(torch.nn.functional.scaled_dot_product_attention(q, k, v)), digest(double),
        digest(torch.linalg.eigh(double[:192, :192])[1]),
    ]  # fmt: skip
    shape = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=600, max_position_embeddings=256, num_key_value_heads=4, **shape))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(spread(*p.shape, by=0.7548776662 + i / 97) * 0.03 if p.dim() > 1 else torch.ones_like(p))
    tokens = (torch.arange(16 * 64) * 7919 % 600).reshape(16, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    start = time.perf_counter()
    for step in range(STEPS):
        batch = tokens.roll(step * 13, 1)[(step % 2) * 8 :][:8]
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return [*found, digest(*model.parameters())], time.perf_counter() - start


def main() -> int:
    """Print the table; with an argument, one line of it for this process."""
    if len(sys.argv) > 1:
        digests, seconds = measure()
        print(*digests, seconds)
        return 0
    plain = 0.0
    print(f"{'environment':52}" + "".join(f"{name:>10}" for name in COLUMNS) + f"{'time':>7}")
    steering = {name for setting in SETTINGS for name in setting}
    for setting in SETTINGS:
        env = {k: v for k, v in os.environ.items() if k not in steering} | setting
        line = subprocess.run(
            [sys.executable, "-m", "benchmarks.rounding", "one"], env=env, capture_output=True, text=True, check=True
        ).stdout.split()
        plain = plain or float(line[-1])
        named = " ".join(f"{k}={v}" for k, v in setting.items()) or "(none)"
        print(f"{named:52}" + "".join(f"{d:>10}" for d in line[:-1]) + f"{float(line[-1]) / plain:>7.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
