"""The explorer's server: what it shows and writes equals plain SQL, and nobody else is answered."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from duckdb import DuckDBPyConnection
from PIL import Image
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from flows.cli import main
from tasks.explore.choice import Choice
from tasks.explore.explorer import Explorer, explored
from tasks.explore.frame import counted
from tasks.explore.service import app
from tasks.explore.turns import Superseded, TooSlow, Turn, Turns
from tasks.subset.files import read_subset
from tasks.tables.published import publish
from tasks.tables.queries import QueryError, connect
from tasks.tables.uids import uid_hex
from testing.explored_run import HOSTILE, RUN, SAMPLES, explored_home, uid_at

PORT, TOKEN = 4321, "secret"
BASE = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explored_home(tmp_path_factory.mktemp("explored") / "home")


@pytest.fixture(scope="module")
def explorer(home: Path) -> Iterator[Explorer]:
    with explored(home, RUN) as one:
        yield one


@pytest.fixture(scope="module")
def plain(home: Path) -> Iterator[DuckDBPyConnection]:
    with connect(home, RUN) as connection:
        yield connection


@pytest.fixture(scope="module")
def served(explorer: Explorer) -> ASGIApp:
    return app(explorer, PORT, TOKEN)


@pytest.fixture(scope="module")
def client(served: ASGIApp) -> TestClient:
    made = TestClient(served, base_url=BASE)
    assert made.get(f"/?token={TOKEN}").status_code == 200  # from here on the cookie does
    return made


def get(client: TestClient, path: str, choice: dict | None = None, **more: Any) -> Any:
    answer = client.get(path, params={"choice": json.dumps(choice or {}), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def asked(plain: DuckDBPyConnection, where: str) -> list[str]:
    """uids of a question that was written by hand, by `mgd sql`'s own connection."""
    rows = plain.execute(f"SELECT uid FROM sample_outcomes WHERE {where} ORDER BY uid").fetchall()
    return [row[0].hex for row in rows]


