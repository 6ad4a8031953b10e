"""Passages that answer nothing, to stand beside those that are searched for: as many as are wanted, always the same.

They are like text where that matters to a search. Words follow Zipf's law: the commonest are those that several of the
paragraphs' articles have (what any text of the language has), the others are made up, letter by letter as the letters
of the paragraphs follow one another, so that a rare word of a question meets words that begin as it does, and pairs of
characters that it has, but is as rare as a name among other texts. The vectors are drawn with the mean and the
covariance of the paragraphs'.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

_VOCABULARY = 50_000  # words of one language
_COMMON = 300  # of these are the paragraphs' own at most
_ARTICLES = 0.05  # so large a part of the articles has a common word, and three at least
_WORDS = 60  # of a passage
_BEFORE = {"en": 2, "ko": 1}  # so many letters, or syllables, decide what may follow
_LONGEST = 14


class Beside:
    """Draws them. ``paragraphs``: the article, the text and the language of each; ``vectors``: theirs."""

    def __init__(
        self, paragraphs: Sequence[tuple[str, str, str]], vectors: Sequence[Sequence[float]], seed: int = 1
    ) -> None:
        self._drawn = random.Random(seed)
        self._chance = np.random.default_rng(seed)
        by_language: dict[str, list[tuple[str, str]]] = {}
        for article, text, language in paragraphs:
            by_language.setdefault(language, []).append((article, text))
        self._vocabularies = [self._vocabulary(language, texts) for language, texts in by_language.items()]
        # Zipf and Mandelbrot's law: the word of rank n is drawn as often as 1 / (n + 2.7).
        self._shares = list(accumulate(1 / (rank + 2.7) for rank in range(1, _VOCABULARY + 1)))
        known = np.array(vectors)
        size, dimensions = known.shape
        self._mean = known.mean(axis=0)
        spread = np.cov(known, rowvar=False)
        # Of few paragraphs the covariance is known badly: it is drawn towards that of a ball.
        shrink = dimensions / (size + dimensions)
        spread = (1 - shrink) * spread + shrink * np.trace(spread) / dimensions * np.eye(dimensions)
        self._root = np.linalg.cholesky(spread)

    def texts(self, count: int) -> list[str]:
        """So many texts, each of one of the languages."""
        return [" ".join(self._words()) for _ in range(count)]

    def vectors(self, count: int) -> list[list[float]]:
        """So many vectors of unit length."""
        found = self._mean + self._chance.normal(size=(count, len(self._mean))) @ self._root.T
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        made: list[list[float]] = found.tolist()
        return made

    def _words(self) -> list[str]:
        vocabulary = self._drawn.choice(self._vocabularies)
        return self._drawn.choices(vocabulary, cum_weights=self._shares, k=_WORDS)

    def _vocabulary(self, language: str, texts: Sequence[tuple[str, str]]) -> list[str]:
        """Words by falling frequency."""
        counts = Counter(word for _, text in texts for word in text.split())
        articles = Counter(word for word, _ in {(word, article) for article, text in texts for word in text.split()})
        least = max(3, _ARTICLES * len({article for article, _ in texts}))
        before = _BEFORE.get(language, 1)
        follows: defaultdict[str, list[str]] = defaultdict(list)
        for word, count in counts.items():
            for place in range(len(word) + 1):
                # As often as it stands there, within bounds.
                follows[word[max(0, place - before) : place]] += [word[place : place + 1]] * min(count, 20)
        common = sorted(counts, key=lambda word: (-articles[word], -counts[word], word))[:_COMMON]
        made = dict.fromkeys(word for word in common if articles[word] >= least)
        while len(made) < _VOCABULARY:
            word = ""
            while len(word) < _LONGEST and (letter := self._drawn.choice(follows[word[-before:]])):
                word += letter
            if word and word not in counts:
                made[word] = None
        return list(made)
