"""Generate the quickstart pairs from a seeded grammar (standard library only): ``python corpus.py FOLDER``.

The command writes ``train.csv``, ``validation.csv`` and ``test.csv``, byte for byte those of
``mrpcbench/quickstart/data``.

A *fact* says who handed how many of what to whom, where, on which day, and whether it happened at all.  One fact has
thousands of surface forms: active, dative, passive and converse frames ("gave ... to" / "received ... from"),
synonyms, digits or number words, fronted place or day, and neutral padding such as "officials said".  A pair is
EQUIVALENT (label 1) if both sentences state the same fact in different words, and NOT_EQUIVALENT (label 0) if one to
three slots of the second fact were changed.  The label conventions and the share of positives follow GLUE MRPC.

Every fact belongs to exactly one partition, by a SHA-256 hash of its slots, and both facts of a pair are drawn from
the same partition: hence no fact that is seen in pretraining occurs in the quickstart splits, and no fact of one
split occurs in another.  Only ``Random.random``, ``randrange``, ``choice`` and ``shuffle`` are used, whose sequences
are the same in every supported Python version.
"""

import csv
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import NamedTuple

#: Label values, as in GLUE MRPC.
NOT_EQUIVALENT = 0
EQUIVALENT = 1

#: Seed of the quickstart splits; changing it changes the bundled data set.
QUICKSTART_SEED = 20240601
#: Pairs in each quickstart split.
QUICKSTART_SIZES: dict[str, int] = {"train": 3200, "validation": 400, "test": 400}
#: Share of label 1 in each quickstart split (GLUE MRPC: about 0.67 to 0.68).
POSITIVE_SHARE = 0.67

# Each value of a slot lists its interchangeable surface words; the first is the canonical one.
PEOPLE: dict[str, tuple[str, ...]] = {
    "doctor": ("doctor", "physician"),
    "lawyer": ("lawyer", "attorney"),
    "teacher": ("teacher", "instructor"),
    "farmer": ("farmer", "grower"),
    "nurse": ("nurse",),
    "pilot": ("pilot", "aviator"),
    "singer": ("singer", "vocalist"),
    "judge": ("judge", "magistrate"),
}
COUNTS: dict[str, tuple[str, ...]] = {
    "2": ("2", "two"),
    "3": ("3", "three"),
    "4": ("4", "four"),
    "5": ("5", "five"),
    "6": ("6", "six"),
    "7": ("7", "seven"),
    "8": ("8", "eight"),
    "9": ("9", "nine"),
}
ITEMS: dict[str, tuple[str, ...]] = {
    "cars": ("cars", "automobiles"),
    "bikes": ("bikes", "bicycles"),
    "coats": ("coats", "jackets"),
    "photos": ("photos", "pictures"),
    "books": ("books", "volumes"),
    "lamps": ("lamps", "lights"),
    "boats": ("boats", "ships"),
    "clocks": ("clocks",),
}
PLACES: tuple[str, ...] = ("Oslo", "Paris", "Madrid", "Cairo", "Lima", "Tokyo", "Delhi")
DAYS: tuple[str, ...] = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Verb(NamedTuple):
    """The forms of one transfer verb; every row is a tuple of interchangeable synonyms."""

    past: tuple[str, ...]
    base: tuple[str, ...]
    participle: tuple[str, ...]
    converse_past: tuple[str, ...]
    converse_base: tuple[str, ...]


VERBS: dict[str, Verb] = {
    "give": Verb(("gave", "handed"), ("give", "hand"), ("given", "handed"), ("received", "got"), ("receive", "get")),
    "sell": Verb(("sold",), ("sell",), ("sold",), ("bought", "purchased"), ("buy", "purchase")),
    "lend": Verb(("lent", "loaned"), ("lend", "loan"), ("lent", "loaned"), ("borrowed",), ("borrow",)),
    "send": Verb(("sent", "mailed"), ("send", "mail"), ("sent", "mailed"), (), ()),
    "promise": Verb(("promised", "pledged"), ("promise", "pledge"), ("promised", "pledged"), (), ()),
}

# Padding says nothing about the fact, so adding, dropping or changing it never changes the label.  It may name a place
# or a day of its own, so that a word that occurs in one sentence only does not prove a difference.
PREFIXES: tuple[str, ...] = (
    "officials said that",
    "officials in {place} said that",
    "it emerged that",
    "it emerged on {day} that",
    "witnesses in {place} said on {day} that",
    "according to a report ,",
    "the {place} paper wrote that",
    "the paper wrote on {day} that",
    "as expected ,",
)
SUFFIXES: tuple[str, ...] = (
    ", officials said",
    ", officials in {place} said",
    ", witnesses in {place} said",
    ", witnesses said on {day}",
    ", according to a report",
    ", the {place} paper wrote",
    ", the paper wrote on {day}",
    ", as expected",
)
#: Share of sentences that open with a prefix, and share that close with a suffix.
PREFIX_SHARE = 0.5
SUFFIX_SHARE = 0.3

