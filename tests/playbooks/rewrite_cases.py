"""What a value becomes when its site gets another address, byte by byte: values as sites have them.

``http://old.example.com`` (22 bytes) becomes ``https://shop.new-name.example`` (29), and the directory ``OLD_SITE``
becomes ``NEW_SITE``. Lengths are written out, so that nothing is counted by what is tested.
"""

from base64 import b64encode
from urllib.parse import quote

OLD, NEW = "http://old.example.com", "https://shop.new-name.example"
OLD_SITE = "/var/www/sites/11111111-1111-4111-8111-111111111111"
NEW_SITE = "/var/www/sites/22222222-2222-4222-8222-222222222222"
RELEASE = "releases/33333333-3333-4333-8333-333333333333"

OPTION = b'a:1:{s:3:"url";s:22:"http://old.example.com";}', b'a:1:{s:3:"url";s:29:"https://shop.new-name.example";}'
HTML = b'<a href="http://old.example.com/x">x</a>', b'<a href="https://shop.new-name.example/x">x</a>'


def _both(pair: tuple[bytes, bytes], form: str) -> tuple[bytes, bytes]:
    """The same text before and after, in base64 or rawurlencoded."""
    one, other = (b64encode(text) if form == "base64" else quote(text, safe="-_.~").encode("ascii") for text in pair)
    return one, other


PERCENT = _both(HTML, "percent")

