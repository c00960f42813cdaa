#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the names of the system calls as C tables, from the kernel's own headers.

usage: syscall_names.py OUTPUT COMPILER [ARG...]

Runs the compiler's preprocessor over asm/unistd.h and asm/unistd_32.h and writes syscall_text, all
names one after the other, and native_offset and compat_offset, by number, where each begins (0: no
such call). A header that the target does not have gives an empty table.
"""
import re
import subprocess
import sys

IGNORED = {'syscalls', 'arch_specific_syscall'}


def names_by_number(header, compiler):
    source = f'#if __has_include(<{header}>)\n#include <{header}>\n#endif\n'
    macros = subprocess.run([*compiler, '-E', '-dM', '-'], input=source, text=True,
                            stdout=subprocess.PIPE, check=True).stdout
    defines = dict(re.findall(r'^#define (__NR\w+) (.+)$', macros, re.M))
    by_number = {}
    for macro, value in sorted(defines.items()):
        if not macro.startswith('__NR_') or macro[5:] in IGNORED:
            continue
        for _ in range(4):
            value = defines.get(value, value)
        if re.fullmatch(r'\d+', value):
            # Two names of one number: the shorter is the older and better known.
            number, name = int(value), macro[5:]
            if len(name) < len(by_number.get(number, name + '_')):
                by_number[number] = name
    return by_number


def main():
    output, compiler = sys.argv[1], sys.argv[2:]
    tables = {'native': names_by_number('asm/unistd.h', compiler),
              'compat': names_by_number('asm/unistd_32.h', compiler)}
    offsets, size = {}, 1
    for name in dict.fromkeys(name for table in tables.values() for name in table.values()):
        offsets[name] = size
        size += len(name) + 1
    with open(output, 'w', encoding='ascii') as out:
        # Single characters: a string may not be as long as that (ISO C).
        out.write('static const char syscall_text[] = {\n\t0,\n')
        out.writelines('\t' + ''.join(f"'{c}', " for c in name) + '0,\n' for name in offsets)
        out.write('};\n')
        for prefix, table in tables.items():
            out.write(f'static const uint16_t {prefix}_offset[] = {{\n')
            out.writelines(f'\t{offsets.get(table.get(number), 0)},\n'
                           for number in range(max(table, default=0) + 1))
            out.write('};\n')


if __name__ == '__main__':
    main()
