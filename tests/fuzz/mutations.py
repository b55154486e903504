"""Random changes of a file: bytes changed, removed, duplicated and moved, and numbers set to extremes."""

import re
import struct
from collections.abc import Callable, Sequence
from random import Random

# Near the limits of every integer width, and of the size of an array or a file.
EXTREMES = sorted(
    {0, 1, 2, 3, 10**6, 10**9, 10**15}
    | {2**bits + more for bits in (7, 8, 15, 16, 24, 31, 32, 40, 53, 62, 63, 64) for more in (-1, 0, 1)}
)

# Replacements of a number in text.
_WRITTEN = (
    *(str(extreme).encode() for extreme in EXTREMES),
    *(f"-{extreme}".encode() for extreme in EXTREMES),
    *(b"nan", b"inf", b"-inf", b"1e999", b"1e-999", b"1e30", b"0.5", b"1_0", b"0x10", b"", b"true", b"null"),
    *(b"9" * 400, b"9" * 5000, b"[" * 300, "\N{ARABIC-INDIC DIGIT THREE}".encode(), b"\xff", b"\0"),
)

# The longest run of bytes that is duplicated or moved, which bounds how far a file grows.
_LONGEST = 4096


def mutated(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """`content` with one to four changes. others: files whose parts may replace parts of it."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        random.choice(_CHANGES)(changed, others, random)
    return bytes(changed)


def extreme(random: Random) -> int:
    return random.choice(EXTREMES)


def size(random: Random) -> int:
    """The size of a dimension: small, or extreme."""
    return random.choice((0, 1, 2, 3, 4, 8)) if random.random() < 0.6 else extreme(random)


def varint(value: int) -> bytes:
    """An integer in groups of seven bits, as in Parquet's footer."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _range(changed: bytearray, random: Random) -> slice:
    start = random.randrange(len(changed) + 1)
    return slice(start, start + random.choice((1, 2, 4, 8, random.randrange(1, _LONGEST))))


def _bits(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    for _ in range(random.choice((1, 1, 2, 8)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)


def _bytes(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    for _ in range(random.choice((1, 1, 2, 8)) if changed else 0):
        changed[random.randrange(len(changed))] = random.choice((0, 255, 10, 34, 44, random.randrange(256)))


def _cut(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    del changed[random.randrange(len(changed) + 1) :]


def _without_a_part(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    del changed[_range(changed, random)]


def _doubled(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    part = bytes(changed[_range(changed, random)]) * random.choice((1, 1, 2, 9))
    at = random.randrange(len(changed) + 1)
    changed[at:at] = part[: 4 * _LONGEST]


def _moved(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    part, at = bytes(changed[_range(changed, random)]), random.randrange(len(changed) + 1)
    changed[at : at + len(part)] = part


def _spliced(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    other = random.choice(others)
    part = other[random.randrange(len(other) + 1) :][: random.choice((8, 64, _LONGEST))]
    at = random.randrange(len(changed) + 1)
    changed[at : at + random.choice((0, len(part), len(changed)))] = part


def _field(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    """Replace a number of 1 to 8 bytes, in either byte order; often in the first 64 bytes or the last 8."""
    width = random.choice((1, 2, 4, 8))
    number = (extreme(random) % 256**width).to_bytes(width, random.choice(("little", "big")))
    end = len(changed)
    at = random.choice((random.randrange(end + 1), random.randrange(min(end, 64) + 1), max(0, end - 8)))
    changed[at : at + width] = number


def _varint(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    number, at = varint(extreme(random)), random.randrange(len(changed) + 1)
    changed[at : at + random.choice((1, len(number)))] = number


def _written(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    """Replace a decimal number."""
    places = [match.span() for match in re.finditer(rb"\d+", changed)]
    if places:
        start, end = random.choice(places)
        changed[start:end] = random.choice(_WRITTEN)


def _length_before(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    """Change the first 8 bytes, the length of the header in safetensors, by a little."""
    if len(changed) >= 8:
        length = struct.unpack_from("<Q", changed)[0] + random.choice((-8, -1, 1, 8, 4096))
        struct.pack_into("<Q", changed, 0, length % 2**64)


_Change = Callable[[bytearray, Sequence[bytes], Random], None]
_CHANGES: tuple[_Change, ...] = (
    *(_bits, _bytes, _cut, _without_a_part, _doubled, _moved, _spliced),
    *(_field, _field, _varint, _written, _written, _length_before),
)
