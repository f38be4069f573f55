"""What an application sends becomes JSON text as Django writes it, or a clear error."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid

import pytest
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_eventstream.payloads import encode_payload

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4)
    | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_json_values_come_back_as_they_were(value):
    assert json.loads(encode_payload(value)) == value


@given(json_values)
def test_the_text_is_ascii_and_of_one_line(value):
    text = encode_payload(value)
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), '"2026-01-02T00:00:00Z"'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (datetime.timedelta(days=1), '"P1DT00H00M00S"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (uuid.UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
        (gettext_lazy("hello"), '"hello"'),
        ((1, 2), "[1, 2]"),
        ({1: True}, '{"1": true}'),
        (None, "null"),
        ("text", '"text"'),
    ],
)
def test_values_are_written_as_django_writes_them(value, expected):
    assert encode_payload(value) == expected


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {"a": [object()]}, {(1, 2): 3}])
def test_what_is_no_json_is_a_type_error_that_says_so(value):
    with pytest.raises(
        TypeError, match="^data cannot be encoded as JSON: .*(object|bytes|set|keys)"
    ):
        encode_payload(value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_numbers_that_browsers_cannot_parse_are_refused(value):
    with pytest.raises(ValueError, match="^data cannot be encoded as JSON: .*not JSON compliant"):
        encode_payload(value)


def test_data_that_contains_itself_is_refused():
    circle: list = []
    circle.append(circle)
    with pytest.raises(ValueError, match="^data cannot be encoded as JSON: Circular"):
        encode_payload(circle)


def test_data_nested_too_deep_is_refused():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="^data cannot be encoded as JSON"):
        encode_payload(deep)
