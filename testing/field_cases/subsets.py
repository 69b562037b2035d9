"""Subset files and expressions, exports, submissions: whatever is wrong with a file, its name is told."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from testing.field_case import Place, case, told, works

U8U8 = np.dtype("u8,u8")


def choose(p: Place, expression: str) -> list[str]:
    """The command that chooses from a good tar by an expression."""
    return ["subset", expression, "--pool", str(p.tar.parents[1] / "part-b"), "--out", "chosen.npy"]


@case("M", told(r"empty\.npy"))
def an_empty_file(p: Place) -> list[str]:
    p.file("empty.npy", b"")
    return choose(p, "no_filter & empty.npy")


@case("M", told(r"text\.npy"))
def a_text_file(p: Place) -> list[str]:
    p.file("text.npy", "uid\nabc\n")
    return choose(p, "text.npy | no_filter")


@case("M", told(r"cut\.npy"))
def a_file_that_is_cut(p: Place) -> list[str]:
    np.save("cut.npy", np.zeros(50, U8U8))
    data = p.file("cut.npy", (p.directory / "cut.npy").read_bytes()[:-7])
    return choose(p, f"no_filter - {data.name}")


@case("M", told(r"floats\.npy"))
def a_file_of_floats(p: Place) -> list[str]:
    np.save("floats.npy", np.zeros(50))
    return choose(p, "no_filter & floats.npy")


@case("M", told(r"table\.npy"))
def a_file_of_two_axes(p: Place) -> list[str]:
    np.save("table.npy", np.zeros((5, 2), U8U8))
    return choose(p, "no_filter & table.npy")


@case("M", told(r"pickled\.npy"))
def a_pickle(p: Place) -> list[str]:
    np.save("pickled.npy", np.array([{"a": 1}, None]), allow_pickle=True)
    return choose(p, "no_filter & pickled.npy")


@case("M", told(r"unsorted\.npy"))
def a_file_out_of_order(p: Place) -> list[str]:
    np.save("unsorted.npy", np.array([(2, 2), (1, 1)], U8U8))
    return choose(p, "no_filter & unsorted.npy")


@case("M", told(r"no-uid\.parquet"))
def a_table_without_uid(p: Place) -> list[str]:
    pq.write_table(pa.table({"id": ["a"]}), "no-uid.parquet")
    return choose(p, "no_filter & 'no-uid.parquet'")


@case("M", told(r"nowhere\.npy"))
def a_file_that_is_not_there(p: Place) -> list[str]:
    return choose(p, "no_filter & nowhere.npy")


@case("M", told(r"folder\.npy"))
def a_folder_for_a_file(p: Place) -> list[str]:
    (p.directory / "folder.npy").mkdir()
    return choose(p, "no_filter & folder.npy")


@case("M", told(r"clip_scor"))
def an_unknown_filter(p: Place) -> list[str]:
    return choose(p, "clip_scor(fraction=0.3)")


@case("M", told(r"\(no_filter & no_filter"))
def parentheses_that_do_not_close(p: Place) -> list[str]:
    return choose(p, "(no_filter & no_filter")


@case("3.10", told(r"none"))
def an_operand_that_chooses_nothing(p: Place) -> list[str]:
    np.save("other.npy", np.array([(1, 1)], U8U8))
    return choose(p, "no_filter & other.npy")


@case("3.10", told(r"eval_results|empty|results"))
def results_of_no_bytes(p: Place) -> list[str]:
    p.file("eval_results.jsonl", b"")
    p.file("method.toml", 'name = "x"\nauthor = "y"\nemail = "z@example.invalid"\ntrack = "filtering"\n'
           'hf_username = "u"\nhf_repo_name = "r"\ntext = "t"\n')  # fmt: skip
    np.save("subset.npy", np.array([(1, 1)], U8U8))
    given = ["--results", "eval_results.jsonl", "--method", "method.toml", "--subset", "subset.npy"]
    return ["submit-folder", "--out", "out", "--scale", "small", *given]


@case("K", told(r"text"), works())
def resharding_a_pool_of_texts(p: Place) -> list[str]:
    p.file("texts/a.jsonl", '{"prompt": "1 + 1", "completion": "2"}\n' * 3)
    return ["reshard", str(p.directory / "texts"), "--out", "out"]


@case("3.7", works(r"samples", also=lambda p, e: "" if (p.directory / "x.npy").exists() else "no file"))
def an_export_for_datacomp(p: Place) -> list[str]:
    return ["export", "--format", "datacomp", "--out", str(p.directory / "x.npy"), "--home", str(p.finished)]


@case("3.7", told(r"texts|jsonl"))
def pictures_as_json_lines(p: Place) -> list[str]:
    return ["export", "--format", "jsonl", "--out", str(p.directory / "x.jsonl"), "--home", str(p.finished)]


@case("3.7", works(r"samples"))
def an_export_of_shards(p: Place) -> list[str]:
    home = p.directory / "copy"
    shutil.copytree(p.finished, home, ignore=shutil.ignore_patterns(".prefect", ".locks"))
    return ["export", "--format", "webdataset", "--out", "shards", "--home", str(home)]


def by_filter(p: Place, query: str) -> list[str]:
    """Choose by a filter of one's own."""
    p.file("mine.sql", f"-- What it keeps.\n{query}")
    return choose(p, "mine.sql")


@case("M", told(r"mine\.sql", r"one SELECT"))
def a_filter_of_two_statements(p: Place) -> list[str]:
    return by_filter(p, "SELECT uid FROM samples; SELECT uid FROM samples")


@case("M", told(r"1 of mine\.sql", r"are not in"))
def a_filter_that_gives_what_is_not_in_the_pool(p: Place) -> list[str]:
    return by_filter(p, "SELECT '00000000000000000000000000000001'::UUID AS uid")