CASES: dict[str, tuple[dict, str]] = {
    "all": ({}, "true"),
    "line": ({"where": "g_sum < 0 -- wanted\n AND count = 0"}, "g_sum < 0 AND count = 0"),
    "search": ({"search": "RED thing"}, "text ILIKE '%red thing%'"),
    "quotes": ({"search": "'; DROP"}, "contains(text, '''; DROP')"),
    "numbers": ({"brushes": {"o:g_sum": {"low": -0.012345678901234567, "high": 0.004}}},
                "g_sum >= -0.012345678901234567e0 AND g_sum < 0.004"),
    "open below": ({"brushes": {"o:score": {"high": 0.2}}}, "score < 0.2"),
    "open above": ({"brushes": {"o:score": {"low": 0.2}}}, "score >= 0.2"),
    "without a score": ({"brushes": {"o:score": {"none": True}}}, "score IS NULL"),
    "words": ({"brushes": {"o:style": {"words": ["a", "it's"], "none": True}}},
              "style IN ('a', 'it''s') OR style IS NULL"),
    "truth": ({"brushes": {"o:truth_clean": {"words": ["true"]}}}, "truth_clean"),
    "length": ({"brushes": {"x:length": {"low": 1000}}}, "length(text) >= 1000"),
    "g of a round": ({"brushes": {"g:1": {"low": 0.0, "high": 0.01}}},
                     "uid IN (SELECT uid FROM metagradients WHERE round = 1 AND probed AND g >= 0 AND g < 0.01)"),
    "not probed": ({"brushes": {"g:1": {"none": True}}},
                   "uid NOT IN (SELECT uid FROM metagradients WHERE round = 1 AND probed)"),
    "count of a round": ({"brushes": {"count:2": {"low": 3}}},
                         "uid IN (SELECT uid FROM counts WHERE round = 2 AND count > 2)"),
    "together": ({"where": "count > 0 OR g_sum > 0", "search": "blue",
                  "brushes": {"o:score": {"low": 0.1}, "o:style": {"words": ["b"]}}},
                 "(count > 0 OR g_sum > 0) AND text LIKE '%blue%' AND score >= 0.1 AND style = 'b'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_shown_counted_and_exported_is_what_sql_gives(
    name: str, plain: DuckDBPyConnection, client: TestClient
) -> None:
    choice, where = CASES[name]
    expected = asked(plain, where)
    told = get(client, "/api/count", choice)
    assert told["shown"] == len(expected) > 0 and told["of"] == SAMPLES
    assert asked(plain, f"uid IN ({told['sql']})") == expected, "the page's own SQL"
    rows = get(client, "/api/rows", choice, start=0, size=400)
    assert [row["uid"] for row in rows] == expected
    answer = export(client, choice, "npy")
    assert answer["samples"] == len(expected)
    assert uid_hex(read_subset(answer["path"]).uids) == expected


def export(client: TestClient, choice: dict, format: str, picked: list[str] | None = None) -> Any:
    body = {"choice": choice, "format": format, "name": "kept", "picked": picked}
    answer = client.post("/api/export", json=body, headers={"Origin": BASE})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_lines_of_an_export_give_the_same_again(
    plain: DuckDBPyConnection, client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    told = export(client, {"search": "blue", "brushes": {"o:style": {"words": ["a"]}}}, "parquet")
    expected = asked(plain, "contains(text, 'blue') AND style = 'a'")
    table = pq.read_table(told["path"])
    assert table["uid"].to_pylist() == expected and {"text", "g_sum", "score"} <= {*table.column_names}
    sql = shlex.split(told["commands"][1])
    assert main([*sql[1:], "--format", "csv"]) == 0
    assert capsys.readouterr().out.split()[1:] == expected
    path = Path(told["path"]).with_suffix(".sql")
    assert path.read_text().startswith("-- Samples that the page showed") and f'"{path}"' in shlex.split(
        told["commands"][0]
    )


def test_picked_samples_and_lines_of_json(home: Path, client: TestClient) -> None:
    picked = [uid_at(i) for i in (7, 3, 2)]
    told = export(client, {"search": "nothing has this"}, "jsonl", picked)
    lines = [json.loads(line) for line in Path(told["path"]).read_text().splitlines()]
    assert [line["uid"] for line in lines] == sorted(picked) and lines[0]["text"] == HOSTILE[2]
    answer = client.post("/api/export", headers={"Origin": BASE}, json={
        "choice": {}, "format": "npy", "name": "kept", "picked": ["f" * 32]})  # fmt: skip
    assert answer.status_code == 400 and "not of this run" in answer.json()["error"]


def test_bars_leave_out_only_their_own_brush(plain: DuckDBPyConnection, client: TestClient) -> None:
    choice = {"brushes": {"o:style": {"words": ["a"]}, "o:score": {"low": 0.2}}}
    styles, scores = (get(client, "/api/chart", choice, key=key) for key in ("o:style", "o:score"))
    bars = dict(zip(styles["words"], styles["shown"], strict=True))
    assert bars.keys() == {"a", "b", "it's"}
    assert all(bars[word] == len(asked(plain, f"score >= 0.2 AND style = '{word}'")) for word in ("a", "b"))
    assert styles["none"] == [len(asked(plain, "style IS NULL")), len(asked(plain, "score >= 0.2 AND style IS NULL"))]
    ends = [*(f"{edge!r}e0" for edge in scores["edges"]), "1e300"]
    cases = " ".join(f"WHEN score < {end} THEN {b}" for b, end in enumerate(ends))
    where = "FROM sample_outcomes WHERE style = 'a' AND score IS NOT NULL"
    expected = dict(plain.execute(f"SELECT CASE {cases} END AS b, count(*) {where} GROUP BY b").fetchall())
    assert scores["shown"] == [expected.get(b, 0) for b in range(len(ends))]
    assert sum(scores["all"]) + scores["none"][0] == SAMPLES


@pytest.mark.parametrize("order, descending, by", [
    ("o:g_sum", False, "g_sum NULLS LAST"), ("o:g_sum", True, "g_sum DESC NULLS LAST"),
    ("o:count", True, "count DESC"), ("o:text", False, "text"), ("g:1", True, None), ("uid", True, "uid DESC"),
])  # fmt: skip
def test_orders(order: str, descending: bool, by: str | None, plain: DuckDBPyConnection, client: TestClient) -> None:
    choice = {"order": order, "descending": descending, "where": "score > 0.1"}
    found = [row["uid"] for start in (0, 50) for row in get(client, "/api/rows", choice, start=start, size=50)]
    source = "sample_outcomes WHERE score > 0.1"
    if by is None:
        probed = "(FROM metagradients WHERE round = 1 AND probed) AS m"
        source, by = f"samples LEFT JOIN {probed} USING (uid) WHERE score > 0.1", "g DESC NULLS LAST"
    rows = plain.execute(f"SELECT uid FROM {source} ORDER BY {by}, uid LIMIT 100").fetchall()
    assert found == [row[0].hex for row in rows]


def test_a_shuffle_is_a_function_of_its_seed(client: TestClient) -> None:
    one, same, other = (
        [row["uid"] for row in get(client, "/api/rows", {"order": "random", "seed": seed}, start=0, size=400)]
        for seed in (1, 1, 2)
    )
    assert one == same != other and sorted(one) == sorted(other) and one != sorted(one)


def test_moves_between_rounds(plain: DuckDBPyConnection, client: TestClient) -> None:
    told = get(client, "/api/moves", a=1, b=3)
    both = "uid IN (SELECT a.uid FROM counts a, counts b WHERE a.uid = b.uid AND a.round = 1 AND b.round = 3 AND {})"
    assert told["entered"] == len(asked(plain, both.format("a.count = 0 AND b.count > 0"))) > 0
    assert sum(told.values()) == SAMPLES


def test_a_story(plain: DuckDBPyConnection, client: TestClient) -> None:
    told = get(client, f"/api/story/{uid_at(50)}")
    assert told["rounds"][0]["count"] == 1 and len(told["rounds"]) == 4
    assert [one["g"] is None for one in told["rounds"]] == [False, 50 % 7 == 1, False, True]
    assert [one["uid"] for one in told["alike"]] == asked(
        plain, f"text = (SELECT text FROM samples WHERE uid = '{uid_at(50)}') AND uid <> '{uid_at(50)}'"
    )
    assert {"name": "style", "value": None, "doc": "Carried over from the pool as it was."} in told["values"]


def test_hostile_captions_come_as_text_and_long_ones_cut(client: TestClient) -> None:
    rows = get(client, "/api/rows", {}, start=0, size=5)
    assert [row["text"] for row in rows] == [text[:300] for text in HOSTILE]
    told = get(client, f"/api/story/{uid_at(3)}")
    assert (len(told["text"]), told["length"]) == (20_000, 500_000)
    assert client.get("/").headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    answer = client.get("/api/count", params={"choice": '{"search": "\\ud800"}'})
    assert answer.status_code == 400


def test_thumbnails(client: TestClient) -> None:
    answer = client.get(f"/picture/{uid_at(4)}?size=128")
    picture = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "image/png" and picture.getpixel((3, 3)) == (148, 44, 4)
    again = client.get(f"/picture/{uid_at(4)}?size=128", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("path", [
    "/picture/..%2f..%2fetc%2fpasswd", "/picture/../../etc/passwd", "/picture//etc/passwd", "/picture/" + "f" * 32,
    f"/picture/{uid_at(4)}?size=99999", f"/picture/{uid_at(4)}?size=../../x", "/explore.js/../../cli.py",
    "/..%2fpage.html",
])  # fmt: skip
def test_no_path_leads_anywhere(path: str, client: TestClient) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("line", [
    "true); COPY samples TO '/tmp/x' (FORMAT csv); --", "true; ATTACH '/tmp/x.db'",
    "uid IN (FROM read_csv('/etc/passwd'))",
    "EXISTS (FROM read_text('/etc/passwd'))", "EXISTS (FROM query('SELECT 1'))", "true; DROP VIEW samples", "nonsense(",
    "no_column = 3", "true) UNION (SELECT 1", "true) UNION ALL (SELECT uuid()", "'\x00' = text",
])  # fmt: skip
def test_lines_that_are_more_than_a_question_are_refused(line: str, client: TestClient) -> None:
    answer = client.get("/api/count", params={"choice": json.dumps({"where": line})})
    assert answer.status_code == 400 and answer.json()["error"], answer.text
    assert get(client, "/api/count")["shown"] == SAMPLES, "and all is as it was"


@pytest.mark.parametrize("headers, status", [
    ({}, 403), ({"X-Token": "guess"}, 403), ({"X-Token": TOKEN}, 200),
    ({"X-Token": TOKEN, "Host": "evil.example"}, 403), ({"X-Token": TOKEN, "Host": f"evil.example:{PORT}"}, 403),
    ({"X-Token": TOKEN, "Origin": "http://evil.example"}, 403), ({"X-Token": TOKEN, "Origin": "null"}, 403),
    ({"X-Token": TOKEN, "Host": f"localhost:{PORT}"}, 200),
])  # fmt: skip
def test_who_is_answered(headers: dict[str, str], status: int, served: ASGIApp) -> None:
    stranger = TestClient(served, base_url=BASE)
    for path in ("/", "/explore.js", "/api/run", f"/picture/{uid_at(4)}?size=64"):
        answer = stranger.get(path, headers=headers)
        assert answer.status_code == status and "set-cookie" not in answer.headers


def test_only_the_page_itself_sends_orders(client: TestClient) -> None:
    body = {"choice": {}, "format": "npy", "name": "kept"}
    for headers in ({}, {"Origin": "http://evil.example"}):
        assert client.post("/api/export", json=body, headers=headers).status_code == 403
    assert client.delete("/api/run", headers={"Origin": BASE}).status_code == 405
    for name in ("../kept", "a/b", "", "basic", "a" * 200):
        answer = client.post("/api/export", json=body | {"name": name}, headers={"Origin": BASE})
        assert answer.status_code == 400, name


def test_one_run_is_looked_at(home: Path, tmp_path: Path) -> None:
    for place, run, told in (
        (home, "all", "one run"),
        (home, "looked-2", "did you mean looked-1"),
        (tmp_path, None, ""),
    ):
        with pytest.raises(QueryError, match=told), explored(place, run):
            pass


def test_what_a_run_publishes_meanwhile_is_seen_when_asked_for(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "home")
    with explored(tmp_path / "home", RUN) as one:
        assert not one.told()["stale"] and "count:4" not in one.columns
        counts = pa.table({"uid": [bytes.fromhex(uid_at(i)) for i in range(SAMPLES)], "count": [1] * SAMPLES})
        publish(tmp_path / "home", RUN, "counts", 4, counts)
        assert one.told()["stale"] and not one.renew()["stale"] and "count:4" in one.columns
        assert one.chart(Choice(), "count:4", Turn())["shown"] == [0, SAMPLES, 0]


def test_a_question_that_is_superseded_or_too_slow_ends(explorer: Explorer) -> None:
    slow = Choice(where="(SELECT sum(hash(a.range + b.range)) FROM range(300000) AS a, range(300000) AS b) > count")
    turns = Turns(seconds=0.5)
    with pytest.raises(TooSlow, match=r"0\.5 s"), turns.taking("page", "count") as turn:
        explorer.count(slow, turn)
    turns = Turns()
    began = Event()

    def ask() -> None:
        with turns.taking("page", "count") as turn:
            began.set()
            explorer.count(slow, turn)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask)
        began.wait()
        with turns.taking("page", "count") as turn:
            assert explorer.count(Choice(), turn)["shown"] == SAMPLES
        assert isinstance(first.exception(timeout=60), Superseded)


def test_every_code_of_a_column_is_counted() -> None:
    draw = np.random.default_rng(0)
    codes, mask = draw.integers(0, 250, 10_001).astype(np.uint8), draw.random(10_001) < 0.5
    assert (counted(codes, mask) == np.bincount(codes[mask], minlength=256)).all()
    assert (counted(codes, None) == np.bincount(codes, minlength=256)).all()
