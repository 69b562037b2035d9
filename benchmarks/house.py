"""Is the code in order: who imports whom, how large, and how often is the kind of data asked for?

`python -m benchmarks.house` reads mgd_core/, tasks/ and flows/ and prints what it counts; `--quick` is the same.
"""

from __future__ import annotations

import argparse

from benchmarks._envelope import emit
from testing import house

MOST_MODULES, MOST_BRANCHES, MOST_LINES = 20, 3, 24_500


def main() -> None:
    """Count, and print places and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same: it takes a second")
    parser.parse_args()
    found = house.imports(*house.PRODUCT)
    up, circles, branches = house.upward(found), house.circles(found), house.kind_branches()
    hidden = [one for one in found if one.hidden and one.module.startswith("tasks")]
    sizes, lengths = house.folder_sizes(), house.functions()
    largest, longest = max(sizes, key=lambda name: sizes[name]), max(lengths, key=lambda name: lengths[name])
    for one in up:
        print(f"upward: {one.module}:{one.line} imports {one.imported}")
    for one in hidden:
        print(f"hidden: {one.module}:{one.line} imports {one.imported}")
    for group in circles:
        print(f"circle: {', '.join(group)}")
    for place in branches:
        print(f"asks for the kind of data: {place}")
    print(f"largest folder: {largest}, {sizes[largest]} modules (at most {MOST_MODULES})")
    print(f"longest function: {longest}, {lengths[longest]} lines")
    print(f"places that ask for the kind of data: {len(branches)} (at most {MOST_BRANCHES})")
    print(f"lines of the product: {house.lines():,} (at most {MOST_LINES:,})")
    figures = {"circles": len(circles), "upward": len(up), "hidden": len(hidden), "modules_flat": sizes[largest]}
    figures |= {"kind_branches": len(branches), "product_lines": house.lines(), "longest_function": lengths[longest]}
    emit("house", figures)


if __name__ == "__main__":
    main()
