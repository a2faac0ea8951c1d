#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Print the kernel functions that contain the instructions counted by count.c."""

import argparse
import bisect
import re
import shutil
import subprocess

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("counts", help="the file that count.c has written")
parser.add_argument("symbols", help="/proc/kallsyms of the same boot")
parser.add_argument("--per", type=float, metavar="N", help="show parts of N instead of percentages")
parser.add_argument("--least", type=float, default=0.5, metavar="PERCENT", help="leave out functions with less (default: 0.5)")
parser.add_argument("--within", metavar="FUNCTION", help="the addresses within one function, as offsets")
args = parser.parse_args()

symbols = []
with open(args.symbols) as file:
    for line in file:
        addr, kind, name, *module = line.split()
        if kind in "tTwW" and not name.startswith("__pfx_"):
            symbols.append((int(addr, 16), name, module[0] if module else ""))
symbols.sort()
starts = [addr for addr, _, _ in symbols]

counts, total = {}, 0
with open(args.counts) as file:
    for line in file:
        addr, length, times = line.split()
        addr, count = int(addr, 16), int(length) * int(times)
        total += count
        at = bisect.bisect_right(starts, addr) - 1
        if addr < 1 << 63:
            name = ("user space", "")
        elif at < 0:
            name = ("?", "")
        else:
            name = symbols[at][1:]
        if args.within:
            if name[0] != args.within:
                continue
            name = (f"+{addr - starts[at]:#x} ({length} instructions)", "")
        counts[name] = counts.get(name, 0) + count

unit = args.per / total if args.per else 100 / total
lines = [f"{total} instructions"]
for (name, module), count in sorted(counts.items(), key=lambda item: -item[1]):
    if 100 * count / total >= args.least:
        lines.append(f"{count * unit:10.1f}  {name} {module}")
text = "\n".join(lines) + "\n"
if shutil.which("c++filt"):
    # Rust's names, which c++filt knows too
    text = subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout
print(re.sub(r"\[[0-9a-f]{16}\]", "", text), end="")
