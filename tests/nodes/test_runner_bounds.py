"""What a module answers is bounded, too: neither Ansible nor this process grows with what a node says."""

from __future__ import annotations

import resource

from reconciler.nodes.warm.client import MOST_MEMORY
from tests.nodes.test_runner import Play, command, common_runner, play, runner, runs

__all__ = ["common_runner", "play", "runner", "runs"]


def test_ansible_and_all_that_it_starts_have_a_bound(play: Play) -> None:
    result = play([command("ulimit -d; ulimit -Hd")])
    assert result.results[0].data["stdout"].split() == [str(MOST_MEMORY >> 10)] * 2, "in KiB"


def test_an_answer_of_megabytes_takes_no_memory_of_ours(play: Play) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = play([command("head -c 4M /dev/zero | tr '\\0' x"), command("echo hello")])
    assert result.status == "succeeded", result.message
    assert "stdout" not in result.results[0].data, "ansible-runner passes on no answer of this size"
    assert result.results[1].data["stdout"] == "hello"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10, "in KiB"
