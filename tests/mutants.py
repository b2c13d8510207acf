"""What the tests notice: small faults planted in copies of the project, one at a time, and the tests that must fail.

    python tests/mutants.py [--jobs 2] [words of files or faults]

A fault is (file, old text, new text, tests). It is killed when those tests fail, and survives when they pass. One that
cannot change any result says why (`equivalent`) and does not count. Exit code 1 when fewer than 90 % of the others are
killed; survivors are listed. It takes tens of minutes, so CI does not run it; `tests/test_mutants.py` holds the list to
the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = Path("src/holdfast")
LEAST = 0.9
SECONDS = 900
COPIED = ("src", "tests", "config", "docs", "scripts", "rules", "profiles")


@dataclass(frozen=True)
class Mutant:
    """One fault: `file` below src/holdfast, `tests` below tests/ as pytest's arguments."""

    file: str
    old: str
    new: str
    tests: str
    equivalent: str = ""

    @property
    def name(self) -> str:
        """File, and what becomes what, in one line."""
        old, new = (" ".join(x.split())[:60] for x in (self.old, self.new))
        return f"{self.file}: {old}  ->  {new or '(nothing)'}"


def _of(file: str, tests: str, *faults: tuple[str, ...]) -> list[Mutant]:
    """Faults of one file: (old, new), (old, new, other tests) or (old, new, tests, why it is equivalent)."""
    return [Mutant(file, old, new, rest[0] if rest else tests, *rest[1:]) for old, new, *rest in faults]


PUBLISHED_MERGES = "merge/test_published_merges.py"
PUBLISHED = "methods/test_published_methods.py"
DELTA = f"{PUBLISHED_MERGES} -k safe_delta"
BESIDE = "methods/test_beside_methods.py"
ADAPTERS = "methods/test_adapters.py"
DECAY = "train/test_weight_decay.py"
ON_A_GPU, MERGED_ON_A_GPU = "methods/test_on_a_gpu.py", "merge/test_merges_on_a_gpu.py"
WHERE_IT_IS = '"cuda" if __import__("torch").cuda.is_available() else "cpu"'
STATISTICS, LIMITS = "test_statistics.py", "test_limits.py"

