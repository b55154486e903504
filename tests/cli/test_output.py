import json

from gpu_nn.cli.output import print_json, table


def test_json_has_null_for_what_it_cannot_say(capsysbinary):
    print_json({"a": float("nan"), "b": [float("inf"), 1.5, "é"], "c": {"d": (float("-inf"), None)}})
    out = capsysbinary.readouterr().out
    assert json.loads(out) == {"a": None, "b": [None, 1.5, "é"], "c": {"d": [None, None]}}
    assert out.count(b"\n") == 1


def test_columns_are_aligned_whatever_the_letters():
    text = table(("class", "rows"), [("日本", "1"), ("été", "22"), ("e\u0301", "333"), ("a\nb", "4")])
    assert text.splitlines() == ["class  rows", "日本      1", "été      22", "e\u0301       333", "a b       4"]