CASES: dict[str, tuple[bytes, bytes]] = {
    # What `wp search-replace` does, and where its plain str_replace stops.
    "wp-cli: text": (b"http://old.example.com", b"https://shop.new-name.example"),
    "wp-cli: several in one value": (
        b"http://old.example.com http://old.example.com/a",
        b"https://shop.new-name.example https://shop.new-name.example/a",
    ),
    "wp-cli: a list": OPTION,
    "wp-cli: a list in a string of a list": (
        b'a:1:{i:0;s:46:"a:1:{s:3:"url";s:22:"http://old.example.com";}";}',
        b'a:1:{i:0;s:53:"a:1:{s:3:"url";s:29:"https://shop.new-name.example";}";}',
    ),
    "wp-cli: an object, also of a class that is not there": (
        b'O:7:"Missing":1:{s:4:"\0*\0u";s:22:"http://old.example.com";}',
        b'O:7:"Missing":1:{s:4:"\0*\0u";s:29:"https://shop.new-name.example";}',
    ),
    "wp-cli: references": (
        b'a:2:{i:0;s:22:"http://old.example.com";i:1;R:2;}',
        b'a:2:{i:0;s:29:"https://shop.new-name.example";i:1;R:2;}',
    ),
    "wp-cli: bytes that are no UTF-8": (
        b"\xff\xfehttp://old.example.com\0",
        b"\xff\xfehttps://shop.new-name.example\0",
    ),
    "wp-cli: characters of several bytes": (
        'a:1:{s:2:"ü";s:26:"http://old.example.com/漢";}'.encode(),
        'a:1:{s:2:"ü";s:33:"https://shop.new-name.example/漢";}'.encode(),
    ),
    "wp-cli: escaped slashes": (rb"http:\/\/old.example.com\/a", rb"https:\/\/shop.new-name.example\/a"),
    "wp-cli: an enum's case is no text": (
        b'a:2:{i:0;E:11:"Suit:Hearts";i:1;s:22:"http://old.example.com";}',
        b'a:2:{i:0;E:11:"Suit:Hearts";i:1;s:29:"https://shop.new-name.example";}',
    ),
    # The order of reprint: serialized, JSON, base64, text; each again in what it found.
    "reprint: serialized in JSON": (
        rb'{"d":"a:1:{s:3:\"url\";s:22:\"http:\/\/old.example.com\";}"}',
        rb'{"d":"a:1:{s:3:\"url\";s:29:\"https:\/\/shop.new-name.example\";}"}',
    ),
    "reprint: JSON in serialized": (
        rb's:36:"{"url":"http:\/\/old.example.com\/"}";',
        rb's:43:"{"url":"https:\/\/shop.new-name.example\/"}";',
    ),
    "reprint: serialized in JSON in serialized": (
        rb'a:1:{i:0;s:42:"{"d":"s:22:\"http:\/\/old.example.com\";"}";}',
        rb'a:1:{i:0;s:49:"{"d":"s:29:\"https:\/\/shop.new-name.example\";"}";}',
    ),
    "reprint: serialized in JSON in JSON": (
        rb'{"a":"{\"d\":\"s:22:\\\"http:\\\/\\\/old.example.com\\\";\"}"}',
        rb'{"a":"{\"d\":\"s:29:\\\"https:\\\/\\\/shop.new-name.example\\\";\"}"}',
    ),
    "reprint: escapes of JSON count once": (
        rb'{"d":"s:31:\"http:\/\/old.example.com\/\u00fc\n\t\ud83d\ude00\";"}',
        rb'{"d":"s:38:\"https:\/\/shop.new-name.example\/\u00fc\n\t\ud83d\ude00\";"}',
    ),
    "reprint: base64": _both(HTML, "base64"),
    "reprint: base64 of serialized": _both(OPTION, "base64"),
    # As WordPress reads.
    "white space around serialized data": (b"\n " + OPTION[0] + b"\r\n\t", b"\n " + OPTION[1] + b"\r\n\t"),
    "something behind serialized data that ends as it does": (OPTION[0] + b"x;", OPTION[1] + b"x;"),
    "serialized in the middle of a text": (b"log: " + OPTION[0] + b" ok", b"log: " + OPTION[1] + b" ok"),
    "PHP's session": (b"cart|" + OPTION[0] + b"user|i:3;", b"cart|" + OPTION[1] + b"user|i:3;"),
    # Two slashes behind an escape, and nothing else that ends with a letter or a digit.
    "behind a quote of JSON": (rb"a\u0022//old.example.com/b", rb"a\u0022//shop.new-name.example/b"),
    "behind a line break of JSON": (rb"a\n//old.example.com/b", rb"a\n//shop.new-name.example/b"),
    "behind one escaped twice": (rb"a\\n\/\/old.example.com", rb"a\\n\/\/shop.new-name.example"),
    "behind a tab": (rb"\t//old.example.com", rb"\t//shop.new-name.example"),
    "behind an escape of JavaScript": (rb"\x22//old.example.com", rb"\x22//shop.new-name.example"),
    "behind a quote in an address": (b"%22%2F%2Fold.example.com", b"%22%2F%2Fshop.new-name.example"),
    "behind an entity": (b"&quot;//old.example.com", b"&quot;//shop.new-name.example"),
    "slashes as JavaScript writes them for HTML": (
        rb"http:\u002F\u002Fold.example.com\u002Fa",
        rb"https:\u002F\u002Fshop.new-name.example\u002Fa",
    ),
    "slashes as entities": (b"http:&#47;&#47;old.example.com", b"https:&#47;&#47;shop.new-name.example"),
    "JSON in an address": (
        b"%22http%3A%5C%2F%5C%2Fold.example.com%22",
        b"%22https%3A%5C%2F%5C%2Fshop.new-name.example%22",
    ),
    "an address in an address in an address": (
        b"?a=http%253A%252F%252Fold.example.com%252Fx",
        b"?a=https%253A%252F%252Fshop.new-name.example%252Fx",
    ),
    "another scheme": (b"ftp://old.example.com ftp:\\/\\/old.example.com",) * 2,
    "a longer word": (b"an//old.example.com 3//old.example.com",) * 2,
    "a backslash that escapes nothing": (
        rb'"\http://old.example.com s:22:\"http:\/\/old.example.com\"; \http://old.example.com"',
        rb'"\https://shop.new-name.example s:29:\"https:\/\/shop.new-name.example\"; \https://shop.new-name.example"',
    ),
    # Classes that write for themselves.
    "ArrayObject": (
        b'C:11:"ArrayObject":61:{x:i:0;a:1:{s:3:"url";s:22:"http://old.example.com";};m:a:0:{}}',
        b'C:11:"ArrayObject":68:{x:i:0;a:1:{s:3:"url";s:29:"https://shop.new-name.example";};m:a:0:{}}',
    ),
    "SplObjectStorage": (
        b'C:16:"SplObjectStorage":77:{x:i:1;O:8:"stdClass":1:{s:1:"u";s:22:"http://old.example.com";},i:5;;m:a:0:{}}',
        b'C:16:"SplObjectStorage":84:{x:i:1;O:8:"stdClass":1:{s:1:"u";s:29:"https://shop.new-name.example";},i:5;;m:a:0:{}}',
    ),
    "SplDoublyLinkedList": (
        b'C:19:"SplDoublyLinkedList":40:{i:0;:s:22:"http://old.example.com";:i:1;}',
        b'C:19:"SplDoublyLinkedList":47:{i:0;:s:29:"https://shop.new-name.example";:i:1;}',
    ),
    "a class that serializes its data": (
        b'C:3:"Own":46:{' + OPTION[0] + b"}",
        b'C:3:"Own":53:{' + OPTION[1] + b"}",
    ),
    "a class that writes JSON": (
        rb'C:3:"Own":34:{{"u":"http:\/\/old.example.com\/"}}',
        rb'C:3:"Own":41:{{"u":"https:\/\/shop.new-name.example\/"}}',
    ),
    "one in the other": (
        b'C:3:"Own":61:{C:3:"Own":46:{' + OPTION[0] + b"}}",
        b'C:3:"Own":68:{C:3:"Own":53:{' + OPTION[1] + b"}}",
    ),
    # Page builders.
    "WPBakery: raw HTML": (
        b"[vc_raw_html]" + b64encode(PERCENT[0]) + b"[/vc_raw_html]",
        b"[vc_raw_html]" + b64encode(PERCENT[1]) + b"[/vc_raw_html]",
    ),
    "WPBakery: a link": (
        b'link="url:http%3A%2F%2Fold.example.com%2Fa|title:x"',
        b'link="url:https%3A%2F%2Fshop.new-name.example%2Fa|title:x"',
    ),
    "Oxygen: base64 in JSON, whose slash is escaped": (
        b'{"code":"' + b64encode(b"??????" + HTML[0]).replace(b"/", rb"\/") + b'"}',
        b'{"code":"' + b64encode(b"??????" + HTML[1]).replace(b"/", rb"\/") + b'"}',
    ),
    "base64 in an address": (
        b"?d=" + quote(b64encode(b"??" + HTML[0]).decode(), safe="").encode(),
        b"?d=" + quote(b64encode(b"??" + HTML[1]).decode(), safe="").encode(),
    ),
    "rawurlencoded serialized": _both(OPTION, "percent"),
    "rawurlencoded in small letters": tuple(  # type: ignore[dict-item]
        part.replace(b"%3A", b"%3a")
        .replace(b"%2F", b"%2f")
        .replace(b"%7B", b"%7b")
        .replace(b"%7D", b"%7d")
        .replace(b"%3B", b"%3b")
        for part in _both(OPTION, "percent")
    ),
    "serialized in an attribute": tuple(  # type: ignore[dict-item]
        b'<div data-x="' + part.replace(b'"', b"&quot;") + b'">http://other.example</div>' for part in OPTION
    ),
    "a block's attributes": (
        rb'<!-- wp:x {"d":"s:22:\u0022http://old.example.com\u0022;"} --><p>http://old.example.com</p>',
        rb'<!-- wp:x {"d":"s:29:\u0022https://shop.new-name.example\u0022;"} --><p>https://shop.new-name.example</p>',
    ),
    "Elementor": (
        rb'[{"image":{"url":"http:\/\/old.example.com\/wp-content\/a.png"},"html":"\"\/\/old.example.com\""}]',
        rb'[{"image":{"url":"https:\/\/shop.new-name.example\/wp-content\/a.png"},"html":"\"\/\/shop.new-name.example\""}]',
    ),
    "a data: address": (
        b"url(data:image/svg+xml;base64," + b64encode(HTML[0]) + b")",
        b"url(data:image/svg+xml;base64," + b64encode(HTML[1]) + b")",
    ),
    # Directories of the site on its node.
    "a directory": (f"{OLD_SITE}/shared/uploads/a".encode(), f"{NEW_SITE}/shared/uploads/a".encode()),
    "a directory in a release is in the one that is served": (
        f's:110:"{OLD_SITE}/{RELEASE}/wp-content/x";'.encode(),
        f's:72:"{NEW_SITE}/current/wp-content/x";'.encode(),
    ),
    "a directory in JSON": (
        f"{OLD_SITE}/current".replace("/", "\\/").encode(),
        f"{NEW_SITE}/current".replace("/", "\\/").encode(),
    ),
    "another directory": (f"/srv{OLD_SITE}x /other/11111111-1111-4111-8111-111111111111".encode(),) * 2,
}
