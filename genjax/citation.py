"""The BibTeX entries of everything in the library, kept in the file of the method that they belong to.

A method declares its paper where it is written:

    reference = bibtex('''@inproceedings{song2021denoising, ...}''')

and gets the entry's key back. Other methods of the same paper name the key. `genjax cite` prints the entries of what a
run used.
"""

import re
import textwrap

_ENTRIES: dict[str, str] = {}
_KEY = re.compile(r"@\w+\{\s*([^,\s]+)\s*,")


def bibtex(entry: str) -> str:
    """Adds one BibTeX entry and returns its key.

    Raises:
        ValueError: the text is no BibTeX entry, or another entry has the same key.
    """
    entry = textwrap.dedent(entry).strip()
    match = _KEY.match(entry)
    if match is None or not entry.endswith("}"):
        raise ValueError(f"not a BibTeX entry: {entry[:60]!r}")
    key = match.group(1)
    if _ENTRIES.setdefault(key, entry) != entry:
        raise ValueError(f"two different BibTeX entries are called {key!r}")
    return key


def entry(key: str) -> str:
    """Returns the BibTeX text of a key.

    Raises:
        KeyError: no imported method declares the key.
    """
    return _ENTRIES[key]
