#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the names of the system calls as a C table, from the kernel's own header.

usage: syscall_names.py OUTPUT HEADER PREFIX COMPILER [ARG...]

Runs the compiler's preprocessor over HEADER (asm/unistd.h) and writes PREFIX_text, the names one
after the other, and PREFIX_offset, by number, where each begins (0: no such call). A HEADER that
the target does not have gives an empty table.
"""
import re
import subprocess
import sys

IGNORED = {'syscalls', 'arch_specific_syscall'}


def main():
    output, header, prefix = sys.argv[1:4]
    source = f'#if __has_include(<{header}>)\n#include <{header}>\n#endif\n'
    macros = subprocess.run([*sys.argv[4:], '-E', '-dM', '-'], input=source, text=True,
                            stdout=subprocess.PIPE, check=True).stdout
    defines = dict(re.findall(r'^#define (__NR\w+) (.+)$', macros, re.M))

    by_number = {}
    for macro, value in defines.items():
        if not macro.startswith('__NR_') or macro[5:] in IGNORED:
            continue
        for _ in range(4):
            value = defines.get(value, value)
        if re.fullmatch(r'\d+', value):
            # Two names of one number: the shorter is the older and better known.
            number, name = int(value), macro[5:]
            if len(name) < len(by_number.get(number, name + '_')):
                by_number[number] = name

    offsets, text, size = [], [], 1
    for number in range(max(by_number, default=-1) + 1):
        name = by_number.get(number)
        if name is None:
            offsets.append(0)
            continue
        offsets.append(size)
        text.append(name)
        size += len(name) + 1
    with open(output, 'w', encoding='ascii') as out:
        out.write(f'/* From <{header}>. */\n')
        # Single characters: a string may not be as long as that (ISO C).
        out.write(f'static const char {prefix}_text[] = {{\n\t0,\n')
        out.writelines('\t' + ''.join(f"'{c}', " for c in name) + '0,\n' for name in text)
        out.write(f'}};\nstatic const uint16_t {prefix}_offset[] = {{\n')
        out.writelines(f'\t{offset},\n' for offset in offsets or [0])
        out.write('};\n')


if __name__ == '__main__':
    main()