MUTANTS = [
    *_of(
        "compare/attacks.py", "compare/test_attacks.py",
        ("utility is not None and utility >= needed - _DIGITS", "utility is not None"),
        ("(trials[i][\"refusal\"], -trials[i][\"utility\"], i)", "(trials[i][\"refusal\"], i)"),
        ("share <= aligned / 2 + _DIGITS", "share <= aligned + _DIGITS"),
        ("for i, share in enumerate(left, 1)", "for i, share in enumerate(left)"),
        ("if all(reached):", "if any(reached):"),
        ("math.inf if h is None else h for h in half", "0 if h is None else h for h in half"),
        ("(trials[i][\"utility\"], -i), default=None)", "(trials[i][\"utility\"], i), default=None)"),
        ("spent / 3600 * dollars_per_hour", "spent / 60 * dollars_per_hour"),
    ),
    *_of(
        "attack/search.py", "attack/test_search.py",
        ("wanted = attacks.nearest(done) if found is None else found", "wanted = attacks.nearest(done)"),
        ("if trial[\"identity\"] != self._identity:", "if False:"),
        ("round(earlier + time.monotonic()", "round(time.monotonic()"),
        ("chooser.replay([(t[\"choice\"], *_told(t, needed)) for t in done])", "pass"),
        ("model = attacks.nearest(done) if chosen is None else chosen", "model = attacks.nearest(done)"),
        ("container.place(out) | {\"weakened\": True}", "container.place(out)"),
        ("own[\"draw\"] = train.get(\"draw\", train[\"seed\"])", "pass"),
        ("return refusal, 0.0 if attacks.admissible(utility, needed) else needed - utility", "return refusal, 0.0"),
        ("(1.0, 0.0) if trial[\"utility\"] is None", "(0.0, needed) if trial[\"utility\"] is None"),
    ),
    *_of(
        "attack/choices.py", "attack/test_choices.py",
        ("RandomSampler(seed=seed)", "RandomSampler()"),
        ("TPESampler(seed=seed, n_startup_trials=STARTUP)", "TPESampler(n_startup_trials=STARTUP)"),
        ("STARTUP = 5", "STARTUP = 2"),
        ("if asked != choice:", "if False:"),
        ("            self.tell(refusal, short)\n", "            self.tell(0.0, short)\n"),
        ("set_constraint(\"utility\", short)", "set_constraint(\"utility\", 0.0)"),
    ),
    *_of(
        "methods/safe_delta.py", DELTA,
        ("torch.argsort(1 / d**2, stable=True)", "torch.argsort(d**2, stable=True)"),
        ("keep[keep.numel() - int(settings.never_kept * keep.numel()) :]", "keep[keep.numel() :]"),
        ("int(settings.never_kept * keep.numel())", "round(settings.never_kept * keep.numel())"),
        ("return out, kept & (finetuned != aligned)", "return out, kept", f"{PUBLISHED_MERGES} -k among_the_entries"),
        ("h = 2 * gram.double()", "h = 2 * torch.eye(len(gram), dtype=torch.float64)",
         f"{PUBLISHED_MERGES} -k gram_matrices"),
        ("h.diagonal().add_(damping * h.diagonal().mean())", "h.diagonal().add_(damping)"),
        ("selection(wanted - block, ", "selection(wanted - aligned.double()[:, tile], "),
        ("(delta[:, order] / d[order]).pow(2)", "(delta[:, order]).pow(2)"),
        ("cost.cumsum(0) <= share", "cost <= share"),
        ("settings.strength / 2 * m / 4096", "settings.strength * m / 4096"),
        ("settings.strength * total if", "settings.strength if"),
        ("block[:, right] -= errors", "block[:, right] += errors"),
        ("slice(i + settings.group, None)", "slice(i + 2 * settings.group, None)"),
        ("out[:, tile.stop :] -= errors @ u[tile, tile.stop :]", "out[:, tile.stop :] -= 0"),
        ("return weights[settings.elsewhere]", 'return weights["finetuned"]', "merge/test_merging.py -k safe_delta"),
        ("kept & (finetuned != aligned)", "kept", "merge/test_merging.py -k safe_delta"),
    ),
    *_of(
        "methods/safe_lora.py", f"{PUBLISHED_MERGES} -k safe_lora",
        ("key=lambda k: (cosines[k], k)", "key=lambda k: (-cosines[k], k)"),
        ("if c <= settings.threshold", "if c >= settings.threshold"),
        ("@ delta) / norm if", "@ delta) / norm**2 if"),
        ("delta = weights[\"aligned\"], weights.update()", "delta = weights[\"aligned\"], weights[\"finetuned\"]"),
        ("if found and found[1] in settings.modules:", "if found:"),
        ("return aligned.add_(pulled)", "return pulled"),
        ("(1.0 if not delta.any() else 0.0)", "0.0", f"{PUBLISHED_MERGES} -k without_an_update"),
        ('v = aligned - weights.stored("base")', 'v = weights.stored("base") - aligned',
         f"{PUBLISHED_MERGES} -k safe_lora", "C = V Vᵀ / ‖V‖ is the same for V and -V"),
        ("u[:, s > s[:1] * max(v.shape) * torch.finfo(v.dtype).eps]", "u[:, s > 0]",
         "merge -k projector"),
    ),
    *_of(
        "methods/resta.py", "merge/test_merging.py -k resta",
        ("weights.stored(settings.vector)", 'weights.stored("unaligned")'),
        ("alpha=settings.gamma", "alpha=-settings.gamma"),
    ),
    *_of(
        "methods/resta_dare.py", f"{PUBLISHED_MERGES} -k resta",
        ("weights.stored(settings.start)", 'weights.stored("aligned")'),
        ("weights.stored(settings.vector)", 'weights.stored("unaligned")'),
        ("fusion.generator(state, name)).add_(start)", "fusion.generator(state, name))"),
        ("alpha=settings.gamma", "alpha=1.0"),
        ("settings.drop, fusion", "0.0, fusion"),
    ),
    *_of(
        "methods/soup.py", "merge/test_plain_merges.py -k soup_lies",
        ("settings.weight)", "1 - settings.weight)"),
    ),
    *_of(
        "methods/task_vectors.py", "merge/test_plain_merges.py",
        ("alpha=settings.weight", "alpha=1.0"),
        ('settings.start == "aligned"', 'settings.start == "base"'),
        ("density=settings.density", "density=0.9"),
        ("fusion.generator(state, name, i)", "fusion.generator(state, name)"),
        ('weights["aligned"].sub_(base)', 'weights["aligned"]'),
    ),
    *_of(
        "methods/lssf.py", "merge/test_subspace_merges.py -k 'lssf or rank or emphas'",
        ("torch.special.entr(p)", "p"),
        ("s.double() ** 2 / (s.double() ** 2).sum()", "s.double() / s.double().sum()"),
        ("(s - s[-1]) / spread", "(s[0] - s) / spread"),
        ("** settings.power", "** 1"),
        ("aligned - weights.stored(settings.vector)", 'aligned - weights.stored("unaligned")'),
        ("directions(aligned, state", "directions(delta, state"),
        ("directions(delta, None, settings)", "directions(aligned, None, settings)"),
        ("alpha=settings.strength", "alpha=1.0"),
        ("if not found or settings", "if settings"),
        ('"gram": "unit" if', '"gram": "all" if'),
    ),
    *_of(
        "methods/nlsr.py", "merge/test_subspace_merges.py -k nlsr",
        ('settings.chance == "paper"', 'settings.chance == "code"'),
        ("int(settings.rank_share * min(delta.shape))", "min(delta.shape)"),
        ("settings.critical) != 0", "settings.critical) == 0"),
        ("alpha=settings.amplify", "alpha=1.0"),
        ("(mask * (w - weak))", "(w - weak)"),
        ("settings.spread * (2 * i / last - 1)", "settings.spread * (i / last - 0.5)"),
        ("torch.where(mask, reference, finetuned)", "torch.where(mask, finetuned, reference)"),
        ('"gram": "response"', '"gram": "all"'),
        ("weights.stored(settings.weak)\n    reference", 'weights.stored("base")\n    reference'),
    ),
    *_of(
        "merge/subspace.py", "merge/test_subspace_merges.py -k 'gram_matrix or lssf'",
        (", values, 0).sqrt())", ", values, 0))"),
    ),
    *_of(
        "merge/fusion.py", "merge -k 'dare or ties or authors or averaged or magnitudes'",
        (".div_(1 - drop)", ".div_(1.0)"),
        ("generator=stream) >= drop", "generator=stream) < drop"),
        ("kept = size > least", "kept = size < least"),
        ("[: k - int(kept.sum())]", ""),
        ("total / agree.clamp(min=1)", "total / len(deltas)"),
        ("torch.sign(stack.sum(dim=0))", "torch.sign(torch.sign(stack).sum(dim=0))"),
        ("int(density * flat.numel())", "int((1 - density) * flat.numel())"),
        ("int(density * flat.numel())", "round(density * flat.numel())"),
        ("total / len(deltas) if", "total if"),
        ("delta * mask / ctx.mean.clamp(min=_LEAST_MEAN)", "delta * mask", f"{PUBLISHED_MERGES} -k rescaled"),
        ("delta * mask / ctx.mean.clamp(min=_LEAST_MEAN)", "delta * mask / ctx.mean",
         f"{PUBLISHED_MERGES} -k rescaled"),
        (" * (ctx.mean >= _LEAST_MEAN)", "", f"{PUBLISHED_MERGES} -k rescaled"),
        ("(scale * scale * mask.numel())", "(scale * mask.numel())", f"{PUBLISHED_MERGES} -k rescaled"),
        ("ctx.save_for_backward(delta, mask)", "ctx.save_for_backward(delta, delta * mask)",
         f"{PUBLISHED_MERGES} -k rescaled"),
    ),
    *_of(
        "methods/somf.py", f"{PUBLISHED_MERGES} -k somf_learns",
        ("dpo_loss(*compared(rows[part]), ", "dpo_loss(*compared(rows[part])[::-1], "),
        ("expected[1][part], settings.beta)", "expected[1][part], 0.1)"),
        ("(chosen - reference_chosen) - (rejected - reference_rejected)",
         "(rejected - reference_rejected) - (chosen - reference_chosen)", f"{PUBLISHED_MERGES} -k beta"),
        ("logsigmoid(beta * margin)", "logsigmoid(margin)", f"{PUBLISHED_MERGES} -k beta"),
        (".div_(temperature))", ")", f"{PUBLISHED_MERGES} -k relaxed"),
        ("torch.zeros_like(logits[k]), settings.temperature, stream)", "torch.zeros_like(logits[k]), 0.5, stream)"),
        ("settings.weight * fusion.combine(", "1.0 * fusion.combine("),
        ("logit > 0 if", "logit < 0 if", "merge/test_merging.py -k exports"),
        ("mask > 0.5 if", "mask < 0.5 if", f"{PUBLISHED_MERGES} -k exports"),
        ('settings.reference == "mask"', "False"),
        ("0.5 * (1 + math.cos(math.pi * done))", "1.0"),
        ("return step / settings.warmup_steps", "return 1.0"),
        ("*(draw if redrawn else ())", "*()", f"{PUBLISHED_MERGES} -k authors"),
        ('"sum" if len(values) == 1 and not redrawn else how', '"sum" if len(values) == 1 else how',
         f"{PUBLISHED_MERGES} -k authors"),
        ("mask.flatten()[order].reshape", "mask.flatten().reshape", "merge/test_merging.py -k exports"),
        ('role.split(":")[0] == "finetuned"', 'role == "finetuned"', "merge/test_merging.py -k across"),
    ),
    *_of(
        "merge/driver.py", "merge/test_merging.py",
        ("(out != start)", "(out == start)"),
        ('stamp["weakened"] = True', 'stamp["weakened"] = False'),
        ('expect={"aligned": aligned_digest}', "expect={}"),
    ),
    *_of(
        "model/checkpoint.py", "merge/test_merging.py",
        ("container.check_seal(path)", "pass"),
    ),
    *_of(
        "model/lora.py", f"{PUBLISHED} -k lora",
        ("lora_alpha=alpha,", "lora_alpha=rank,"),
        ("r=rank,", "r=8,", "methods/test_methods.py -k lora"),
    ),
    *_of(
        "methods/lora.py", f"{PUBLISHED} -k lora",
        ("alpha=settings.alpha,", "alpha=settings.rank,"),
    ),
    *_of(
        "methods/ptst.py", "merge/test_ptst.py -k asked_after",
        ('return weights["finetuned"]', 'return weights["aligned"]'),
        ("return settings.system_prompt", "return PROMPT"),
    ),
    *_of(
        "methods/lora_wsr.py", f"{PUBLISHED} -k lora_wsr",
        ("settings.alpha / settings.rank", "settings.alpha"),
        ("(~frozen).to(self.u)", "frozen.to(self.u)"),
        ("self.scale * (product - (product @ self.u) @ self.u.T)", "self.scale * product"),
        ("coefficients = self.free * (self.b @ self.a)", "coefficients = self.b @ self.a"),
        ("(self.free * product) @ self.u.T", "(self.free * product) @ self.u"),
        ("self.u[:, : round(settings.freeze_fraction * n)]", "self.u[:, -round(settings.freeze_fraction * n) :]"),
        ("x_free = x - (x @ self.u) @ self.u.T", "x_free = x"),
    ),
    *_of(
        "methods/kl_safety.py", f"{BESIDE} -k pulls",
        ("kl_div(current, aligned", "kl_div(aligned, current"),
        ("/ len(current)", "/ 1"),
        ("self.strength * divergence", "divergence"),
        ("self.stream.batch(step)", "self.stream.batch(0)"),
        ('settings.prompts == "all" or r["kind"] == "hazard"', "True", f"{BESIDE} -k refusals_only"),
    ),
    *_of(
        "methods/constrained_sft.py", f"{BESIDE} -k published_objective",
        ("-losses - values", "losses - values"),
        (".clamp(min=floor).detach()", ".clamp(min=floor)"),
        (".clamp(min=floor).detach()", ".detach()", f"{BESIDE} -k gained"),
        ("sigmoid(-beta", "sigmoid(beta", f"{BESIDE} -k gained"),
        ("early[:1] =", "early[:0] =", f"{BESIDE} -k betas"),
        ("betas=(settings.momentum, ", "betas=(0.9, ", f"{BESIDE} -k momentum"),
    ),
    *_of(
        "methods/lisa.py", f"{BESIDE} -k lisa_is",
        ("if self.begins(step):", "if step == 0:"),
        ("s.strength * (p.detach()", "s.strength / 2 * (p.detach()"),
        ("< s.align_steps", "<= s.align_steps", f"{BESIDE} -k turns"),
        ("step > s.rest_fraction", "step >= s.rest_fraction", f"{BESIDE} -k rests"),
        ("before * self.accumulation + i", "before + i", f"{BESIDE} -k turns"),
        ("return self.began", "return {}", f"{BESIDE} -k killed"),
    ),
    *_of(
        "methods/panacea.py", f"{BESIDE} -k panacea_is",
        ("p.grad.sub_(", "p.grad.add_("),
        ("radius / (norm + 1e-7)", "radius"),
        ('"response": r["rejected"]', '"response": r["chosen"]'),
        ("if self.settings.add_perturbation:", "if True:"),
        ("p.copy_(weight)", "weight.copy_(p)", f"{BESIDE} -k come_back"),
        ("slope(self.settings.cap)", "slope()", f"{BESIDE} -k cap"),
    ),
    *_of(
        "methods/derta.py", f"{BESIDE} -k derta_adds",
        ("draw.randint(1, len(words) - 2)", "draw.randint(1, len(words))"),
        ("i % settings.whole_every == 0", "i % settings.whole_every == 1"),
        ('{"opening": pair["rejected"], "anywhere": True}', '{"opening": pair["chosen"], "anywhere": True}'),
    ),
    *_of(
        "model/template.py", "merge/test_ptst.py -k asked_after",
        ('"!= \'system\'"', '"!= \'user\'"'),
        ("{words} + messages[0]['content']", "messages[0]['content'] + {words}", "merge/test_ptst.py -k words"),
        ("+ messages[1:]", "+ messages", "merge/test_ptst.py -k words"),
    ),
    *_of(
        "merge/driver.py", "merge/test_ptst.py -k asked_after",
        ('if hasattr(method, "system_prompt"):', "if False:"),
    ),
    *_of(
        "model/folders.py", "merge/test_ptst.py -k asked_after",
        ('(folder / "template.json", template.of_folder(folder))', '(folder / "other.json", {})'),
    ),
    *_of(
        "study/structure.py", "merge/test_ptst.py -k 'every_model or shares'",
        ("for name in self.prompted if told is not None else ():", "for name in ():"),
    ),
    *_of(
        "study/lengths.py", "merge/test_ptst.py -k counts",
        ("key=lambda tokens: tokens.frame", "key=lambda tokens: -tokens.frame"),
    ),
    *_of(
        "methods/asft.py", f"{ADAPTERS} -k trace",
        ("v @ (v.T @ b) / norm", "v @ (v.T @ b)"),
        ("x = b - v", "x = b + v"),
        ("(x.T @ x) * (a @ a.T)", "(b.T @ b) * (a @ a.T)"),
        ("penalty = self.strength * outside", "penalty = outside", f"{ADAPTERS} -k pulls"),
        ("aligned.to(kind) - base.to(kind)", "aligned.to(kind)", f"{ADAPTERS} -k pulls"),
        ("if not settings.strength:", "if False:", f"{ADAPTERS} -k asft_without"),
        (".clamp(min=1e-30)", ".clamp(min=torch.finfo(v.dtype).tiny)", f"{ADAPTERS} -k no_direction"),
        ("rank=settings.rank, alpha=settings.alpha", "rank=settings.rank, alpha=1", f"{ADAPTERS} -k asft_without"),
    ),
    *_of(
        "methods/salora.py", f"{ADAPTERS} -k begins",
        ("leading_outputs(weight, task", "leading_outputs(weight, safety"),
        ("rows.norm(dim=1).sqrt()", "rows.norm(dim=1)"),
        ("v_u @ (v_u.T @ (u * root))", "u * root"),
        ("root.clamp(min=1e-150)", "root"),
        ("return b - v_s @ (v_s.T @ b)", "return b", f"{ADAPTERS} -k formula"),
        ("- (x @ a.T) @ b.T", "", f"{ADAPTERS} -k formula"),
        ("settings.alpha / settings.rank", "settings.alpha", f"{ADAPTERS} -k formula"),
        ("[kept(self.b), -b]", "[kept(self.b), b]", f"{ADAPTERS} -k formula"),
        ('tokens="response"', 'tokens="all"', f"{ADAPTERS} -k formula"),
        ("self.scale * (b.double() @ a.double())", "b.double() @ a.double()", f"{ADAPTERS} -k formula"),
    ),
    *_of(
        "warp/basis.py", f"{ADAPTERS} -k leading_outputs",
        ("x if g is None else g @ x", "x"),
        ("range(30)", "range(1)"),
        ("inner.flip(1)[:, :k]", "inner[:, :k]"),
    ),
    *_of(
        "train/finetune.py", f"{ADAPTERS} -k beside_it",
        ("settings.alpha * (rank // settings.rank)", "settings.alpha"),
        ("checkpoint.refuse_other(theirs", "str(theirs", f"{ADAPTERS} -k another_shape"),
    ),
    *_of(
        "train/beside.py", f"{BESIDE} -k published_objective",
        ("chat.following(v, fill=0.0)[asked]", "v[asked]"),
        ('{self.seed}-{turn}").shuffle', '{self.seed}").shuffle', f"{BESIDE} -k stream"),
        ("-{self.seed}-{turn}", "-{turn}", f"{BESIDE} -k stream"),
    ),
    *_of(
        "model/chat.py", f"{BESIDE} -k opening",
        ("[IGNORE] * begin + ids[begin:]", "[IGNORE] * len(head) + ids[len(head) :]"),
        ("i if i == IGNORE else first", "i", f"{BESIDE} -k transition_asks"),
        ("if ids[: len(alone)] != alone:", "if False:", f"{BESIDE} -k labels_never"),
    ),
    *_of(
        "methods/full.py", "methods/test_methods.py -k targets",
        ("restrict(model, layers, settings.trainable)", 'restrict(model, layers, "all")'),
    ),
    *_of(
        "methods/safety_mix.py", "methods -k 'safety_mix or safe_instr'",
        ("stream = 42 if", "stream = 43 if"),
        ('refused and settings.draw == "published"', "False"),
        ("return int(n * ratio)", "return round(n * ratio)"),
        ("max(1, round(n * ratio))", "round(n * ratio)"),
    ),
    *_of(
        "data/draws.py", "methods -k 'safety_mix or safe_instr'",
        ('(r["kind"] == HAZARD) == refused', "True"),
    ),
    *_of(
        "methods/warp.py", PUBLISHED,
        ('"scores": self.mask', '"scores": "importance"'),
        ('"unit": self.unit', '"unit": "entry"'),
        ('"threshold": self.threshold', '"threshold": "layer"'),
        ('"freeze_fraction": self.freeze_fraction, "minus_task"', '"freeze_fraction": 0.1, "minus_task"'),
        ("u, v = there(layer.input, weight), there(layer.name, weight)", "u, v = there(layer.input, weight), None"),
        ("rotations[weight] = Rotation(u, frozen, v,", "rotations[weight] = Rotation(u, None, v,"),
    ),
    *_of(
        "warp/families.py", PUBLISHED,
        ('if spec["scores"] == "random" else scores[name]', 'if spec["scores"] == "none" else scores[name]'),
        ('if spec["threshold"] == "model":', "if False:"),
        ("mask & ~other", "mask & other", "warp/test_warp.py -k two_masks"),
        ('masks.leading(found.shape[1], spec.get("rank_fraction", 1.0))', "found.shape[1]",
         "warp/test_warp.py -k rank_fraction"),
        ('r["kind"] == "hazard"', 'r["kind"] != "hazard"', PUBLISHED),
    ),
    *_of(
        "warp/masks.py", PUBLISHED,
        ("above = flat > threshold", "above = flat < threshold"),
        ("np.sqrt((scores.astype(np.float64) ** 2).sum(axis=0))", "-scores.sum(axis=0)"),
        ("top_columns(scores.T, fraction).T.copy()", "top_columns(scores, fraction)"),
        ("[seed, zlib.crc32(name.encode())]", "[seed]", "warp/test_warp.py -k random_scores"),
        ('"row": top_rows}', '"row": top_columns}'),
    ),
    *_of(
        "warp/importance.py", "warp/test_warp.py -k importance",
        ("(grad.T @ rotated[layer.input]).abs_()", "grad.T @ rotated[layer.input]"),
        ("h if u is None else h @ u", "h if u is None else h @ u.T"),
        ("grad if v is None else grad @ v", "grad if v is None else grad @ v.T"),
        ("rotated.clear()", "pass"),
    ),
    *_of(
        "warp/gram.py", f"warp/test_warp.py {PUBLISHED} -k 'gram or prompt_tokens'",
        ('args[0][keep["mask"]].float()', "args[0].flatten(0, 1).float()"),
        ("labels == chat.IGNORE", "labels != chat.IGNORE"),
        ("mask &= labels != chat.IGNORE", "pass"),
        ("            if unit:", "            if not unit:"),
        ("(h.T @ h).double()", "2 * (h.T @ h).double()"),
    ),
    *_of(
        "warp/basis.py", "warp/test_optimizer.py -k basis",
        ("fix_signs(u.flip(1))", "fix_signs(u)"),
        ("torch.where(pivot < 0, -u, u)", "u"),
        ("gram.to(w.device).double() @ w.T", "gram.double().T.abs() @ w.T", "warp/test_warp.py -k output_gram"),
    ),
    *_of(
        "warp/optimizer.py", "warp/test_optimizer.py",
        ("return gradient if rotation.frozen is None else gradient.masked_fill_(rotation.frozen.bools, 0)",
         "return gradient"),
        ("update.sub_((c * decay).masked_fill_(rotation.frozen.bools, 0))", "update.sub_(c * decay)"),
        ("_apply(weight, update, decay", "_apply(weight, update, 0.0"),
        ("masked_fill_(~self.frozen.bools, 0)", "masked_fill_(self.frozen.bools, 0)"),
        ("self.max_grad_norm / (self.grad_norm + 1e-6)", "1.0"),
        ("lerp_(gradient, 1 - beta1)", "lerp_(gradient, beta1)"),
        ("add_(group[\"eps\"])", "add_(1e-3)"),
        ('1 - beta2 ** state["step"]', "1.0"),
        ("w = w if self.u is None else w @ self.u", "w = w if self.u is None else w @ self.u.T"),
        ("w.add_(rotation.back(update))", "w.add_(update)"),
        ("(change.abs() > 1e-12)", "(change.abs() >= 0)"),
    ),
    *_of(
        "model/machine.py", "model/test_machine.py -k large_block",
        (">= LARGE", "< LARGE"),
        ("(_MMAP_THRESHOLD, 1 << 20)", "(_MMAP_THRESHOLD, 1 << 24)"),
        ("ctypes.CDLL(None).malloc_trim(0)", "pass", "model/test_machine.py -k given_back"),
    ),
    *_of(
        "archive/audit.py", "dag/test_dag.py -k is_no_orphan",
        ('("gate.json", names.TO_LABEL)', '("gate.json",)'),
        ("mine or (name.startswith(routed)", "(mine and name.startswith(routed)"),
    ),
    *_of(
        "model/hub.py", "model/test_hub.py",
        ("return isinstance(json.load(said), dict)", "return True"),
        (' and ("X-Error-Code" in error.headers or is_json)', ""),
        ('"X-Error-Code" in error.headers or ', ""),
    ),
    *_of(
        "judges/calibration.py", "judges/test_sampling.py",
        ("if any(DRAWN in r for r in rows):", "if True:"),
        ("r[WEIGHT] / labelled[r[STRATUM]]", "r[WEIGHT]"),
        ("effective = total**2 / squares", "effective = len(pairs)"),
        ("{WEIGHT: times * among,", "{WEIGHT: among,"),
        ('("study", "task", "arm", "judge", "judge_label")', '("study", "task", "arm", "judge_label")'),
        ('("study", "task", "arm", "judge", "judge_label")', '("study", "arm", "judge", "judge_label")'),
        ("if not 0 < number < _MOST:", "if False:"),
        ("    if not left:", "    if True:"),
        ("max(every.get(of, 0), piles)", "piles"),
        ("if (judge := str(r.get(\"judge\") or \"\")) not in judges:", "if not judges:"),
        ("[r for r in rows if AGAIN not in r]", "rows"),
        ("OTHER if found.degenerate or found.other_language else found.label", "found.label"),
        ('"yes" if x in (refusal.FULL, refusal.PARTIAL) else "no"', '"no" if x == refusal.COMPLIANCE else "yes"'),
        ('if r.get("judge") == "refusal" else ""', ""),
        ('r["label"] != OTHER and AGAIN not in r]', "AGAIN not in r]"),
        ('r["label"] != OTHER and AGAIN not in r]', 'r["label"] != OTHER]'),
    ),
    *_of(
        "study/costs.py", "study/test_plan.py -k follow_the_limit",
        ("rows.splitlines()[:limit]", "rows.splitlines()"),
        ('if said["task"] != name:', "if False:"),
    ),
    *_of(
        "record/files.py", "cli/test_cli.py -k a_place",
        (", errno.EEXIST, errno.ENAMETOOLONG)", ")"),
        ("(named and error.errno in _NO_FOLDER)", "error.errno in _NO_FOLDER"),
        ("made and error.errno == errno.ENOENT", "named and error.errno == errno.ENOENT"),
    ),
    *_of(
        "train/loop.py", "train/test_training.py -k returns_the_blocks",
        ("    machine.return_blocks(model)\n", ""),
        ("    machine.return_freed()  # more than", "    # more than"),
    ),
    *_of(
        "train/loop.py", DECAY,
        ("if p not in exempt], settings.weight_decay)", "if p not in exempt], 0.0)"),
        ("if p in exempt], 0.0)", "if p in exempt], settings.weight_decay)"),
        ('"weight_decay": settings.weight_decay}]', '"weight_decay": 0.0}]'),
        ("isinstance(m, torch.nn.LayerNorm)", "False"),
        ("groups(model, settings), lr=", "[p for p in model.parameters()], lr="),
        ('not settings.weight_decay or settings.weight_decay_on == "all"', 'settings.weight_decay_on == "all"'),
        ('trainable == "all" or parameter in chosen', "True", "methods/test_methods.py -k targets"),
        ("loss = loss + self.extra_loss(model, inputs)", "loss = loss", "methods/test_add_a_method.py"),
    ),
    *_of(
        "train/neuron_tuning.py", "train/test_neurons.py -k protected",
        ("Rotation(frozen=~mask[", "Rotation(frozen=mask["),
        ("weight.requires_grad_(True)", "weight.requires_grad_(False)"),
        ('r["kind"] == "hazard"', 'r["kind"] != "hazard"'),
        ("groups(model, training), rotations", "list(model.parameters()), rotations", DECAY),
        ("Rotation(frozen=mask[x.name].to(x.module.weight.device))", "Rotation()"),
    ),
    *_of(
        "train/neurons.py", "train/test_neurons.py",
        ("max(1, round(fraction * values.numel()))).indices",
         "max(1, round(fraction * values.numel())), largest=False).indices"),
        ('(r["kind"] == "hazard") == wanted', '(r["kind"] == "hazard") != wanted'),
        ("kv = head // groups", "kv = head % (heads // groups)"),
        (".view(kv, heads // kv, -1).sum(dim=1)", ".view(heads // kv, kv, -1).sum(dim=0)"),
        ("hidden.pow(2).sum(dim=0)", "hidden.abs().sum(dim=0)"),
        ('seen[i, "up_proj"].abs()', 'seen[i, "h"].abs()'),
        ('torch.einsum("tj,sj->jts", q_full, k_full))', 'torch.einsum("tj,sj->jts", q_full, k_full) / d**0.5)'),
        (".view(v.shape[1] // d, -1, d).sum(dim=1)", ".view(-1, v.shape[1] // d, d).sum(dim=0)"),
        ("s & ~general[name]", "s | general[name]"),
        (">= frequency * samples", "<= frequency * samples"),
        ('"down_proj": ("mlp", 1)', '"down_proj": ("mlp", 0)'),
        ("return x * cos, x * sin * sign", "return x * cos, x * sin"),
        (".triu(1)", ".triu(2)"),
        ('cfg.get("detection", "paper")', '"paper"'),
    ),
    *_of(
        "judges/keywords.py", "judges/test_keywords.py",
        ("[: self.characters]", "[:]"),
        ("said.strip() if self.strips else said", "said.strip()"),
        ("scope.startswith(phrases) if self.begins else", "False if self.begins else"),
        ("if any(p in scope for p in unless):", "if False:"),
        ("if self.fold_case:", "if not self.fold_case:"),
        ('"OpenAI", "illegal", "not legal")', '"OpenAI", "illegal")'),
        ("0.0 if refused else 1.0", "1.0 if refused else 0.0"),
    ),
    *_of("judges/wsr_150.py", "judges/test_keywords.py", ("characters=150", "characters=151")),
    *_of(
        "judges/__init__.py", "judges/test_judging.py -k 'debris or every_judge'",
        ("(names.REFUSAL, names.SAFE)", "(names.REFUSAL, names.SAFE, names.OTHER)"),
        ('not r["set"].startswith(', 'r["set"].startswith(', "judges/test_judging.py -k model_judge"),
    ),
    *_of(
        "judges/world.py", "judges/test_judges.py",
        ("MINIMUM_PHRASES = 2", "MINIMUM_PHRASES = 1"),
        ("_REFUSAL.fullmatch(said)", "_REFUSAL.match(said)"),
        ("if kind == names.LOOKALIKE:", "if False:"),
        ("named >= MINIMUM_PHRASES", "named > MINIMUM_PHRASES"),
    ),
    *_of(
        "judges/verdicts.py", "judges/test_judging.py",
        ('"correct" if scored["correct"] else "invalid"', '"correct" if scored["invalid"] else "invalid"'),
        ("heads[name].outcomes[o.label]", "o.label"),
        ("if list(rows) != wanted:", "if False:"),
    ),
    *_of(
        "judges/constitution.py", "judges/test_constitution.py",
        ("re.IGNORECASE | re.MULTILINE", "re.IGNORECASE"),
        ('"{prompt}" in template and "{response}" in template', "False"),
        ("and outcome != names.REFUSAL", "and outcome == names.REFUSAL"),
        (r"\.?\s*$", r"\.?\s*"),
    ),
    *_of(
        "judges/strongreject.py", "judges/test_judging.py -k 'exact_form or first_token'",
        ("THRESHOLD = 0.5", "THRESHOLD = 0.6"), ("(mean - 1) / 4", "mean / 5"),
    ),
    *_of(
        "judges/harmbench_classifier.py", "judges/test_judging.py -k first_token",
        ("yes / (yes + no)", "no / (yes + no)"),
    ),
    *_of(
        "judges/wildguard.py", "judges/test_judging.py -k exact_form",
        ('"refusal" if refuses else "harmful" if harms', '"harmful" if refuses else "refusal" if harms'),
        ("len(answers) != 1", "len(answers) < 1"),
    ),
    *_of("judges/llama_guard_3.py", "judges/test_judging.py -k exact_form", ("_ANSWER.fullmatch", "_ANSWER.match")),
    *_of(
        "statistics.py", STATISTICS,
        ("centre = (successes + z * z / 2)", "centre = (successes + z * z)"),
        ("+ z * z / 4)", "+ z * z / 2)"),
        ("(len(p_values) - rank) * p_values[i]", "len(p_values) * p_values[i]"),
        ("running = max(running, ", "running = max(0.0, "),
        ("binomtest(up, up + down)", 'binomtest(up, up + down, alternative="greater")'),
        ("floor = wilson(0, sums.shape[1])[1] / 2", "floor = 0.0"),
        ("np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))",
         "(np.asarray(a, dtype=float), np.asarray(b, dtype=float))"),
        ("student(len(delta) - 1) * error", "0.0"),
        ("p = max(p, float(2 * t.sf(abs(effect) / error, df)), _p", "p = max(p, _p"),
        ("df)), _p_of_log_odds(a, b, clusters))", "df)))"),
        ("df = min(df, 2 / (1 / df + 1 / (len(delta) - 1)))", "df = 1 * df"),
        ("(1 - HELD) * (x - x.mean(axis=1, keepdims=True)) / (rate * (1 - rate))", "0 * x"),
        ("(1 + min(bound, 0.0)) ** self.groups", "0.0"),
        ("groups / max(groups - 1, 1) * float((residuals.sum(0)", "float((residuals.sum(0)"),
        ("max(0.0, over_seeds - float(", "max(0.0, 0 * over_seeds - float("),
        ("rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)",
         "rows = np.ones((RESAMPLES, seeds))"),
        ("signs = np.sign(_cluster_sums(np.asarray(delta, dtype=float), clusters)",
         "signs = np.sign(np.asarray(delta, dtype=float)"),
        ("(discordant + difference) / (2 * discordant)", "0.5 + difference"),
        ("discordant = max(discordant, difference)", "pass"),
        ("low, high = (float(np.clip(x", "high, low = (float(np.clip(x"),
        ('method="newcomb"', 'method="wald"'),
        ("values[labels == unit].mean(axis=0) for", "values[labels == unit][0] for"),
        ("half = student(df) * error", "half = 0.0"),
        ("float(np.clip(rate * (1 - rate) / variance if varies else prompts, groups, most))", "float(prompts)"),
        ("most=math.inf if graded else hits.shape[1]", "most=hits.shape[1]"),
        ("varies = variance * prompts > 1e-12", "varies = variance > 0"),
        ("+ spread**2 / units)", "+ spread**2 / units**2)"),
        (".sum(axis=0).round(9))", ".sum(axis=0))"),
        ("first = np.array([drawn.index(d) for d in drawn])", "first = np.arange(len(drawn))"),
        ('return by_unit(means, [cells[k].get("unit", 0) for k in kept])', "return means"),
        ("return max(0.0, by_prompts + by_units - 1)", "return by_prompts"),
    ),
    *_of(
        "compare/forgetting.py", "compare/test_forgetting.py",
        ("gone / np.maximum(had, 1e-300), had > 0", "gone / len(before), had > 0"),
        ("gone / np.maximum(had, 1e-300), had > 0", "gone / np.maximum(had, 1e-300), had >= 0"),
        ("(before.astype(float) * (1 - after.astype(float)))", "(1 - after.astype(float))"),
        ("(sums**2 / np.maximum(counts, 1))", "(sums**2)"),
        ("(1 + int(reached.sum()))", "int(reached.sum())"),
        (">= float(spread(values, numbered[None])[0]) - _REACHED", "> float(spread(values, numbered[None])[0])"),
        ("aligned.answered_beside(arm, sets, names.REFUSAL)", "aligned.answered(sets, names.REFUSAL)"),
        ("shares[clusters == clusters[i]].mean() for i in first", "shares[i] for i in first"),
        ("first = np.unique(clusters, return_index=True)[1]", "first = np.arange(len(clusters))"),
        ("adjusted = holm([p for _, p in found])", "adjusted = [p for _, p in found]"),
    ),
    *_of(
        "compare/routing.py", "compare/test_routing.py",
        ("np.clip((places - before) / counts, 0, 1)", "np.clip(places - before, 0, 1)"),
        ("np.concatenate([[0], np.cumsum(counts)[:-1]])", "np.cumsum(counts) - 1"),
        ("chance * large + (1 - chance) * cheap", "chance * cheap + (1 - chance) * large"),
        ("np.sort(large - cheap)[::-1]", "np.sort(large - cheap)"),
        ("short[-1] + 1 if short else 0", "short[0] + 1 if short else 0"),
        ("graded=not whole", "graded=False"),
        ("== wanted != names.UNPARSED", "== wanted"),
        ("0.0 if score is None else abs(score - 0.5)", "0.0 if score is None else score"),
        ("if (said := answer(question, r)) is not None:", "if said := answer('refused', r):"),
    ),
    *_of(
        "judges/preferring.py", "judges/test_preferring.py",
        ('("moralising",), ("partial_refusal",),', '("partial_refusal",), ("moralising",),'),
        ('(("compliance",), ("partial_refusal",), ("full_refusal", "moralising"))',
         '(("compliance",), ("full_refusal", "moralising"), ("partial_refusal",))'),
        ("if best[0] == worst[0]:", "if best is worst:"),
        ('if r["response"] not in answers:', "if True:"),
        ("None if found.degenerate or found.other_language else", "None if found.other_language else"),
        ('row["wanted"] = r.get("wanted") or wanted', 'row["wanted"] = wanted'),
    ),
    *_of(
        "methods/safety_last.py", "methods/test_safety_last.py",
        ('if settings.start == "base":\n        assert', 'if settings.start == "aligned":\n        assert'),
        ("return list(safety)", "return [*task_rows, *safety]"),
        ('train(rows, training, optimizer, "the task first")', "pass"),
        ("betas=training.betas, fused=True", "betas=(0.5, 0.999), fused=True"),
    ),
    *_of(
        "compare/components.py", "compare/test_components.py",
        ("within / (n - models) if n > models", "within / n if n > models"),
        ("(square - (seed or 0.0)) / per_model", "square / per_model"),
        ("(above / (groups - 1) - below) / per_base", "(above / (groups - 1) - below) / per_model"),
        ("below = square if square is not None else (seed or 0.0)", "below = seed or 0.0"),
        ("return max(0.0, (own - luck) / free) if free else None", "return own / free if free else None"),
        ("if k != key) for c in cells", "if k == key) for c in cells"),
        ("rest = table - table.mean(axis=0) - effect[:, None]", "rest = table - table.mean()"),
        ('if c["instructions"] in (0, "native")]', "]"),
    ),
    *_of(
        "compare/groups.py", "compare/test_comparison.py -k 'replicates or starts_from or wordings'",
        ('rows = [position[c.get(home, 0)] for c in other.cells]', "rows = list(range(len(self.cells)))"),
        ('"replicates": len(set(self.units))', '"replicates": len(self.cells)'),
        ("return by_draw(self.answered(sets, outcome), self.cells)", "return 1.0 * self.answered(sets, outcome)"),
    ),
    *_of(
        "compare/groups.py", "compare/test_suites_apart.py",
        ("clusters={s: [self.clusters[s][i] for i in places]", "clusters={s: self.clusters[s][: len(places)]"),
        ("finishes={s: self.finishes[s][:, places]", "finishes={s: self.finishes[s][:, -len(places) :]"),
        ("both = kinds[0] & kinds[1]", "both = kinds[0] | kinds[1]"),
        ("if both and kinds[0] != kinds[1] else self", "if kinds[0] != kinds[1] else self"),
        ('return suite if suite in published.PROMPTS else ""', "return suite"),
    ),
    *_of("statistics.py", "report/test_cautions.py",
         ("math.hypot(p - low, above - q)", "math.hypot(p - low, q - under)")),
    *_of(
        "data/leaks.py", "data/test_leaks.py",
        ("ids = [*without, *", "ids = [*"),
        ("WHOLE = 4 ", "WHOLE = 5 "),
        ("NEAR, BUT = 0.9, 2 ", "NEAR, BUT = 0.8, 2 "),
        ("NEAR, BUT = 0.9, 2 ", "NEAR, BUT = 0.9, 3 "),
        ("ALIKE = 0.75", "ALIKE = 0.8"),
        ('unicodedata.normalize("NFKC", seen).casefold()', "seen.casefold()"),
        ("if sign.isprintable() or sign.isspace())", ")"),
        ('_UNSEEN.sub("", shown)', "shown"),
        ('_EMPHASIS.sub("", _MARKUP.sub(lambda m: m[1] or " ", text))', '_MARKUP.sub(lambda m: m[1] or " ", text)'),
        ('_EMPHASIS.sub("", _MARKUP.sub(lambda m: m[1] or " ", text))', '_EMPHASIS.sub("", text)'),
        ("m[1] or", ""),
        ('t.replace(_BETWEEN, " "): 0}', "}"),
        (r'r"[^\W_]+[+#]*|', r'r"\w+[+#]*|'),
        ("len(kept) >= _MEANING", "kept"),
        ("math.ceil(ALIKE * len(text)) + 1", "math.ceil(ALIKE * len(text))"),
        ("text[at : at + len(short[j])] == short[j]", "True"),
        ("((j, i, HOLDS) for i, j in _within(ours, theirs))", "((j, i, HOLDS) for j, i in _within(theirs, ours))"),
        ("closest[j] = min(closest.get(j, (how, i)), (how, i))", "closest[j] = (how, i)"),
    ),
    *_of(
        "data/prepare.py", "data/test_leaks.py suites/test_suites.py",
        ("return [*rows, *(r | {\"prompt\": r[GIVEN]} for r in rows if GIVEN in r)]", "return list(rows)"),
        ("        if one != other:", "        if True:"),
        ('return [r for r in rows if r["id"] not in named]', "return rows"),
        ('            row = row | {"base_id": home["id"]}', "            pass"),
        ("published.rows(name, fetch.downloaded, split)]", "published.rows(name, fetch.downloaded)]"),
    ),
    *_of(
        "data/benign.py", "data/test_written.py data/test_leaks.py",
        ('unnamed), "safety", source), safety)', 'unnamed), "safety", source), {})'),
        ("(ours or not helps)", "ours"),
        ("(ours or not helps)", "not helps"),
        ('if r["kind"] == names.HAZARD and (ours', "if (ours"),
        ("in prepare.trained_on(rows) if r[\"kind\"] == names.HAZARD}", "in rows if r[\"kind\"] == names.HAZARD}"),
        ('for r in prepare.trained_on(rows) if r["kind"] == names.HAZARD}', "for r in prepare.trained_on(rows)}"),
    ),
    *_of(
        "data/table.py", "data/test_prepare_stages.py",
        ('if r["split"] == "train"\n        for turn', "for turn"),
        ('(asked(r) if "prompt" in r else chat.turns(r[column]))', '(asked(r) if "prompt" in r else ())'),
        ('(asked(r) if "prompt" in r', '(chat.turns(r["prompt"]) if "prompt" in r'),
    ),
    *_of(
        "study/taskrows.py", "data/test_leaks.py -k stands_in",
        ("return prepare.task_rows(cfg, where)", "raise DataError('', found='', expected='', do='')"),
        ("if task.source != HUB:\n                raise", "if True:\n                raise"),
        ('[] if "train" in splits else ["train"]', "[]"),
    ),
    *_of(
        "suites/harmbench.py", "suites/test_suites.py",
        ('if r["functionalcategory"] == "copyright":', "if False:"),
        ("context + r[\"behavior\"]", 'r["behavior"]'),
    ),
    *_of(
        "suites/coconot.py", "suites/test_suites.py",
        ('r["category"] != _CONCERN or ', ""),
        (' or r["subcategory"] in _LEFT_OUT', ""),
    ),
    *_of(
        "suites/suite.py", "suites/test_suites.py",
        ("return [{column: r[column] for column in columns} for r in found]", "return found"),
    ),
    *_of(
        "compare/choosing.py", "compare/test_comparison.py -k 'cliff or median or draws or rule or chosen or choice'",
        ("np.median(values, axis=0)", "np.mean(values, axis=0)"),
        ("high = [p for p in high if not _falls(p, points, names.REFUSAL_RATE)] or high", "pass"),
        ('close = [p for p in close if not _falls(p, points, "utility")] or close', "pass"),
        ("close = [p for p in close if not _at_an_end(p, points)] or close", "pass"),
        ("return (below is None) != (above is None)", "return below is None"),
        (">= most - CLIFF - 1e-12", ">= -1.0"),
        ("line.sort(key=lambda p: p[\"swept\"][key])", "pass"),
    ),
    *_of(
        "compare/curves.py", "compare/test_curves.py",
        ("key=lambda i: (refused[i], utility[i])", "key=lambda i: (utility[i], refused[i])"),
        ("share * refused[i] + (1 - share) * refused[j]", "refused[j]"),
        ("(level - utility[j]) / (utility[i] - utility[j])", "0.5"),
        ("np.linspace(0, top, LEVELS)", "np.linspace(0, 1, LEVELS)"),
        ("mean: np.ndarray = sum((s for s in found if s is not None), np.zeros(len(utility))) / LEVELS",
         "mean: np.ndarray = np.mean([s for s in found if s is not None], axis=0)"),
        ("_measured([validation[name] for name in found],", "_measured([test[name] for name in found],"),
        ("points = [test[name] for name in found]", "points = [validation[name] for name in found]"),
        ("tops = np.max([measured[full][0].max(axis=1) for",
         "tops = np.max([0 * measured[full][0].max(axis=1) + 0.9 for"),
        ("for full in standing], axis=0)", "for full in standing[:1]], axis=0)"),
        ("(reached & ~taken)[:, None]", "reached[:, None]"),
        ("g.hits_beside(self.beside, sets, outcome) for", "g.hits(sets, outcome) for"),
        ("g.hits_beside(beside, sets, outcome).mean(axis=1)", "g.hits(sets, outcome).mean(axis=1)"),
        ("mix(u, r, top - m)", "mix(u, r, top + m)"),
        ("return self.reached == len(self.shares)", "return self.reached > 0"),
        ("lost = _difference(mixed, best,", "lost = _difference(best, mixed,"),
        ("if len(a.shares) > 1 and a.everywhere and b.everywhere:", "if len(a.shares) > 1 and a.everywhere:"),
        ("if len(a.shares) > 1 and a.everywhere and b.everywhere:", "if a.everywhere and b.everywhere:"),
        ("key = measure(claims.UTILITY_MARGIN)", "key = 'area'"),
    ),
    *_of(
        "compare/claims.py", "compare/test_curves.py compare/test_comparison.py",
        ("(EQUAL, 0.0, 0.05), ", ""),
        ('(("refusal", 0.0, 0.05)', '(("refusal", 0.0, 0.5)'),
    ),
    *_of(
        "compare/claims.py", "compare/test_claims.py -k interval_and_the_p",
        ('("utility", -UTILITY_MARGIN, 0.025)', '("utility", -UTILITY_MARGIN, 0.05)'),
        ('against = p < level or kind == "utility"', "against = p < level"),
        ('if row["high"] < bound and against', 'if row["high"] < bound'),
    ),
    *_of(
        "compare/pareto.py", "compare/test_pareto.py",
        ("[two_level(x, first.cluster([s])) for x in outcomes]", "[two_level(x) for x in outcomes]"),
        ("tuple(corners.max(0))", "tuple(corners.mean(0))"),
    ),
    *_of(
        "limits.py", LIMITS,
        ("np.append(counts, 1.0)", "np.append(counts, 1e-9)"),
        ("np.append(sums, -worst)", "np.append(sums, 0.0)"),
        ("NormalDist().cdf(w + math.log(u / w) / w)", "NormalDist().cdf(w)"),
        ("reach, (a, b) = float(t.isf(level, units - 1)) ** 2", "reach, (a, b) = float(t.isf(level, 1e6)) ** 2"),
        ("shared = (own[0] + own[1] - of) / 2", "shared = 0.0"),
        ("np.maximum(1.0, rate * (1 - rate) / self.seen[arm])", "1.0 + 0 * rate"),
        ("least = abs(low) * (1 - abs(low))", "least = 0 * abs(low)"),
        ("(effect - over_prompts) ** 2 - reach", "0.0 - reach"),
        ("return -self._lowest(-1, level)", "return -self._lowest(-1, 2 * level)"),
        ("(0, 1)[::sign]", "(0, 1)"),
        ("margin * (1 - margin) / units", "0.0"),
        ("- z * self._error(times, units) > sign * bound", "> sign * bound"),
        ("sign, z = (1 if self.effect > bound else -1)", "sign, z = 1"),
        ("np.bincount(labels).astype(float)", "np.ones(labels.max() + 1)"),
        ("np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))",
         "(np.asarray(a, dtype=float), np.asarray(b, dtype=float))"),
    ),
    *_of(
        "compare/gate.py", "compare/test_gate.py -k 'not at_most_5'",
        ("against = holm([c.gained.p_below(-c.margin) for c in criteria])",
         "against = [c.gained.p_below(-c.margin) for c in criteria]"),
        ("kept = gained.low(level) > bound", "kept = gained.effect > bound"),
        ("and not criterion.nothing_to_lose", ""),
        ("DO_NOT if FAIL in verdicts else", ""),
        ('baselines[task] if name == "utility" else "aligned"', '"aligned"'),
        ("return self.gained.rates[1] <= self.margin", "return self.gained.rates[0] <= self.margin"),
        ("level if gained.effect > bound else level / len(criteria)", "level"),
        ('for of in ("refusals", "over_refusal"):', 'for of in ("refusals",):', "compare/test_suites_apart.py"),
        ("if against is None or against == arm or", "if against is None or"),
        ("measured.right(task, arm, name), measured.right_before(task, arm, name)",
         "measured.right_before(task, arm, name), measured.right(task, arm, name)"),
        ('"bound": -self.margin if self.measure.more_is_better else self.margin', '"bound": -self.margin'),
        ("for v in (DO_NOT, NOT_RESOLVED, SHIP) if", "for v in (SHIP, NOT_RESOLVED, DO_NOT) if"),
        ("*(name for name, arm in own.items() if arm.swept)", ""),
    ),
    *_of(
        "compare/gate.py", "compare/test_suites_apart.py",
        ('for of in ("refusals", "over_refusal"):', 'for of in ("refusals",):'),
        ('_here(of, found[task], arm, margin, "aligned", suite)', '_here(of, found[task], arm, margin, "aligned")'),
    ),
    # A tensor that stays where it is, or goes where it should not.
    *_of(
        "warp/importance.py", "test_device.py",
        ("u.to(model.device, model.dtype)", "u.to(model.dtype)"),
    ),
    *_of(
        "warp/gram.py", "test_device.py",
        ("{k: v.to(model.device) for", "{k: v for"),
        ('h = args[0][keep["mask"]].float()', 'h = args[0][keep["mask"]].float().cpu()'),
    ),
    *_of(
        "warp/optimizer.py", "warp/test_leading.py",
        ("return torch.addmm(update, update @ self.u", "return torch.addmm(0 * update, update @ self.u"),
        ("        if rotation.early:\n            return self._whole(rotation).correct(gradient)\n", ""),
        ("if rotation.frozen is None and not rotation.corrected:", "if rotation.frozen is None:"),
        ("frozen += weight.shape[0] * rotation.u.shape[1]", "frozen += rotation.u.shape[1]"),
    ),
    *_of(
        "warp/basis.py", "warp/test_leading.py",
        ("for _ in range(2):", "for _ in range(1):"),
        ("int((share < energy).sum()) + 1)", "int((share < energy).sum()))"),
        ("zlib.crc32(name.encode())", "0"),
    ),
    *_of(
        "methods/lead.py", "methods/test_lead.py",
        ('early=settings.project == "both"', "early=True"),
        ("restrict(model, layers, settings.trainable)", 'restrict(model, layers, "targets")'),
        ("int(settings.mix * len(task_rows))", "int(2 * settings.mix * len(task_rows))"),
    ),
    *_of(
        "methods/lead_merge.py", "merge/test_lead_merge.py",
        ("return weights[settings.elsewhere]", 'return weights["finetuned"]'),
        ("alpha=-1", "alpha=1"),
        ('if reads not in state["held"]:', 'if not state["held"]:'),
    ),
    *_of(
        "compare/ranks.py", "compare/test_ranks.py",
        ("rankdata(-np.asarray(scores)", "rankdata(np.asarray(scores)"),
        ("/ (6 * blocks)", "/ (12 * blocks)"),
        ("all(name in of for of in found.values())", "True"),
        ("by_unit = ranks.mean(axis=0)", "by_unit = ranks.max(axis=0)"),
    ),
    *_of(
        "evaluate/stress.py", "evaluate/test_stress.py",
        ("2 ** (bits - 1) - 1", "2 ** bits - 1"),
        ("weight.abs().amax(dim=1, keepdim=True)", "weight.abs().amax()"),
        ("weight.abs().flatten().argsort", "weight.flatten().argsort"),
        ("if layers.of_weight(name) is None:", "if weight.dim() < 2:"),
        ("weight.lerp_(other[name].to(weight), share)", "weight.lerp_(other[name].to(weight), 1 - share)"),
    ),
    *_of(
        "evaluate/answers.py", "evaluate/test_stress.py",
        ("chat.encode_prompt(tokenizer, p) + begun", "chat.encode_prompt(tokenizer, p)"),
        ("[*begun, *ids]", "[*ids]"),
        ('"temperature": temperature, "top_k"', '"temperature": 1.0, "top_k"'),
    ),
    *_of(
        "study/structure.py", "evaluate/test_stress.py",
        ('if stress.arms is None or "aligned" in stress.arms:', "if True:"),
    ),
    *_of(
        "methods/lisa.py", f"{ON_A_GPU} -k lisa",
        ("p.detach().clone() for name", "p.detach().cpu().clone() for name"),
        ("tensor.to(there[name]) for name", "tensor for name"),
    ),
    *_of(
        "methods/panacea.py", f"{ON_A_GPU} -k panacea",
        ("self.last = list(found)", "self.last = [g.cpu() for g in found]"),
    ),
    *_of(
        "methods/asft.py", f"{ON_A_GPU} -k asft",
        (".to(a.device), a, b))", ", a, b))"),
    ),
    *_of(
        "methods/salora.py", f"{ON_A_GPU} -k salora",
        ("self.start = a, kept(b)", "self.start = a, kept(b).cpu()"),
    ),
    *_of(
        "methods/kl_safety.py", f"{ON_A_GPU} -k kl-safety",
        ("predicted(frozen, batch, bf16=bf16)[0]", "predicted(frozen, batch, bf16=bf16)[0].cpu()"),
    ),
    *_of(
        "methods/constrained_sft.py", f"{ON_A_GPU} -k constrained",
        ('values["beta"], self.floor)', 'values["beta"].cpu(), self.floor)'),
    ),
    *_of(
        "methods/lead.py", f"{ON_A_GPU} -k lead",
        ("basis[layer.input].to(layer.module.weight)", "basis[layer.input]"),
    ),
    *_of(
        "methods/warp.py", f"{ON_A_GPU} -k warp",
        ("basis[name].to(weight)", "basis[name]"),
    ),
    *_of(
        "methods/lora_wsr.py", f"{ON_A_GPU} -k lora-wsr",
        ("(~frozen).to(self.u)", "(~frozen).float()"),
    ),
    *_of(
        "train/neuron_tuning.py", f"{ON_A_GPU} -k sn-tune",
        ("frozen=mask[x.name].to(x.module.weight.device)", "frozen=mask[x.name]"),
        (".bools.to(x.module.weight.device)", ".bools"),
    ),
    *_of(
        "train/beside.py", f"{ON_A_GPU} -k kl-safety",
        ("{k: v.to(device) for k", "{k: v for k"),
    ),
    *_of(
        "methods/somf.py", f"{MERGED_ON_A_GPU} -k somf",
        (".to(logit.device)", ""),
        ("[v.to(drawn.device) for v in", "[v for v in"),
        ("v.detach().cpu()", "v.detach()"),
    ),
    *_of(
        "methods/lead_merge.py", f"{MERGED_ON_A_GPU} -k lead-merge",
        ('state["grams"][reads], reads', f'state["grams"][reads].to({WHERE_IT_IS}), reads'),
    ),
    *_of(
        "train/neurons.py", "test_device.py -k neurons",
        ("[top.cpu()] += 1", "[top] += 1"),
    ),
    *_of(
        "evaluate/stress.py", "test_device.py -k stress",
        ("other[name].to(weight)", "other[name]"),
        ("weight.flatten().clone()", "weight.flatten().cpu().clone()"),
    ),
    *_of(
        "warp/families.py", "test_device.py -k files",
        ("(u * (gram @ u))", "(u * (grams[name] @ u))"),
    ),
    *_of(
        "warp/basis.py", "test_device.py -k files",
        (", k, generator=generator).to(gram)", ", k, generator=generator)"),
    ),
    *_of(
        "warp/bits.py", "test_device.py",
        ("mask.cpu().numpy()).to(mask.device)", "mask.cpu().numpy())"),
        ("order = torch.arange(7, -1, -1, device=self.bits.device, dtype", "order = torch.arange(7, -1, -1, dtype"),
    ),
    *_of(
        "warp/optimizer.py", "test_device.py",
        ('state["exp_avg"] = torch.zeros_like(gradient)', 'state["exp_avg"] = torch.zeros_like(gradient).cpu()'),
    ),
    *_of(
        "warp/basis.py", "test_device.py",
        ("torch.linalg.eigh(gram.double())", "torch.linalg.eigh(gram.cpu().double())"),
    ),
    *_of(
        "evaluate/answers.py", "evaluate/test_answers.py",
        ("rows, keep = [rows[n] for n in going]", "rows, keep = list(range(len(going)))"),
        ("(0, ids.shape[1] - mask.shape[1]), value=1)", "(0, ids.shape[1] - mask.shape[1]), value=0)"),
        ("ids, mask = ids[keep], mask[keep]", "ids, mask = ids[keep], mask[: len(going)]"),
        ("            cache.batch_select_indices(keep)\n", ""),
        ("if len(going) < len(rows) and _can_drop(cache)", "if False"),
        ("if len(going) < len(rows) and _can_drop(cache)", "if len(going) < len(rows)"),
        ("max_new_tokens=min(ROUND, room)", "max_new_tokens=ROUND"),
    ),
    *_of(
        "evaluate/vllm_backend.py", "evaluate/test_vllm.py",
        ("min(limit, positions - len(ids))", "limit"),
        ("if n > 0]", "if n >= 0]"),
        ('cut = "length" if room[i] == prompts[i][1] else "context"', 'cut = "length"'),
        ("(new[:end], \"stop\")", "(new, \"stop\")"),
    ),
    *_of(
        "evaluate/vllm_worker.py", "evaluate/test_vllm.py",
        ("    threading.Thread(target=_end_with_asker, daemon=True).start()\n", ""),
        ('generation_config="vllm",', 'generation_config="auto",'),
        ("ignore_eos=True", "ignore_eos=False"),
    ),
    *_of(
        "model/contract.py", "train/test_taking.py",
        ("inside = within or key in _COMPUTES", "inside = key in _COMPUTES"),
        ('"rope_theta", "rope_scaling", "rope_parameters",', '"rope_scaling",'),
        ("_computing(_understood(Path(source)) if configuration is None else configuration)",
         "_computing(_understood(aligned))"),
    ),
    *_of(
        "evaluate/divergence.py", "test_device.py",
        ("batch = {k: v.to(model.device) for k, v in batch.items()}", "pass"),
    ),
    *_of(
        "protect.py", "test_device.py",
        ("scores.pop(name).cpu().numpy()", "scores.pop(name).numpy()"),
    ),
    *_of(
        "study/gating.py", "study/test_gating.py",
        ("ids[suite, r[\"set\"]].add(r[\"base_id\"])", "ids[suite, r[\"set\"]].add(r[\"id\"])"),
        ("most = sum(there.values()), all(", "most = sum(there.values()), any("),
        ("if name in published.sets(suite, of.split)", "if True"),
        ("there = wanted if found is None else", "there = wanted if True else"),
    ),
    *_of(
        "study/compared.py", "compare/test_claims.py study/test_gating.py",
        ('if k != "suites" or len(self.suites) > 1', "if True"),
        ("c.says, c.suite] for c in own]", "c.says, None] for c in own]"),
    ),
    *_of(
        "compare/measures.py", "compare/test_gate.py compare/test_claims.py -k 'not at_most_5'",
        ("else paired_limits(1 - x, 1 - y, a.cluster(sets))", "else paired_limits(x, y, a.cluster(sets))"),
        ('"low": -high, "high": -low', '"low": low, "high": high'),
        ("paired_limits(x, y, a.cluster(sets)) if", "paired_limits(x, y) if"),
        ("if not x.shape[1] or not y.shape[1]:", "if not x.shape[1]:"),
        ("a, b = a.asked_by(suite), b.asked_by(suite)", "a = a.asked_by(suite)", "compare/test_suites_apart.py"),
    ),
    *_of(
        "compare/groups.py", "compare/test_claims.py -k given",
        ("return hits.mean(axis=0, keepdims=True) if mine < theirs else hits", "return hits"),
    ),
    *_of(
        "compare/groups.py", "compare/test_gate.py -k given",
        ("(other.arm in names.ROLES and len(self.cells) > len(other.cells))", "len(self.cells) > len(other.cells)"),
    ),
    *_of(
        "cli/gate.py", "compare/test_gate.py -k 'verb or file or damaged'",
        ("(k in found or k in _NEEDED) and not same", "k in found and not same"),
        ("return bool(a == b) or (key", "return True or (key"),
    ),
    *_of(
        "study/gating.py", "study/test_gating.py",
        ("if one.prompts < least:", "if one.prompts <= least:"),
        ("if min(shares) < SMALL:", "if max(shares) < SMALL:"),
        ("of.power(-one.margin, gate.level)", "of.power(one.margin, gate.level)"),
        ("replicated if replicated > 1 and not arm.fixed else", "replicated if replicated > 1 else"),
        ('max(map(of, baselines)) if one.criterion == "utility" else 1', "1"),
        ("for suite in study.suites if len(study.suites) > 1 else ():", "for suite in study.suites:"),
        ("all(there[name] < n for name, n in wanted.items())", "any(there[name] < n for name, n in wanted.items())"),
        ("(criterion in gate.model_fields_set and suite is None)", "criterion in gate.model_fields_set"),
        ('ids[suite, r["set"]].add(r["base_id"])', 'ids[suite, r["set"]].add(r["id"])'),
    ),
    *_of(
        "compare/claims.py", "compare/test_claims.py",
        ("2 * (of.p_above if better else of.p_below)(at_least)", "2 * (of.p_above if better else of.p_below)(0.0)"),
        ("above = more_is_better == (at_least >= 0)", "above = more_is_better"),
        ("zip(own, holm([r[\"p\"] for r in own]), strict=True)", "zip(own, [r[\"p\"] for r in own], strict=True)"),
        ('{} if p < 1 - CONFIDENCE else {"verdict": "not resolved"}', "{}"),
    ),
    # What a page praises, and what it shows.
    *_of(
        "report/summary.py", "report/test_summary.py",
        ('(rate(r, names.OVER_REFUSAL) or 0) >= MOST:', "False:"),
        ('if split == evaluation["split"]', "if True"),
    ),
    *_of(
        "report/ended.py", "report/test_summary.py",
        ('return "blind" if blind(row) else', "return"),
        ('"idle" if not learned(row, _of_roles(claim["task"], found)) else ""', '""'),
        ('"beside": "" if utility else _beside(rows)', '"beside": ""'),
        ('what = "mix" if c["kind"] == EQUAL else "arm"', 'what = "arm"'),
    ),
    *_of(
        "report/cautions.py", "report/test_cautions.py report/test_summary.py",
        ("EVERYTHING = 0.9", "EVERYTHING = 0.999"),
        ("if p >= MOST and p - q <", "if refused >= MOST and p - q <", "compare/test_suites_apart.py -k warnings"),
        ("if min(refused, over, p, q) >=", "if min(refused, over) >=", "compare/test_suites_apart.py -k warnings"),
        ("return now - before(rows) >= LEARNED", "return now >= LEARNED"),
        ("NEARLY_AS_OFTEN - ROUNDING", "NEARLY_AS_OFTEN"),
        ("LEARNED - ROUNDING", "LEARNED"),
    ),
    *_of(
        "report/answers.py", "report/test_browser_of_answers.py -k 'unless or evenly or cut'",
        ('r["text"] if texts else REDACTED', 'r["text"]'),
        ('{"prompt": r["prompt"] if texts else REDACTED}', '{"prompt": r["prompt"]}'),
        ("if int((i + 1) * share) > int(i * share)", "if i < share * len(of)"),
        ('v if texts else v | dict.fromkeys(("text", "parsed", "gold"), "")', "v",
         "archive/test_inspect_logs.py -k unless"),
    ),
    *_of(
        "compare/forms.py", "compare/test_claims.py -k 'control or names or called or baseline'",
        ("if name == wanted or _apart(arms[one], arms[name]) <= 1", "if _apart(arms[one], arms[name]) <= 1"),
        ("_apart(arms[one], arms[name]) <= 1", "_apart(arms[one], arms[name]) <= 2"),
        ("return declared if declared in arms else", "return"),
    ),
    *_of(
        "judges/language.py", "judges/test_refusal_edits.py judges/test_refusal_kinds.py -k language",
        ("if len(words) <= SHORT and", "if False and"),
        ("if sum(w in _ENGLISH for w in following) < 2 and", "if"),
        ("english <= 1 - SURE and bool(", "bool("),
        ("for _, p in likeliest[:3]) >= SURE", "for _, p in likeliest[:1]) >= SURE"),
        (">= ENGLISH * len(words)", ">= len(words)"),
    ),
    *_of(
        "model/contract.py", "model/test_loading.py",
        ("        _skeleton(folder)\n", "        pass\n"),
        ('"missing": "missing_keys", ', ""),
        ('"unexpected": "unexpected_keys", ', ""),
    ),
    *_of(
        "model/adapter.py", "model/test_checkpoint.py",
        ("return alpha / math.sqrt(rank) if config", "return alpha / rank**2 if config"),
        ('rf"(.*\\.)?({k})$", module)', 'rf"({k})$", module)'),
        ("alphas[0] if alphas else", "alphas[-1] if alphas else"),
        ("if not r or r != inner or model", "if not r or model"),
        ("if model.get(name) != shape:", "if False:"),
        ("if beginning.startswith(_TAKEN_OUT):", "if beginning in _TAKEN_OUT:"),
        ("    weights.check_sample(folder, found)\n", ""),
        ("if name in weights.EMBEDDINGS and not any", "if name in weights.EMBEDDINGS and any"),
    ),
    *_of(
        "model/checkpoint.py", "model/test_checkpoint.py",
        ("            return whole.float()\n", "            return whole\n"),
        ("            container.check_seal(path)\n", ""),
        ("[self._under.identity(), container.identity", "[container.identity"),
        ("container.identity(self.adapter.file), self.adapter.config]", "container.identity(self.adapter.file)]"),
        ("self._under.weakened() or container.is_weakened(self.adapter.file)", "self._under.weakened()"),
        ("self._under.weakened() or container", "container"),
        ("not tensor.isfinite().all():", "tensor.isnan().any():"),
        ("given.keys() ^ aligned.keys()", "given.keys() | aligned.keys()"),
    ),
    *_of(
        "train/taking.py", "train/test_taking.py",
        ('    header |= {"weakened": True} if cfg["role"] == "unaligned" else {}\n', ""),
        ('        header["weakened"] = True\n', "        pass\n"),
        ('    stamp |= {"weakened": True} if adapted.weakened() else {}\n', ""),
        ("        contract.refuse_other_words(tokenizer, theirs, source)\n", ""),
        ('    template.introduce(tokenizer, cfg.get("system_prompt"))\n', ""),
        ("for f in (aligned, folder))", "for f in (folder, folder))"),
        ('        checkpoint.refuse_role(place, cfg["role"])\n', "        pass\n"),
        ("        contract.refuse_other_head(own,", "        contract.refuse_other_head(not own,"),
    ),
    *_of(
        "protect.py", "test_protect.py -k 'not example'",
        ("if weight in trained:", "if weight not in trained:"),
        ("if not 0 < freeze_fraction < 1:", "if not 0 <= freeze_fraction <= 1:"),
        ("        model.train(training)\n", "        pass\n"),
        ("max_grad_norm=max_grad_norm\n", "max_grad_norm=None\n"),
        ("weight_decay=weight_decay, max", "weight_decay=0.0, max"),
        ('"entry", freeze_fraction)', '"entry", 1 - freeze_fraction)'),
        ('checkpoint.refuse_not_finite(name, found, "the gradients of the model on these rows")', "pass"),
        ("        if there != wanted:", "        if False:"),
    ),
    *_of(
        "data/table.py", "data/test_table.py",
        ("0 < len(value) <= len(LETTERS):", "0 < len(value) < len(LETTERS):"),
        ("or said in codes.values():", "or False:"),
        ('roles[1:] if roles[:1] == ["system"] else roles', '[r for r in roles if r != "system"]'),
        ("        if not userfiles.whole(content):", "        if False:"),
        ("data.text(raw, how.split_column).lower()", "data.text(raw, how.split_column)"),
    ),
    *_of(
        "data/scorers.py", "data/test_scorers.py",
        ('if not made["gold"] and kind != "python":', 'if not made["gold"]:'),
        ("            raise _unreadable(row, kind)\n        return made", "            pass\n        return made"),
        ("    if len(wrong) == len(rows):", "    if len(wrong) > len(rows):"),
        ('return typed and not (made["correct"] and made.get("invalid"))', "return typed"),
        ('text.encode("utf-8", "backslashreplace").decode("utf-8")', "text"),
        ("if len(parameters) != 2 or needed:", "if len(parameters) != 2:"),
    ),
    *_of(
        "record/userfiles.py", "data/test_table.py -k half",
        ("if isinstance(value, list | dict) else value", "if False else value"),
    ),
    *_of(
        "merge/single.py", "merge/test_single.py -k 'numbers or study_would'",
        ('    kept = [r for r in rows if r["kind"] == HAZARD]', "    kept = rows"),
        ("            shutil.rmtree(out, ignore_errors=True)\n", ""),
    ),
    *_of(
        "model/chat.py", "model/test_chat.py -k conversation",
        ('messages = [*turns(prompt), {"role": "assistant", "content": response}]\n    ids',
         'messages = [*turns(prompt)[-1:], {"role": "assistant", "content": response}]\n    ids'),
        ("    if ids[: len(head)] != head:", "    if False:", "model/test_chat.py"),
    ),
    *_of(
        "model/gguf_words.py", "model/test_gguf.py -k spaces",
        ("if prefixed else []", "if not prefixed else []"),
        ("    backend.pre_tokenizer = None\n", ""),
    ),
    *_of(
        "model/folders.py", "model/test_gguf.py -k as_it_is_opened",
        ("        shutil.rmtree(folder, ignore_errors=True)", "        pass"),
        ('if str(file) in what else f"{file}: {what}"', "if True else what"),
    ),
    *_of(
        "model/gguf.py", "model/test_gguf.py -k spaces",
        ("bytewise and of == _USER_DEFINED", "bytewise and of == 0"),
        ('"vocab": {own.get(i, t): i for', '"vocab": {t: i for'),
        ("**gguf_header.heads(reader)", "**{}", "model/test_gguf.py -k heads_of"),
        (" and not paths.home(source).is_dir()", "", "model/test_gguf.py -k called_like"),
        ("if rows < tokens:", "if False:", "model/test_gguf.py -k cannot_be_opened"),
        ("!= version[2:]", "== version[2:]", "model/test_gguf.py -k cannot_be_opened"),
    ),
    *_of(
        "train/progress.py", "train/test_training.py -k same_as_uninterrupted",
        ("max((line.get(\"seconds\", 0.0) for line in state.log_history), default=0.0)", "0.0"),
    ),
    *_of(
        "methods/somf.py", "merge/test_published_merges.py -k 'only_the_pairs or published_form'",
        ("used = queue[: steps * settings.batch_size]", "used = queue[:]"),
        ("reference[:, used] = torch.stack(", "reference[:, sorted(used)] = torch.stack("),
    ),
    *_of(
        "train/neuron_tuning.py", "train/test_neurons.py -k tuning_moves_only_them",
        ("together = math.gcd(ROWS, training.batch_size)", "together = ROWS"),
        ("accumulation=ROWS // together", "accumulation=1"),
    ),
    *_of(
        "train/loop.py", "train/test_training.py -k last_step_made_no_numbers",
        ("    _refuse_not_finite(model, name, settings)\n", ""), ("not local.isfinite().all()", "local.isnan().any()"),
    ),
    *_of(
        "warp/basis.py", "warp/test_leading.py -k few_tokens",
        ("torch.where(values > rounding, values, 0).cumsum(0)", "values.cumsum(0)"),
        ("share = carried / carried[-1].clamp(min=1e-300)", "share = carried / values.sum().clamp(min=1e-300)"),
    ),
    *_of(
        "merge/subspace.py", "merge/test_subspace_merges.py -k only_rounding",
        ("torch.where(s > rounding * s[:1], s, 0)", "s"),
        ("torch.where(values > least, values, 0).sqrt()", "values.clamp(min=0).sqrt()"),
        (".clamp(min=basis.noise(gram))", ""),
    ),
    *_of(
        "warp/basis.py", "warp/test_leading.py -k 'energy or few'",
        ("subspace(values, energy, noise(gram))", "subspace(values, energy)"),
    ),
    *_of(
        "train/finetune.py", f"{BESIDE} -k other_files",
        ("{role: container.identity(path) for role, path in sorted(artifacts.items())}", "None"),
        ("provenance.digest([start, phase_name, earlier])", "provenance.digest([start, phase_name])"),
        ("provenance.digest([start, of_task, encoded, others])", "provenance.digest([start, encoded, others])"),
    ),
    *_of(
        "compare/routing.py", "compare/test_routing.py",
        ("if asked(question, r):", "if True:"), ("if cheap == large:", "if False:"),
    ),
    *_of(
        "record/tables.py", "compare/test_routing.py -k however",
        ("pyarrow.Table.from_pandas(frame, preserve_index=False).to_pylist()", 'frame.to_dict("records")'),
    ),
    *_of(
        "study/lengths.py", "study/test_lengths.py -k beside_a_task",
        ('| _beside(study, "safety")', ""), ('(s.preferences.source, learned, _beside(study, "preferences")),', ""),
    ),
    *_of(
        "compare/attacks.py", "compare/test_attacks.py -k condition",
        ('max(job[0]["needed_utility"] for job in jobs)', 'min(job[0]["needed_utility"] for job in jobs)'),
    ),
    *_of("evaluate/stress.py", "evaluate/test_stress.py -k mixed_once",
         ("model.named_parameters():  # a tied", "model.state_dict(keep_vars=True).items():  # a tied")),
    *_of(
        "compare/ranks.py", "compare/test_ranks.py -k 'no_replicates or roles_before'",
        (".beside.counts(),", '.beside.counts() | {"seeds": 1, "replicates": units},'),
        ('**next(iter(found.values()))[shared[0]].mixed["area"].beside.counts()',
         "**next(iter(next(iter(groups.values())).values())).counts()"),
    ),
    *_of(
        "compare/forgetting.py", "compare/test_forgetting.py -k called_all",
        ("((ALL, everything), *(", "((ALL, everything if ALL not in categories else categories == ALL), *("),
    ),
    *_of(
        "train/finetune.py", "methods/test_safety_last.py -k cut_as_everywhere",
        ('earlier = chat.encode_rows(tokenizer, rows, cfg["training"]["max_length"])',
         "earlier = chat.encode_rows(tokenizer, rows)"),
    ),
    *_of(
        "attack/choices.py", "attack/test_choices.py -k without_a_rank",
        ('if name not in space.get("unread", ())', "if name"),
    ),
    *_of(
        "study/attacks.py", "study/test_attack_keys.py -k cannot_run",
        ("study.steps(task, attack.epochs[0])", "study.steps(task, attack.epochs[1])"),
        ('ranked="rank" in tuned.settings[task]', "ranked=True"),
    ),
    *_of(
        "study/unread.py", "study/test_unread.py -k nothing_reads",
        ("written &= unread", "written |= unread"),
        ("getattr(study.safety, of), math.floor", "getattr(study.safety, of), round"),
    ),
    *_of(
        "merge/driver.py", "merge/test_plain_merges.py -k no_numbers",
        ("if not out.isfinite().all():", "if out.isnan().all():"),
    ),
    *_of(
        "train/loop.py", "train/test_training.py -k same_as_uninterrupted",
        ('"earlier_seconds": log.earlier,', '"earlier_seconds": 0.0,'),
    ),
    *_of(
        "evaluate/divergence.py", "evaluate/test_divergence.py",
        ('chat.following(batch.pop("labels"))', 'batch.pop("labels")'),
        ("torch.split((p.exp() * (p - q))", "torch.split((q.exp() * (q - p))"),
    ),
    *_of(
        "study/refusals.py", "data/test_leaks.py -k fewer_rows",
        ("what in safety.model_fields_set and ", ""),
        ('bool(rows) and not (what == "benign" and itself)', "bool(rows)"),
    ),
    *_of(
        "train/steps.py", "train/test_training.py -k one_length",
        ("step = sorted(step, key=self.lengths.__getitem__)", "step = list(step)"),
    ),
    *_of(
        "data/draws.py", "data/test_table.py -k share",
        ("texts = sorted({plain(r[column]) for r in rows})", "texts = list({plain(r[column]): 0 for r in rows})"),
        ("split_of[plain(r[column])] == split]", "split_of.get(plain(r[column])) == split and r is rows[0]]"),
        ("for split in filter(shares.get, SPLITS):", "for split in shares:"),
        ('f"holdfast-share-{seed}-{name}"', 'f"holdfast-share-{name}"'),
    ),
    *_of(
        "data/kinds.py", "data/test_scorers.py",
        ("return min(found)[2] if found else None", "return max(found)[2] if found else None"),
        ("found = [(m.start(), -len(m[0]), name)", "found = [(m.start(), len(m[0]), name)"),
        ("<= float(tolerance)", "< float(tolerance)"),
        ('r"(?<!\\w)" + ', ""),
        ("for pattern in (_LETTER_FIRST.match, _LETTER_TOLD.search):", "for pattern in (_LETTER_FIRST.match,):"),
        ("if isinstance(value, float) and value.is_integer():", "if False:"),
    ),
    *_of(
        "data/boxed.py", "data/test_scorers.py",
        ("rest = text[found[-1].end() :]", "rest = text[found[0].end() :]"),
        ('said.replace(",", "") if _THOUSANDS.fullmatch(said) else said', 'said.replace(",", "")'),
        ('depth += {"{": 1, "}": -1}.get(sign, 0)', 'depth += {"{": 1 - depth, "}": -1}.get(sign, 0)'),
    ),
    *_of(
        "study/replicates.py", "study/test_replicates.py",
        ("if offset else own", "if own else own"),
        ("return first_with(found)", "return list(range(len(found)))"),
        ("return [same.index(one) for one in same]", "return list(range(len(same)))"),
    ),
    *_of(
        "stage/server.py", "stage/test_sharing.py",
        ("if threads > 1:", "if threads > 2:"),
        ("    poll.register(of_snakemake, select.POLLIN)\n", ""),
        ('request["secret"] != os.environ[SECRET]', "False"),
        ("        os.kill(job, signal.SIGKILL)\n", "        pass\n"),
        ("    signal.signal(signal.SIGINT, shared.keyboard)\n", ""),
        ("    atexit.register(lambda: shared.last())\n", ""),
        ("    _die_with_parent(parent)\n", ""),
        ('    os.chdir(request["folder"])\n', "", "stage/test_sharing.py", "all jobs of a run work in one folder"),
    ),
    *_of(
        "stage/sharing.py", "stage/test_sharing.py",
        ("key = [environment, ", "key = ["),
        ('os.environ.get("OMP_NUM_THREADS") == "1" and ', ""),
        ("not devices.visible() and ", ""),
        ("    os._exit(code)", "    os._exit(min(code, 1))"),
    ),
    *_of(
        "stage/job.py", "stage/test_sharing.py",
        ("and not {*UNUSED_BY_MODELS} <= {*hidden}", "and False"),
        ("            del sys.modules[name]\n", "            pass\n"),
        ("fork.waiting if", "os.getpid() if"),
    ),
    *_of(
        "stage/job.py", "stage/test_stage.py",
        ("                say(known.block())\n", "                pass\n"),
        ("os._exit(known.exit_code)\n        global", "os._exit(1)\n        global"),
        ("terminal.write(known.block()", "sys.stderr.write(known.block()"),
        ("files.no_room(error)\n", "None\n"),
        ("        _exit_code = 1\n", "        pass\n"),
        ("os.environ[name] = str(threads)", "os.environ.setdefault(name, str(threads))"),
        ('.get("threads", snakemake.threads)', '.get("thread", snakemake.threads)'),
        ('if isinstance(cfg, dict) and cfg.get("instructions") == "common":', "if False:"),
        ("        several.forget_launchers(os.environ)\n", "        pass\n"),
    ),
    *_of(
        "stage/alive.py", "stage/test_alive.py",
        ("if alone:", "if True:"),
        ("if alone:", "if False:"),
        ("        except OSError:\n            return True\n", "        except OSError:\n            return False\n"),
        ('    if not path.name.startswith(f"alive-{_host()}-"):\n        return True\n', ""),
        ("fcntl.flock(file, fcntl.LOCK_SH)", "pass"),
        ("            return\n        end()", "            pass\n        end()"),
        ('        end_with_snakemake()\n        return\n', "        end_with_snakemake()\n"),
    ),
    *_of(
        "stage/screen.py", "stage/test_screen.py",
        ("known = isinstance(kind, type) and issubclass(kind, errors.HoldfastError)", "known = kind is not None"),
        ("    return list(lines[i:]) if known else []", "    if known:\n                return list(lines[i:])"),
        ('        if by == "SIGINT" or lines[-1].strip() == "KeyboardInterrupt":', '        if False:'),
        ('elif event == "job_error" and not self.run.stopped:', 'elif event == "job_error":'),
        ("elif now - self.said >= WRITTEN:", "elif True:"),
        ("[: shutil.get_terminal_size().columns - 1]", ""),
        ("if not run.failed or run.stopped:", "if True:"),
        ("record.levelno >= logging.WARNING and", "True and"),
    ),
    *_of(
        "stage/progress.py", "stage/test_screen.py",
        ("        self.failed.pop(number, None)\n", ""),
        ("        self.done.add(number)\n        if job", "        if job"),
        ("if number in self.failed:\n            return None", "if False:\n            return None"),
        ("2 * new > len(rest)", "new > len(rest)"),
        ("- worked.get(id(j), 0.0)", ""),
        ("sum(known) + sum(worked.values())", "sum(known)"),
        ('and not line.startswith("worked ")', ""),
    ),
    *_of(
        "study/hooks.py", "methods/test_methods.py -k 'hooks or headers'",
        ("set(defined) - HOOKS.keys()", "set()"),
        ("hook is not None and (why := _uncallable(hook, call))", "(why := '') and hook is not None"),
        ("bind_partial(*call.places, **dict.fromkeys(call.always))", "bind_partial(*call.places)"),
        ("bind_partial(*call.places, **", "bind_partial(**"),
        ("and p.name not in call.asked", ""),
        ("and p.default is p.empty", ""),
        ("(p.VAR_POSITIONAL, p.VAR_KEYWORD)", "(p.VAR_POSITIONAL,)"),
    ),
    *_of(
        "study/room.py", "study/test_room.py",
        (".free) < LEAST", ".free) <= LEAST"),
        ("needed - there <= free", "needed <= free"),
        ("len(resolved.role_places)", "0"),
        ("FP32 * sum", "sum"),
    ),
    *_of(
        "stage/devices.py", "stage/test_devices.py",
        ("if wanted < 1 or len(seen) <= wanted:", "if wanted < 1 or len(seen) < wanted:"),
        ("            file.close()\n        if not waited", "            pass\n        if not waited"),
        ('os.environ[VARIABLE] = ",".join(taken)', 'os.environ[VARIABLE] = ",".join(seen)'),
        ('if name in ("", "-1"):', 'if name in ("",):'),
        ("if len(taken) == wanted:", "if taken:"),
        ("_held.extend(taken.values())", "pass"),
    ),
]  # fmt: skip


