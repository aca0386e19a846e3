"""Every message that ends a command is on the troubleshooting page, says what and what to do, in short sentences."""

from pathlib import Path

import pytest

from tests.language.sentences import long_sentences
from tests.messages.collect import collect
from tests.messages.page import Advice, page

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
REMEDY = "`python -m tests.messages > docs/troubleshooting.md` writes the page"


@pytest.fixture(scope="module")
def messages():
    return collect()


@pytest.fixture(scope="module")
def advice():
    return Advice.read()


def test_messages_are_found_wherever_they_are_put_together(messages):
    texts = {message.text for message in messages}
    assert "corpus.path: <path> holds no rows; give a file or folder that has some" in texts
    assert "inputs: at least one input is needed; add one" in texts  # yielded, raised elsewhere
    assert "interrupted; run again to go on where this stopped" in texts  # printed by the command line itself
    assert any("is not one of <choices>; did you mean <near>?" in text for text in texts)  # from two functions


def test_every_message_is_explained_once(messages, advice):
    lost = [message for message in messages if not advice.place(message)]
    assert not lost, "give them an entry in tests/messages/advice.yaml:\n" + "\n".join(map(str, lost))
    twice = [
        f"{message.text}: {', '.join(entry.title for entry in found)}"
        for message in messages
        if len(found := advice.place(message)) > 1
    ]
    assert not twice, "several entries of tests/messages/advice.yaml match:\n" + "\n".join(twice)


def test_every_fragment_of_the_advice_is_in_a_message(messages, advice):
    assert advice.unused(messages) == []


def test_the_page_is_that_of_the_source():
    assert PAGE.read_text(encoding="utf-8") == page(), REMEDY


def test_messages_have_short_sentences(messages):
    assert [text for message in messages for text in long_sentences(message.text)] == []
