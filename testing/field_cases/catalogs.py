"""Catalogs: names that users give, numbers that cannot be, sentences, encodings. All is told before training."""

from __future__ import annotations

from testing.field_case import Place, case, told

TESTS = "[targets.tests.clothes]"


def curate(p: Place, *changes: tuple[str, str], more: str = "") -> list[str]:
    """Curate the field pool by a changed catalog."""
    return ["curate", p.catalog(*changes, more=more)]


@case("C", told(r"target"))
def a_test_called_target(p: Place) -> list[str]:
    return curate(p, (TESTS, "[targets.tests.target]"))


@case("C", told(r"heldout"))
def a_test_called_heldout(p: Place) -> list[str]:
    return curate(p, (TESTS, "[targets.tests.heldout]"))


@case("C", told(r"name|empty"))
def a_test_without_a_name(p: Place) -> list[str]:
    return curate(p, (TESTS, '[targets.tests.""]'))


@case("L", told(r"oracle.*truth|truth.*oracle"))
def an_oracle_without_truth(p: Place) -> list[str]:
    return curate(p, ('"everything", "mgd"', '"everything", "oracle"'))


@case("L", told(r"seeds"))
def no_seeds(p: Place) -> list[str]:
    return curate(p, ("seeds = [1]", "seeds = []"))


@case("L", told(r"seeds"))
def a_negative_seed(p: Place) -> list[str]:
    return curate(p, ("seeds = [1]", "seeds = [-1]"))


@case("L", told(r"subsets"))
def no_subsets(p: Place) -> list[str]:
    return curate(p, ('subsets = ["everything", "mgd"]', "subsets = []"))


@case("L", told(r"learning_rate"))
def an_infinite_rate(p: Place) -> list[str]:
    return curate(p, ("2e-3", "inf"))


@case("L", told(r"learning_rate"))
def a_rate_that_is_no_number(p: Place) -> list[str]:
    return curate(p, ("2e-3", "nan"))


@case("L", told(r"batch"))
def a_batch_larger_than_the_pool(p: Place) -> list[str]:
    return curate(p, ("batch = 24", "batch = 2400"))


@case("L", told(r"device|cuda"))
def a_device_that_is_not_there(p: Place) -> list[str]:
    return curate(p, ("threads = 1", 'threads = 1\ndevice = "cuda:17"'))


@case("L", told(r"device"))
def a_device_misspelt(p: Place) -> list[str]:
    return curate(p, ("threads = 1", 'threads = 1\ndevice = "gpu"'))


@case("L", told(r"probe_steps|probe step"))
def a_probe_step_outside_the_window(p: Place) -> list[str]:
    return curate(p, ("probe_steps = [4]", "probe_steps = [40]"))


@case("L", told(r"window_start"))
def a_window_that_starts_after_the_end(p: Place) -> list[str]:
    return curate(p, ("window_start = 3", "window_start = 30"))


@case("L", told(r"learning_rate"))
def a_key_misspelt(p: Place) -> list[str]:
    return curate(p, ("learning_rate =", "lerning_rate ="))


def _templates(p: Place, value: str) -> list[str]:
    return curate(p, ('split = "target"', f'split = "target"\ntemplates = {value}'))


@case("P", told(r"templates"))
def a_template_without_a_place(p: Place) -> list[str]:
    return _templates(p, '["a photo"]')


@case("P", told(r"templates"))
def a_template_with_an_open_brace(p: Place) -> list[str]:
    return _templates(p, '["a {} {"]')


@case("P", told(r"templates"))
def no_templates(p: Place) -> list[str]:
    return _templates(p, "[]")


@case("R", told(r"UTF-8|encod"))
def a_catalog_in_latin_1(p: Place) -> list[str]:
    path = p.catalog()
    text = p.field.catalog.read_text().replace('name = "field"', 'name = "field"\ndescription = "é"')
    p.field.catalog.write_bytes(text.encode("latin-1"))
    return ["curate", path]


@case("R", told(r"no file|director"))
def a_catalog_that_is_a_folder(p: Place) -> list[str]:
    return ["curate", str(p.field.directory)]


@case("R", told(r"TOML|UTF-8|invalid"))
def a_catalog_that_is_a_tar(p: Place) -> list[str]:
    return ["curate", str(p.tar)]


@case("3.1", told(r"clip_filter"))
def a_rivals_old_name(p: Place) -> list[str]:
    return curate(p, ('"everything", "mgd"', '"everything", "clip_filter"'))


@case("3.1", told(r"nowhere\.npy"))
def a_rival_that_is_not_there(p: Place) -> list[str]:
    return curate(p, ("seeds = [1]", 'seeds = [1]\nrivals = { mine = "nowhere.npy" }'))


@case("3.1", told(r"random|taken|ours|own"))
def a_rival_with_a_name_of_ours(p: Place) -> list[str]:
    return curate(p, ("seeds = [1]", 'seeds = [1]\nrivals = { random = "no_filter" }'))


@case("M", told(r"start\.npy"))
def starting_counts_of_the_wrong_type(p: Place) -> list[str]:
    import numpy as np

    np.save(p.field.directory / "start.npy", np.zeros(5))
    return curate(p, ("rounds = 1", 'rounds = 1\nstart = "start.npy"'))


@case("L", told(r"share = 0\.9"))
def more_exchanged_than_there_is(p: Place) -> list[str]:
    return curate(p, ("share = 0.2", "share = 0.9"))


@case("L", told(r"tf32.*NVIDIA"))
def arithmetic_that_the_device_has_not(p: Place) -> list[str]:
    return curate(p, ("threads = 1", 'threads = 1\nprecision = "tf32"'))


@case("L", told(r"3 distinct samples"))
def a_rival_smaller_than_a_batch(p: Place) -> list[str]:
    return curate(p, ("seeds = [1]", 'seeds = [1]\nrivals = { few = "random_size(size=3)" }'))


@case("P", told(r"context_length"))
def a_template_longer_than_what_is_read(p: Place) -> list[str]:
    return _templates(p, '["' + "one more word of " * 9 + '{}"]')


@case("R", told(r"key 'pool\.source' = 5: text is expected"))
def a_number_for_a_source(p: Place) -> list[str]:
    return curate(p, ('source = ["crawl/part-a", "crawl/part-b", "hub/snapshots/main"]', "source = 5"))


@case("R", told(r"key 'name'.*small letters"))
def a_name_that_is_a_path(p: Place) -> list[str]:
    return curate(p, ('name = "field"', 'name = "../field"'))
