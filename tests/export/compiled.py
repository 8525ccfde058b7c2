"""Graphs written as C, compiled together and run: a compiler is started once for many."""

from __future__ import annotations

import subprocess

import numpy as np

from bitscout.export.c import TestVectors, write_c
from bitscout.export.c.layout import graph_outputs, stored_codes
from bitscout.export.checks.tools import find_c_compiler

STRICT = [
    "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow",
    "-Wstrict-prototypes", "-Wcast-qual", "-Werror",
]  # fmt: skip
SANITIZERS = ["-fsanitize=undefined,address", "-fno-sanitize-recover=all", "-g0"]
MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
{includes}
int main(int argc, char **argv)
{{
    const int network = argc > 1 ? atoi(argv[1]) : 0;
    switch (network) {{
{cases}
    }}
    return 0;
}}
"""
CASE = """    case {index}:
        for (;;) {{
            static int8_t in[{n_in}];
            static int32_t out[{n_out}];
            if (fread(in, sizeof in, 1, stdin) != 1) {{
                return 0;
            }}
            net{index}_run({arguments}, out);
            fwrite(out, sizeof out, 1, stdout);
        }}"""


class Compiled:
    """Programs of several graphs; `run(index, codes)` returns what C makes of the codes."""

    def __init__(self, graphs, folder, flags=("-O1", *SANITIZERS)):
        self.graphs, self.folder, self.sources = graphs, folder, []
        cases, includes = [], []
        for index, graph in enumerate(graphs):
            name = f"net{index}"
            write_c(graph, folder / name, name=name, vectors=one_vector(graph))
            self.sources.append(folder / name / f"{name}.c")
            includes.append(f'#include "{name}/{name}.h"')
            sizes = [int(np.prod(op.shape)) for op in graph.inputs]
            starts = np.cumsum([0, *sizes])
            n_out = int(np.prod(graph[graph.output].shape))
            cases.append(CASE.format(
                index=index, n_in=starts[-1], n_out=n_out,
                arguments=", ".join(f"in + {start}" for start in starts[:-1]),
            ))  # fmt: skip
        main = folder / "main.c"
        main.write_text(MAIN.format(includes="\n".join(includes), cases="\n".join(cases)))
        self.compile(flags)

    def compile(self, flags):
        sources = [self.folder / "main.c", *self.sources]
        command = [*find_c_compiler(), *STRICT, *flags, "-o", self.folder / "main", *sources]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[:3000]
        assert done.stderr == ""

    def run(self, index, codes):
        graph = self.graphs[index]
        stored = stored_codes(graph, codes)
        images = np.concatenate([stored[op.name] for op in graph.inputs], axis=1)
        done = subprocess.run(
            [self.folder / "main", str(index)],
            input=images.tobytes(),
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[:3000]
        outputs = np.frombuffer(done.stdout, dtype=np.int32)
        return graph_outputs(outputs, graph[graph.output].shape)


def one_vector(graph):
    """A test vector nobody looks at."""
    codes = {op.name: np.zeros((1, *op.shape), dtype=np.int64) for op in graph.inputs}
    return TestVectors(codes, np.zeros((1, *graph[graph.output].shape), dtype=np.int64))
