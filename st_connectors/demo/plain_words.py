"""Everyday words for the technical words that documentation uses, so that plain questions match it."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["plain_words"]

_WORD = re.compile(r"[a-z]+")

_TABLE = """
absolute: without sign
archive: zip tar pack
argument: parameter
cache: remember results
character: letter
characters: letters
combinations: selections groups
command: program
compress: shrink zip pack
concatenate: join combine
concatenation: join combine
concurrently: parallel same time
copy: duplicate
csv: table spreadsheet
current: now
database: sql table
datetime: date time
decode: convert
decompress: unpack expand
delay: wait pause sleep
delete: remove erase
deserialize: convert turn load
deviation: spread
dict: dictionary
digest: hash checksum
directories: folders
directory: folder
disk: free space
duplicate: copy same twice
element: item
elements: items
email: mail message
encode: convert
environment: settings variables
exception: error
executable: program command
execute: run start
exponent: power
factorial: multiply
float: decimal number
hostname: computer name machine
html: web page
http: web request download
integer: whole number
interpreter: python program
invoke: call run
iterable: list items
iterate: loop go through
join: put together
largest: biggest highest
leading: beginning start
logarithm: log
lowercase: small letters
mapping: dictionary
matches: similar alike
mean: average
memory: ram
numeric: number
occurrences: times appears
parse: read
password: secret
path: file location
pathname: file location
pattern: search find
permutations: orderings arrangements
process: program
product: multiply
quote: escape
random: chance
recursively: everything inside
regexp: pattern
remove: delete
rename: move
replace: substitute change
retrieve: download get fetch
reverse: backwards opposite
root: square root
round: nearest
seconds: time
sequence: list
serialize: convert turn save
shuffle: mix random order
similar: almost same alike close
smallest: lowest least
socket: network connection
sort: order arrange
sorted: order arrange
split: divide break parts
string: text
strings: text words
strip: remove
subprocess: program
substring: part of text
suspend: wait pause sleep
temporary: short-lived
terminate: stop kill end
thread: parallel
timestamp: date time
traceback: error stack
trailing: end
truncate: cut shorten
unique: distinct no duplicates
unlink: delete remove file
uppercase: capital letters
url: web address link
variance: spread
whitespace: spaces blanks
"""


def _parse_table(table: str) -> Mapping[str, tuple[str, ...]]:
    pairs = (line.split(":") for line in table.strip().splitlines())
    return {technical: tuple(plain.split()) for technical, plain in pairs}


_PLAIN = _parse_table(_TABLE)


def plain_words(text: str) -> str:
    """Return the everyday words for the technical words of a text, each once, in order of first occurrence."""
    words: dict[str, None] = {}
    for technical in _WORD.findall(text.lower()):
        words.update(dict.fromkeys(_PLAIN.get(technical, ())))
    return " ".join(words)
