"""Evaluation sets: labels, names, parts, leaks."""

from __future__ import annotations

import shutil

from testing.field_case import Place, case, told, works


def with_names(p: Place, text: str) -> list[str]:
    """Curate with other class names."""
    (p.clothes / "classnames.txt").write_text(text)
    return ["curate", p.catalog()]


@case("V", told(r"classnames\.txt", r"blank|empty|line"))
def a_blank_line_among_the_class_names(p: Place) -> list[str]:
    names = (p.clothes / "classnames.txt").read_text().splitlines()
    return with_names(p, "\n".join([*names[:3], "", *names[3:]]) + "\n")


@case("V", told(r"classnames\.txt", r"twice|double|same|repeat"))
def a_class_name_twice(p: Place) -> list[str]:
    names = (p.clothes / "classnames.txt").read_text().splitlines()
    return with_names(p, "\n".join([*names[:-1], names[0]]) + "\n")


@case("V", told(r"class"))
def fewer_class_names_than_labels(p: Place) -> list[str]:
    return with_names(p, "coat\nshirt\n")


@case("3.3", told(r"classes"))
def a_key_that_sets_have_no_use_for(p: Place) -> list[str]:
    return ["curate", p.catalog(('split = "target"', 'split = "target"\nclasses = "labl"'))]


@case("3.3", told(r"split"))
def a_split_that_is_none(p: Place) -> list[str]:
    return ["curate", p.catalog(('split = "test"', 'split = "tset"'))]


@case("3.8", told(r"leak|also|both", r"\.tar"))
def a_test_picture_in_the_target(p: Place) -> list[str]:
    shutil.copytree(p.clothes, p.field.directory / "sets" / "again")
    changes = ('source = "sets/clothes"\nsplit = "test"', 'source = "sets/again"\nsplit = "all"')
    return ["curate", p.catalog(changes)]


@case("3.3", told(r"shoes"))
def a_set_that_is_not_there(p: Place) -> list[str]:
    return ["evaluate", str(p.field.directory / "sets" / "shoes"), "--home", str(p.finished)]


@case("3.3", told(r"label|cls"))
def a_label_that_is_no_number(p: Place) -> list[str]:
    from testing.field_pool import tar_of

    (p.clothes / "test" / "0.tar").write_bytes(tar_of([("a.png", b"x"), ("a.cls", b"boot")]))
    return ["curate", p.catalog()]


@case("3.9", works(r"clothes|acc1"))
def a_set_is_evaluated(p: Place) -> list[str]:
    home = p.directory / "copy"
    shutil.copytree(p.finished, home, ignore=shutil.ignore_patterns(".prefect", ".locks"))
    shutil.copytree(p.clothes, p.directory / "wds_clothes_test")
    return ["evaluate", str(p.directory / "wds_clothes_test"), "--home", str(home)]


@case("V", told(r"its label is"))
def a_label_of_thousands_of_digits(p: Place) -> list[str]:
    from testing.field_pool import tar_of

    (p.clothes / "test" / "0.tar").write_bytes(tar_of([("a.png", b"x"), ("a.cls", b"9" * 5000)]))
    return ["curate", p.catalog()]


@case("V", told(r"nshards\.txt: says '999"))
def a_number_of_shards_of_thousands_of_digits(p: Place) -> list[str]:
    (p.clothes / "test" / "nshards.txt").write_text("9" * 5000)
    return ["curate", p.catalog()]