#: Word tags: the slot that a word expresses; "other" for function words and padding.
TAGS: tuple[str, ...] = ("other", "agent", "verb", "recipient", "count", "item", "place", "day", "polarity")
#: The ways in which a negative differs: one changed slot each, "roles" being agent and recipient exchanged.
KINDS: tuple[str, ...] = ("agent", "verb", "recipient", "count", "item", "place", "day", "polarity", "roles")

#: Partition of the fact space: name -> its buckets of the 20 into which facts are hashed.
PARTITIONS: dict[str, range] = {
    "pretraining": range(13),
    "heldout": range(13, 14),
    "train": range(14, 18),
    "validation": range(18, 19),
    "test": range(19, 20),
}
_BUCKETS = 20


@dataclass(frozen=True)
class Fact:
    """What a sentence states, as canonical slot values; ``polarity`` is "yes" or "no" (it did not happen)."""

    agent: str
    verb: str
    recipient: str
    count: str
    item: str
    place: str
    day: str
    polarity: str


_SLOTS: tuple[str, ...] = tuple(field.name for field in fields(Fact))
_VALUES: dict[str, tuple[str, ...]] = {
    "agent": tuple(PEOPLE),
    "verb": tuple(VERBS),
    "recipient": tuple(PEOPLE),
    "count": tuple(COUNTS),
    "item": tuple(ITEMS),
    "place": PLACES,
    "day": DAYS,
    "polarity": ("yes", "no"),
}
#: What a word's counterpart can be (see ``counterpart``); people are shared by agent and recipient.
COUNTERPARTS: tuple[str, ...] = (
    *PEOPLE,
    *VERBS,
    *("not " + verb for verb in VERBS),
    *COUNTS,
    *ITEMS,
    *PLACES,
    *DAYS,
)
#: Share of facts that are negated ("did not give").
_NEGATED_SHARE = 0.25


@dataclass(frozen=True)
class Pair:
    """Two sentences and their label (1 = EQUIVALENT)."""

    sentence1: str
    sentence2: str
    label: int


class Word(NamedTuple):
    """One word or punctuation mark of a sentence with the slot it expresses (one of ``TAGS``)."""

    text: str
    tag: str


@dataclass(frozen=True)
class LabelledPair:
    """A pair with its facts and, for each word of either sentence, its tag and whether it contradicts the other one.

    ``words1[i].tag`` is the tag and ``mismatch1[i]`` is 1 if that word's slot has another value in the other fact
    (always 0 in an equivalent pair).  ``kinds`` names what was changed, from ``KINDS``; empty for label 1.
    """

    pair: Pair
    fact1: Fact
    fact2: Fact
    words1: tuple[Word, ...]
    words2: tuple[Word, ...]
    mismatch1: tuple[int, ...]
    mismatch2: tuple[int, ...]
    kinds: tuple[str, ...]


def partition_of(fact: Fact) -> str:
    """Name of the partition (a key of ``PARTITIONS``) that ``fact`` belongs to, by a hash of its slot values."""
    key = "|".join(str(getattr(fact, slot)) for slot in _SLOTS)
    bucket = int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big") % _BUCKETS
    return next(name for name, buckets in PARTITIONS.items() if bucket in buckets)


def draw_fact(rng: Random) -> Fact:
    """A random fact; agent and recipient differ."""
    values = {slot: rng.choice(_VALUES[slot]) for slot in _SLOTS if slot not in ("recipient", "polarity")}
    recipient = rng.choice([person for person in _VALUES["recipient"] if person != values["agent"]])
    polarity = "no" if rng.random() < _NEGATED_SHARE else "yes"
    return Fact(recipient=recipient, polarity=polarity, **values)


def draw_kinds(rng: Random) -> tuple[str, ...]:
    """What to change in a negative: one kind (60 %), two (30 %) or three (10 %); "roles" excludes a changed person."""
    draw = rng.random()
    wanted = 1 if draw < 0.6 else 2 if draw < 0.9 else 3
    kinds: list[str] = []
    while len(kinds) < wanted:
        kind = rng.choice(KINDS)
        people = {"agent", "recipient", "roles"}
        if kind not in kinds and not (kind in people and people & set(kinds)):
            kinds.append(kind)
    return tuple(kinds)


