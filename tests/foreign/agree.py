#!/usr/bin/env python3
"""Do two verifiers agree? Judges every case of a folder with verify.py and compares the exit code.

    agree.py FOLDER...

A case is a folder with file.cbor, trust.toml and expect (`bundle 1`), as tests/vectors/evidence has
them and as the verifier's own tests write them where MERESTONE_EXPORT names a folder. Exit 0 where
all agree, 1 where one does not, 4 where there is no case.
"""
import pathlib
import sys

import verify

AT = verify.instant("2025-10-09T09:03:20Z")  # the time of the verdict in all of them


def main(folders):
    cases = sorted(case.parent for folder in folders for case in pathlib.Path(folder).glob("*/expect"))
    by_exit, wrong = {}, 0
    for case in cases:
        command, want = (case / "expect").read_text().split()
        tally = verify.judge(case / "file.cbor", command, verify.read_trust(case / "trust.toml"), AT)
        by_exit[want] = by_exit.get(want, 0) + 1
        if tally.exit() != int(want):
            wrong += 1
            print(f"DISAGREE {case.name}: exit {want} there, {tally.exit()} here {tally.faults[:3]}")
    counts = ", ".join(f"{count} of exit {code}" for code, count in sorted(by_exit.items()))
    print(f"{len(cases) - wrong} of {len(cases)} cases agree ({counts})")
    return 4 if not cases else int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
