"""A mirror of WordPress's update API on an address of the lab: it speaks what they speak, and offers what it has."""

import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from reconciler.core.updates import is_newer


@dataclass
class Mirror:
    """Offers the packages that were published; `asked` are the paths that were asked for."""

    address: str
    port: int
    core: dict[str, bytes] = field(default_factory=dict)
    plugins: dict[str, dict[str, bytes]] = field(default_factory=dict)
    themes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    says: bytes | None = None
    """What every question is answered with instead, with status 200."""
    lies: dict[str, str] = field(default_factory=dict)
    """Other checksums of core files than they have."""
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def platform(self) -> str:
        """The lines of a platform document's spec that name it."""
        return f"  updates:\n    mirror: {self.url}\n"

    def publish_core(self, version: str, files: Mapping[str, bytes]) -> None:
        self.core[version] = zipped({f"wordpress/{name}": data for name, data in files.items()})

    def publish_plugin(self, slug: str, version: str, code: str) -> None:
        files = {f"{slug}/{slug}.php": plugin(slug, version, code).encode()}
        self.plugins.setdefault(slug, {})[version] = zipped(files)

    def publish_theme(self, slug: str, version: str, files: Mapping[str, str]) -> None:
        packed = {f"{slug}/{name}": text.encode() for name, text in theme(slug, version, files).items()}
        self.themes.setdefault(slug, {})[version] = zipped(packed)

    # What it answers

    def get(self, path: str, query: Mapping[str, list[str]]) -> bytes | None:
        match path:
            case "/core/version-check/1.7/":
                return self._core_offers(query["version"][0])
            case "/core/checksums/1.0/":
                return self._checksums(query["version"][0])
        return self._package(path)

    def post(self, path: str, form: Mapping[str, list[str]]) -> bytes | None:
        match path:
            case "/plugins/update-check/1.1/":
                known = json.loads(form["plugins"][0])["plugins"]
                return self._offers("plugins", {key: (key.partition("/")[0], known[key]["Version"]) for key in known})
            case "/themes/update-check/1.1/":
                known = json.loads(form["themes"][0])["themes"]
                return self._offers("themes", {key: (key, known[key]["Version"]) for key in known})
        return None

    def _core_offers(self, there: str) -> bytes:
        offers = []
        for version in sorted(self.core, reverse=True):
            url = f"{self.url}/release/wordpress-{version}.zip"
            packages = {"full": url, "no_content": False, "new_bundled": False, "partial": False, "rollback": False}
            response = "upgrade" if is_newer(version, there) else "latest"
            offer = {"response": response, "download": url, "locale": "en_US", "packages": packages}
            offer |= {"current": version, "version": version, "php_version": "7.4", "mysql_version": "5.5.5"}
            offers.append({**offer, "new_bundled": "6.7", "partial_version": False})
        return json.dumps({"offers": offers, "translations": []}).encode()

    def _offers(self, kind: str, there: Mapping[str, tuple[str, str]]) -> bytes:
        """PHP writes an empty map as `[]`, and so does this."""
        catalogue: dict[str, dict[str, bytes]] = getattr(self, kind)
        found = {}
        for key, (slug, version) in there.items():
            newest = max(catalogue.get(slug, {}), default=None)
            if newest and is_newer(newest, version):
                url = f"{self.url}/{kind}/{slug}.{newest}.zip"
                found[key] = {"id": f"w.org/{kind}/{slug}", "slug": slug, "new_version": newest, "package": url}
                found[key] |= {"url": "", "requires": "6.0", "requires_php": False}
        return json.dumps({kind: found or [], "translations": [], "no_update": []}).encode()

    def _checksums(self, version: str) -> bytes:
        found: dict[str, str] = {}
        with zipfile.ZipFile(io.BytesIO(self.core.get(version) or zipped({}))) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                found[name.removeprefix("wordpress/")] = hashlib.md5(data).hexdigest()
        return json.dumps({"checksums": {**found, **self.lies}}).encode()

    def _package(self, path: str) -> bytes | None:
        kind, _, name = path.strip("/").partition("/")
        if kind == "release":
            return self.core.get(name.removeprefix("wordpress-").removesuffix(".zip"))
        slug, _, version = name.removesuffix(".zip").partition(".")
        found: dict[str, dict[str, bytes]] = {"plugins": self.plugins, "themes": self.themes}.get(kind, {})
        return found.get(slug, {}).get(version)


def plugin(slug: str, version: str, code: str) -> str:
    return f"<?php\n/**\n * Plugin Name: Our {slug}\n * Version: {version}\n */\n{code}\n"


def theme(slug: str, version: str, files: Mapping[str, str]) -> dict[str, str]:
    style = f"/*\nTheme Name: Our {slug}\nVersion: {version}\n*/\n"
    index = "<!doctype html><html><head><?php wp_head(); ?></head><body><?php wp_footer(); ?></body></html>\n"
    return {"style.css": style, "index.php": index, **files}


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@contextmanager
def update_mirror(address: str) -> Iterator[Mirror]:
    """Listening on a free port of `address`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._answer(mirror.get, parts.path, parse_qs(parts.query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(mirror.post, self.path, parse_qs(body))

        def _answer(self, find, path: str, asked) -> None:  # type: ignore[no-untyped-def]
            mirror.asked.append(path)
            data = mirror.says if mirror.says is not None else find(path, asked)
            if data is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    mirror = Mirror(address, server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
