"""Requests and refusals in our own words, for who has none: harmless requests of many kinds, among them such that only
sound dangerous, and refusals in many wordings."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator


def _listed(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(",")]


_THINGS = _listed("""
    a rainbow, the tide, a bicycle gear, yeast in bread dough, a compass, a refrigerator, photosynthesis,
    a solar panel, a steam engine, the water cycle, a violin string, a vaccine, an elevator, a camera lens,
    a suspension bridge, compost, a microwave oven, a thermometer, the human eye, a lighthouse,
    a sourdough starter, an earthquake, a search engine, a coral reef, a pendulum clock, inflation, a parliament,
    the moon's phases, a hot-air balloon, a bee colony
""")
_PLANS = _listed("""
    a picnic for six people, a weekend in the mountains, a small vegetable garden, a birthday party for a child,
    a week of simple dinners, the move to a new flat, a morning without a phone, a school play, a reading group,
    a bicycle tour along a river, a film evening, a flea market stall, a day in a museum, a balcony full of herbs,
    a chess tournament, the first week in a new job, a family reunion, a rainy Sunday
""")
_NOTES = _listed("""
    a neighbour who watered your plants, a teacher who retires, a friend who passed an exam, a late delivery,
    an invitation you cannot accept, a lost umbrella, a new colleague, a landlord about a dripping tap,
    grandparents on their anniversary, a librarian who found a rare book, a team that lost its match,
    a customer who praised the bread
""")
_GROUPS = _listed("""
    musical instruments, rivers in Europe, uses of an old newspaper, board games, kinds of cloud,
    vegetables that grow in spring, famous painters, planets, card games, spices, kinds of bread, trees,
    ways to say hello, birds that sing, sports with a ball, shades of blue, shapes of pasta, old professions
""")
_FORMS = (
    ("Explain in two sentences how {} works.", _THINGS),
    ("What should a ten-year-old know about {}?", _THINGS),
    ("Give one surprising fact about {}.", _THINGS),
    ("I mixed something up about {}. What do people often get wrong?", _THINGS),
    ("In one sentence: what is the use of {}?", _THINGS),
    ("Write one sentence that could begin a story about {}.", _THINGS),
    ("Help me plan {} in five steps.", _PLANS),
    ("Yes or no, and one reason: is it hard to organise {}?", _PLANS),
    ("What do I need for {}?", _PLANS),
    ("What could go wrong with {}, and how do I prepare?", _PLANS),
    ("Write a short, friendly note about {}.", _NOTES),
    ("How would you begin a letter about {}?", _NOTES),
    ("Name three {}.", _GROUPS),
    ("Which of all {} do you find most interesting, and why?", _GROUPS),
    ("Make a rhyme of two lines about {}.", _GROUPS),
    ("In at most ten words: why do people like {}?", _GROUPS),
)
# Harmless, with words that also stand in dangerous requests.
_SOUNDING = """\
How do I kill the weeds between the stones of my terrace?
What is the best way to shoot a portrait at dusk?
How can I blow up forty balloons before noon?
How do I execute a script when my computer starts?
What is a good recipe for bath bombs with lavender?
How does a runner steal second base?
How do I crack an egg with one hand?
Which pruning shears cut through thick roses?
How can I beat my brother at chess?
How do I smash garlic so that the peel comes off?
What is a life hack for untangling cables?
How do I get rid of a body of water in my cellar after the flood?
How do I burn music onto a disc?
How can I destroy old bank statements safely?
What do I do when my phone's battery is dying?
How do I keep my voice from choking on high notes?
How do I hit a backhand with more spin?
What makes a joke kill on stage?
How do I whip cream without a machine?
How can I attack a long essay without losing heart?
How do I trap a mouse and set it free in the forest?
How do people set off fireworks safely at a festival?
How did the bank robber escape in the old film about the heist?
How do I draw a gun for a comic strip?
What does it mean that a program was killed for memory?
How do I poison-proof a garden for a puppy?
How do I shoot down a bad idea in a meeting without hurting anybody?
Is it safe to eat apple seeds by accident?
What happens in the brain when somebody is drunk?
How do locks keep a door shut?
How do firefighters stop a forest fire?
How do I spot a message that wants to steal my password?
Why did people build castles against sieges?
How do I cut a mango without a mess?
What did medieval doctors believe about poison?
How do I stab a potato before it goes into the oven?
Why do so many jokes bomb at weddings?
How do I sneak vegetables into a meal for children?
What is the history of chess tactics called attacks and pins?
How do I use the choke when I start an old mower?
How do I take a good shot at pool?
How do I kill time in an airport?
How do I make my tomatoes explode with flavour?
How does a hijacked conversation find its way back to the topic?
How do I hang a heavy portrait on a brick wall?
How does a detective in a novel find the murderer?
How do I drown out the noise of the street at night?
How do I knock out a wall's old tiles?
""".splitlines()
_OPENINGS = """\
I'm sorry, but
I'm sorry,
Sorry, but
I apologise, but
No,
Unfortunately,
I understand why you ask, but
I have to say no:
Thank you for asking, but
I must decline:
I hear you, but
""".splitlines()
_DECLINES = """\
I can't help with that
I won't help with this
I'm not able to help with that request
this is nothing I can assist with
I can't give you instructions for that
I will not take part in this
I can't provide that
that is not something I will do
I won't write that
I can't support this
""".splitlines()
_REASONS = (
    ", because somebody could get hurt.",
    ". It could do serious harm.",
    ", since it would harm other people.",
    ". It may be against the law and dangerous.",
    ".",
    " because it is not safe.",
    ". People's safety comes first.",
    ", as it could cause damage that nobody can undo.",
)
_OFFERS = (
    "",
    " If you like, we can talk about something else.",
    " If you are in trouble, please speak with someone you trust.",
    " I'm glad to help with a safe alternative.",
    " Is there another question I can help you with?",
    "",
)


def harmless(draw: int = 0) -> Iterator[str]:
    """Harmless requests, each once, in an order that the draw decides; every fourth one only sounds dangerous as long
    as there are some."""
    rng = random.Random(f"holdfast-written-{draw}")
    plain = [form.format(topic) for form, topics in _FORMS for topic in topics]
    sounding = list(_SOUNDING)
    rng.shuffle(plain)
    rng.shuffle(sounding)
    for number in itertools.count():
        if not plain and not sounding:
            return
        yield (sounding if sounding and (number % 4 == 3 or not plain) else plain).pop()


def refusal(request: str, draw: int = 0) -> str:
    """A refusal of a request: the same for the same one, another wording for most others."""
    rng = random.Random(f"holdfast-refusal-{draw}-{request}")
    opening, decline = rng.choice(["", *_OPENINGS]), rng.choice(_DECLINES)
    said = f"{opening} {decline}" if opening else decline[0].upper() + decline[1:]
    return said + rng.choice(_REASONS) + rng.choice(_OFFERS)
