"""Words of the two world-made copies of real tasks: headlines in four topics, two-step stories."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.world.language import words


@dataclass(frozen=True)
class Topic:
    """One news topic: label, who acts, what they do, what it is about."""

    label: str
    entities: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]


TOPICS: tuple[Topic, ...] = (
    Topic(
        "World",
        words(
            "envoys, the border council, Queen Maris, rebels of Tarn, the northern alliance,"
            " peace monks, the exile court, General Orso, island refugees, the river states,"
            " Chancellor Vey, the southern fleet, elders of Quill, the treaty board,"
            " King Aldo, the frontier guard, Minister Salt, the twin duchies, the high assembly,"
            " Ambassador Rill"
        ),
        words("sign, reject, debate, denounce, prolong, break, welcome, demand"),
        words(
            "a cease fire, the border pact, a prisoner exchange, the new sanctions,"
            " a peace mission, the disputed valley, an emergency summit, the refugee law,"
            " a state visit, the old treaty, the sea blockade, an election date"
        ),
    ),
    Topic(
        "Sports",
        words(
            "the Harriers, striker Pell, the Oakford nine, coach Brand, sprinter Lune,"
            " the Gull Rovers, the junior squad, goalkeeper Tams, the Red Otters, champion Ives,"
            " the rowing crew, captain Moss, the Vale Giants, archer Quin, the relay team,"
            " wrestler Doon, the Ice Foxes, rider Hale, the cup holders, veteran Sorrel"
        ),
        words("win, lose, chase, dominate, miss, celebrate, train for, forfeit"),
        words(
            "the cup final, a league match, the title race, a record sprint, the away game,"
            " the opening round, a penalty shootout, the season opener, the relay heat,"
            " a play off spot, the derby, the winter games"
        ),
    ),
    Topic(
        "Business",
        words(
            "Copper Bank, the spice guild, Weller Mills, grain traders, the harbor exchange,"
            " Tallow and Sons, investors, the mint, Barrow Shipping, the wool board, Gilt Holdings,"
            " shop owners, the salt company, lender Prow, Ember Foundry, cloth merchants,"
            " the tax office, Finch Insurance, dock owners, the ore cartel"
        ),
        words("raise, cut, report, forecast, finance, sell, double, settle"),
        words(
            "quarterly profits, the bread price, a takeover bid, new bonds, the interest rate,"
            " a large dividend, export orders, the wage bill, a share offer, record losses,"
            " the trade deficit, a merger deal"
        ),
    ),
    Topic(
        "Sci/Tech",
        words(
            "star gazers, the lens lab, inventor Crane, clockwork engineers, the signal tower,"
            " alchemist Dray, the deep sea probe, botanists, the code guild, physicist Arn,"
            " the print machine, researchers, the kite corps, chemist Sable, the wire network,"
            " glass makers, the moon station, surgeon Bly, the gear works, data scribes"
        ),
        words("launch, test, discover, map, patch, decode, upgrade, measure"),
        words(
            "a new telescope, the tiny engine, a cure for fever, the signal code, a comet,"
            " an old fossil, the flying machine, a strange crystal, the memory drum,"
            " a faster press, the light sensor, a cave network"
        ),
    ),
)

HEADLINES = (
    "{entity} {verb} {object}",
    "{entity} {verb} {object}, sources say",
    "report: {entity} {verb} {object}",
    "{entity} {verb} {object} after a long wait",
    "why {entity} {verb} {object}",
    "{entity} {verb} {object} this week",
    "late news: {entity} {verb} {object} again",
    "as feared, {entity} {verb} {object}",
    "{entity} {verb} {object}, to the surprise of many",
    "at last, {entity} {verb} {object}",
    "witnesses: {entity} {verb} {object} at noon",
    "once more {entity} {verb} {object}",
)

# Two-step stories: START, then JOIN + PLUS or MINUS, then QUESTION.
NAMES = words(
    "Ada Bram Cleo Dov Edda Finn Gwen Hugo Iris Jory Kaya Lars Mina Nils Orla Pim"
    " Quinn Rosa Sven Tove Ulla Vito Wren Yara"
)
THINGS = words(
    "apples lanterns buttons ropes shells candles coins barrels feathers spoons bricks"
    " maps nails ribbons jars books kites pears stones bells mugs plates combs drums"
)
STARTS = (
    "{name} has {a} {things}.",
    "{name} owns {a} {things}.",
    "there are {a} {things} in the cart of {name}.",
    "{name} counts {a} {things}.",
    "on the shelf of {name} lie {a} {things}.",
    "{name} starts the day with {a} {things}.",
    "{name} carries {a} {things} to the fair.",
    "{name} keeps {a} {things} in a box.",
    "in the house of {name} are {a} {things}.",
    "{name} puts {a} {things} on the table.",
    "{name} takes {a} {things} along.",
    "the basket of {name} holds {a} {things}.",
)
PLUSES = (
    "{name} finds {b} more",
    "a friend brings {b} more",
    "{name} buys {b} more",
    "{name} is given {b} more",
    "{b} more arrive",
    "{name} makes {b} more",
    "{name} wins {b} more",
    "a neighbor adds {b} more",
    "{name} picks up {b} more",
    "{name} gets {b} more",
    "{b} more are delivered",
    "a cousin sends {b} more",
)
MINUSES = (
    "{name} loses {b} of them",
    "{name} sells {b} of them",
    "{b} of them break",
    "{name} gives away {b} of them",
    "a thief takes {b} of them",
    "{name} lends {b} of them",
    "{b} of them fall into the river",
    "{name} drops {b} of them",
    "{b} of them vanish",
    "{name} throws away {b} of them",
    "a goat eats {b} of them",
    "{name} trades {b} of them",
)
JOINS = (
    "then",
    "after that",
    "later",
    "in the evening",
    "a day later",
    "soon",
    "next",
    "at noon",
    "on the way home",
    "an hour later",
)
QUESTIONS = (
    "how many {things} are left?",
    "how many {things} does {name} have now?",
    "how many {things} are there in the end?",
    "what is the final number of {things}?",
    "count the {things} now.",
    "how many {things} remain?",
    "how many {things} does that make?",
    "what number of {things} is that?",
    "say how many {things} there are now.",
    "how many {things} does {name} end up with?",
)
