"""How much a term of a question tells of what the question is about.

English function words are left out of a question (``analyzer.FUNCTION_WORDS``); those of Korean are endings, which are
seen only as pairs of characters, and such a pair may be part of a word that tells: they count less, but they count.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_ASKING: Final = re.compile(
    "뭐|무엇|무슨|어디|언제|누구|누가|어떤|어떻|얼마|인가|나요|까요|습니|니까|는지|은지|는가|주세|세요|하나|한가|되나"
    "|으로|에서|에게|까지|부터|하고|에는|이나|라고|이라|알려|려줘|설명|명해|해줘|있나|있는|했나|는데|대해|해서|무어|엇인|엇을"
)
_PARTICLE: Final = re.compile("[가-힣][은는이가을를의에로도와과만요다고지나]")


@lru_cache(4096)
def telling(term: str) -> float:
    """1 for a term that tells, less for those that any question may have."""
    if _ASKING.search(term):
        return 0.1
    return 0.5 if _PARTICLE.fullmatch(term) else 1.0
