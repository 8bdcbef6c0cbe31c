"""Rows are counted as a dump passes by, in whatever pieces it comes."""

import itertools
import os
import random
from typing import Any

import pytest

from tests.playbooks.node_modules import load

counts = load("content.row_counts")

DUMP = b"""/*M!999999\\- enable the sandbox mode */
DROP TABLE IF EXISTS `wp_orders`;
CREATE TABLE `wp_orders` (
  `id` int(11) NOT NULL COMMENT '(\\n(',
  PRIMARY KEY (`id`)
) ENGINE=InnoDB;
LOCK TABLES `wp_orders` WRITE;
INSERT INTO `wp_orders` VALUES
(1,'a\\n(b'),
(2,'INSERT INTO `wp_none` VALUES'),
(3,NULL);
INSERT INTO `wp_orders` VALUES
(4,'x');
UNLOCK TABLES;
CREATE TABLE `wp_ti``ck` (
  `id` int(11)
);
CREATE TABLE `wp_old` (
  `id` int(11)
);
INSERT INTO `wp_old` VALUES (1),(2);
CREATE TABLE `trueup_objects` (texts LONGTEXT);
INSERT INTO `trueup_objects` VALUES (X'00');
"""
FOUND = {"wp_orders": 4, "wp_ti`ck": 0, "wp_old": None}


@pytest.mark.parametrize("most", [1, 2, 7, 100, 10_000])
def test_rows_by_table(most: int) -> None:
    chance = random.Random(most)
    found, rest = counts.RowCounts(), DUMP
    while rest:
        length = chance.randint(1, most)
        found.feed(rest[:length])
        rest = rest[length:]
    assert found.tables == FOUND
    assert found.size == len(DUMP)


def test_of_a_long_row_little_is_kept() -> None:
    found = counts.RowCounts()
    found.feed(b"CREATE TABLE `t` (\n);\nINSERT INTO `t` VALUES\n(")
    for _ in range(100):
        found.feed(b"x" * 10_000)
        assert len(found._line) <= 400
    found.feed(b"),\n(2);\n")
    assert found.tables == {"t": 2}


def test_of_too_many_tables_nothing_is_told() -> None:
    found = counts.RowCounts()
    found.feed(b"".join(b"CREATE TABLE `t%d` (\n" % number for number in range(counts.MOST + 1)))
    assert found.tables is None


def test_what_passes_is_what_came() -> None:
    reader, writer = os.pipe()
    counted: Any = counts.Counted(os.fdopen(reader, "rb"))
    with os.fdopen(writer, "wb") as stream:
        stream.write(DUMP)
    assert counted.passed.read() == DUMP
    counted.join()
    assert counted.counts.tables == FOUND


def test_a_reader_that_ends_ends_whoever_writes() -> None:
    reader, writer = os.pipe()
    counted: Any = counts.Counted(os.fdopen(reader, "rb"))
    counted.passed.close()
    with os.fdopen(writer, "wb", 0) as stream, pytest.raises(BrokenPipeError):
        stream.writelines(itertools.repeat(b"x" * (1 << 16), 1000))
    counted.join(120)
    assert not counted.is_alive()
