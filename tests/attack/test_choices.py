"""The sampler of an attack: seeded, within its ranges, and told again what it was told it goes on alike."""

from __future__ import annotations

import math

import pytest

from holdfast.attack import choices
from holdfast.errors import ArtifactError

pytest.importorskip("optuna", reason="needs the extra `attack` (Optuna)")
SPACE = {"learning_rate": [1e-4, 1e-2], "epochs": [1, 4], "harmful_fraction": [0.0, 0.5], "order": 3, "rank": [2, 16]}
TRIALS = 9


def answer(choice):
    """Refusals left and utility lacking: a smooth pretence, the more harmful rows the fewer refusals."""
    return abs(math.log10(choice["learning_rate"]) + 3) / 2, choice["harmful_fraction"] - 0.3


def chooser(sampler="tpe", seed=4, space=SPACE):
    return choices.Chooser(space, sampler=sampler, seed=seed)


def asked(of, count=TRIALS, tell=answer):
    out = []
    for _ in range(count):
        choice = of.ask()
        of.tell(*tell(choice))
        out.append((choice, *tell(choice)))
    return out


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_choices_are_seeded_and_within_their_ranges(sampler):
    found = [c for c, *_ in asked(chooser(sampler))]
    assert found == [c for c, *_ in asked(chooser(sampler))] != [c for c, *_ in asked(chooser(sampler, seed=5))]
    for c in found:
        assert 1e-4 <= c["learning_rate"] <= 1e-2 and 0 <= c["harmful_fraction"] <= 0.5
        assert c["epochs"] in range(1, 5) and c["order"] in range(3) and 2 <= c["rank"] <= 16
    assert len({c["learning_rate"] for c in found}) == TRIALS and len({c["order"] for c in found}) > 1


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("done", [0, 2, 7])
def test_who_is_told_again_what_was_told_asks_for_the_same(sampler, done):
    whole = asked(chooser(sampler))
    again = chooser(sampler)
    again.replay(whole[:done])
    assert asked(again, TRIALS - done) == whole[done:]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_trials_of_another_sampler_are_refused(sampler):
    told = asked(chooser(sampler, seed=1), 3)
    with pytest.raises(ArtifactError, match="Trial 0 of an attack was not asked for by this sampler"):
        chooser(sampler, seed=2).replay(told)
    other = [told[0], (told[1][0] | {"epochs": 9}, *told[1][1:]), told[2]]
    with pytest.raises(ArtifactError, match="Trial 1"):
        chooser(sampler, seed=1).replay(other)


def test_tpe_learns_from_what_it_is_told_and_random_does_not():
    """Rates near 1e-3 leave few refusals: later choices of `tpe` come near, and it is told of utility too."""

    def other(choice):
        return 1 - answer(choice)[0], -1.0

    assert [c for c, *_ in asked(chooser("random"))] == [c for c, *_ in asked(chooser("random"), tell=other)]
    assert [c for c, *_ in asked(chooser("tpe"))] != [c for c, *_ in asked(chooser("tpe"), tell=other)]
    # Before it has seen a few trials it draws as `random` may, whatever it is told: more trials begin as fewer do.
    first = [[c for c, *_ in asked(chooser("tpe"), 5, tell)] for tell in (answer, other)]
    assert first[0] == first[1]
    free = [c for c, *_ in asked(chooser("tpe"), tell=lambda c: (answer(c)[0], -1.0))]
    assert free != [c for c, *_ in asked(chooser("tpe"))]
    late = [refusal for _, refusal, _ in asked(chooser("tpe"), 40)]
    assert sum(late[20:]) < sum(late[:10]) * 2 * 0.8


def test_what_may_not_be_chosen_stays():
    fixed = {"learning_rate": [1e-3, 1e-3], "epochs": [2, 2], "harmful_fraction": [0.0, 0.0], "order": 1}
    (choice, *_), *_ = asked(chooser(space=fixed), 1)
    assert choice == {"learning_rate": 1e-3, "epochs": 2, "harmful_fraction": 0.0, "order": 0}


def test_rates_and_ranks_are_drawn_by_their_logarithm():
    """Half of the rates lie below the geometric mean of their range, where a twelfth of it lies, and so do ranks."""
    wide = SPACE | {"rank": [1, 256]}
    found = [c for c, *_ in asked(chooser("random", space=wide), 200)]
    for key, middle in (("learning_rate", 1e-3), ("rank", 16)):
        assert 0.35 < sum(c[key] < middle for c in found) / len(found) < 0.65, key


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_defence_without_a_rank_meets_the_same_attacker(sampler):
    """What is told does not matter to the first ones, which are drawn at random."""
    ranked, other = (
        [c for c, *_ in asked(chooser(sampler, space=SPACE | {"unread": of}), choices.STARTUP)] for of in ([], ["rank"])
    )
    assert all("rank" in c for c in ranked)
    assert [{k: v for k, v in c.items() if k != "rank"} for c in ranked] == other
