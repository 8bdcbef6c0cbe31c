# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the control plane of a playbook that is run by hand: its locks are taken, and it is recorded as a job.

All that decides is in ``trueup operator-run``, a process that this starts, that holds the locks, and that ends with it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: trueup_by_hand
type: aggregate
short_description: Takes Trueup's locks for a playbook that is run by hand, and records the run
description:
  - Where the control plane's home is on this host, a run holds the same locks of site and node as a job would, and is
    a job of type C(operator-run) with the operator's name.
  - A run that does not get its locks in time ends before it has touched anything, with exit status 75.
  - Without a control plane that can be reached it warns and lets the run go on. The locks on the node hold anyway.
  - Runs with C(--check), and playbooks that only look, take no locks and are not recorded.
options:
  wait_s:
    description: How many seconds to wait for the locks.
    type: float
    default: 60
    env: [{name: TRUEUP_BY_HAND_WAIT_S}]
    ini: [{section: trueup, key: by_hand_wait_s}]
  anyway:
    description: Take no locks; the run is recorded all the same.
    type: bool
    default: false
    env: [{name: TRUEUP_BY_HAND_ANYWAY}]
    ini: [{section: trueup, key: by_hand_anyway}]
  report:
    description: Tell the control plane of the run. Without, it takes no locks and is not recorded.
    type: bool
    default: true
    env: [{name: TRUEUP_BY_HAND_REPORT}]
    ini: [{section: trueup, key: by_hand_report}]
"""

LOOKS = frozenset({"drift", "health", "observe"})
"""Playbooks that change nothing."""
ANSWER_S = 30
"""How long the control plane may take to answer, besides the wait for locks."""
REFUSED = 75
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "trueup_by_hand"
    # Ansible finds this beside the playbook: a run from any directory takes its locks.
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self, display=None):
        super().__init__(display)
        self._playbook = ""
        self._held = []
        self._seen = set()
        # What the control plane runs itself is a job already.
        self.disabled = "TRUEUP_JOB" in os.environ

    def v2_playbook_on_start(self, playbook):
        self._playbook = os.path.splitext(os.path.basename(playbook._file_name))[0]

    def v2_playbook_on_play_start(self, play):
        if context.CLIARGS.get("check") or self._playbook in LOOKS or not self.get_option("report"):
            return
        variables = play.get_variable_manager().get_vars(play=play)
        if "trueup_job" in variables:
            return
        wanted = [one for one in targets_of(variables) if one not in self._seen]
        if wanted:
            self._seen.update(wanted)
            self._hold(wanted)

    def v2_playbook_on_stats(self, stats):
        counted = {host: stats.summarize(host) for host in stats.processed}
        for process in self._held:
            answer = ended(process, counted)
            if answer.get("state") != "ended":
                self._display.warning(f"Trueup did not record how this run ended: {answer.get('message')}")
        self._held = []

    def _hold(self, wanted):
        """Have the locks held; this run ends here where others have them."""
        home = os.environ.get("TRUEUP_HOME") or "/var/lib/trueup"
        if not os.path.isdir(os.path.join(home, "store.git")):
            self._go_on(f"{home} is no control plane's home")
            return
        command = program()
        if command is None:
            self._go_on("the command trueup is not installed beside Ansible")
            return
        locks = "--no-locks" if self.get_option("anyway") else "--locks"
        options = [f"--playbook={self._playbook}.yml", f"--wait-s={self.get_option('wait_s')}", locks]
        options += [f"--{kind}={id_}" for kind, id_ in wanted]
        process = subprocess.Popen(
            [command, "operator-run", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for Ansible; the process sees that its input ends
        )
        answer = first_line(process, self.get_option("wait_s") + ANSWER_S)
        if answer.get("state") == "held":
            self._held.append(process)
            self._display.display(f"Trueup: this run is job {answer['job']}.", stderr=True)
        elif answer.get("state") == "refused":
            self._display.error(
                f"{answer['message']} Nothing was touched. TRUEUP_BY_HAND_WAIT_S waits longer, "
                "TRUEUP_BY_HAND_ANYWAY=1 runs without locks."
            )
            raise SystemExit(REFUSED)
        else:
            self._go_on(answer.get("message"))

    def _go_on(self, why):
        self._display.warning(
            f"No Trueup control plane is told of this run: {why}. It goes on, with the locks on the node alone."
        )


def targets_of(variables):
    """What the play is about: the environment that was named, else the nodes, each as (kind, id)."""
    found = []
    for host in variables["ansible_play_hosts_all"]:
        known = variables["hostvars"][host]
        environments = known.get("trueup_environments") or {}
        named = known.get("environment")
        if named in environments:
            found.append(("environment", str(environments[named]["id"])))
        elif known.get("trueup_node"):
            found.append(("node", str(known["trueup_node"]["id"])))
    return sorted(found)


def program():
    """The command ``trueup``: beside the Python that runs Ansible, in the checkout's environment, or on the path."""
    for directory in (os.path.dirname(sys.executable), os.path.join(TOP, ".venv", "bin")):
        path = os.path.join(directory, "trueup")
        if os.access(path, os.X_OK):
            return path
    return shutil.which("trueup")


def first_line(process, timeout_s):
    """What the process says first; as ``message`` why it says nothing."""
    if not select.select([process.stdout], [], [], timeout_s)[0]:
        process.kill()
        process.communicate()
        return {"message": f"it did not answer within {timeout_s:.0f} seconds"}
    line = process.stdout.readline()
    if line:
        return json.loads(line)
    _, errors = process.communicate()
    return {"message": last_line(errors) or f"trueup ended with {process.returncode}"}


def ended(process, counted):
    """Tell the process how the run ended; what it answers."""
    try:
        output, errors = process.communicate(json.dumps({"hosts": counted}).encode() + b"\n", timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"message": f"it did not answer within {ANSWER_S} seconds"}
    lines = output.splitlines()
    return json.loads(lines[-1]) if lines else {"message": last_line(errors)}


def last_line(errors):
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else ""