def change_fact(fact: Fact, kinds: tuple[str, ...], rng: Random) -> Fact:
    """``fact`` with the slots named in ``kinds`` set to other values; a changed person is someone not yet involved."""
    changed = fact
    for kind in kinds:
        if kind == "roles":
            changed = replace(changed, agent=changed.recipient, recipient=changed.agent)
            continue
        taken = {fact.agent, fact.recipient} if kind in ("agent", "recipient") else {getattr(fact, kind)}
        value = rng.choice([value for value in _VALUES[kind] if value not in taken])
        changed = replace(changed, **{kind: value})
    return changed


def _tagged(text: str, tag: str = "other") -> list[Word]:
    """The blank-separated words of ``text``, all with the same tag."""
    return [Word(word, tag) for word in text.split()]


def _person(name: str, tag: str, rng: Random) -> list[Word]:
    return [Word("the", "other"), Word(rng.choice(PEOPLE[name]), tag)]


def _clause(fact: Fact, rng: Random) -> list[Word]:
    """The core of the sentence (who, what, to whom) in a random frame."""
    verb = VERBS[fact.verb]
    frames = ["active", "dative", "passive", "dative passive"] + (
        ["converse", "converse"] if verb.converse_past else []
    )
    frame = rng.choice(frames)
    agent = _person(fact.agent, "agent", rng)
    recipient = _person(fact.recipient, "recipient", rng)
    things = _tagged(rng.choice(COUNTS[fact.count]), "count") + _tagged(rng.choice(ITEMS[fact.item]), "item")
    negated = fact.polarity == "no"
    never = _tagged("never", "polarity") if negated and rng.random() < 0.4 else []
    negation = _tagged("not", "polarity") if negated else []
    if frame in ("passive", "dative passive"):
        participle = _tagged(rng.choice(verb.participle), "verb")
        by_agent = _tagged("by") + agent
        if frame == "passive":
            return things + _tagged("were") + (never or negation) + participle + _tagged("to") + recipient + by_agent
        return recipient + _tagged("was") + (never or negation) + participle + things + by_agent
    converse = frame == "converse"
    if negated and not never:
        base = rng.choice(verb.converse_base if converse else verb.base)
        predicate = _tagged("did") + negation + _tagged(base, "verb")
    else:
        predicate = never + _tagged(rng.choice(verb.converse_past if converse else verb.past), "verb")
    if converse:
        return recipient + predicate + things + _tagged("from") + agent
    if frame == "dative":
        return agent + predicate + recipient + things
    return agent + predicate + things + _tagged("to") + recipient


def _padding(templates: tuple[str, ...], rng: Random) -> list[Word]:
    """A random phrase that adds nothing to the fact; the place or day that it may name is not a slot's word."""
    return _tagged(rng.choice(templates).format(place=rng.choice(PLACES), day=rng.choice(DAYS)))


def render(fact: Fact, rng: Random) -> tuple[Word, ...]:
    """One random sentence that states ``fact``, as tagged words: capitalised, and closed by a full stop."""
    adjuncts = [_tagged("in") + _tagged(fact.place, "place"), _tagged("on") + _tagged(fact.day, "day")]
    rng.shuffle(adjuncts)
    words = _clause(fact, rng)
    draw = rng.random()
    if draw < 0.3:
        words = adjuncts[0] + _tagged(",") + words + adjuncts[1]
    elif draw < 0.4:
        words = adjuncts[0] + adjuncts[1] + _tagged(",") + words
    else:
        words = words + adjuncts[0] + adjuncts[1]
    if rng.random() < PREFIX_SHARE:
        words = _padding(PREFIXES, rng) + words
    if rng.random() < SUFFIX_SHARE:
        words = words + _padding(SUFFIXES, rng)
    first = words[0]
    return (Word(first.text[0].upper() + first.text[1:], first.tag), *words[1:], Word(".", "other"))


def text_of(words: tuple[Word, ...]) -> str:
    """The sentence: words joined by blanks, punctuation attached to the word before it."""
    parts = [
        word.text if word.text in (",", ".") or index == 0 else " " + word.text for index, word in enumerate(words)
    ]
    return "".join(parts)


def word_overlap(sentence1: str, sentence2: str) -> float:
    """Jaccard overlap (0 to 1) of the two lower-cased word sets, punctuation ignored."""
    set1, set2 = (set(text.lower().replace(",", " ").replace(".", " ").split()) for text in (sentence1, sentence2))
    return len(set1 & set2) / len(set1 | set2)


