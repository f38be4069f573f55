"""What an application sends, turned into the text that travels."""

from __future__ import annotations

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder


def encode_payload(data: Any) -> str:
    """Encode `data` as JSON, the way Django does (dates, decimals, UUIDs, lazy strings).

    Raises TypeError that names the offending type, or ValueError for a circular structure and
    for NaN and infinity, which `JSON.parse()` does not take.
    """
    try:
        return json.dumps(data, cls=DjangoJSONEncoder, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"data cannot be encoded as JSON: {error}") from error
