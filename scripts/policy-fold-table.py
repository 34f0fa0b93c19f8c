#!/usr/bin/env python3
"""Writes fsserver/policy_fold_table.c: how a code point compares in a protected name.

Sources: Debian's unicode-data (Unicode 15.0: UnicodeData.txt, CaseFolding.txt,
DerivedCoreProperties.txt) and, for look-alikes of ASCII, the confusables of Unicode 15.0 as ICU 72
carries them (uspoof_getSkeletonUTF8). Run by hand when the Unicode version moves; the output is
committed, so that a build needs neither.
"""
import ctypes
import sys

UNICODE = "/usr/share/unicode/"
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by arithmetic, in policy_names.c


def properties(path, wanted):
    found = set()
    for line in open(UNICODE + path, encoding="utf-8"):
        fields = [f.strip() for f in line.split("#")[0].split(";")]
        if len(fields) == 2 and fields[1] == wanted:
            ends = [int(x, 16) for x in fields[0].split("..")]
            found.update(range(ends[0], ends[-1] + 1))
    return found


combining, decomposition, assigned = {}, {}, set()
for line in open(UNICODE + "UnicodeData.txt", encoding="utf-8"):
    f = line.split(";")
    code = int(f[0], 16)
    assigned.add(code)
    combining[code] = int(f[3])
    if f[5]:
        parts = [p for p in f[5].split() if not p.startswith("<")]
        decomposition[code] = [int(p, 16) for p in parts]
folding = {}
for line in open(UNICODE + "CaseFolding.txt", encoding="utf-8"):
    f = [x.strip() for x in line.split("#")[0].split(";")]
    if len(f) >= 3 and f[1] in "CF":
        folding[int(f[0], 16)] = [int(x, 16) for x in f[2].split()]
ignorable = properties("DerivedCoreProperties.txt", "Default_Ignorable_Code_Point")

icu = ctypes.CDLL("libicui18n.so.72")
status = ctypes.c_int(0)
icu.uspoof_open_72.restype = ctypes.c_void_p
checker = ctypes.c_void_p(icu.uspoof_open_72(ctypes.byref(status)))


def look_alike(code):
    """The ASCII text that `code` is drawn like, or None."""
    if code < 0x80 or 0xD800 <= code < 0xE000:
        return None
    text = chr(code).encode()
    out = ctypes.create_string_buffer(256)
    error = ctypes.c_int(0)
    length = icu.uspoof_getSkeletonUTF8_72(checker, 0, text, len(text), out, 256,
                                           ctypes.byref(error))
    if error.value > 0:
        return None
    skeleton = out.raw[:length]
    return skeleton.decode().lower() if length and all(0x20 <= b < 0x7F for b in skeleton) else None


def fold_once(codes):
    out = []
    for code in codes:
        if code in ignorable or combining.get(code, 0):
            continue
        if code in decomposition:
            out += decomposition[code]
        elif code in folding:
            out += folding[code]
        else:
            out.append(code)
    return out


def fold(code):
    codes, before = [code], None
    while codes != before:
        before, codes = codes, fold_once(codes)
    if len(codes) == 1 and codes[0] >= 0x80:
        # The folded form decides first: U+0406 is drawn like l, but its small form like i.
        drawn = look_alike(codes[0]) or look_alike(code)
        if drawn:
            return [ord(c) for c in drawn]
    out = []
    for c in codes:
        drawn = look_alike(c)
        out += [ord(d) for d in drawn] if drawn else [c]
    return out


removed, shifted, texts = [], [], []
for code in range(0x80, 0x110000):
    if 0xD800 <= code < 0xE000 or code in HANGUL:
        continue
    if code not in assigned and code not in ignorable:
        continue
    to = fold([code][0])
    if to == [code]:
        continue
    if not to:
        if removed and removed[-1][1] == code - 1:
            removed[-1][1] = code
        else:
            removed.append([code, code])
    elif len(to) == 1:
        delta, last = to[0] - code, shifted[-1] if shifted else None
        if last and last[3] == delta and last[1] < code and (
                code - last[1] == last[2] or (last[0] == last[1] and code - last[1] <= 2)):
            last[2] = code - last[1]
            last[1] = code
        else:
            shifted.append([code, code, 1, delta])
    else:
        texts.append((code, "".join(map(chr, to)).encode()))

pool, offsets = b"", {}
for _, text in sorted(texts, key=lambda t: -len(t[1])):
    if text not in offsets:
        at = pool.find(text)
        if at < 0:
            at = len(pool)
            pool += text
        offsets[text] = at
growth = max(len(t) / len(chr(c).encode()) for c, t in texts)


def rows(items):
    line, out = "\t", []
    for item in items:
        if len(line) + len(item) > 92:
            out.append(line.rstrip())
            line = "\t"
        line += item + ", "
    return "\n".join(out + [line.rstrip()])


print(f"removed {len(removed)} shifted {len(shifted)} texts {len(texts)} pool {len(pool)} "
      f"growth {growth}", file=sys.stderr)
with open(sys.argv[1] if len(sys.argv) > 1 else "fsserver/policy_fold_table.c", "w") as out:
    out.write(f"""/*
 * Written by scripts/policy-fold-table.py from Unicode 15.0: UnicodeData.txt, CaseFolding.txt and
 * DerivedCoreProperties.txt of Debian's unicode-data 15.0.0-1, and the confusables in ICU 72.1.
 */
#include "fsserver/policy_fold_table.h"

/* clang-format off */
const struct policy_fold_range policy_fold_removed[] = {{
{rows("{0x%x, 0x%x}" % tuple(r) for r in removed)}
}};
const size_t policy_fold_removed_count = {len(removed)};

const struct policy_fold_shift policy_fold_shifted[] = {{
{rows("{0x%x, 0x%x, %d, %d}" % tuple(s) for s in shifted)}
}};
const size_t policy_fold_shifted_count = {len(shifted)};

const struct policy_fold_text policy_fold_texts[] = {{
{rows("{0x%x, %d, %d}" % (c, offsets[t], len(t)) for c, t in texts)}
}};
const size_t policy_fold_texts_count = {len(texts)};

const uint8_t policy_fold_pool[] = {{
{rows(str(b) for b in pool)}
}};
""")
