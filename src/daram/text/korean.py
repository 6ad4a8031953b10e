"""What the words of a Korean question are about: their stems, without the particles and endings written onto them.

Tables of particles and endings, not a dictionary: they are for asking whether a text speaks of a question's words, and
a word that may be read in two ways is looked for in both. After the lists of *Korean Grammar for Foreigners*
(외국인을 위한 한국어 문법), National Institute of the Korean Language, 2005.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_WORD: Final = re.compile("[가-힣]+")

# Words that ask, with all that is written onto them.
_ASKS: Final = re.compile(
    "뭐|뭘|뭔|무엇|무어|무슨|어디|언제|누구|누가|누굴|어느|어떤|어떻|어때|얼마|며칠|몇|왜|혹시|이게|그게|저게"
)
# Verbs that carry a question and say nothing of what it is about, and words that point at what was said before.
_EMPTY: Final = re.compile(
    "(?:있|없|되|돼|된|됐|될|하|해|한|할|했|합|됩|인|입|일|이|알려|말해|설명해|설명하|가르쳐|궁금|부탁|가능|주)"
    "(?:나|니|는|은|을|지|어|고|습|죠|요|면|야|줘|주|한|해|데|까|가|여|었|았|합|세|려|서|다|건|된|되|하|드){1,6}$"
    "|그런가|그렇|이렇|이런|(?:돼|되|해|한|두|세|네|좀|그럼|그러면|그리고|그런데|그|이|저|그건|이건|그거|이거|저는|제가|내가|나는|나|수|것|거|때|건|게|걸|중|등|및|또|다)$"
)
_PARTICLE: Final = re.compile(
    "(?:에서는|에서도|에게는|으로는|으로도|까지는|까지도|부터는|이라는|이라고|이라면|한테는|에서|에게|에는|에도|께서|한테|으로|까지"
    "|부터|마다|처럼|보다|이나|라도|이란|라는|라고|라면|하고|이랑|밖에|대로|로는|로도|와는|과는|만은"
    "|은|는|이|가|을|를|의|에|와|과|도|만|로|란|랑)$"
)
# Endings that only a verb has, and then those that a noun may end with too.
_OF_VERBS: Final = re.compile(
    "(?:으려면|하려면|려면|려고|으면|하면|되면|하나요|되나요|되는지|하는지|했나요|됐나요|되었나요|하는가|되는가|었나요|았나요|였나요"
    "|나요|는가요|은가요|인가요|는가|는지|은지|인지|을까요|까요|을까|습니까|니까|합니까|됩니까|하세요|으세요|세요|해요|돼요|어요|아요"
    "|여요|지요|죠|해야|되어야|어야|아야|하는|되는|하기|되기|하여|해서|되어|되지|하지|었던|았던|했던|해도|되면서|하면서|면서|었다|았다|였다|했다"
    "|나왔어|했어|됐어|었어|았어|어줘|아줘)$"
)
_ENDING: Final = re.compile("(?:면|나|니|냐|지|는|은|을|던|게|기|고|서|어|아|여|해|돼|야|다|요|한|된|할|될)$")


# A stem that melts into its ending: 빌리다, 빌려. Its first syllable is what stays.
_CONTRACTED: Final = re.compile(
    "[가-힣](?:려|겨|켜|쳐|져|혀|와|워|줘|봐|러|릴|길|킬|칠|질|힐|린|긴)(?:줘|요|도|야|서|줘요)?$"
)


class Looked(NamedTuple):
    """A word of a question as it may stand in a text: ``stems``, the likeliest first; ``is_verb``: surely one."""

    stems: tuple[str, ...]
    is_verb: bool


def looked_for(question: str) -> list[Looked]:
    """The words in Hangul of a question that say what it is about, without those that only ask (며칠, 있나요)."""
    found = []
    for word in _WORD.findall(question):
        if _ASKS.match(word) or _EMPTY.match(word) or _PARTICLE.fullmatch(word):
            continue
        without = _OF_VERBS.sub("", word)
        is_verb = 0 < len(without) < len(word)
        readings = [without] if is_verb else [word, _PARTICLE.sub("", word), _ENDING.sub("", word)]
        if is_verb or _CONTRACTED.search(word):
            readings.append(word[0])
        stems = tuple(dict.fromkeys(reading for reading in readings if reading))
        found.append(Looked(stems, is_verb))
    return found
