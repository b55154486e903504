"""Copies of a launch's arrays with nothing next to them, so that a step beyond an array's end meets no other array."""

import ctypes

import numpy as np

from .arguments import Arguments, Region
from .errors import EmulatorError

# An allocation of CUDA's begins at a multiple of this many bytes; a copy keeps its array's offset from one.
ALIGNMENT = 256
# From this many bytes on an array stays where it is: it has a mapping of its own, of which much may never have been
# touched and takes no room.
UNCOPIED = 1 << 28


class GuardedArrays:
    """Puts copies in the arrays' place for one launch. Arrays that share memory share their copy."""

    def __init__(self, arguments: Arguments):
        if arguments.addresses_by_value:
            raise EmulatorError(
                "an address was passed as a number: what it points to cannot be checked; pass the array"
            )
        spans = sorted(
            (slot.value, slot.value + array.nbytes, number)
            for number, ((_, array), slot) in enumerate(zip(arguments.arrays, arguments.array_slots, strict=True))
        )
        self._copies: list[tuple[int, int, int, np.ndarray]] = []  # begin, bytes, address of the copy, its memory
        self._writable: list[bool] = []
        self._slots = [(slot, slot.value) for slot in arguments.array_slots]
        numbers: list[int] = []
        groups: list[tuple[int, int, list[int]]] = []
        for begin, end, number in spans:
            if groups and begin < groups[-1][1]:
                first, last, numbers = groups.pop()
                groups.append((first, max(last, end), [*numbers, number]))
            else:
                groups.append((begin, end, [number]))
        self.regions = (Region * max(1, len(groups)))()
        self.region_count = len(groups)
        for region, (begin, end, numbers) in zip(self.regions, groups, strict=False):
            address = begin
            if end - begin < UNCOPIED:
                memory = np.full(end - begin + 4 * ALIGNMENT, 0xFF, np.uint8)
                start = memory.__array_interface__["data"][0]
                address = start + ALIGNMENT + (begin - start) % ALIGNMENT
                ctypes.memmove(address, begin, end - begin)
            members = [arguments.arrays[number] for number in numbers]
            writable = any(parameter.writable for parameter, _ in members)
            region.begin, region.end, region.writable = address, address + end - begin, writable
            region.argument = members[0][0].number
            if address == begin:
                continue
            self._copies.append((begin, end - begin, address, memory))
            self._writable.append(writable)
            for number in numbers:
                slot = arguments.array_slots[number]
                slot.value += address - begin

    def put_back(self) -> None:
        """Give the arrays what the kernel wrote to their copies, and the arguments their own addresses."""
        for (begin, size, address, _), writable in zip(self._copies, self._writable, strict=True):
            if writable:
                ctypes.memmove(begin, address, size)
        for slot, address in self._slots:
            slot.value = address
