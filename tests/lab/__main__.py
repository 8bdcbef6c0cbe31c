"""`python -m tests.lab`: the lab by hand, for looking at a node and for demonstrations."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from tests.lab.doctor import examine
from tests.lab.image import ensure_image
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.paths import LabError


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Disposable servers on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    commands.add_parser("image", help="build the image unless it is there").set_defaults(run=_image)

    up = commands.add_parser("up", help="start a node; without --persist, until interrupted")
    up.add_argument("name")
    up.add_argument("--persist", "--keep", action="store_true", help="leave it running until `down`")
    up.add_argument("--authorized-key", type=Path, metavar="FILE", help="public key that may log in as root")
    up.add_argument("--snapshot", metavar="KEY", help="start from a snapshot instead of the bare image")
    up.add_argument("--json", action="store_true", help="print one JSON object")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", help="remove a node and every trace of it")
    which = down.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?")
    which.add_argument("--all", action="store_true")
    down.set_defaults(run=_down)

    listing = commands.add_parser("list", help="show the nodes")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_list)

    ssh = commands.add_parser("ssh", help="log in as root, or run a command")
    ssh.add_argument("name")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    ssh.set_defaults(run=_ssh)

    doctor = commands.add_parser("doctor", help="say whether the lab can run here, and what is missing")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=_doctor)

    commands.add_parser("sweep", help="remove nodes whose owner is dead").set_defaults(run=_sweep)
    return parser


def _image(_: argparse.Namespace) -> None:
    print(ensure_image().directory)


def _up(arguments: argparse.Namespace) -> None:
    lab = Lab()
    key = arguments.authorized_key.read_text() if arguments.authorized_key else None
    node = _restart(lab, arguments) or lab.up(
        arguments.name, key, snapshot=arguments.snapshot, persist=arguments.persist
    )
    _show(node, as_json=arguments.json)
    if not arguments.persist:
        _hold(lab)


def _restart(lab: Lab, arguments: argparse.Namespace) -> Node | None:
    """The persistent node of that name that is down, as after the host's reboot, started again with its files."""
    for node in lab.nodes():
        if node.name == arguments.name and node.record.persistent and arguments.persist and not node.running:
            node.start()
            return node
    return None


def _show(node: Node, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(node.as_dict()), flush=True)
        return
    print(f"{node.name} {node.address} {node.state}\n{node.address} {node.host_key}", flush=True)
    if node.failed_units:
        print(f"failed units: {', '.join(node.failed_units)}", flush=True)


def _hold(lab: Lab) -> None:
    print("Ctrl-C removes it.", file=sys.stderr)
    wanted = {signal.SIGINT, signal.SIGTERM}
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        signal.sigwait(wanted)
    finally:
        lab.close()


def _down(arguments: argparse.Namespace) -> None:
    lab = Lab()
    for node in lab.nodes() if arguments.all else [lab.node(arguments.name)]:
        node.down()


def _list(arguments: argparse.Namespace) -> None:
    for node in Lab().nodes():
        state = "up" if node.running else "down"
        owner = "persistent" if node.record.owner is None else f"owned by process {node.record.owner.pid}"
        if arguments.json:
            print(json.dumps({**node.as_dict(), "state": state, "persistent": node.record.persistent}))
        else:
            print(f"{node.name:30} {node.address:15} {state:5} {owner}")


def _ssh(arguments: argparse.Namespace) -> None:
    command = [*Lab().node(arguments.name).ssh_command(), *arguments.command]
    os.execvp(command[0], command)


def _doctor(arguments: argparse.Namespace) -> int:
    findings = examine()
    fit = all(finding.ok for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": fit, "findings": [vars(finding) for finding in findings]}))
    else:
        print("\n".join(map(str, findings)))
        print("The lab can run here." if fit else "The lab cannot run here.")
    return 0 if fit else 1


def _sweep(_: argparse.Namespace) -> None:
    print(f"Removed: {', '.join(Lab().swept) or 'nothing'}.")


if __name__ == "__main__":
    sys.exit(main())
