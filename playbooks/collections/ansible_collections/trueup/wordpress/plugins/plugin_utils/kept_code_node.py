# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs a module on a node out of code that was compiled there before. Sent as text, with a call of ``run`` below it.

A copy is one file of root's, named after what it was compiled from: it has the sha256 of its own bytes in its first
line, and is not used unless they match. It holds what Ansible would send: the module, and all that it imports.
"""

import base64
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import marshal
import os
import stat
import sys

CODE = "/var/lib/trueup/code"
KEPT = 64
"""Copies that stay: those that were used last."""


class Importer:
    """Finds modules among compiled ones, by name: whether it is a package, and its code. ``path`` is the copy's."""

    def __init__(self, path, codes):
        self.path = path
        self.codes = codes

    def find_spec(self, name, path=None, target=None):
        if name not in self.codes:
            return None
        is_package, code = self.codes[name]
        origin = f"{self.path}/{code.co_filename}"
        spec = importlib.machinery.ModuleSpec(name, self, origin=origin, is_package=is_package)
        spec.has_location = True
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.codes[module.__name__][1], module.__dict__)

    def get_code(self, name):
        return self.codes[name][1]

    def get_source(self, name):
        return None

    def is_package(self, name):
        return self.codes[name][0]


def run(digest, sources, arguments, keeps=True):
    """Run the module. Without a copy, and without ``sources`` (a zip in base64), print that it is missing.

    ``keeps``: what was sent stays for the next run.
    """
    path = f"{CODE}/{digest}-{sys.implementation.cache_tag}-{importlib.util.MAGIC_NUMBER.hex()}"
    codes = load(path)
    if codes is None and sources is None:
        sys.stdout.write(json.dumps({"trueup_code": "missing"}) + "\n")
        return
    if codes is None:
        codes = compiled(base64.b64decode(sources), digest)
        if keeps:
            keep(path, codes)
    _come_in()
    sys.meta_path.insert(0, Importer(path, codes))
    from ansible.module_utils._internal._ansiballz import _loader  # noqa: PLC0415 - it is found only now

    _loader.run_module(modlib_path=path, **arguments)


def load(path):
    """What was compiled; None where there is no copy, or one that is not as it was kept."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if status.st_uid != 0 or not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o022:
            return None
        head, _, body = file.read().partition(b"\n")
    if head.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        return None
    return marshal.loads(body)


def compiled(archive, digest):
    import zipfile  # noqa: PLC0415 - most runs need none of it

    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        files = {name: packed.read(name) for name in packed.namelist() if name.endswith(".py")}
    if content_digest(files) != digest:
        raise ValueError("The module's code arrived as another one than was announced.")
    return dict(_compiled(name, source) for name, source in files.items())


def content_digest(files):
    """sha256 in hex over names and contents, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(b"%d:%s%d:" % (len(name.encode()), name.encode(), len(files[name])))
        digest.update(files[name])
    return digest.hexdigest()


def _compiled(path, source):
    name = path[: -len(".py")].replace("/", ".")
    is_package = name.endswith(".__init__")
    code = compile(source, path, "exec", dont_inherit=True)
    return name[: -len(".__init__")] if is_package else name, (is_package, code)


def keep(path, codes):
    """Write the copy down, for the next run. One that cannot be written is no reason not to run."""
    body = marshal.dumps(codes)
    draft = f"{path}.{os.getpid()}"
    try:
        os.makedirs(CODE, mode=0o700, exist_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(handle, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        os.rename(draft, path)
        _prune()
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)


def _prune():
    paths = [os.path.join(CODE, name) for name in os.listdir(CODE)]
    for path in sorted(paths, key=os.path.getmtime)[:-KEPT]:
        os.unlink(path)


def _come_in():
    """As Ansible's own wrapper: a directory that can be read, and none of it on the path of modules."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")
    sys.path[:] = [path for path in sys.path if path not in ("", ".")]