def _mismatch(words: tuple[Word, ...], fact: Fact, other: Fact) -> tuple[int, ...]:
    """1 for each word whose slot differs; a differing polarity marks the verb too, as "yes" has no word of its own."""
    changed = {slot for slot in _SLOTS if getattr(fact, slot) != getattr(other, slot)}
    if "polarity" in changed:
        changed.add("verb")
    return tuple(int(word.tag in changed) for word in words)


def counterpart(tag: str, other: Fact) -> str | None:
    """What ``other`` states for the slot of a word tagged ``tag``, one of ``COUNTERPARTS``; None for other words.

    Verb and polarity are looked up together ("not sell"), since a sentence that is not negated has no polarity word.
    """
    if tag == "other":
        return None
    if tag in ("verb", "polarity"):
        return other.verb if other.polarity == "yes" else "not " + other.verb
    return str(getattr(other, tag))


def _draw_facts(rng: Random, partition: str, kinds: tuple[str, ...]) -> tuple[Fact, Fact]:
    """Two facts of one partition that differ in ``kinds`` (the same fact twice if that is empty)."""
    while True:
        fact1 = draw_fact(rng)
        if partition_of(fact1) != partition:
            continue
        fact2 = change_fact(fact1, kinds, rng)
        if partition_of(fact2) == partition:
            return fact1, fact2


def generate_pair(rng: Random, partition: str, label: int) -> LabelledPair:
    """One random pair of the given label whose facts are in ``partition``.

    A negative keeps that of three renderings of the second fact which shares most words with the first sentence; this
    makes up for the changed slots, so that the overlap of both labels is alike and counting shared words is useless.
    """
    kinds = draw_kinds(rng) if label == NOT_EQUIVALENT else ()
    fact1, fact2 = _draw_facts(rng, partition, kinds)
    words1 = render(fact1, rng)
    text1 = text_of(words1)
    candidates = [render(fact2, rng) for _ in range(1 if label == EQUIVALENT else 3)]
    words2 = max(candidates, key=lambda words: word_overlap(text1, text_of(words)))
    if rng.random() < 0.5:  # either order, so that the choice among candidates does not mark the second sentence
        fact1, fact2, words1, words2 = fact2, fact1, words2, words1
    return LabelledPair(
        pair=Pair(text_of(words1), text_of(words2), label),
        fact1=fact1,
        fact2=fact2,
        words1=words1,
        words2=words2,
        mismatch1=_mismatch(words1, fact1, fact2),
        mismatch2=_mismatch(words2, fact2, fact1),
        kinds=kinds,
    )


def labelled_split(partition: str, count: int, seed: int, positive_share: float = POSITIVE_SHARE) -> list[LabelledPair]:
    """``count`` shuffled pairs, exactly ``round(count * positive_share)`` positive; no fact occurs in two pairs."""
    rng = Random(f"{partition}-{seed}")
    positives = round(count * positive_share)
    labels = [EQUIVALENT] * positives + [NOT_EQUIVALENT] * (count - positives)
    rng.shuffle(labels)
    seen: set[Fact] = set()
    items: list[LabelledPair] = []
    while len(items) < count:
        item = generate_pair(rng, partition, labels[len(items)])
        if item.fact1 in seen or item.fact2 in seen or item.pair.sentence1 == item.pair.sentence2:
            continue
        seen.update((item.fact1, item.fact2))
        items.append(item)
    return items


def quickstart_splits() -> dict[str, list[Pair]]:
    """The bundled data set: train, validation and test, always the same pairs."""
    return {
        name: [item.pair for item in labelled_split(name, count, QUICKSTART_SEED)]
        for name, count in QUICKSTART_SIZES.items()
    }


def pretraining_pairs(
    count: int, seed: int, positive_share: float = 0.5, partition: str = "pretraining"
) -> Iterator[LabelledPair]:
    """``count`` labelled pairs for pretraining, generated one at a time; balanced unless told otherwise."""
    rng = Random(f"{partition}-{seed}")
    for _ in range(count):
        label = EQUIVALENT if rng.random() < positive_share else NOT_EQUIVALENT
        item = generate_pair(rng, partition, label)
        if item.pair.sentence1 != item.pair.sentence2:
            yield item


def write_splits(folder: Path) -> None:
    """Write the quickstart splits as CSV files to ``folder``, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in quickstart_splits().items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("sentence1", "sentence2", "label"))
            writer.writerows((pair.sentence1, pair.sentence2, pair.label) for pair in pairs)


if __name__ == "__main__":
    write_splits(Path(sys.argv[1]))
