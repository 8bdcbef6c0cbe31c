"""Everything that Trueup does to a site, while customers order; and what became of their orders."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.controlplane import until
from tests.lab.mirror import plugin
from tests.lab.stand import Stand
from tests.shop.customers import Customers, Order
from tests.shop.listener import Listener
from tests.shop.plugin import FAILURES, STOCK, code

MAIN = "wp-content/plugins/shop/shop.php"
FRONT = "wp-content/mu-plugins/front.php"
ACTIVE = 'a:1:{i:0;s:13:"shop/shop.php";}'
BROKEN = "<?php if ('production' === TRUEUP_ENVIRONMENT && !isset($_POST['token'])) { http_response_code(500); die(); }"
MOST_TIMES = 40
PARTS = (
    ("wp_wc_order_addresses", "order_id"),
    ("wp_wc_orders_meta", "order_id"),
    ("wp_wc_order_stats", "order_id"),
    ("wp_woocommerce_order_items", "order_id"),
    ("wp_posts", "ID"),
)


@dataclass
class Row:
    """What was seen of one operation; ``seconds`` of all its times."""

    name: str
    times: int = 0
    seconds: float = 0.0
    acknowledged: int = 0
    lost: int = 0
    twice: int = 0


@dataclass
class Trial:
    """``least``: orders that have to be acknowledged during each operation, which is repeated until they are."""

    stand: Stand
    listener: Listener
    least: int
    rows: list[Row] = field(default_factory=list)
    production: dict[str, Any] = field(default_factory=dict)
    staging: dict[str, Any] = field(default_factory=dict)
    copy: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    known: list[Order] = field(default_factory=list)

    def operations(self) -> list[tuple[str, Callable[[], object]]]:
        return [
            ("deploy", self.deploy),
            ("failed deploy", self.failed_deploy),
            ("rollback", self.roll_back),
            ("update", self.update),
            *((f"failed update, {one}", lambda one=one: self.failed_update(one)) for one in FAILURES),  # type: ignore[misc]
            ("backup", self.back_up),
            ("restore into staging", self.restore),
            ("promote", self.promote),
            ("failed promote", self.failed_promote),
            ("domain change", self.domain),
            ("cache toggle", self.toggle),
            ("provisioning", self.provision),
        ]

    def prepare(self) -> None:
        """The shop's production with its first orders, and two copies of it."""
        self.stand.code.commit("shop", self._files("v1"), tag="v1")
        self.stand.code.commit("shop", self._files("v2"), tag="v2")
        self.stand.code.commit("shop", {**self._files("v3"), FRONT: "<?php none();"}, tag="fatal")
        self.production = self.stand.place.make_site("shop", "Night Shop")
        self._deployed("v1")
        self._sql(f"UPDATE wp_options SET option_value = '{ACTIVE}' WHERE option_name = 'active_plugins'")
        self._sql(
            f"INSERT INTO wp_options (option_name, option_value) VALUES ('shop_listener', '{self.listener.option}')"
        )
        redis = f"redis-cli -s /run/trueup-redis/{self.production['id']}/redis.sock flushdb"
        self.stand.place.node_of(self.production).ssh(redis)
        self.page(self.production)
        until(lambda: self.page(self.production).text.count("shop 1.0") == 1, "the shop to be open")
        with self._customers() as customers:
            until(lambda: len(customers.orders) >= 20, "the first orders")
        self.known += customers.orders
        self.staging = self._copied("staging", "staging", promotion_preset="commerce-protect")
        self.copy = self._copied("copy", "clone")

    def run(self, name: str, operation: Callable[[], object]) -> Row:
        """The operation, as often as it takes for enough orders, and what all orders so far came to."""
        row = Row(name)
        with self._customers() as customers:
            while row.acknowledged < self.least and row.times < MOST_TIMES:
                began = time.monotonic()
                row.acknowledged += len(customers.during(operation))
                row.seconds += time.monotonic() - began
                row.times += 1
        self.known += customers.orders
        row.lost, row.twice = self.lost_and_twice()
        self.rows.append(row)
        return row

    def lost_and_twice(self) -> tuple[int, int]:
        """Of all acknowledged orders so far: how many are not there whole, and numbers that were given twice."""
        there = {int(number): token for number, token in self._lines("SELECT id, transaction_id FROM wp_wc_orders")}
        lost = [one for one in self.known if there.get(one.number) != one.token]
        for table, column in PARTS:
            numbers = {int(number) for (number,) in self._lines(f"SELECT {column} FROM {table}")}
            lost += [one for one in self.known if one.number not in numbers and one not in lost]
        notes = {token for (token,) in self._lines("SELECT comment_content FROM wp_comments")}
        lost += [one for one in self.known if one.token not in notes and one not in lost]
        orders = self._lines("SELECT COUNT(*) FROM wp_wc_orders WHERE type = 'shop_order'")[0][0]
        stock = self._lines("SELECT stock_quantity, total_sales FROM wp_wc_product_meta_lookup")[0]
        sold = (STOCK - int(float(stock[0])), int(stock[1]))
        if sold != (int(orders), int(orders)):
            print(f"  {orders} orders are there, and of the stock are gone {sold[0]}, counted as sold {sold[1]}")
        numbers_given = Counter(one.number for one in self.known)
        twice = sum(times - 1 for times in numbers_given.values())
        return len(lost) + max(0, int(orders) - min(sold)), twice

    # What is done

    def deploy(self) -> None:
        self.count += 1
        self._deployed(("v1", "v2")[self.count % 2])

    def failed_deploy(self) -> None:
        source = f"{self.stand.code.url('shop')}#fatal"
        self._failed(self._post(self.on("/deploy"), source_type="git", source_ref=source), "RELEASE_UNHEALTHY")

    def roll_back(self) -> None:
        self.deploy()
        self._done(self._post(self.on("/rollback")))

    def update(self) -> None:
        self._publish(None)
        self._done(self._post(self.on("/updates"), scope="plugins"))

    def failed_update(self, failure: str) -> None:
        self._publish(failure)
        self._failed(self._post(self.on("/updates"), scope="plugins"), "RELEASE_UNHEALTHY")

    def back_up(self) -> None:
        self._done(self._post(self.on("/backups"), backup_scope="full"))

    def restore(self) -> None:
        backup = self._get(self.on("/backups"))[0]
        self._done(self._post(f"/environments/{self.staging['id']}/restore", backup_id=backup["id"]))

    def promote(self) -> None:
        self.count += 1
        self._put_in_staging()
        self._done(self._promotion())

    def failed_promote(self) -> None:
        self.count += 1
        self._put_in_staging()
        path = f"/var/www/sites/{self.staging['id']}/current/wp-content/mu-plugins/broken.php"
        node = self.stand.place.node_of(self.staging)
        node.ssh(["tee", path], input=BROKEN)
        try:
            self._failed(self._promotion(), "RELEASE_UNHEALTHY")
        finally:
            node.ssh(["rm", path])

    def domain(self) -> None:
        name = f"shop-{self.count}.example.com"
        self.count += 1
        self.stand.acme.point(name, self.stand.place.node_of(self.production).address)
        self._done(self._post(self.on("/domains"), hostname=name))
        (domain,) = [one for one in self._get(self.on("/domains")) if one["hostname"] == name]
        self._done(self.stand.place.run(self.stand.place.plane.http.delete(f"/api/domains/{domain['id']}")))

    def toggle(self) -> None:
        for on in (False, True):
            flags = {"fastcgi_cache_enabled": on, "redis_cache_enabled": on}
            self._done(self.stand.place.run(self.stand.place.plane.http.patch(f"/api{self.on('/cache')}", json=flags)))

    def provision(self) -> None:
        """Another baseline: each service that it changes is changed under the customers."""
        self.count += 1
        clone = self.stand.place.plane.clone
        before = len(self._provisionings())
        lines = clone.read("nodes/web-1.yaml")
        percent = f"  redis:\n    memory_percent: {11 + self.count % 2}\n"
        kept = lines.partition("  redis:\n")[0]
        clone.push({"nodes/web-1.yaml": kept + percent}, "Give Redis another share")
        until(
            lambda: len(self._provisionings()) > before, "the node to be provisioned", told=self.stand.place.plane.log
        )
        self._done(self.stand.place.plane.wait_job(self._provisionings()[0]["id"]))

    # How it is asked for

    def on(self, path: str) -> str:
        return f"/environments/{self.production['id']}{path}"

    def page(self, environment: dict[str, Any]) -> Any:
        host = environment["preview_url"].partition("://")[2]
        headers = {"Cookie": "wordpress_no_cache=1"}
        return self.stand.place.node_of(environment).fetch("/", host=host, headers=headers)

    def _customers(self) -> Customers:
        host = self.production["preview_url"].partition("://")[2]
        return Customers(self.stand.place.node_of(self.production).address, host, f"{len(self.rows)}")

    def _files(self, word: str) -> dict[str, str]:
        front = f"<?php add_action('wp_footer', function () {{ echo '<i>front {word}</i>'; }});"
        return {FRONT: front, MAIN: plugin("shop", "1.0", code("1.0", 1))}

    def _deployed(self, tag: str) -> None:
        source = f"{self.stand.code.url('shop')}#{tag}"
        self._done(self._post(self.on("/deploy"), source_type="git", source_ref=source))

    def _publish(self, failure: str | None) -> None:
        self.count += 1
        version = f"2.{self.count:03d}"
        self.stand.mirror.publish_plugin("shop", version, code(version, 1 + self.count, failure))

    def _put_in_staging(self) -> None:
        query = f"UPDATE wp_options SET option_value = 'Open {self.count}' WHERE option_name = 'blogdescription'"
        self.stand.place.sql(self.staging, query)

    def _promotion(self) -> dict[str, Any]:
        self._done(self._post(f"/environments/{self.staging['id']}/drift-check"))
        self.back_up()
        target = {"target_environment_id": self.production["id"]}
        return self._post(f"/environments/{self.staging['id']}/promote", **target)

    def _copied(self, slug: str, kind: str, **more: Any) -> dict[str, Any]:
        path = f"/sites/{self.production['site_id']}/environments"
        job = self._done(self._post(path, name=slug.title(), slug=slug, type=kind, **more))
        found: dict[str, Any] = self._get(f"/environments/{job['environment_id']}")
        return found

    def _provisionings(self) -> list[dict[str, Any]]:
        return [one for one in self._get("/jobs?limit=200") if one["job_type"] == "node-provision"]

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        return self.stand.place.run(self.stand.place.plane.http.post(f"/api{path}", json=body))

    def _get(self, path: str) -> Any:
        return self.stand.place.plane.http.get(f"/api{path}").json()

    def _done(self, job: dict[str, Any]) -> dict[str, Any]:
        assert job["status"] == "succeeded", f"{job['job_type']}: {job['error_code']}: {job['error_message']}"
        return job

    def _failed(self, job: dict[str, Any], wanted: str) -> None:
        """It failed, and the environment is active again."""
        assert (job["status"], job["error_code"]) == ("failed", wanted), f"{job['error_code']}: {job['error_message']}"
        self.stand.place.plane.command("apply", "shop/production", "--yes")
        until(lambda: self._get(self.on(""))["status"] == "active", "the environment to be active")

    def _sql(self, query: str) -> str:
        return self.stand.place.sql(self.production, query)

    def _lines(self, query: str) -> list[tuple[str, ...]]:
        return [tuple(line.split("\t")) for line in self._sql(query).splitlines()]
