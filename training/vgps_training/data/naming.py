"""What the names in other people's data say: the words in them, and which of them tells how an episode ended."""
import re

_SUCCESS = {'success', 'successful', 'succeeded'}
_OF_AN_EPISODE = {'next', 'is', 'was', 'episode', 'task', 'trial', 'demo', 'rollout', 'final', 'overall'}
_FAILURE = {'failure', 'failed', 'fail', 'unsuccessful'}
_ENDED = _FAILURE | {'outcome', 'verdict'}


def words_of(name: str) -> list[str]:
    """Return the words of a name in small letters: `next.isSuccess` holds next, is and success."""
    split = re.sub(r'([a-z])([A-Z])', r'\1_\2', name).lower()
    return [word for word in re.split(r'[^a-z]+', split) if word]


def judging(given: list[str]) -> tuple[str | None, list[str]]:
    """Return (which of these columns says whether the episode succeeded, those that judge in ways of their own)."""
    told = {name: set(words_of(name)) for name in given}
    good = [name for name in ('next.success', 'success') if name in told] or [
        name for name, words in told.items() if words & _SUCCESS and words <= _SUCCESS | _OF_AN_EPISODE]
    others = [n for n, words in told.items() if words & (_SUCCESS | _ENDED) and n not in good]
    return (good[0] if good else None), others


def ended_in_words(text: object) -> tuple[bool, str] | None:
    """Return how an episode ended and the word that says so: the whole text, or a folder of a path; None without."""
    parts = re.split(r'[/\\]', text.strip().lower()) if isinstance(text, str) else []
    found = [part for part in parts if part in _SUCCESS | _FAILURE]
    return (found[-1] in _SUCCESS, found[-1]) if len(set(found)) == 1 else None
