"""Every bad input gets one clear error that says what was given, what was expected and what to do."""

from __future__ import annotations

import pytest
from bad_input import CASES

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", CASES)
def test_the_message_says_what_to_do(name, tmp_path):
    action, kind, words = CASES[name]
    with pytest.raises(kind, match=f"(?s){words}") as raised:
        action(tmp_path)
    message = str(raised.value)
    assert len(message) > 30  # a sentence, not a word
    assert "Traceback" not in message
