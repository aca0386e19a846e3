"""Every message that ends a command is on the troubleshooting page, says what and what to do, in short sentences."""

from pathlib import Path

import pytest

from tests.language.sentences import long_sentences
from tests.messages.collect import collect, passed_on
from tests.messages.page import Advice, page

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
PASSED_ON = """
flows.commands.heads._sink_of_new flows.commands.neighbors._export flows.console.report_errors
flows.deployments._variable_problems flows.downstream.downstream
tasks.align.trained.fit_feature_alignment tasks.data.labeled_rows._reading tasks.data.new_rows.__init__
tasks.data.targets.inspect_target tasks.embed.worker._loaded tasks.fuse.partitions._refuse tasks.heads.stage.load_head
tasks.planning.proposal.proposal.propose tasks.run.input_tables._open_own
infra.corpus.corpus.check_columns infra.corpus.corpus.read infra.corpus.files.list infra.dispatch.executor.error
infra.job.loader._parse_yaml infra.job.loader.parse_job infra.storage.errors._line
infra.versions.manifests.read_manifest
fusion.dataset.reader._read fusion.dataset.schema.read fusion.encoders.hub.encoder_errors fusion.errors.under
"""
"""Functions that raise errors whose words come from another message of the page, or from a library."""
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


def test_only_those_that_pass_a_message_on_raise_one_without_words():
    assert passed_on() == set(PASSED_ON.split())


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
