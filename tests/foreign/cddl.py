#!/usr/bin/env python3
"""Validates bundles against docs/formats/evidence.cddl with a foreign tool, to the last entry.

    cddl.py BUNDLE...

Then spoils each bundle in every rule that it uses and demands that the tool refuses: a schema that
accepts everything would accept the good ones too. Exit 0 or 1.
"""
import pathlib
import sys

import cbor2
import pycddl

SCHEMA = pycddl.Schema((pathlib.Path(__file__).parents[2] / "docs/formats/evidence.cddl").read_text())


def accepts(bundle):
    try:
        SCHEMA.validate_cbor(cbor2.dumps(bundle))
    except pycddl.ValidationError:
        return False
    except BaseException as error:
        # pycddl 0.6.4 panics where a map with a choice of numbers lacks a key before it: no acceptance.
        if type(error).__name__ != "PanicException":
            raise
        return False
    return True


def inner(change):
    """A change inside bytes that hold CBOR."""
    def changed(data):
        item = cbor2.loads(data)
        return cbor2.dumps(change(item) or item)
    return changed


def spoilings(bundle):
    """(what, spoil) for what this bundle has."""
    session = bundle[6][0]
    unknown = lambda item: item.update({99: 1})
    retyped = lambda key, value: lambda item: item.update({key: value})
    yield "an unknown key", unknown
    yield "a missing key", lambda b: b.pop(4)
    yield "another type string", retyped(0, "merestone/bundle/v2")
    yield "a negative time", retyped(1, -1)
    yield "text for bytes", retyped(5, "x")
    for what, change in (("an unknown key", unknown), ("a short digest", retyped(8, b"x")),
                         ("a resettable chain register", retyped(15, 16)), ("a bad mode", lambda s: s[7].update({2: 7}))):
        yield f"{what} in a session", lambda b, change=change: b[6][0].update({0: inner(change)(session[0])})
    for what, change in (("an unknown key", unknown), ("an unknown cause", retyped(19, 9)),
                         ("a bad verdict", lambda e: e[12].append({0: "h", 1: 0, 2: "tcp", 3: 1}))):
        if session[4]:
            epoch = session[4][0][0]
            yield f"{what} in an epoch", lambda b, change=change: b[6][0][4][0].update({0: inner(change)(epoch)})
    for at, leaf in enumerate(bundle.get(7, {2: []})[2]):
        kind = cbor2.loads(leaf)[3][0]
        # Not tried: an unknown key in a map that stands in an array, which pycddl 0.6.4 lets through.
        for what, change in (("an unknown key", lambda e: e.update({99: 1})),
                             ("another kind", lambda e: e[3].__setitem__(0, 99)),
                             ("a missing key", lambda e: e[3][1].pop(min(e[3][1])))):
            yield f"{what} in an entry of kind {kind}", \
                lambda b, at=at, leaf=leaf, change=change: b[7][2].__setitem__(at, inner(change)(leaf))


def main(files):
    wrong = 0
    for file in files:
        data = pathlib.Path(file).read_bytes()
        try:
            SCHEMA.validate_cbor(data)
        except pycddl.ValidationError as error:
            print(f"REFUSED {file}: {error}")
            wrong += 1
            continue
        tried = 0
        for what, spoil in spoilings(cbor2.loads(data)):
            bundle = cbor2.loads(data)
            spoil(bundle)
            tried += 1
            if accepts(bundle):
                print(f"ACCEPTED {file} with {what}")
                wrong += 1
        print(f"{pathlib.Path(file).name}: valid; {tried} spoilings tried")
    return int(wrong > 0 or not files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
