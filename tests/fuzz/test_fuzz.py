"""A short run of `python -m tests.fuzz`, and faulty readers that it must report."""

import re

import pytest

from tests.fuzz.__main__ import fuzzed, rendered
from tests.fuzz.formats import FORMATS

INPUTS = 300


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused_and_nothing_else(name):
    found = fuzzed(name, INPUTS)
    assert not found.problems
    assert found.read + found.refused == found.inputs == INPUTS
    assert found.refused > INPUTS // 2


def test_valid_files_are_read(tmp_path):
    for form in FORMATS.values():
        for beside, content in form.beside().items():
            (tmp_path / beside).parent.mkdir(exist_ok=True)
            (tmp_path / beside).write_bytes(content)
        for content in form.valid():
            if len(form.names) == 1:
                (tmp_path / form.names[0]).write_bytes(content)
                form.reads[0](tmp_path / form.names[0])


def test_an_input_follows_from_its_key_alone():
    for form in FORMATS.values():
        assert form.input("a 7", b"payload") == form.input("a 7", b"payload") != form.input("a 8", b"payload")


class TestFaults:
    def test_each_is_seen_and_named(self):
        found = fuzzed("faults", 1, formats="tests.fuzz.faults").problems
        expected = {
            "_hangs": "_TooSlow: more than 1.0 seconds",
            "_asks_for_too_much": "more than 1024 MiB asked for: it does not fit in memory",
            "_raises_something_else": "KeyError: 'x'",
            "_warns": "UserWarning: something",
            "_unpickles": "_Executed: pickle.find_class",
            "_writes": "_Executed: open .*more to write",
            "_starts": "_Executed: os.posix_spawn",
            "_says_two_lines": "no printable line",
            "_says_too_much": "5000 characters",
            "takes": "160 MiB",
        }
        assert len(found) == len(expected)
        for line, (way, said) in zip(found, expected.items(), strict=True):
            assert re.match(f"faults 0: {way}.*{said}", line)

    def test_memory_that_only_the_system_sees_is_counted(self):
        (line,) = fuzzed("memory of the system", 1, formats="tests.fuzz.faults").problems
        assert re.search("takes ([789]|1[0-9])[0-9] MiB", line)

    def test_a_process_that_ends_is_told_and_the_next_inputs_are_read(self):
        found = fuzzed("dies at its third", 5, formats="tests.fuzz.faults")
        assert found.problems == ["dies at its third 2: ends the process with code -9"]
        assert found.read == 4

    def test_a_process_that_hangs_is_ended(self):
        found = fuzzed("sleeps", 1, formats="tests.fuzz.faults", patience=2)
        assert found.problems == ["sleeps 0: does not come back"]


def test_the_table_has_a_row_for_each_reader():
    outcome = {"inputs": 20_000, "read": 5, "refused": 19_995, "slowest": 0.0214, "memory": 3 << 19, "problems": []}
    assert rendered({"npz": outcome}).splitlines()[-1] == "| npz | 20,000 | 5 | 19,995 | 21 ms | 1.5 MiB | 0 |"
