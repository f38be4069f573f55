"""Sealed text can be opened by the one key, in the one context, and in no other way."""

from __future__ import annotations

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_eventstream.web.sealing import seal, unseal

SALT = "tests"


@given(st.binary(max_size=500), st.binary(max_size=80))
def test_a_sealed_text_is_opened_in_the_same_context(content, context):
    text = seal(content, context, SALT)
    assert unseal(text, context, SALT) == content
    assert unseal(text, context + b"x", SALT) is None
    assert unseal(text, context, "others") is None


@given(st.text())
def test_any_other_text_is_not_opened(text):
    assert unseal(text, b"", SALT) is None


def test_a_byte_that_moves_between_content_and_context_spoils_the_seal():
    """A tag over the two, one after the other, would be the same."""
    assert unseal(seal(b"content", b"context-", SALT), b"context", SALT) is None
    assert seal(b"", b"ab", SALT) != seal(b"", b"a", SALT)


@pytest.mark.parametrize("content", [b"", b"c", b"content", b"a longer content"])
def test_each_text_but_one_is_refused(content):
    """Base64 has several texts for the same bytes, and Python ignores what is no base64."""
    text = seal(content, b"", SALT)
    for place, character in enumerate(text):
        for other in "AQgw-_b9.= \n":
            if other != character:
                assert unseal(text[:place] + other + text[place + 1 :], b"", SALT) is None
    for other in (text[:-1], f"{text}=", f"{text}A", f" {text}", f"{text}\n"):
        assert unseal(other, b"", SALT) is None


def test_equal_contents_in_other_contexts_have_nothing_in_common():
    texts = [seal(b"content" * 9, bytes([number]), SALT) for number in range(20)]
    for place in range(0, 100, 10):
        assert len({text[place : place + 10] for text in texts}) == len(texts)


@pytest.mark.parametrize("key", ["a key" * 10, b"\xff bytes" * 8])
def test_a_key_that_became_a_fallback_still_opens(key):
    with override_settings(SECRET_KEY=key):
        text = seal(b"content", b"", SALT)
    assert unseal(text, b"", SALT) is None
    with override_settings(SECRET_KEY_FALLBACKS=["other" * 10, key]):
        assert unseal(text, b"", SALT) == b"content"
        assert seal(b"content", b"", SALT) != text


def test_the_format_does_not_change_by_accident():
    """Processes of two releases serve the same clients during a deploy."""
    with override_settings(SECRET_KEY="a key of fifty characters, as Django makes them ..."):
        assert seal(b"content", b"context", SALT) == "ip5yHUKlpDeWqiaG3Uwq5_WlMUL6NYg"
