"""What the beginning of a reply settles: whether it can still pass, or must. Reads no files.

Both answers err on one side: `lost` and `won` are True only where every continuation fails or
passes. Checks whose verdict may change until the end (a suffix, a language, a JSON text) are
neither.
"""

from __future__ import annotations

import unicodedata

from ringfence.graders.algebra import AllOf, AnyOf, IfEval, Not
from ringfence.graders.grades import Check, Seen, examine
from ringfence.graders.leaks import Leak
from ringfence.graders.lengths import Characters, Words
from ringfence.graders.pieces import words
from ringfence.graders.wording import Contains, Count, Exact, LetterCase, Prefix, folded


def lost(check: Check, begun: str) -> bool:
    """Whether no reply that begins so can pass; False also where that is not known."""
    match check:
        case AllOf():
            return any(lost(one, begun) for one in check.of)
        case AnyOf():
            return all(lost(one, begun) for one in check.of)
        case Not():
            return won(check.of, begun)
        case IfEval():
            return lost(check.expanded(), begun)
        case Prefix():
            head, text = _compared(begun, check.text, check.ignore_case)
            return not (head.startswith(text) or text.startswith(head))
        case Exact():
            head, text = _compared(begun, check.text, check.ignore_case, strip=check.strip)
            ended = check.strip and head.rstrip() == text.rstrip()
            return not (ended or text.startswith(head))
        case Characters():
            return check.at_most is not None and len(begun.strip()) > check.at_most
        case Words():
            # The last word may still become another, but does not vanish.
            said = sum(1 for _ in words(begun, joined=check.joined))
            return check.at_most is not None and said > check.at_most
        case Count():
            if check.text is None or check.at_most is None:
                return False
            found = folded(begun, check.ignore_case).count(folded(check.text, check.ignore_case))
            return not check.whole_word and found > check.at_most
        case LetterCase():
            return _wrong_case(check, begun)
    return False


def won(check: Check, begun: str) -> bool:
    """Whether every reply that begins so passes; False also where that is not known."""
    match check:
        case AllOf():
            return all(won(one, begun) for one in check.of)
        case AnyOf():
            return any(won(one, begun) for one in check.of)
        case Not():
            return lost(check.of, begun)
        case IfEval():
            return won(check.expanded(), begun)
        case Contains() if not check.whole_word:
            return folded(check.text, check.ignore_case) in folded(begun, check.ignore_case)
        case Prefix():
            head, text = _compared(begun, check.text, check.ignore_case)
            return head.startswith(text)
        case Leak():
            # What is given away stays so, whatever is said after it.
            return examine(check, Seen(begun, None)).passed
    return False


def _compared(begun: str, text: str, ignore_case: bool, *, strip: bool = True) -> tuple[str, str]:
    if strip:
        begun, text = begun.lstrip(), text.lstrip()
    return folded(begun, ignore_case), folded(text, ignore_case)


def _wrong_case(check: LetterCase, begun: str) -> bool:
    if check.case == "title":
        return any(word[0].islower() for word in words(begun))
    wrong = str.islower if check.case == "upper" else str.isupper
    # A letter such as \u01c5 is a capital and a small one at once.
    return any(wrong(letter) or unicodedata.category(letter) == "Lt" for letter in begun)
