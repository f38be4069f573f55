"""Sealed text: nobody without the project's `SECRET_KEY` can read it, change it or make it.

Django signs but does not encrypt, and the standard library has hashes only. So this is SIV, the
deterministic authenticated encryption of Rogaway and Shrimpton ("A Provable-Security Treatment of
the Key-Wrap Problem", EUROCRYPT 2006), which RFC 5297 builds from AES and this from hashes: a tag
over context and content by one key (HMAC-SHA256, cut to 16 bytes) is the authentication, and at
the same time what the key stream begins with, made by another key (SHAKE-256, whose sponge may be
keyed by a prefix: Bertoni et al., "On the security of the keyed sponge construction", SKEW 2011).
It needs no random number that might repeat after a fork: what it tells is that two texts are equal,
and about how long they are.
"""

from __future__ import annotations

import base64
import hmac
import re
import struct
from functools import lru_cache
from hashlib import shake_256

from django.core.signing import Signer
from django.utils.crypto import salted_hmac

TAG_BYTES = 16
"""A forger guesses it once in 2^128 attempts, and it repeats by chance after 2^64 texts."""

_ALPHABET = re.compile(r"[0-9A-Za-z_-]+", re.ASCII)


def seal(content: bytes, context: bytes, salt: str) -> str:
    """Return text of the base64url alphabet that `unseal()` opens in the same context only."""
    keys = _keys(Signer().key, salt)
    tag = _tag(keys, content, context)
    return _encode(tag + _encipher(keys, tag, content))


def unseal(text: str, context: bytes, salt: str) -> bytes | None:
    """Return the content; None if it was not sealed so, by `SECRET_KEY` or one of its fallbacks."""
    sealed = _decode(text)
    if sealed is None or len(sealed) < TAG_BYTES:
        return None
    tag, ciphertext = sealed[:TAG_BYTES], sealed[TAG_BYTES:]
    signer = Signer()  # knows the settings
    for secret in (signer.key, *signer.fallback_keys):
        keys = _keys(secret, salt)
        content = _encipher(keys, tag, ciphertext)
        if hmac.compare_digest(tag, _tag(keys, content, context)):
            return content
    return None


@lru_cache(maxsize=16)
def _keys(secret: str | bytes, salt: str) -> tuple[bytes, bytes]:
    """Return the key of the tag and that of the key stream, of 32 bytes each."""
    tag, stream = (
        salted_hmac(f"{salt}.{purpose}", b"", secret=secret, algorithm="sha256").digest()
        for purpose in ("tag", "stream")
    )
    return tag, stream


def _tag(keys: tuple[bytes, bytes], content: bytes, context: bytes) -> bytes:
    # Its length first, so that nothing moves from the context to the content.
    told = struct.pack("!Q", len(context)) + context + content
    return hmac.digest(keys[0], told, "sha256")[:TAG_BYTES]


def _encipher(keys: tuple[bytes, bytes], tag: bytes, text: bytes) -> bytes:
    """Turn content into ciphertext, and the other way round."""
    stream = shake_256(keys[1] + tag).digest(len(text))
    return bytes(a ^ b for a, b in zip(text, stream, strict=True))


def _encode(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    """Return the bytes; None unless it is the one text that stands for them."""
    if not _ALPHABET.fullmatch(text) or len(text) % 4 == 1:
        return None
    sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return sealed if _encode(sealed) == text else None
