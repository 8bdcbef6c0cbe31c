# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Release trees that are ready before anybody asks for one: a new site takes one over by a rename.

They lie in a directory of root's on the file system of the sites, and no site's name is in them. Another is made in the
background, at the lowest priority, whenever one was taken: no run waits for it, and none fails with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import read
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import HOLD

SPARES = "/var/www/sites/.spare"
NODE = "/etc/trueup/node.json"
POOL = 1
UNIT = "trueup-spare.service"
FILL_S = 300

# Each appears whole, by a rename; whatever else is in the directory is another version's, or too many, or half of one.
SCRIPT = r"""
set -eu
umask 022
spares=$1 store=$2 version=$3 count=$4 probe=wp-load.php
mkdir -p "$spares"
chmod 700 "$spares"
for found in "$spares"/.new-* "$spares"/*; do
    number=${found##*-}
    case $found in
        "$spares/$version-$number")
            [ "$number" -gt "$count" ] || [ "$(readlink "$found/wp-includes")" != "$store/$version/wp-includes" ] ||
                [ "$found/$probe" -ot "$store/$version/$probe" ] || [ "$found/$probe" -nt "$store/$version/$probe" ] ||
                continue ;;
    esac
    rm -rf "$found"
done
number=1
while [ "$number" -le "$count" ]; do
    if [ ! -d "$spares/$version-$number" ]; then
        new="$spares/.new-$version-$number"
        trap 'rm -rf "$new"' EXIT
        mkdir "$new"
        for part in "$store/$version"/*; do
            case $part in
                */wp-includes) ln -s "$part" "$new" ;;
                *) cp -a "$part" "$new" ;;
            esac
        done
        # A core that was changed on the node goes into no new site.
        (cd "$new" && sha256sum --quiet --check "$store/$version.sha256")
        mv -T "$new" "$spares/$version-$number"
    fi
    number=$((number + 1))
done
"""


def take(pristine, target):
    """Make a ready tree of this pristine one the directory ``target``; whether there was one. Each goes to one run."""
    version = os.path.basename(pristine)
    for name in sorted(_names(SPARES)):
        with contextlib.suppress(OSError):
            if name.startswith(f"{version}-") and _is_of(f"{SPARES}/{name}", pristine):
                os.rename(f"{SPARES}/{name}", target)
                return True
    return False


def _is_of(tree, pristine):
    """Whether the tree was made of the core that is pristine now, and not of one that was unpacked before."""
    try:
        times = {os.stat(f"{one}/wp-load.php").st_mtime_ns for one in (tree, pristine)}
        return len(times) == 1 and os.readlink(f"{tree}/wp-includes") == f"{pristine}/wp-includes"
    except OSError:
        return False


def is_full(store, version, count):
    """Whether the pool has what the node asks for, and nothing else."""
    names = {f"{version}-{one + 1}" for one in range(count)}
    return set(_names(SPARES)) == names and all(_is_of(f"{SPARES}/{name}", f"{store}/{version}") for name in names)


def wanted():
    """The WordPress version of new sites, and how many trees of it are kept; None where the node is not provisioned."""
    try:
        variables = json.loads(read(NODE) or b"{}")["variables"]
        return variables["wordpress_version"], int(variables.get("pool", POOL))
    except (ValueError, KeyError, TypeError):
        return None, 0


def fill(store):
    """Have what is lacking made in the background; one that is at work makes it all. Not while an operator holds."""
    version, count = wanted()
    if (
        version is None
        or os.path.exists(HOLD)
        or not os.path.isdir(f"{store}/{version}")
        or is_full(store, version, count)
    ):
        return
    argv = ["systemd-run", "--quiet", "--no-block", "--collect", f"--unit={UNIT}", "--nice=19"]
    argv += ["--property=IOSchedulingClass=idle", "--property=CPUWeight=idle", f"--property=RuntimeMaxSec={FILL_S}"]
    argv += ["/bin/sh", "-c", SCRIPT, "sh", SPARES, store, version, str(count)]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)


def _names(directory):
    try:
        return os.listdir(directory)
    except OSError:
        return []