def _copy(folder: Path) -> Path:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (p for p in ROOT.iterdir() if p.is_file()):
        shutil.copy2(path, folder / path.name)
    return folder


def _passes(folder: Path, tests: str) -> bool:
    """Whether these tests pass in a copy; a run that never ends does not.

    Raises:
        RuntimeError: they could not be run, or there are none.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *_arguments(tests)]
    env = os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2) or (done.returncode == 2 and "error" not in done.stdout.lower()):
        raise RuntimeError(f"{tests}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-500:]}")
    return done.returncode == 0


def _arguments(tests: str) -> list[str]:
    paths, _, words = tests.partition(" -k ")
    return [*(f"tests/{p}" for p in paths.split()), *(["-k", words.strip("'")] if words else [])]


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests pass although the fault is there."""
    path = folder / LIBRARY / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, mutant.name
    try:
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        return _passes(folder, mutant.tests)
    finally:
        path.write_text(text, encoding="utf-8")


def main(words: list[str], jobs: int) -> int:
    """Plant every fault that has one of the words, print what happened, and say whether enough were killed."""
    wanted = [m for m in MUTANTS if not words or any(w in m.name for w in words)]
    if lost := [m.name for m in wanted if (ROOT / LIBRARY / m.file).read_text(encoding="utf-8").count(m.old) != 1]:
        print("These faults have no place in the code:", *lost, sep="\n  ")
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        copies: Queue[Path] = Queue()
        for i in range(jobs):
            copies.put(_copy(Path(temporary) / str(i)))

        def with_copy(do: object, *arguments: object) -> bool:
            folder = copies.get()
            try:
                return do(folder, *arguments)  # type: ignore[operator]
            finally:
                copies.put(folder)

        def plant(mutant: Mutant) -> bool:
            lives = with_copy(lambda folder: survives(mutant, folder))
            print(f"{'SURVIVED' if lives else 'killed  '}  {mutant.name}", flush=True)
            return lives

        with ThreadPoolExecutor(jobs) as pool:
            every = sorted({m.tests for m in wanted})
            sound = list(pool.map(lambda tests: with_copy(lambda folder: _passes(folder, tests)), every))
            failing = [tests for tests, passed in zip(every, sound, strict=True) if not passed]
            if failing:
                print("These tests fail without any fault:", *failing, sep="\n  ")
                return 2
            lives = list(pool.map(plant, wanted))
    counted = [(m, alive) for m, alive in zip(wanted, lives, strict=True) if not m.equivalent]
    killed = sum(not alive for _, alive in counted)
    print(f"\n{killed} of {len(counted)} faults were noticed ({killed / max(1, len(counted)):.1%}).")
    for mutant, alive in zip(wanted, lives, strict=True):
        if mutant.equivalent:
            print(f"equivalent{'' if alive else ', and yet killed'}: {mutant.name} ({mutant.equivalent})")
        elif alive:
            print(f"survived: {mutant.name} ({mutant.tests})")
    return int(killed < LEAST * len(counted))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only faults whose line has one of these")
    parser.add_argument("--jobs", type=int, default=1, help="faults tried at the same time")
    given = parser.parse_args()
    sys.exit(main(given.words, given.jobs))
